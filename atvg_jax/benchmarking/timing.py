"""Timing several ways of the same work on a machine that others use too.

The ways take turns, so that a busy minute slows all of them; what is compared is a way with another
of the same round. Beside the wall clock stands the processor time of the whole process, which
waiting for others does not lengthen.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Timing(NamedTuple):
    """Seconds of one way, a value a round.

    Attributes:
        wall: by the clock.
        processor: of all threads of this process.
    """

    wall: list[float]
    processor: list[float]


class Spread(NamedTuple):
    """Median of some numbers, the middle half's ends, and of how many."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles; of fewer than four values, their ends.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("nothing was measured")
    if len(values) < 4:
        return Spread(statistics.median(values), min(values), max(values), len(values))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high, len(values))


def once(way: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of the processor that one call took."""
    wall, processor = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - wall, time.process_time() - processor


def alternate(
    ways: Mapping[str, Callable[[], object]], rounds: int, seconds: float | None = None
) -> dict[str, Timing]:
    """Runs every way in turns; a way that compiles at its first call has had that call.

    Args:
        ways: functions that return when the work is done.
        rounds: how often each is measured.
        seconds: begin no further round after so long; the first is always made.
    """
    started = time.perf_counter()
    timings = {name: Timing([], []) for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            wall, processor = once(way)
            timings[name].wall.append(wall)
            timings[name].processor.append(processor)
        if seconds is not None and time.perf_counter() - started > seconds:
            break
    return timings


def ratio(timings: Mapping[str, Timing], slower: str, faster: str, clock: str = "wall") -> Spread:
    """The time of one way over that of another in the same round.

    Args:
        timings: from ``alternate``.
        slower: the way whose time is above the line.
        faster: the way whose time is below.
        clock: ``wall`` or ``processor``.
    """
    pairs = zip(getattr(timings[slower], clock), getattr(timings[faster], clock), strict=True)
    return spread([a / b for a, b in pairs])


def table(timings: Mapping[str, Timing], frames: int, base: str) -> str:
    """Lines of frames per second (median, range), processor time a frame, and speed to ``base``."""
    lines = [
        f"{'':34}{'frames/s':>10}{'range':>16}{'CPU ms/frame':>14}{'speed':>8}{'by CPU time':>13}"
    ]
    for name, timing in timings.items():
        rates = sorted(frames / seconds for seconds in timing.wall)
        across = f"{rates[0]:.1f}-{rates[-1]:.1f}"
        lines.append(
            f"{name:34}{statistics.median(rates):10.1f}{across:>16}"
            f"{statistics.median(timing.processor) / frames * 1e3:14.1f}"
            f"{ratio(timings, base, name).median:8.2f}"
            f"{ratio(timings, base, name, 'processor').median:13.2f}"
        )
    return "\n".join(lines)
