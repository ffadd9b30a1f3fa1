"""How fast clips are read, and how long a training step waits for them.

    python -m benchmarks.reader --data=DATA [--network=vg_net] [--threads=1,2] [--seconds=10]

First the reader alone: windows a second of batches as training takes them, for each number of
threads, and for a core: what one core that does nothing else could read. Then a few training steps
of the network's compact config, and the share of their time in which the next batch was not there.
"""

import argparse
import dataclasses
import tempfile
import time

import jax

from atvg_jax import command_line
from atvg_jax.data.pipeline import Augmentation, ClipWindows, Reading, TrainBatches, Windows
from atvg_jax.training.loop import train_and_evaluate
from configs import at_net, vg_net

CONFIGS = {"at_net": at_net, "vg_net": vg_net}


@dataclasses.dataclass(frozen=True)
class Rate:
    """Windows a second of the clock, and of one core's computing."""

    windows: float
    windows_a_core: float


def reading_rate(source: ClipWindows, batch_size: int, threads: int, seconds: float) -> Rate:
    """Reads batches for so long, after two that start the threads and open the files."""
    augmentation = Augmentation(**CONFIGS[source.windows.network].get_config("compact").augment)
    reading = Reading(threads, read_ahead=2 * threads)
    batches = TrainBatches(source, batch_size, 0, augmentation, reading)
    for _ in range(2):
        next(batches)
    started, computed = time.perf_counter(), time.process_time()
    count = 0
    while time.perf_counter() - started < seconds:
        next(batches)
        count += batch_size
    elapsed, computed = time.perf_counter() - started, time.process_time() - computed
    return Rate(count / elapsed, count / computed)


def main() -> None:
    """Measures and prints."""
    flags = command_line.Parser(
        "python -m benchmarks.reader",
        __doc__ or "",
        "python -m benchmarks.reader --data=data/clips",
    )
    flags.add_argument("--data", required=True, metavar="DIR", help="what data_prep.build made")
    flags.add_argument("--network", choices=sorted(CONFIGS), default="vg_net", help="whose batches")
    flags.add_argument(
        "--threads", type=_numbers, default=[1, 2], metavar="N,N", help="reading threads to try"
    )
    flags.add_argument("--batch_size", type=int, default=4, metavar="N", help="windows of a batch")
    flags.add_argument("--seconds", type=float, default=10, metavar="S", help="for each number")
    flags.add_argument("--steps", type=int, default=30, metavar="N", help="training steps; 0: none")
    arguments = flags.parse_args()
    started = time.monotonic()

    config = CONFIGS[arguments.network].get_config("compact").unlock()
    source = ClipWindows(arguments.data, "train", Windows(arguments.network, config.frames))
    print(
        f"{arguments.network}: {source.clips} clips, "
        f"{len(source)} windows of {config.frames} frames"
    )
    for threads in arguments.threads:
        rate = reading_rate(source, arguments.batch_size, threads, arguments.seconds)
        print(
            f"{threads} thread(s): {rate.windows:.0f} windows/s; {rate.windows_a_core:.0f} "
            "windows/s a core"
        )
    if arguments.steps:
        config.data, config.batch_size = arguments.data, arguments.batch_size
        config.steps, config.log_every, config.eval_split = arguments.steps, arguments.steps, ""
        config.checkpoint_every = 0
        with tempfile.TemporaryDirectory() as workdir:
            found = train_and_evaluate(config.lock(), workdir).metrics
        print(
            f"training, compact, on {jax.local_device_count()} {jax.default_backend()} device(s): "
            f"{1000 * found['step_seconds']:.0f} ms a step of {config.batch_size} windows, "
            f"{100 * found['data_wait']:.1f} % of it waiting for data"
        )
    print(f"measured in {time.monotonic() - started:.1f} s")


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,2,4")
    return numbers


if __name__ == "__main__":
    command_line.run(main)
