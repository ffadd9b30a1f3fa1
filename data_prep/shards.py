"""Results of single clips to the data set that training reads."""

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from atvg_jax.data import schema
from atvg_jax.errors import InputError
from data_prep import results, workers
from data_prep.basis import Moments
from data_prep.corpora.clip import Clip
from data_prep.results import Record, Result
from data_prep.tasks import Runner

SHARD_BYTES, LARGEST_SHARD_BYTES = 128 * 2**20, 2**30
"""Large enough that opening files does not count, small enough to spread over many readers."""

MANY_SHARDS = 1024
"""Shards that are enough for the largest pod; from here on they grow and not their number, up to
what is still quick to copy and to lose."""

DESCRIPTION = "Talking faces at 25 frames/s: aligned frames, landmarks, pose and MFCC of speech."

WRITE_SECONDS = 3600.0
"""Time for a shard: of a gigabyte, from a very slow disk."""

Entry = tuple[Clip, Result, Record]


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of the data set and what goes into it, in order."""

    split: str
    name: str
    entries: list[Entry]

    def digest(self) -> str:
        """Tells shards of different contents apart."""
        contents = [
            [result.path.parent.name + result.path.name, record.offset, record.size]
            for _, result, record in self.entries
        ]
        return hashlib.sha256(json.dumps([self.name, contents]).encode()).hexdigest()[:40]


def shard_count(size: int, examples: int) -> int:
    """Into how many shards a split is cut.

    Args:
        size: bytes of its examples.
        examples: how many they are.
    """
    each = min(max(SHARD_BYTES, size / MANY_SHARDS), LARGEST_SHARD_BYTES)
    return max(1, min(round(size / each), examples))


def plan(clips: list[tuple[Clip, Result]]) -> list[Shard]:
    """Which example goes where: the same whatever order the clips were prepared in.

    Examples are put in the order of a hash of their names, so that neighbours have nothing to do
    with each other, and cut into as many shards as their bytes ask for.

    Returns:
        The shards, split by split.
    """
    by_split: dict[str, list[Entry]] = {}
    for clip, result in clips:
        for record in result.records:
            by_split.setdefault(clip.split, []).append((clip, result, record))
    shards = []
    for split in schema.SPLITS:
        entries = sorted(by_split.get(split, []), key=lambda entry: _order(entry[2].clip_id))
        if entries:
            count = shard_count(sum(record.size for _, _, record in entries), len(entries))
            bounds = [len(entries) * index // count for index in range(count + 1)]
            shards += [
                Shard(split, schema.shard_name(split, index, count), entries[low:high])
                for index, (low, high) in enumerate(itertools.pairwise(bounds))
            ]
    return shards


def _order(name: str) -> bytes:
    """Where an example stands among the others."""
    return hashlib.sha256(name.encode()).digest()


@dataclasses.dataclass(frozen=True)
class Written:
    """What is known of a shard that has been written.

    Attributes:
        size: bytes of its examples.
        moments: of their landmarks.
    """

    size: int
    moments: Moments


@dataclasses.dataclass(frozen=True)
class WriteTask:
    """Plans of shards to shards.

    An item is the digest of a shard. ``plans/DIGEST.json`` says what goes into it, and in the end
    ``plans/DIGEST.npz`` what there was in it, or what was wrong.

    Attributes:
        results: folder of the results.
        plans: folder of the plans.
        out: folder of the shards.
    """

    results: Path
    plans: Path
    out: Path

    def plan(self, shard: Shard) -> str:
        """Writes the plan of a shard; its item."""
        digest = shard.digest()
        entries = [
            [result.path.relative_to(self.results).as_posix(), *dataclasses.astuple(record)]
            for _, result, record in shard.entries
        ]
        self.plans.mkdir(parents=True, exist_ok=True)
        write_text(self.plans / f"{digest}.json", json.dumps([shard.name, entries]))
        return digest

    def _planned(self, item: str) -> tuple[str, Iterator[tuple[Result, Record]]]:
        """The name of a shard and what goes into it."""
        name, entries = json.loads((self.plans / f"{item}.json").read_text())
        return name, (
            (Result(self.results / path, (), {}, None), Record(*record))
            for path, *record in entries
        )

    def make(self, item: str) -> None:
        """Writes a shard."""
        name, entries = self._planned(item)
        temporary = self.out / f".{name}.{uuid.uuid4().hex}.part"
        size, moments, problem = 0, Moments(), ""
        try:
            with open(temporary, "wb") as file:
                for result, record in entries:
                    framed = results.read_record(result, record)
                    moments.add(schema.deserialize(framed[12:-4])["landmarks"])
                    file.write(framed)
                    size += len(framed) - 16
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.out / name)
        except InputError as error:
            problem = str(error)
        finally:
            temporary.unlink(missing_ok=True)
        self._finish(item, size=size, problem=problem, **moments.arrays())

    def died(self, item: str, died: workers.Died) -> None:
        """Nothing in a shard can end a process, so this machine is to blame."""
        self._finish(item, size=0, problem=f"a shard could not be written: {died.message}")

    def _finish(self, item: str, **summary: Any) -> None:
        temporary = self.plans / f".{item}.{uuid.uuid4().hex}.part"
        with open(temporary, "wb") as file:
            np.savez(file, **summary)
        os.replace(temporary, self.plans / f"{item}.npz")

    def seconds(self, item: str) -> float:
        """The same for all."""
        return WRITE_SECONDS

    def done(self, item: str) -> bool:
        """Whether there is word of the shard."""
        return (self.plans / f"{item}.npz").is_file()

    def written(self, item: str) -> Written:
        """What is known of a shard.

        Raises:
            InputError: it could not be written.
        """
        with np.load(self.plans / f"{item}.npz", allow_pickle=False) as file:
            summary = dict(file)
        size, problem = int(summary.pop("size")), str(summary.pop("problem"))
        if problem:
            (self.plans / f"{item}.npz").unlink()
            raise InputError(problem)
        return Written(size, Moments(int(summary["number"]), summary["total"], summary["products"]))


def write(out: Path, work: Path, shards: list[Shard], runner: Runner) -> list[Written]:
    """Writes the shards of a data set beside the one that may be there; those that are kept stay.

    Args:
        out: the data set's folder (``--out``).
        work: the folder of results.
        shards: of ``plan``.
        runner: where to.

    Returns:
        What is known of each shard.

    Raises:
        InputError: one could not be written.
    """
    final = schema.version_folder(out)
    temporary = temporary_folder(out)
    temporary.mkdir(parents=True, exist_ok=True)
    task = WriteTask(work, work / "plans", temporary)
    items = {}
    missing = []
    for shard in shards:
        items[task.plan(shard)] = shard
    for item, shard in items.items():
        if not (task.done(item) and _kept(shard, temporary, final)):
            (task.plans / f"{item}.npz").unlink(missing_ok=True)
            missing.append(item)
    total, left = (sum(len(items[i].entries) for i in part) for part in (items, missing))
    with tqdm(total=total, desc="writing", unit="example", initial=total - left) as progress:
        for item in runner.run(task, missing):
            task.written(item)
            progress.update(len(items[item].entries))
    for path in task.plans.iterdir():
        if path.stem not in items:
            path.unlink()
    return [task.written(item) for item in items]


def _kept(shard: Shard, temporary: Path, final: Path) -> bool:
    """Whether a shard of an earlier run, ended or not, can stay; it is put into its place."""
    size = sum(record.size for _, _, record in shard.entries)
    place = temporary / shard.name
    for path in (place, final / shard.name):
        if path.is_file() and path.stat().st_size == size:
            if path == place:
                return True
            try:
                place.unlink(missing_ok=True)
                os.link(path, place)
            except OSError:  # a file system without second names
                return False
            return True
    return False


def finish(out: Path, shards: list[Shard], written: list[Written]) -> None:
    """Gives the data set its name; the shards are where ``write`` has left them."""
    final = schema.version_folder(out)
    temporary = temporary_folder(out)
    sizes: dict[str, tuple[list[int], int]] = {}
    for shard, known in zip(shards, written, strict=True):
        lengths, size = sizes.get(shard.split, ([], 0))
        sizes[shard.split] = [*lengths, len(shard.entries)], size + known.size
    for path in temporary.iterdir():
        if path.name not in {shard.name for shard in shards}:
            path.unlink()
    info = schema.dataset_info_json(sizes, DESCRIPTION)
    write_json(temporary / "features.json", schema.features_json())
    write_json(temporary / "dataset_info.json", info)
    # A folder cannot replace one that has files in it; a build killed between these two lines
    # leaves the new data set under its temporary name, and the next run gives it its own.
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)


def temporary_folder(out: Path) -> Path:
    """Where the shards of a data set are before it is whole."""
    final = schema.version_folder(out)
    return final.with_name(f".{final.name}.part")


def write_json(path: Path, content: object) -> None:
    """Writes JSON for people to read too; it gets its name when it is whole."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a small text file; it gets its name when it is whole."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
