"""Lips that do not pass through each other: by hand, and what must hold for any mouth."""

import dataclasses

import jax
import numpy as np
import pytest

from atvg_jax.features import landmarks, lips
from atvg_jax.features.landmarks import LandmarkBasis, LandmarkNormaliser


@pytest.fixture(scope="module")
def basis():
    rng = np.random.default_rng(0)
    return LandmarkBasis.fit(rng.normal(0, 0.1, (40, 68, 2)))


def test_crossed_points_meet_in_the_middle(basis):
    shape = np.zeros((68, 2), np.float32)
    shape[[62, 66], 1] = 0.3, 0.1  # y points down: the upper lip lies 0.2 below the lower one
    shape[[61, 67], 1] = -0.1, 0.2  # open
    found = lips.apart(shape.reshape(136), basis).reshape(68, 2)
    wanted = shape.copy()
    wanted[[62, 66], 1] = 0.2
    np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_no_opening_is_negative_and_everything_else_stays(basis):
    values = np.random.default_rng(1).normal(0, 1, (5, 7, 136)).astype(np.float32)
    before = values.copy()
    found = lips.apart(values, basis)
    np.testing.assert_array_equal(values, before)
    was, now = (x.reshape(5, 7, 68, 2) for x in (values, found))
    for upper, lower in ((61, 67), (62, 66), (63, 65)):
        gap, opening = (x[..., lower, 1] - x[..., upper, 1] for x in (was, now))
        np.testing.assert_allclose(opening, np.maximum(gap, 0), atol=1e-6)
        np.testing.assert_allclose(
            now[..., [upper, lower], 1].mean(-1), was[..., [upper, lower], 1].mean(-1), atol=1e-6
        )
        np.testing.assert_array_equal(
            now[gap > 0][:, [upper, lower]], was[gap > 0][:, [upper, lower]]
        )
    others = [point for point in range(68) if point not in (61, 62, 63, 65, 66, 67)]
    np.testing.assert_array_equal(now[..., others, :], was[..., others, :])
    np.testing.assert_array_equal(now[..., 0], was[..., 0])


def test_the_same_under_jit(basis):
    values = np.random.default_rng(2).normal(0, 1, (3, 136)).astype(np.float32)
    found = jax.jit(lambda x: lips.apart(x, basis))(values)
    np.testing.assert_allclose(found, lips.apart(values, basis), atol=1e-6)


def test_lips_that_just_touch_stay_as_they_are(basis):
    closed = np.asarray(landmarks.bundled_face_shape().mean_shape, np.float32)
    values = landmarks.to_model(closed)
    np.testing.assert_allclose(lips.apart(values, basis), values, atol=2e-4)


def test_published_landmarks_stay_as_published(basis):
    zeros = np.zeros((68, 2))
    normaliser = LandmarkNormaliser.published(zeros + np.eye(68, 2), zeros, np.eye(136))
    published = dataclasses.replace(basis, normaliser=normaliser)
    values = np.random.default_rng(3).normal(0, 1, (4, 136)).astype(np.float32)
    assert lips.apart(values, published) is values
