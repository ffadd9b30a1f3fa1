"""What was measured, as a table for the terminal, JSON and a plot."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from atvg_jax.benchmarking.measure import Measured
from atvg_jax.benchmarking.points import SYNTHESIS, TASKS
from atvg_jax.benchmarking.timing import Spread
from atvg_jax.errors import InputError
from atvg_jax.whole_files import written_whole

NUMBERS_FILE = "benchmark.json"
PLOT_FILE = "benchmark.png"
COLUMNS = (
    ("task", 14), ("batch", 6), ("frames", 7), ("precision", 10), ("compiled ms", 27),
    ("frames/s", 9), ("eager ms", 27), ("faster by", 24), ("first s", 8), ("cached s", 9),
    ("program MiB", 12), ("peak MiB", 9), ("eager peak", 11),
)  # fmt: skip


def described(environment: Mapping[str, Any]) -> str:
    """One line: device, load, versions."""
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    return (
        f"{environment['device']} ({environment['platform']}, {environment['cores']} cores, load "
        f"{environment['load_average']:.1f} at the start); Python {environment['python']}, "
        f"{versions}"
    )


def table(measured: Iterable[Measured]) -> str:
    """Lines, a point each: medians, with the middle half of the measurements in brackets."""
    lines = ["".join(f"{name:>{width}}" for name, width in COLUMNS)]
    for one in measured:
        cells = [one.point.task, one.point.batch, one.point.frames, one.point.precision]
        if one.failed or one.compiled is None:
            widths = sum(width for _, width in COLUMNS[:4])
            head = "".join(f"{cell:>{w}}" for cell, (_, w) in zip(cells, COLUMNS, strict=False))
            lines.append(f"{head:{widths}}  {one.failed}")
            continue
        cells += [
            _spread(one.compiled, 1e3, 1),
            f"{one.frames / one.compiled.median:.1f}",
            _spread(one.eager, 1e3, 1),
            _spread(one.speedup, 1, 2),
            f"{one.first_call:.2f}",
            f"{one.first_call_cached:.2f}",
            f"{one.program_memory:.0f}",
            f"{one.peak_memory:.0f}",
            "" if one.peak_memory_eager is None else f"{one.peak_memory_eager:.0f}",
        ]
        lines.append("".join(f"{cell:>{w}}" for cell, (_, w) in zip(cells, COLUMNS, strict=True)))
    return "\n".join(lines)


def _spread(spread: Spread | None, scale: float, digits: int) -> str:
    if spread is None:
        return ""
    median, low, high = (f"{scale * value:.{digits}f}" for value in spread[:3])
    return f"{median} [{low}-{high}]"


def write(
    folder: Path,
    environment: Mapping[str, Any],
    settings: Mapping[str, Any],
    measured: Sequence[Measured],
) -> None:
    """Writes ``benchmark.json`` and ``benchmark.png``.

    Args:
        folder: made where there is none.
        environment: from ``measure.environment``.
        settings: of this run, as they are.
        measured: every point, in the order of the table.

    Raises:
        InputError: the folder cannot be written to, or matplotlib is missing.
    """
    content = {
        "environment": dict(environment),
        "settings": dict(settings),
        "points": [_as_numbers(one) for one in measured],
    }
    with written_whole(folder / NUMBERS_FILE) as path:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    figure = _figure(environment, measured)
    with written_whole(folder / PLOT_FILE) as path:
        figure.savefig(path, dpi=150)


def _as_numbers(one: Measured) -> dict[str, Any]:
    """Every field by name, seconds and MiB; spreads as dictionaries."""
    numbers = {**one.point._asdict(), **vars(one)}
    del numbers["point"]
    numbers["frames_per_call"] = one.frames
    numbers["frames"] = one.point.frames
    return {
        name: value._asdict() if isinstance(value, Spread) else value
        for name, value in numbers.items()
    }


def check_plotting() -> None:
    """Raises ``InputError``, before anything takes its time, where matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise InputError(
            "the plot needs matplotlib: pip install matplotlib", reason="missing_package"
        ) from error


def _figure(environment: Mapping[str, Any], measured: Sequence[Measured]) -> Any:
    from matplotlib.figure import Figure

    done = [one for one in measured if one.compiled is not None]
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    figure.suptitle(described(environment), fontsize=8)
    speed, first, sizes = figure.subplots(1, 3)
    # The first point of each task is the one at which everything was measured.
    middles = {one.point.task: one for one in reversed(done)}
    tasks = [task for task in TASKS if task in middles]
    _bars(
        speed,
        tasks,
        {
            "compiled": [_rate(middles[task].frames, middles[task].compiled) for task in tasks],
            "eager": [_rate(middles[task].frames, middles[task].eager) for task in tasks],
        },
    )
    speed.set_ylabel("frames per second")
    _bars(
        first,
        tasks,
        {
            "first call": [middles[task].first_call for task in tasks],
            "with compilation cache": [middles[task].first_call_cached for task in tasks],
            "every other": [getattr(middles[task].compiled, "median", None) for task in tasks],
        },
    )
    first.set_ylabel("seconds")
    for task in tasks:
        points = [one for one in done if one.point.task == task]
        points = [one for one in points if one.point.precision == points[0].point.precision]
        points.sort(key=lambda one: one.frames)
        rates = [_rate(one.frames, one.compiled) for one in points]
        label = task if task != SYNTHESIS else f"{task}, one portrait"
        sizes.plot([one.frames for one in points], rates, marker="o", label=label)
    sizes.set_xscale("log", base=2)
    sizes.set_yscale("log")
    sizes.set_xlabel("frames in a call (batch x frames)")
    sizes.set_ylabel("frames per second, compiled")
    sizes.legend(fontsize=7)
    return figure


def _rate(frames: int, seconds: Spread | None) -> float | None:
    return None if seconds is None else frames / seconds.median


def _bars(axis: Any, tasks: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> None:
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        known = [(place, value) for place, value in enumerate(values) if value is not None]
        if known:
            places, heights = zip(*known, strict=True)
            offset = (number - (len(series) - 1) / 2) * width
            axis.bar([place + offset for place in places], heights, width, label=name)
    axis.set_xticks(range(len(tasks)), tasks, rotation=30, ha="right", fontsize=8)
    axis.set_yscale("log")
    axis.legend(fontsize=7)
