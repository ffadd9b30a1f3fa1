import json
import math

import numpy as np
import pytest
import scipy.stats

from atvg_jax.evaluation import protocol
from atvg_jax.evaluation.judge import Scores


def test_mean_over_people():
    # Anna has 1 and 3, Berta 8: people (2 + 8) / 2, clips 12 / 3.
    own = protocol.estimate([1, 3, 8, np.nan], ["anna", "anna", "berta", "berta"])
    assert own.mean == 5
    assert own.mean_over_clips == 4
    assert own.clips == 3
    assert 1 <= own.low < own.mean < own.high <= 8


def test_interval_is_the_bootstraps():
    """Against SciPy's own percentile bootstrap, where every clip is a person of its own."""
    values = np.random.default_rng(1).gamma(2, 1, 40)
    own = protocol.estimate(values, [str(i) for i in range(40)])
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    error = values.std() / np.sqrt(40)
    assert own.low == pytest.approx(theirs.low, abs=0.2 * error)
    assert own.high == pytest.approx(theirs.high, abs=0.2 * error)


def test_interval_over_people():
    """Many equal clips of two people say no more about a third person than one clip of each."""
    one = protocol.estimate([0.0, 1.0], ["anna", "berta"])
    many = protocol.estimate([0.0] * 50 + [1.0] * 50, ["anna"] * 50 + ["berta"] * 50)
    assert (one.low, one.high) == (many.low, many.high) == (0, 1)
    # One person: only the clips vary. The spread of a mean of 25 is a fifth of the clips'.
    values = np.random.default_rng(0).normal(0, 1, 25)
    own = protocol.estimate(values, ["anna"] * 25)
    assert own.high - own.low == pytest.approx(2 * 1.96 * values.std() / 5, rel=0.15)


def test_nothing_known():
    own = protocol.estimate([np.nan, np.nan], ["a", "b"])
    assert math.isnan(own.mean)
    assert own.clips == 0


def scores(system, clip, speaker, value, by_lag=None):
    return Scores(system, clip, speaker, 10, {"psnr": value}, by_lag)


def test_summary():
    curve = np.zeros(11)
    early, late = curve.copy(), curve.copy()
    early[5 - 1], late[5 + 3] = 0.5, 0.9
    made = [
        scores("one", "a", "anna", 20.0, early),
        scores("one", "b", "anna", 22.0, late),
        scores("one", "c", "berta", 31.0, early),
        scores("other", "a", "", 7.0),
    ]
    summary = protocol.summarise(made)
    assert list(summary) == ["one", "other"]
    one = summary["one"]
    assert (one.clips, one.people, one.frames) == (3, 2, 30)
    assert one.estimates["psnr"].mean == 26
    # At -1: Anna 0.25, Berta 0.5; at 3: Anna 0.45, Berta 0.
    assert one.correlation_by_lag[-1] == pytest.approx(0.375)
    assert one.correlation_by_lag[3] == pytest.approx(0.225)
    assert one.best_lag == -1
    assert summary["other"].people == 0
    assert math.isnan(summary["other"].best_lag)
    text = json.dumps(protocol.as_numbers(summary), allow_nan=False)
    assert json.loads(text)["other"]["best_lag"] is None


def test_same_seed_same_interval():
    values, people = list(range(9)), list("aabbccddd")
    assert protocol.estimate(values, people) == protocol.estimate(values, people)


@pytest.mark.parametrize("workers", [1, 2])
def test_in_processes(workers):
    taken = []

    def tasks():
        for number in range(12):
            taken.append(number)
            yield -number

    results = protocol.in_processes(abs, tasks(), workers)
    assert next(results) == 0
    # Tasks are taken as they are needed, so that they need not all be in memory.
    assert len(taken) <= workers + 2
    assert list(results) == list(range(1, 12))
