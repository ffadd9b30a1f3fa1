"""Weights that are fitted to the data before training."""

import jax
import numpy as np
import pytest

from atvg_jax.training.initialisation import whitened_dense


@pytest.fixture(scope="module")
def shapes():
    """Landmarks as they are: one large mean, three directions of change, and a little noise."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(136, 3)))[0]
    components = rng.normal(size=(3000, 3)) * [0.12, 0.05, 0.03]
    noise = 1e-4 * rng.normal(size=(3000, 136))
    return rng.uniform(-1, 1, 136) + components @ directions.T + noise, components


def test_outputs_are_centred_with_variance_one(shapes):
    layer = whitened_dense(shapes[0], 4096, jax.random.key(0))
    outputs = shapes[0] @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
    assert np.abs(outputs.mean(axis=0)).max() < 1e-3
    assert outputs.var(axis=0).mean() == pytest.approx(1, abs=0.05)


def test_every_direction_of_change_weighs_the_same(shapes):
    # The share of the outputs' variance that each component explains, by least squares.
    landmarks, components = shapes
    layer = whitened_dense(landmarks, 4096, jax.random.key(1))
    outputs = landmarks @ np.asarray(layer["kernel"])
    explained = [
        np.square(np.outer(one, one @ outputs / (one @ one))).sum()
        for one in (components - components.mean(axis=0)).T
    ]
    np.testing.assert_allclose(explained / np.sum(explained), 1 / 3, atol=0.03)


def test_noise_is_not_scaled_up(shapes):
    layer = whitened_dense(shapes[0], 64, jax.random.key(2))
    noise = 1e-4 * np.random.default_rng(3).normal(size=(500, 136))
    assert (noise @ np.asarray(layer["kernel"])).std() < 0.1


def test_faces_that_never_move_give_finite_weights():
    layer = whitened_dense(np.ones((50, 136)), 64, jax.random.key(3))
    assert all(np.isfinite(value).all() for value in layer.values())
