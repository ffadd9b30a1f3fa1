"""Checkpoints: what goes in comes out, the best stays, and another network's is refused."""

import jax
import numpy as np
import optax
import pytest

from atvg_jax.errors import InputError
from atvg_jax.training.checkpoints import Checkpoints
from atvg_jax.training.state import NetworkState, TrainState

OPTIMIZER = optax.adam(1e-3)


def state(step=0, width=3, scale=1.0):
    params = {"dense": {"kernel": np.full((2, width), scale, np.float32)}}
    stats = {"norm": {"mean": np.zeros(width, np.float32)}}
    network = NetworkState(params, stats, jax.device_get(OPTIMIZER.init(params)))
    return TrainState(np.int32(step), {"at_net": network})


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_what_is_saved_is_restored(tmp_path):
    average = {"params": {"kernel": np.full((2, 3), 0.5, np.float32)}}
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(state(), average) is None
        checkpoints.save(7, state(7, scale=2.5), average, {"windows_seen": 70})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 7
        restored, averaged, position = checkpoints.restore(state(), average)
        assert_equal(restored, state(7, scale=2.5))
        assert_equal(averaged, average)
        assert position == {"windows_seen": 70}
        # A run that keeps no average reads the same checkpoint.
        assert checkpoints.restore(state(), {})[1] == {}
    assert (tmp_path / "checkpoints" / "7" / "average").is_dir()


def test_a_checkpoint_without_an_average_says_so(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1), {}, {})
        checkpoints.wait()
        wanted = {"params": {"kernel": np.zeros((2, 3), np.float32)}}
        assert checkpoints.restore(state(), wanted)[1] == {}


def test_the_latest_and_the_best_are_kept(tmp_path):
    scores = {1: 0.9, 2: 0.3, 3: 0.5, 4: None, 5: 0.6, 6: None}
    with Checkpoints(tmp_path, keep=2, best_metric="loss") as checkpoints:
        for step, score in scores.items():
            metrics = None if score is None else {"loss": score}
            checkpoints.save(step, state(step), {}, {}, metrics)
        checkpoints.wait()
        assert checkpoints.steps() == [2, 5, 6]
        assert checkpoints.latest == 6


def test_the_best_is_still_known_after_a_restart(tmp_path):
    for step, score in {1: 0.3, 2: 0.5, 3: 0.6, 4: None}.items():
        with Checkpoints(tmp_path, keep=1, best_metric="loss") as checkpoints:
            checkpoints.save(step, state(step), {}, {}, None if score is None else {"loss": score})
    with Checkpoints(tmp_path, keep=1, best_metric="loss") as checkpoints:
        assert checkpoints.steps() == [1, 4]


def test_a_save_that_was_cut_off_does_not_count(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, state(5), {}, {})
    cut_off = tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp"
    (cut_off / "state").mkdir(parents=True)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 5
        assert int(checkpoints.restore(state(), {})[0].step) == 5
        checkpoints.save(6, state(6), {}, {})
        checkpoints.wait()
        assert checkpoints.latest == 6


def test_another_network_is_refused_by_the_names_that_differ(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1, width=3), {}, {})
        checkpoints.wait()
        with pytest.raises(InputError) as caught:
            checkpoints.restore(state(width=4), {})
        message = str(caught.value)
        assert "networks/at_net/params/dense/kernel (2, 3) there, (2, 4) here" in message
        assert "opt_state" not in message
        assert "\n" not in message
        other = TrainState(np.int32(0), {"vg_net": state().networks["at_net"]})
        with pytest.raises(InputError, match="networks/vg_net/params/dense/kernel absent there"):
            checkpoints.restore(other, {})
