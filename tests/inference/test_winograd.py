"""Winograd's convolutions against the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from atvg_jax.inference import winograd


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 8), (4, 12)])
def test_is_the_convolution(height, width):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((height, width, 3, 5)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 5, 6)).astype(np.float32)
    made = jax.jit(winograd.convolve)(x, winograd.kernels(kernel))
    expected = np.zeros(made.shape)
    for n in range(3):
        for c in range(5):
            for f in range(6):
                expected[:, :, n, f] += correlate(x[:, :, n, c], kernel[:, :, c, f], "same")
    np.testing.assert_allclose(made, expected, atol=2e-5 * np.abs(expected).max())


def test_rejects_maps_without_whole_tiles():
    with pytest.raises(ValueError, match="6 x 8"):
        winograd.convolve(jnp.zeros((6, 8, 1, 1)), jnp.zeros((36, 1, 1)))
