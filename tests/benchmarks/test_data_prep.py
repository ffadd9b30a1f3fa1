"""The benchmark of data preparation measures what it says."""

import numpy as np
import pytest

from benchmarks import data_prep


def test_shares_of_the_limit_are_of_the_same_clip_and_round():
    seconds = {name: np.full((2, 2), 0.5) for name in data_prep.PARTS}
    seconds["decode"] = np.array([[1.0, 2.0], [3.0, 4.0]])
    seconds["predict"] = np.array([[1.0, 1.0], [1.0, 1.0]])
    seconds["whole"] = np.array([[4.0, 4.0], [5.0, 10.0]])  # shares 1/2, 3/4, 4/5, 1/2
    result = data_prep.summarise(seconds)
    assert result["share_of_limit"] == pytest.approx((0.5 + 0.75) / 2, abs=1e-3)
    assert result["frames_per_second_per_core"]["decode"] == 0.4
    assert result["frames_per_second_per_core"]["limit"] == pytest.approx(1 / 3.5, abs=0.05)


def test_every_part_of_a_generated_clip_is_measured(tmp_path):
    (path,) = data_prep.generate(tmp_path, 1)
    loaded = data_prep.load(path)
    assert len(loaded.frames) == data_prep.FRAMES
    assert loaded.frames[0].shape == (256, 256, 3)
    seconds = data_prep.measure([loaded], 1)
    assert set(seconds) == set(data_prep.PARTS)
    assert all((times > 0).all() for times in seconds.values())
