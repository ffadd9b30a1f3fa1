"""Winograd's convolutions against the definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from atvg_jax.models import winograd


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


def test_kernels_from_the_left_make_the_same():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((8, 4, 3, 5)).astype(np.float32)
    kernels = winograd.kernels(rng.standard_normal((3, 3, 5, 6)).astype(np.float32))
    expected = winograd.convolve(x, kernels)
    made = winograd.convolve_from_left(x.swapaxes(2, 3), kernels.swapaxes(1, 2))
    np.testing.assert_allclose(made.swapaxes(2, 3), expected, atol=2e-5 * np.abs(expected).max())


def test_rejects_maps_without_whole_tiles():
    with pytest.raises(ValueError, match="6 x 8"):
        winograd.convolve(jnp.zeros((6, 8, 1, 1)), jnp.zeros((36, 1, 1)))


def test_for_training_it_and_its_gradients_are_those_of_the_definition():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((8, 8, 4, 5)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 5, 6)).astype(np.float32)

    def run(conv):
        @jax.jit
        def both(x, kernel):
            value, pull_back = jax.vjp(conv, x, kernel)
            return value, *pull_back(jnp.sin(value))

        return both(x, kernel)

    made, expected = run(winograd.conv), run(winograd.direct)
    for ours, theirs in zip(made, expected, strict=True):
        assert not np.array_equal(ours, theirs), "this took the direct way"
        np.testing.assert_allclose(ours, theirs, atol=5e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (8, 6, 8, 3)])
def test_for_training_it_leaves_few_examples_and_odd_maps_to_the_definition(shape):
    x, kernel = np.ones(shape, np.float32), np.ones((3, 3, 3, 2), np.float32)
    np.testing.assert_array_equal(winograd.conv(x, kernel), winograd.direct(x, kernel))


def test_other_devices_than_a_cpu_are_given_an_ordinary_convolution():
    x, kernel = jnp.zeros((8, 8, 8, 3)), jnp.zeros((3, 3, 3, 2))

    def gradients(x, kernel):
        return jax.vjp(winograd.conv, x, kernel)[1](jnp.ones((8, 8, 8, 2)))

    for platform, wanted in (("cuda", True), ("tpu", True), ("cpu", False)):
        text = jax.jit(gradients).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        assert ("stablehlo.convolution" in text) == wanted
