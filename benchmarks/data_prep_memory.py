"""Whether preparation leaks: the same clips over and over through one worker process.

``python -m benchmarks.data_prep_memory --corpus=lrw --source=LRW`` prints the memory of the worker
(resident, not shared with others) after every hundredth of a thousand clips. It has to stay flat
from the moment on that every clip has been seen once: what grows by a clip grows by a corpus.
"""

import functools
import gc
import importlib
import itertools
import statistics
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from atvg_jax.command_line import Parser, run
from atvg_jax.errors import InputError
from data_prep import corpora, results, workers
from data_prep.corpora.clip import Clip
from data_prep.prepare import PrepareSettings

EVERY = 100
"""Clips between two measurements."""

FLAT = 0.05
"""Part of its memory by which a worker's may rise from the first half of a run to the second."""


def resident() -> int:
    """Bytes of this process that are in memory and its own."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise InputError("this system does not tell what memory a process has")


def prepare_and_measure(item: tuple[int, Clip], folder: Path) -> None:
    """What the worker does: prepares a clip as the build does, and writes down its memory."""
    number, clip = item
    results.make(clip, PrepareSettings(), folder / "result")
    if number % EVERY == 0:
        gc.collect()
        (folder / f"{number}.memory").write_text(str(resident()))


def measure(clips: list[Clip], count: int) -> dict[int, int]:
    """Memory of one worker after every ``EVERY``th of ``count`` clips, in bytes."""
    items = zip(range(1, count + 1), itertools.cycle(clips))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # By its module's name: workers do not load the program that starts them.
        here = importlib.import_module("benchmarks.data_prep_memory")
        task = functools.partial(here.prepare_and_measure, folder=folder)
        done = workers.run(task, items, 1, lambda _: 600.0, 4 * 2**30)
        for (_, clip), died in tqdm(done, total=count, unit="clip"):
            if died is not None:
                raise InputError(f"{clip.video}: {died.message}")
        return {int(path.stem): int(path.read_text()) for path in folder.glob("*.memory")}


def main() -> None:
    """Reads the flags and runs."""
    parser = Parser(
        "python -m benchmarks.data_prep_memory",
        "Prepares the same clips again and again in one process and prints its memory.",
        "python -m benchmarks.data_prep_memory --corpus=lrw --source=LRW",
    )
    parser.add_argument("--corpus", required=True, choices=list(corpora.CORPORA))
    parser.add_argument("--source", type=Path, required=True, help="folder that holds the corpus")
    parser.add_argument("--clips", type=int, default=1000, help="how many in all (1000)")
    flags = parser.parse_args()
    if flags.clips < 2 * EVERY:
        parser.error(f"--clips must be at least {2 * EVERY}, not {flags.clips}")
    began = time.monotonic()
    found = list(corpora.clips(flags.corpus, flags.source))
    memory = measure(found, flags.clips)
    for number, size in sorted(memory.items()):
        print(f"{number:6d} clips  {size / 2**20:7.1f} MiB")
    sizes = [size for _, size in sorted(memory.items())]
    half = len(sizes) // 2
    growth = statistics.median(sizes[half:]) / statistics.median(sizes[:half]) - 1
    print(
        f"{flags.clips} clips ({len(found)} different) in {time.monotonic() - began:.0f} s: memory "
        f"of the second half {growth:+.1%} against the first, "
        f"{'flat' if growth < FLAT else 'NOT flat'}"
    )


if __name__ == "__main__":
    run(main)
