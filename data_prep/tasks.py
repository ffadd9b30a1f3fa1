"""Work that is done piece by piece in other processes, and where: here, or over Apache Beam.

A task makes one file of each item. An item is a line of text, so that it reaches a worker of any
kind; all else that the work needs is in the task, which is pickled once for a process. Nothing
comes back but the files: a build that was ended finds them there, whoever made them.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from data_prep import results, workers
from data_prep.corpora.clip import Clip, Word
from data_prep.prepare import PrepareSettings, Reject

SECONDS_PER_MEGABYTE = 200.0
"""Time that a clip may take beside ``--clip_seconds``: a megabyte is up to 100 s of video at a web
camera's rate, of which a core does more than one second a second."""


class Task(Protocol):
    """What is done with each item. Its methods are called in other processes, by any of them."""

    def make(self, item: str) -> None:
        """Makes the item's file, whole or not at all."""

    def done(self, item: str) -> bool:
        """Whether the item's file is there."""

    def seconds(self, item: str) -> float:
        """How long the item may take, on the clock."""

    def died(self, item: str, died: workers.Died) -> None:
        """Makes the item's file where ``make`` has ended its process."""


class Runner(Protocol):
    """Where tasks run."""

    def run(self, task: Task, items: Sequence[str]) -> Iterator[str]:
        """Yields each item when its file has been made, in no particular order."""


@dataclasses.dataclass(frozen=True)
class LocalRunner:
    """This machine's own processes.

    Attributes:
        count: of processes.
        memory: bytes that each may have.
    """

    count: int
    memory: int

    def run(self, task: Task, items: Sequence[str]) -> Iterator[str]:
        """Yields each item when its file has been made, in no particular order."""
        count = min(self.count, max(len(items), 1))
        for item, died in workers.run(task.make, items, count, task.seconds, self.memory):
            if died is not None:
                task.died(item, died)
            yield item


@dataclasses.dataclass(frozen=True)
class PrepareTask:
    """Clips to results.

    Attributes:
        settings: how clips are prepared.
        folder: the results' folder.
        clip_seconds: what a clip may take on the clock, beside a share for its size.
    """

    settings: PrepareSettings
    folder: Path
    clip_seconds: float

    @staticmethod
    def item(clip: Clip, key: str) -> str:
        """A clip and the key of its result as an item."""
        fields = dataclasses.asdict(clip)
        return json.dumps([fields, key], default=os.fspath)

    @staticmethod
    @functools.lru_cache(maxsize=1)
    def read(item: str) -> tuple[Clip, str]:
        """What ``item`` was made of."""
        fields, key = json.loads(item)
        for name in ("video", "audio", "boxes"):
            fields[name] = fields[name] and Path(fields[name])
        fields["words"] = tuple(Word(*word) for word in fields["words"])
        return Clip(**fields), key

    def path(self, item: str) -> Path:
        """Where the item's result is kept."""
        return results.path_of(self.folder, self.read(item)[1])

    def make(self, item: str) -> None:
        """Prepares a clip."""
        results.make(self.read(item)[0], self.settings, self.path(item))

    def done(self, item: str) -> bool:
        """Whether the clip's result is there."""
        return results.read(self.path(item)) is not None

    def seconds(self, item: str) -> float:
        """A time for every clip, and more for large ones."""
        clip, _ = self.read(item)
        files = [path for path in (clip.video, clip.audio) if path and path.is_file()]
        megabytes = sum(path.stat().st_size for path in files) / 1e6
        return self.clip_seconds + SECONDS_PER_MEGABYTE * megabytes

    def died(self, item: str, died: workers.Died) -> None:
        """A clip that ends the process that works on it is a reject."""
        clip, _ = self.read(item)
        message = f"{clip.video}: {died.message}"
        results.make_reject(self.path(item), Reject(clip.clip_id, died.reason, message))
