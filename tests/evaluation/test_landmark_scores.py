import numpy as np
import pytest

from atvg_jax.evaluation import baseline, judge
from atvg_jax.evaluation.landmark_scores import judge_landmarks
from atvg_jax.features.landmarks import bundled_face_shape, mouth_opening


@pytest.fixture
def speech():
    """(30, 68, 2) normalised: a mouth that opens and closes."""
    shapes = np.tile(bundled_face_shape().mean_shape, (30, 1, 1))
    shapes[:, 55:60, 1] += 0.04 * np.sin(np.arange(30) * 0.8)[:, None] + 0.04
    shapes[:, 65:68, 1] += 0.04 * np.sin(np.arange(30) * 0.8)[:, None] + 0.04
    return shapes


def test_landmark_scores(speech):
    moved = speech.copy()
    moved[:, 48:68] += 0.3  # mouths are centred
    moved[:, 50, 0] += 0.01
    made = judge_landmarks("clip", "anna", speech, {"moved": moved})
    own = {one.system: one for one in made}
    assert list(own) == [judge.GROUND_TRUTH, judge.STATIC_PORTRAIT, "moved"]
    assert own["moved"].frames == 29
    # By hand: (19 / 20 + 19 x 1 / 20) / 20 x 0.01 a point, 5 times that in model units.
    values = own["moved"].values
    assert values["landmark_distance_model"] == pytest.approx(5 * 0.01 * 0.095)
    eyes = speech[0, 42:48].mean(axis=0) - speech[0, 36:42].mean(axis=0)
    assert values["landmark_distance_eyes"] == pytest.approx(
        100 * 0.01 * 0.095 / np.linalg.norm(eyes)
    )
    assert values["mouth_correlation"] == pytest.approx(1, abs=1e-6)
    truth, still = own[judge.GROUND_TRUTH].values, own[judge.STATIC_PORTRAIT].values
    assert truth["landmark_distance_model"] == 0
    assert truth["mouth_spread_ratio"] == 1
    assert still["mouth_correlation"] == still["mouth_spread_ratio"] == 0


def test_smaller_and_late(speech):
    late = np.concatenate([speech[:2], speech[:-2]])
    mean = late.mean(axis=0)
    small = mean + 0.5 * (late - mean)
    values = judge_landmarks("clip", "", speech, {"late": late, "small": small})
    own = {one.system: one.values for one in values}
    assert own["late"]["mouth_lag"] == 2
    spread = mouth_opening(late[1:]).std() / mouth_opening(speech[1:]).std()
    assert own["late"]["mouth_spread_ratio"] == pytest.approx(spread)
    assert own["small"]["mouth_spread_ratio"] == pytest.approx(spread / 2, rel=1e-3)


def clips(count, rng, weights, noise):
    for _ in range(count):
        windows = rng.normal(3, 2, (20, 28, 12))
        yield windows, windows.reshape(20, -1) @ weights + 5 + rng.normal(0, noise, (20, 2))


def test_ridge_finds_a_linear_map():
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, (336, 2))
    ridge = baseline.fit(clips(60, rng, weights, 0.0), clips(5, rng, weights, 0.0))
    windows, components = next(clips(1, rng, weights, 0.0))
    np.testing.assert_allclose(ridge.predict(windows), components, atol=0.2)
    assert ridge.penalty == baseline.PENALTIES[0]


def test_ridge_is_least_squares_with_a_penalty():
    """Against NumPy's least squares, the penalty as further equations."""
    rng = np.random.default_rng(0)
    weights = np.zeros((336, 2))
    weights[:3] = 1
    train = list(clips(10, rng, weights, 20.0))
    ridge = baseline.fit(iter(train), clips(10, rng, weights, 20.0))
    assert ridge.penalty > baseline.PENALTIES[0]  # fewer frames than inputs
    x = np.concatenate([windows for windows, _ in train]).reshape(200, 336)
    y = np.concatenate([components for _, components in train])
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    penalty = np.sqrt(ridge.penalty * len(x)) * np.eye(336)
    expected, *_ = np.linalg.lstsq(
        np.concatenate([standard, penalty]),
        np.concatenate([y - y.mean(axis=0), np.zeros((336, 2))]),
    )
    np.testing.assert_allclose(ridge.weights * x.std(axis=0)[:, None], expected, atol=1e-6)
    np.testing.assert_allclose(
        ridge.predict(train[0][0]), standard[:20] @ expected + y.mean(axis=0), atol=1e-6
    )
