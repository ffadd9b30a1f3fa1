"""How near made frames are to real ones, computed where they are made.

Scores of a training run, on frames as the network gives them. Published numbers come from
``atvg_jax.evaluation``, which judges videos.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array

_RANGE = 2.0  # frames are in [-1, 1]
# Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 13(4), 2004: an 11 x 11 Gaussian window.
_SSIM_RADIUS, _SSIM_SIGMA = 5, 1.5
_C1, _C2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2


def psnr(frames: Array, target: Array) -> Array:
    """(B, T, H, W, 3) in [-1, 1] -> (B,) dB, mean over frames of ``10 log10(2^2 / MSE)``."""
    error = jnp.square(frames - target).mean(axis=(2, 3, 4))
    return (10 * jnp.log10(_RANGE**2 / jnp.maximum(error, 1e-10))).mean(axis=1)


def ssim(frames: Array, target: Array) -> Array:
    """Structural similarity with a Gaussian window, over colour channels and whole windows.

    Args:
        frames: (B, T, H, W, 3) in [-1, 1].
        target: the same shape.

    Returns:
        (B,) mean over frames, 1 for equal ones.
    """
    height, width = frames.shape[2:4]
    down, across = _gaussian_rows(height), _gaussian_rows(width)

    def local_mean(x: Array) -> Array:
        # A separable filter as two products with band matrices; exact, since differences of
        # squares follow, which TF32 or bfloat16 products would drown.
        return jnp.einsum("hi,btijc,wj->bthwc", down, x, across, precision=lax.Precision.HIGHEST)

    mean_a, mean_b = local_mean(frames), local_mean(target)
    variances = local_mean(frames**2 + target**2) - mean_a**2 - mean_b**2
    covariance = local_mean(frames * target) - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    similarity /= (mean_a**2 + mean_b**2 + _C1) * (variances + _C2)
    return similarity.mean(axis=(1, 2, 3, 4))


def _gaussian_rows(size: int) -> np.ndarray:
    """(size - 10, size): each row the window's weights at one place where it is whole."""
    offsets = np.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / _SSIM_SIGMA) ** 2)
    rows = np.zeros((size - 2 * _SSIM_RADIUS, size), np.float32)
    for place, row in enumerate(rows):
        row[place : place + len(weights)] = weights / weights.sum()
    return rows
