"""Ways that take turns, and what is made of their times."""

import pytest

from atvg_jax.benchmarking import timing


def test_spread_is_median_and_quartiles():
    assert timing.spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0, 3)
    assert timing.spread([1.0, 2.0, 3.0, 4.0, 100.0]) == (3.0, 2.0, 4.0, 5)
    with pytest.raises(ValueError, match="nothing"):
        timing.spread([])


def test_ways_take_turns_until_the_time_is_over():
    seen = []
    ways = {name: lambda name=name: seen.append(name) for name in "ab"}
    timings = timing.alternate(ways, 3)
    assert seen == list("ababab")
    assert [len(timings[name].wall) for name in "ab"] == [3, 3]
    assert len(timing.alternate(ways, 3, seconds=0.0)["a"].wall) == 1


def test_ratios_compare_ways_of_the_same_round():
    # The second round was twice as busy; the ratio does not see it.
    timings = {
        "slow": timing.Timing([2.0, 4.0, 2.0], [1.0, 1.0, 1.0]),
        "fast": timing.Timing([1.0, 2.0, 1.0], [0.25, 0.25, 0.25]),
    }
    assert timing.ratio(timings, "slow", "fast") == (2.0, 2.0, 2.0, 3)
    assert timing.ratio(timings, "slow", "fast", "processor").median == 4.0
    lines = timing.table(timings, frames=8, base="slow").splitlines()
    assert lines[1].split() == ["slow", "4.0", "2.0-4.0", "125.0", "1.00", "1.00"]
    assert lines[2].split() == ["fast", "8.0", "4.0-8.0", "31.2", "2.00", "4.00"]
