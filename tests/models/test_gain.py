"""A gain of VG-net's landmarks: the same as giving it landmarks that lie further from the mean."""

import jax
import numpy as np
import pytest

from atvg_jax.models import VGNet
from atvg_jax.models.gain import with_landmark_gain

MEAN = np.random.default_rng(6).normal(0, 1, 136).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    return VGNet(width=1 / 32)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(7)
    image = rng.uniform(-1, 1, (1, 128, 128, 3)).astype(np.float32)
    landmarks = MEAN + rng.normal(0, 0.2, (1, 3, 136)).astype(np.float32)
    example = MEAN + rng.normal(0, 0.2, (1, 136)).astype(np.float32)
    return image, landmarks, example


@pytest.fixture(scope="module")
def variables(network, inputs):
    drawn = network.init(jax.random.key(1), *inputs)
    # A layer as a trained one: strong enough to be seen in the frames, and with a bias.
    dense = drawn["params"]["landmark_fc"]["dense"]
    bias = np.random.default_rng(8).normal(0, 1, dense["bias"].shape)
    dense = {"kernel": dense["kernel"] * 20, "bias": bias}
    return {**drawn, "params": {**drawn["params"], "landmark_fc": {"dense": dense}}}


def moved(landmarks, gain):
    return (MEAN + gain * (landmarks - MEAN)).astype(np.float32)


@pytest.mark.parametrize("gain", [0.5, 1.5])
def test_is_landmarks_further_from_the_mean(network, variables, inputs, gain):
    image, landmarks, example = inputs
    params = with_landmark_gain(variables["params"], MEAN, gain)
    made = network.apply({**variables, "params": params}, *inputs)
    wanted = network.apply(variables, image, moved(landmarks, gain), moved(example, gain))
    as_before = network.apply(variables, *inputs)
    assert np.abs(wanted.frames - as_before.frames).max() > 1e-3  # the gain is to be seen
    for one, other in zip(made, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_changes_nothing_else(variables):
    params = with_landmark_gain(variables["params"], MEAN, 1.5)
    assert params.keys() == variables["params"].keys()
    for name, part in params.items():
        if name != "landmark_fc":
            assert part is variables["params"][name]


@pytest.mark.parametrize("gain", [0, -1, np.nan, np.inf])
def test_must_be_above_zero_and_finite(variables, gain):
    with pytest.raises(ValueError, match="a gain is above 0"):
        with_landmark_gain(variables["params"], MEAN, gain)
