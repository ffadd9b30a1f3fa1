"""``python -m atvg_jax.benchmark``: compiled against op by op, by network and whole."""

import argparse
import time
from pathlib import Path

from atvg_jax import command_line
from atvg_jax.benchmarking.points import NETWORKS, TASKS, Point, around
from atvg_jax.errors import InputError

PRECISIONS = ("float32", "bfloat16")
FULL, QUICK = 1.0, 0.25  # widths: the published one, and that of the compact networks


def parser() -> command_line.Parser:
    """The flags."""
    flags = command_line.Parser(
        "python -m atvg_jax.benchmark",
        "Measures AT-net, VG-net, the discriminator, both training steps and whole synthesis: "
        "compiled and op by op (jax.disable_jit) in turns, the first call with an empty and with a "
        "filled compilation cache, memory, frames per second. The first of several sizes is the "
        "one at which everything is measured; the others vary one at a time and are compiled only.",
        "python -m atvg_jax.benchmark --out=benchmark --quick",
    )
    add = flags.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for benchmark.json and .png")
    add(
        "--quick",
        action="store_true",
        help="compact networks, 4 frames, op by op the networks alone (every kind of op of a "
        "training step takes its own compilation): under two minutes on two cores",
    )
    add("--tasks", nargs="+", choices=TASKS, default=TASKS, metavar="TASK", help=", ".join(TASKS))
    add("--width", type=float, metavar="W", help="of the networks (1, as published)")
    add("--batch", nargs="+", type=int, metavar="B", help="examples in a call (2 1 4)")
    add("--frames", nargs="+", type=int, metavar="T", help="of each example (16 4 32)")
    add("--precision", nargs="+", choices=PRECISIONS, help="compute dtypes (float32 bfloat16)")
    add("--rounds", type=int, metavar="N", help="calls of each way, at most (7)")
    add("--no_eager", action="store_true", help="compiled only")
    return flags


def checked(arguments: argparse.Namespace) -> argparse.Namespace:
    """Defaults for what was left out; ``InputError`` for numbers that cannot be."""
    quick = arguments.quick
    defaults = {
        "width": QUICK if quick else FULL,
        "batch": [1] if quick else [2, 1, 4],
        "frames": [4] if quick else [16, 4, 32],
        "precision": ["float32"] if quick else list(PRECISIONS),
        "rounds": 3 if quick else 7,
    }
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    for name in ("batch", "frames"):
        values = getattr(arguments, name)
        if min(values) < 1:
            raise InputError(f"--{name}={min(values)}: must be at least 1")
        setattr(arguments, name, list(dict.fromkeys(values)))
    if arguments.rounds < 1:
        raise InputError(f"--rounds={arguments.rounds}: must be at least 1")
    if not 0 < arguments.width <= 4:
        raise InputError(f"--width={arguments.width}: must be above 0 and at most 4")
    if arguments.out.is_file():
        raise InputError(f"--out={arguments.out} is a file; give a folder")
    arguments.tasks = [task for task in TASKS if task in arguments.tasks]
    return arguments


def main() -> None:
    """Parses the flags, measures, prints the table, writes JSON and plot."""
    started = time.monotonic()
    arguments = checked(parser().parse_args())
    from tqdm import tqdm

    from atvg_jax.benchmarking import measure, report

    report.check_plotting()
    environment = measure.environment_in_own_process()
    print(report.described(environment))
    grid: list[tuple[Point, bool]] = []
    for task in arguments.tasks:
        points = around(
            task, arguments.width, arguments.batch, arguments.frames, arguments.precision
        )
        eager = not arguments.no_eager and (task in NETWORKS or not arguments.quick)
        grid += [(point, eager and number == 0) for number, point in enumerate(points)]
    seconds = 5.0 if arguments.quick else 60.0
    measured = []
    with tqdm(grid, unit="point") as bar:
        for point, eager in bar:
            bar.set_description(f"{point.task} {point.batch} x {point.frames} {point.precision}")
            plan = measure.Plan(arguments.rounds, seconds, eager)
            measured.append(measure.in_own_process(point, plan))
    print(report.table(measured))
    settings = {name: value for name, value in vars(arguments).items() if name != "out"}
    report.write(arguments.out, environment, settings, measured)
    print(
        f"wrote {arguments.out / report.NUMBERS_FILE} and {report.PLOT_FILE}: {len(measured)} "
        f"points of width {arguments.width:g}, in {time.monotonic() - started:.1f} s"
    )


if __name__ == "__main__":
    command_line.run(main)
