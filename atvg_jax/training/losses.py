"""The losses of both networks, as means over all axes unless said otherwise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from atvg_jax.features.landmarks import INNER_LIPS, MOUTH

Array = jax.Array

# The pixel loss weighs a pixel by its attention plus this, so that still pixels count too.
ATTENTION_FLOOR = 0.5
# Weight of a mouth point's y before squaring, hence 10,000 in the square.
MOUTH_Y_WEIGHT = 100.0

# Norm over a window of the changes of a gap, in model units, below which a mouth counts as still;
# in speech it is 0.2 over 24 frames.
STILL = 0.03

# Left, top, right, bottom in pixels of a 128 x 128 crop, whose alignment by nose and eyes puts
# every mouth into the same place: 98 of 100 real ones (points 48..67) are within 37..93 and
# 81..115; the rest of the box is lips and the chin that moves with them.
MOUTH_BOX = (34, 78, 96, 122)
MOUTH_EDGE = 6.0  # pixels over which the weight of the mouth falls off


def landmark_weights() -> np.ndarray:
    """(136,) weights of x0, y0, x1, y1, ...: 100 on the y of the 20 mouth points, 1 elsewhere."""
    weights = np.ones((68, 2), np.float32)
    weights[MOUTH, 1] = MOUTH_Y_WEIGHT
    return weights.ravel()


def component_loss(predicted: Array, target: Array) -> Array:
    """AT-net's loss: mean squared error of PCA components, (B, T, 6) -> (B,)."""
    return jnp.mean(jnp.square(predicted - target), axis=(1, 2))


def opening_loss(landmarks: Array, target: Array) -> Array:
    """One minus the correlation of how far the lips are open, over the frames. Not in the paper.

    A squared error forgives a mouth that moves little and at the wrong time; this asks for the
    time alone, whatever the person's range.

    Args:
        landmarks: (B, T, 136) predicted.
        target: (B, T, 136) true.

    Returns:
        (B,), 0 to 2; about 1 where either mouth keeps still, which has no correlation.
    """
    gaps = [lip_gap(one) for one in (landmarks, target)]
    made, true = (gap - gap.mean(axis=-1, keepdims=True) for gap in gaps)
    together = (made * true).sum(axis=-1)
    return 1 - together / jnp.sqrt((made**2).sum(axis=-1) * (true**2).sum(axis=-1) + STILL**4)


def lip_gap(landmarks: Array) -> Array:
    """How far the inner lips are apart: (..., 136) landmarks -> (...), in their units."""
    upper, lower = INNER_LIPS
    return landmarks[..., 2 * lower + 1] - landmarks[..., 2 * upper + 1]


def mouth_weights(weight: float, size: int = 128) -> np.ndarray:
    """Weights of pixels that count those of the mouth more, their mean 1. Not in the paper.

    Args:
        weight: what the mouth counts more than the rest: 0 for the same.
        size: side of the crop in pixels.

    Returns:
        (size, size, 1) float32.
    """
    left, top, right, bottom = MOUTH_BOX
    centres = np.arange(size) + 0.5

    def inside(low: int, high: int) -> np.ndarray:
        distance = np.maximum(low - centres, centres - high)
        return np.clip(1 - distance / MOUTH_EDGE, 0, 1)

    weights = 1 + weight * np.outer(inside(top, bottom), inside(left, right))
    return (weights / weights.mean())[..., None].astype(np.float32)


def dynamic_pixel_loss(
    frames: Array, target: Array, attention: Array, weights: Array | float = 1.0
) -> Array:
    """Absolute error weighted by where the generator says that it moves pixels.

    Equation 9 of the paper. Attention is a weight, not something to be learned by shrinking it:
    no gradient passes through it.

    Args:
        frames: (B, T, H, W, 3) made.
        target: (B, T, H, W, 3) real.
        attention: (B, T, H, W, 1) in [0, 1].
        weights: of pixels besides, such as ``mouth_weights``; 1 as published.

    Returns:
        (B,) mean per clip.
    """
    weight = (lax.stop_gradient(attention) + ATTENTION_FLOOR) * weights
    return jnp.mean(jnp.abs(frames - target) * weight, axis=(1, 2, 3, 4))


def landmark_loss(regressed: Array, target: Array) -> Array:
    """Squared error of what the discriminator sees, mouth heights first; (B, T, 136) -> (B,)."""
    difference = (regressed - target) * landmark_weights()
    return jnp.mean(jnp.square(difference), axis=(1, 2))


def adversarial_loss(logits: Array, real: bool) -> Array:
    """Binary cross-entropy of the score ``sigmoid(logits)`` against 1 (real) or 0; (B,) -> (B,)."""
    return optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, float(real)))
