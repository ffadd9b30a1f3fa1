"""Losses by hand and against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from atvg_jax.training import losses


def test_landmark_weights_are_100_on_the_heights_of_the_mouth():
    weights = losses.landmark_weights().reshape(68, 2)
    assert (weights[48:, 1] == 100).all()
    assert (weights[:48] == 1).all()
    assert (weights[48:, 0] == 1).all()


def test_landmark_loss_by_hand():
    target = np.zeros((1, 1, 136), np.float32)
    seen = target.copy()
    seen[0, 0, 0] = 3.0  # x of the jaw: 3^2
    seen[0, 0, 2 * 50 + 1] = 0.1  # y of a lip: (100 * 0.1)^2
    np.testing.assert_allclose(losses.landmark_loss(seen, target), [(9 + 100) / 136], rtol=1e-6)


def test_dynamic_pixel_loss_by_hand():
    frames, target = jnp.full((1, 2, 4, 4, 3), 0.5), jnp.zeros((1, 2, 4, 4, 3))
    attention = jnp.concatenate([jnp.zeros((1, 1, 4, 4, 1)), jnp.ones((1, 1, 4, 4, 1))], axis=1)
    # 0.5 * 0.5 in the still frame, 0.5 * 1.5 in the moving one.
    np.testing.assert_allclose(losses.dynamic_pixel_loss(frames, target, attention), [0.5])


def test_opening_loss_is_one_minus_pearsons_correlation():
    rng = np.random.default_rng(0)
    made, true = rng.normal(size=(2, 3, 24, 136)).astype(np.float32)
    gaps = [one[..., 2 * 66 + 1] - one[..., 2 * 62 + 1] for one in (made, true)]
    expected = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(*gaps, strict=True)]
    np.testing.assert_allclose(losses.opening_loss(made, true), expected, rtol=1e-4)
    # Neither the range nor the mean of an opening matters, and a still mouth has no correlation.
    np.testing.assert_allclose(losses.opening_loss(0.3 * true + 1, true), 0, atol=1e-4)
    still = jnp.zeros((1, 24, 136))
    np.testing.assert_allclose(losses.opening_loss(still, true[:1]), 1)
    gradient = jax.grad(lambda x: losses.opening_loss(x, still).sum())(still)
    assert np.isfinite(gradient).all()


def test_mouth_weights_by_hand():
    weights = losses.mouth_weights(9.0)
    assert weights.shape == (128, 128, 1)
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-6)
    # Ten to one between the middle of the mouth and the forehead, less on the falling edge.
    np.testing.assert_allclose(weights[100, 64] / weights[20, 64], 10, rtol=1e-5)
    left = losses.MOUTH_BOX[0]
    np.testing.assert_allclose(weights[100, left - 3] / weights[20, 64], 1 + 9 * 3.5 / 6, rtol=1e-5)
    assert (losses.mouth_weights(0.0) == 1).all()


def test_pixel_weights_multiply_the_dynamic_loss():
    frames, target = jnp.ones((1, 1, 2, 2, 3)), jnp.zeros((1, 1, 2, 2, 3))
    attention = jnp.full((1, 1, 2, 2, 1), 0.5)
    weights = jnp.asarray([[3.0, 1.0], [0.0, 0.0]])[..., None]
    # (0.5 + 0.5) * (3 + 1 + 0 + 0) / 4
    loss = losses.dynamic_pixel_loss(frames, target, attention, weights)
    np.testing.assert_allclose(loss, [1.0])


def test_dynamic_pixel_loss_cannot_be_lowered_through_attention():
    frames, target = jnp.ones((1, 1, 2, 2, 3)), jnp.zeros((1, 1, 2, 2, 3))

    def total(attention):
        return losses.dynamic_pixel_loss(frames, target, attention).sum()

    assert not jax.grad(total)(jnp.full((1, 1, 2, 2, 1), 0.5)).any()


def test_adversarial_loss_is_cross_entropy_and_survives_certainty():
    logits = np.array([-3.0, 0.2, 5.0], np.float32)
    np.testing.assert_allclose(
        losses.adversarial_loss(logits, True), -np.log(expit(logits)), rtol=1e-5
    )
    np.testing.assert_allclose(
        losses.adversarial_loss(logits, False), -np.log1p(-expit(logits)), rtol=1e-5
    )
    assert np.isfinite(losses.adversarial_loss(np.array([-1e4, 1e4], np.float32), True)).all()


def test_component_loss_is_the_mean_square_of_each_clip():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 4, 6)).astype(np.float32)
    np.testing.assert_allclose(
        losses.component_loss(a, b), ((a - b) ** 2).reshape(3, -1).mean(1), rtol=1e-6
    )
