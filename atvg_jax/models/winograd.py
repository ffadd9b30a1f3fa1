"""3 x 3 convolutions on small maps with a quarter of the products: Winograd's F(4 x 4, 3 x 3).

A tile of 4 x 4 outputs takes 36 products where the definition takes 144 (Lavin and Gray, "Fast
algorithms for convolutional neural networks", CVPR 2016, section 4.3). Each of the 36 is a matrix
product over channels; going to them and back are two constant matrices over the positions of a map.
In float32 the result is within 2e-5 of the direct one, relative to its largest value.

Maps are (H, W, N, C), positions before examples, so that both constant matrices multiply from the
left and nothing is transposed between layers. ``conv`` is for training: it takes (N, H, W, C), and
its gradients are Winograd's too, so that they cost a quarter as well.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from atvg_jax.models.cpu_gradients import with_cpu_gradients

Array = jax.Array

TILE = 4  # outputs along each axis of a tile
PATCH = TILE + 2  # inputs along each axis of a tile, and products
# With fewer examples, reading four times the weights costs more than it saves.
FEWEST_EXAMPLES = 8
# Where the polynomials of a tile are evaluated, besides infinity. With Lavin and Gray's 0, 1, -1, 2
# and -2 the transforms' numbers differ more in size, and rounding costs 5 dB more; see Barabasz et
# al., "Error analysis and improving the accuracy of Winograd convolution for deep neural networks",
# ACM TOMS 2020. Exact in binary, as are their products.
POINTS = (0, 0.75, -0.75, 1.5, -1.5)


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One axis: inputs to products (6, 6), taps to products (6, 3), products to outputs (4, 6).

    Toom and Cook's: a product of polynomials of taps and outputs at each point, transposed.
    """
    points = np.asarray(POINTS)
    others = [np.delete(points, index) for index in range(len(points))]
    divisors = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    taps = np.vander(points, 3, increasing=True) / np.asarray(divisors)[:, None]
    inputs = np.zeros((PATCH, PATCH))
    inputs[:-1, :-1] = [np.poly(rest)[::-1] for rest in others]
    inputs[-1] = np.poly(points)[::-1]
    outputs = np.zeros((TILE, PATCH))
    outputs[:, :-1] = np.vander(points, TILE, increasing=True).T
    outputs[-1, -1] = 1
    return inputs, np.concatenate([taps, [[0, 0, 1]]]), outputs


INPUT, KERNEL, OUTPUT = _matrices()
KERNELS = np.kron(KERNEL, KERNEL).astype(np.float32)  # (36, 9), both axes at once


def kernels(kernel: Any) -> Any:
    """(3, 3, C, F) -> (36, C, F), what ``convolve`` multiplies by; of NumPy's arrays or JAX's."""
    return (KERNELS @ kernel.reshape(9, -1)).reshape(PATCH**2, *kernel.shape[2:])


