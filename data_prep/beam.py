"""The same tasks over Apache Beam, on this machine or on a cluster.

Workers leave their files where this machine's own processes would leave them, so the corpus and
the data set's folder must be on a file system that all workers and this machine see under the same
paths. The order in which clips are done plays no part in what the data set is made of.

Clips reach a worker in small groups, and in the worker each group has a process of its own, for
which ``workers`` sees to time, memory and damaged files: a video that crashes its decoder costs the
worker nothing. Nothing but Apache Beam itself is imported in the worker, and nothing but this
project's preparation in the process.
"""

import contextlib
import dataclasses
import functools
import io
import logging
import os
import shlex
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from atvg_jax.errors import InputError
from data_prep import workers
from data_prep.tasks import Task

RUNNERS = {
    "direct": "DirectRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
}
"""Names of ``--runner`` and what Beam calls them."""

GROUPS, LARGEST_GROUP, SMALLEST_GROUP = 256, 128, 8
"""Items are cut into about so many groups, within these sizes: starting a process and loading the
models of faces takes about as long as preparing one or two short clips."""

GLANCES = 1000
"""Files that are looked for at a time while workers work."""

_SEEN = (
    "the corpus and --out must be on a file system that this machine and all workers see under the "
    "same paths"
)


@dataclasses.dataclass(frozen=True)
class BeamRunner:
    """Apache Beam.

    Attributes:
        runner: a key of ``RUNNERS``.
        options: Beam's own, as on a command line.
        count: processes, where they are this machine's (``direct``).
        memory: bytes that each process may have.
        folder: where all workers can read what there is to do.
        seen: folders that all workers must see, under the same paths.
    """

    runner: str
    options: str
    count: int
    memory: int
    folder: Path
    seen: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        for path in self.seen:
            if self.runner != "direct" and not path.is_absolute():
                raise InputError(
                    f"{path}: for --runner={self.runner} give the whole path, beginning with /, "
                    "under which all workers see it"
                )
        self._pipeline_options()

    def run(self, task: Task, items: Sequence[str]) -> Iterator[str]:
        """Yields each item when its file has been made, in no particular order.

        Raises:
            InputError: the pipeline failed.
        """
        if not items:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        listing = (self.folder / f"{uuid.uuid4().hex}.items").absolute()
        groups = _write(listing, items)
        try:
            work = functools.partial(
                _work, task=task, listing=listing, seen=self.seen, memory=self.memory
            )
            running = _Pipeline(self._pipeline_options(), groups, work)
            waiting = list(items)
            ended = False
            while waiting:
                # Looked for once more when all has ended.
                done = {item for item in waiting[:GLANCES] if task.done(item)}
                yield from (item for item in waiting[:GLANCES] if item in done)
                waiting = [item for item in waiting if item not in done]
                if not done:
                    if ended:
                        raise InputError(
                            f"Beam's workers have ended and {len(waiting)} of {len(items)} files "
                            f"are not in {self.folder.absolute()}: {_SEEN}"
                        )
                    ended = running.wait(seconds=1.0)
            running.wait(seconds=None)
        finally:
            listing.unlink(missing_ok=True)

    def _pipeline_options(self) -> Any:
        """Beam's options.

        Raises:
            InputError: Beam is not installed, or does not know one of them.
        """
        with self._quiet():
            try:
                from apache_beam.options.pipeline_options import PipelineOptions
            except ImportError as error:
                raise InputError(
                    f"--runner={self.runner} needs the package apache-beam ({error}): install it "
                    "with pip install -r requirements.txt, or use --runner=local"
                ) from error
            flags = [f"--runner={RUNNERS[self.runner]}"]
            if self.runner == "direct":
                flags += [
                    "--direct_running_mode=multi_processing",
                    f"--direct_num_workers={self.count}",
                    "--default_sdk_harness_log_level=ERROR",
                    # What DirectRunner, which would first try to download another runner, cannot
                    # do.
                    "--allow_unsafe_triggers",
                ]
            said = io.StringIO()
            try:
                options = PipelineOptions([*flags, *shlex.split(self.options)])
                with contextlib.redirect_stderr(said):
                    known = options.get_all_options()
                unknown = set(options.get_all_options(retain_unknown_options=True)) - set(known)
            except (SystemExit, ValueError) as error:  # argparse's, and of a quote that is open
                problem = (said.getvalue() or str(error)).strip().splitlines()[-1]
                raise InputError(f"--beam_options={self.options!r}: {problem}") from error
        if unknown:
            names = ", ".join(f"--{name}" for name in sorted(unknown))
            raise InputError(f"--beam_options: Apache Beam knows no {names}")
        return options

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Keeps Beam's warnings, which it gives of itself, out of what a person reads."""
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


class _Pipeline:
    """A pipeline that runs beside the thread that watches it."""

    def __init__(
        self,
        options: Any,
        groups: list[tuple[int, int]],
        work: Callable[[tuple[int, int]], None],
    ):
        import apache_beam

        self._error: BaseException | None = None
        try:
            pipeline = apache_beam.Pipeline(options=options)
        except (ImportError, ValueError) as error:
            raise InputError(f"Apache Beam cannot begin: {_last_line(error)}") from error
        _ = pipeline | apache_beam.Create(groups, reshuffle=True) | apache_beam.Map(work)

        def run() -> None:
            try:
                result = pipeline.run()
                state = result.wait_until_finish()
                if state not in (None, "DONE"):
                    raise RuntimeError(f"it ended as {state}")
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None) -> bool:
        """Waits for the end, or so long; whether it has ended.

        Raises:
            InputError: it ended with an error.
        """
        self._thread.join(seconds)
        if self._error is not None:
            raise InputError(f"the Beam pipeline failed: {_last_line(self._error)}")
        return not self._thread.is_alive()


def _last_line(error: BaseException) -> str:
    """What an error that holds a whole traceback says in the end."""
    return (str(error).strip().splitlines() or [repr(error)])[-1]


def _write(listing: Path, items: Sequence[str]) -> list[tuple[int, int]]:
    """Writes items as lines; first byte and length of each group of them.

    A list, because runners send what a pipeline is made of as one message of limited size.
    """
    size = min(max(len(items) // GROUPS, SMALLEST_GROUP), LARGEST_GROUP)
    groups, at = [], 0
    temporary = listing.with_name(f".{listing.name}.part")
    with open(temporary, "wb") as file:
        for low in range(0, len(items), size):
            lines = "".join(f"{item}\n" for item in items[low : low + size]).encode()
            file.write(lines)
            groups.append((at, len(lines)))
            at += len(lines)
    os.replace(temporary, listing)
    return groups


def _work(
    group: tuple[int, int], task: Task, listing: Path, seen: tuple[Path, ...], memory: int
) -> None:
    """What a Beam worker does with a group of items.

    A group that was begun before, by a worker that is no more, is gone on with.
    """
    for path in (listing, *seen):
        if not path.exists():
            raise InputError(f"{path} is not there for a worker: {_SEEN}")
    start, length = group
    with open(listing, "rb") as file:
        file.seek(start)
        lines = file.read(length).decode().split("\n")[:-1]
    # For good: this process has nothing else to do, and other threads of it may be at the same.
    os.environ.update(dict.fromkeys(workers.THREAD_VARIABLES, "1"))
    items = [line for line in lines if not task.done(line)]
    for item, died in workers.run(task.make, items, 1, task.seconds, memory):
        if died is not None:
            task.died(item, died)
