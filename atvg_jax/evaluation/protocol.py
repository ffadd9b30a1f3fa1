"""Many clips judged, and what comes out of it: means, confidence intervals, and what failed."""

import concurrent.futures
import itertools
import multiprocessing
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from atvg_jax.evaluation.catalogue import METRICS
from atvg_jax.evaluation.judge import Scores
from atvg_jax.evaluation.metrics import LARGEST_LAG

FloatArray = npt.NDArray[np.float64]
Task = TypeVar("Task")
Result = TypeVar("Result")

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Problem:
    """A clip that could not be scored; it is in no mean.

    Attributes:
        clip_id: which.
        reason: a word: ``missing``, ``short``, ``unreadable``, ``no_face`` ...
        message: one line.
    """

    clip_id: str
    reason: str
    message: str


@dataclass(frozen=True)
class Estimate:
    """A mean over clips, and how sure it is.

    Attributes:
        mean: over people of their mean over clips, where people are known; else over clips.
        low: lower end of the 95 % confidence interval, by bootstrap over people and their clips.
        high: upper end.
        mean_over_clips: every clip counting the same.
        clips: how many clips have a value.
    """

    mean: float
    low: float
    high: float
    mean_over_clips: float
    clips: int


@dataclass(frozen=True)
class Summary:
    """What one system got over all clips.

    Attributes:
        clips: scored.
        people: distinct speakers, 0 where unknown.
        frames: scored.
        estimates: by metric.
        correlation_by_lag: mean correlation of the mouth's opening at each lag, by lag in frames.
        best_lag: the lag at which that is largest; NaN where there is none.
    """

    clips: int
    people: int
    frames: int
    estimates: dict[str, Estimate]
    correlation_by_lag: dict[int, float] = field(default_factory=dict)
    best_lag: float = float("nan")


def in_processes(
    work: Callable[[Task], Result], tasks: Iterable[Task], workers: int | None = None
) -> Iterator[Result]:
    """``map`` over processes, in order, with a few tasks on the way at a time.

    Args:
        work: a function of a module; what it takes and gives is pickled.
        tasks: taken one by one as workers become free.
        workers: processes; None: one for each core; 1: this process.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield from map(work, tasks)
        return
    # Fresh processes: a fork of one that has started JAX can hang.
    context = multiprocessing.get_context("spawn")
    remaining = iter(tasks)
    with concurrent.futures.ProcessPoolExecutor(workers, context, _start_worker) as pool:
        waiting = [pool.submit(work, task) for task in itertools.islice(remaining, workers + 1)]
        try:
            while waiting:
                result = waiting.pop(0).result()
                waiting += [pool.submit(work, task) for task in itertools.islice(remaining, 1)]
                yield result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker() -> None:
    """Leaves Ctrl-C to the process that waits, and makes sure not to outlive it."""
    # An accelerator belongs to the process that makes clips; several cannot share it.
    os.environ["JAX_PLATFORMS"] = "cpu"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def summarise(
    scores: Sequence[Scores],
    of_all: Mapping[str, Mapping[str, float]] | None = None,
    seed: int = 0,
) -> dict[str, Summary]:
    """Means and confidence intervals of every system, in the order in which they first appear.

    Args:
        scores: of any number of systems and clips.
        of_all: by system and metric, what is measured of all clips together; it has no interval.
        seed: of the bootstrap.
    """
    by_system: dict[str, list[Scores]] = defaultdict(list)
    for one in scores:
        by_system[one.system].append(one)
    return {
        system: _summary(own, (of_all or {}).get(system, {}), seed)
        for system, own in by_system.items()
    }


def _summary(scores: Sequence[Scores], of_all: Mapping[str, float], seed: int) -> Summary:
    people = [one.speaker for one in scores]
    known = all(people)
    groups = people if known else [one.clip_id for one in scores]
    names = [name for name in METRICS if any(name in one.values for one in scores)]
    estimates = {
        name: estimate([one.values.get(name, np.nan) for one in scores], groups, seed)
        for name in names
    }
    unknown = float("nan")
    estimates |= {
        name: Estimate(value, unknown, unknown, value, len(scores))
        for name, value in of_all.items()
    }
    curves = [one.by_lag for one in scores if one.by_lag is not None]
    by_lag: dict[int, float] = {}
    if len(curves) == len(scores):
        lags = range(-LARGEST_LAG, LARGEST_LAG + 1)
        by_lag = {
            lag: _grouped_mean(np.array(column), groups)
            for lag, column in zip(lags, np.array(curves).T, strict=True)
        }
    best = {lag: value for lag, value in by_lag.items() if np.isfinite(value) and value != 0}
    best_lag = float(max(best, key=lambda lag: (best[lag], -abs(lag)))) if best else float("nan")
    return Summary(
        len(scores),
        len(set(people)) if known else 0,
        sum(one.frames for one in scores),
        estimates,
        by_lag,
        best_lag,
    )


def estimate(values: Sequence[float], groups: Sequence[str], seed: int = 0) -> Estimate:
    """Mean and 95 % confidence interval.

    The mean is over groups of the group's mean over clips, so that a person with many clips counts
    as much as one with one. The interval is the percentile bootstrap in two stages: groups are
    drawn with replacement 2,000 times, of each group its clips, and of each draw the mean is taken
    in the same way (Davison and Hinkley, 1997, section 3.8). Where every clip is a group of its
    own, that is the plain bootstrap over clips; clips of one person are not independent, and drawn
    as if they were they would make the interval too narrow.

    Args:
        values: (n,) of clips; those that are NaN are left out.
        groups: (n,) whom each clip shows.
        seed: of the draws.
    """
    array = np.asarray(values, np.float64)
    known = ~np.isnan(array)
    own, who = array[known], np.asarray(groups)[known]
    if not len(own):
        nan = float("nan")
        return Estimate(nan, nan, nan, nan, 0)
    names, members = np.unique(who, return_inverse=True)
    clips = [own[members == group] for group in range(len(names))]
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(clips), (RESAMPLES, len(clips)))
    means = np.array([group.mean() for group in clips])[draws]
    for number, group in enumerate(clips):
        if len(group) > 1:
            drawn = draws == number
            means[drawn] = rng.choice(group, (np.count_nonzero(drawn), len(group))).mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means.mean(axis=1), [tail, 1 - tail])
    return Estimate(
        _grouped_mean(own, list(who)), float(low), float(high), float(own.mean()), len(own)
    )


def _grouped_mean(values: FloatArray, groups: Sequence[str]) -> float:
    by_group: dict[str, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        if not np.isnan(value):
            by_group[group].append(float(value))
    if not by_group:
        return float("nan")
    return float(np.mean([np.mean(own) for own in by_group.values()]))


def as_numbers(summary: Mapping[str, Summary]) -> dict[str, Any]:
    """Summaries as what JSON can hold: NaN becomes null."""

    def number(value: float) -> float | None:
        return None if np.isnan(value) else value

    return {
        system: {
            "clips": own.clips,
            "people": own.people or None,
            "frames": own.frames,
            "best_lag": number(own.best_lag),
            "correlation_by_lag": {str(k): number(v) for k, v in own.correlation_by_lag.items()},
            "metrics": {
                name: {
                    "mean": number(value.mean),
                    "low": number(value.low),
                    "high": number(value.high),
                    "mean_over_clips": number(value.mean_over_clips),
                    "clips": value.clips,
                }
                for name, value in own.estimates.items()
            },
        }
        for system, own in summary.items()
    }