@functools.cache
def _transforms(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(36 tiles, H W) into the products and (H W, 36 tiles) back, zeros beyond the edges."""

    def along(size: int) -> tuple[np.ndarray, np.ndarray]:
        tiles = size // TILE
        into, back = np.zeros((PATCH, tiles, size)), np.zeros((size, PATCH, tiles))
        for tile in range(tiles):
            start = tile * TILE
            back[start : start + TILE, :, tile] = OUTPUT
            for j in range(PATCH):
                if 0 <= start + j - 1 < size:
                    into[:, tile, start + j - 1] = INPUT[:, j]
        return into, back

    (into_y, back_y), (into_x, back_x) = along(height), along(width)
    into = np.einsum("psy,qtx->pqstyx", into_y, into_x).reshape(-1, height * width)
    back = np.einsum("yps,xqt->yxpqst", back_y, back_x).reshape(height * width, -1)
    return into.astype(np.float32), back.astype(np.float32)


def convolve(x: Array, kernels: Array) -> Array:
    """3 x 3 convolution with same padding.

    Args:
        x: (H, W, N, C), H and W multiples of 4.
        kernels: (36, C, F), from ``kernels``.

    Returns:
        (H, W, N, F).

    Raises:
        ValueError: the map does not divide into tiles.
    """
    height, width, n, channels = x.shape
    if height % TILE or width % TILE:
        raise ValueError(f"maps divide into tiles of {TILE} x {TILE}, not {height} x {width}")
    into, back = map(jnp.asarray, _transforms(height, width))
    tiled = (into @ x.reshape(height * width, -1)).reshape(PATCH**2, -1, channels)
    products = jnp.einsum("pmc,pcf->pmf", tiled, kernels)
    return (back @ products.reshape(back.shape[1], -1)).reshape(height, width, n, -1)


def convolve_from_left(x: Array, kernels: Array) -> Array:
    """``convolve`` with channels before examples, where kernels are the products' left factors.

    A library that copies right factors into blocks copies the examples then, not the larger
    kernels: in bfloat16, 36 of 512 x 512 with 512 x 32 go at 178 GFLOP/s on one core of an AMD EPYC
    (model 17) where the other order has 120.

    Args:
        x: (H, W, C, N) float32, H and W multiples of 4.
        kernels: (36, F, C), from ``kernels`` and turned; the products' factors are of its type, all
            sums float32.

    Returns:
        (H, W, F, N) float32.
    """
    height, width, channels, n = x.shape
    into, back = map(jnp.asarray, _transforms(height, width))
    tiles = height * width // TILE**2
    tiled = (into @ x.reshape(height * width, -1)).astype(kernels.dtype)
    tiled = tiled.reshape(PATCH**2, tiles, channels, n).swapaxes(1, 2)
    products = jnp.einsum(
        "pfc,pcm->pfm",
        kernels,
        tiled.reshape(PATCH**2, channels, -1),
        preferred_element_type=jnp.float32,
    )
    products = products.reshape(PATCH**2, -1, tiles, n).swapaxes(1, 2)
    made = back @ products.reshape(back.shape[1], -1)
    return made.reshape(height, width, -1, n)


def conv(x: Array, kernel: Array) -> Array:
    """3 x 3 convolution with same padding, for training, where its gradients are wanted too.

    Lowered for a CPU it is Winograd's where that can be and pays (float32, whole tiles, enough
    examples); the libraries of other devices choose for themselves.

    Args:
        x: (N, H, W, C).
        kernel: (3, 3, C, F).

    Returns:
        (N, H, W, F).
    """
    examples, height, width, _ = x.shape
    if height % TILE or width % TILE or examples < FEWEST_EXAMPLES or x.dtype != jnp.float32:
        return direct(x, kernel)
    return _conv(x, kernel)


def direct(x: Array, kernel: Array) -> Array:
    """The same-padded convolution by its definition, of any kernel size, for any maps."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _tiled(x: Array, kernel: Array) -> Array:
    return jnp.moveaxis(convolve(jnp.moveaxis(x, 0, 2), kernels(kernel)), 2, 0)


def _tiled_gradients(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    """Every step of ``_tiled`` is linear: its transposed steps in the opposite order."""
    _, height, width, _ = x.shape
    into, back = map(jnp.asarray, _transforms(height, width))
    from_products = _positions_times(back.T, gradient)  # (36, M, F)
    to_tiles = jnp.einsum("pmf,pcf->pmc", from_products, kernels(kernel))
    to_kernels = jnp.einsum("pmc,pmf->pcf", _positions_times(into, x), from_products)
    to_kernel = jnp.asarray(KERNELS.T) @ to_kernels.reshape(PATCH**2, -1)
    return _times_positions(into.T, to_tiles, height, width), to_kernel.reshape(kernel.shape)


def _positions_times(transform: Array, x: Array) -> Array:
    """(36 tiles, H W) times the positions of (N, H, W, C): (36, tiles N, C)."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height * width, channels).swapaxes(0, 1)
    return (transform @ x.reshape(height * width, -1)).reshape(PATCH**2, -1, channels)


def _times_positions(transform: Array, products: Array, height: int, width: int) -> Array:
    """(H W, 36 tiles) times (36, tiles N, C): (N, H, W, C)."""
    channels = products.shape[-1]
    x = (transform @ products.reshape(transform.shape[1], -1)).reshape(height * width, -1, channels)
    return x.swapaxes(0, 1).reshape(-1, height, width, channels)


def _by_platform(x: Array, kernel: Array) -> Array:
    return lax.platform_dependent(x, kernel, cpu=_tiled, default=direct)


# Both transforms are made again in the backward pass: they take a tenth of the products' time, and
# kept, those of 18 layers would take 0.7 GB at the published width.
_conv = with_cpu_gradients(_by_platform, direct, _tiled_gradients)
