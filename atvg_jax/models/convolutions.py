"""Convolutions written so that XLA runs them well: transposed ones, and ones with few channels."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from atvg_jax.models import winograd
from atvg_jax.models.cpu_gradients import (
    in_parts,
    in_parts_on_cpu,
    tap_products,
    with_cpu_gradients,
)

Array = jax.Array

# Convolutions of at most so many channels run with SIDE pixels of a row together as channels.
NARROW = 16
SIDE = 4


def strided_conv(x: Array, kernel: Array) -> Array:
    """3 x 3 convolution, stride 2, padding 1: (N, 2H, 2W, C), (3, 3, C, F) -> (N, H, W, F)."""
    return _strided_conv(x, kernel)


def _halving(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _halving_gradients(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    (to_x,) = jax.vjp(lambda x: _halving(x, kernel), x)[1](gradient)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return to_x, tap_products(padded, gradient).astype(kernel.dtype)


_strided_conv = with_cpu_gradients(in_parts_on_cpu(_halving), _halving, _halving_gradients)


def same_conv(x: Array, kernel: Array) -> Array:
    """3 x 3 convolution, stride 1, padding 1: (N, H, W, C), (3, 3, C, F) -> (N, H, W, F).

    For training, and for maps of any size; for small maps of many channels see ``winograd``.
    """
    return _same_conv(x, kernel)


def _same_gradients(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    """For x the convolution with the turned kernel, written out so that XLA's library runs it.

    As XLA derives them both gradients take a way of its own that is several times slower.
    """
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    to_kernel = tap_products(padded, gradient, stride=1)
    return in_parts(winograd.direct)(gradient, turned), to_kernel.astype(kernel.dtype)


_same_conv = with_cpu_gradients(in_parts_on_cpu(winograd.direct), winograd.direct, _same_gradients)


def transposed_conv(x: Array, kernel: Array) -> Array:
    """3 x 3 transposed convolution, stride 2, padding 1, output padding 1: (H, W) -> (2H, 2W).

    Output row 2j takes kernel row 1 of input row j; output row 2j + 1 takes kernel row 2 of input
    row j and kernel row 0 of input row j + 1; columns alike. So the layer is four ordinary
    convolutions on the small map, of 1x1, 1x2, 2x1 and 2x2 taps, interleaved. XLA's own form
    (``lhs_dilation``) multiplies by inserted zeros, and on the CPU its weight gradient takes a
    naive path that is many times slower than its forward pass.

    Args:
        x: (N, H, W, C).
        kernel: (3, 3, C, F), not flipped: PyTorch's (C, F, 3, 3) transposed.

    Returns:
        (N, 2H, 2W, F).
    """
    return _transposed_conv(x, kernel)


def _interleaved(x: Array, kernel: Array) -> Array:
    def taps(rows: slice, columns: slice) -> Array:
        weights = kernel[rows, columns]
        # One row or column of zeros beyond the end where an odd output looks one ahead.
        padding = ((0, weights.shape[0] - 1), (0, weights.shape[1] - 1))
        return lax.conv_general_dilated(
            x, weights, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    even, odd = slice(1, 2), slice(None, None, -2)  # kernel rows 1; 2 and 0
    return _woven(*(taps(rows, columns) for rows in (even, odd) for columns in (even, odd)))


def _woven(even: Array, odd_column: Array, odd_row: Array, odd: Array) -> Array:
    """Four maps (N, H, W, F), of places even and odd along rows and columns, as (N, 2H, 2W, F)."""
    n, height, width, features = even.shape
    even_rows = jnp.stack([even, odd_column], axis=3)
    odd_rows = jnp.stack([odd_row, odd], axis=3)
    y = jnp.stack([even_rows, odd_rows], axis=2)  # (N, H, 2, W, 2, F)
    return y.reshape(n, 2 * height, 2 * width, features)


def _interleaved_gradients(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    """Those of the transposed convolution: a strided one for x, what each tap made for the kernel.

    The gradients of four interleaved convolutions would be four convolutions each, and XLA runs
    those to a kernel on one core.
    """
    # Rows made from 2j - 1 on; the last input row makes two.
    before = jnp.pad(gradient, ((0, 0), (1, 0), (1, 0), (0, 0)))
    to_x = in_parts(_halving_of_padded)(before, kernel.swapaxes(2, 3))
    to_kernel = tap_products(before, x).swapaxes(2, 3)
    return to_x, to_kernel.astype(kernel.dtype)


def _halving_of_padded(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


_transposed_conv = with_cpu_gradients(
    in_parts_on_cpu(_interleaved), _interleaved, _interleaved_gradients
)


def at_once(kernel: Array) -> Array:
    """``transposed_conv``'s kernel (3, 3, C, F) as one of 2 x 2 taps that makes a 2 x 2 block.

    Returns:
        (2, 2, C, 4 F): output (row, column) of the block, then feature; zeros where an output does
        not look a row or a column ahead.
    """
    taps = np.zeros((2, 2, 3), np.float32)  # place read, place made, tap; see transposed_conv
    taps[0, 0, 1] = taps[0, 1, 2] = taps[1, 1, 0] = 1
    block = jnp.einsum("apr,bqs,rscf->abcpqf", taps, taps, kernel)
    return block.reshape(2, 2, kernel.shape[2], -1)


def transposed_conv_at_once(x: Array, kernel: Array) -> Array:
    """``transposed_conv`` with few output channels; its kernel from ``at_once``.

    With 8 output channels four convolutions are mostly overhead: one that makes 1.8 times the
    products, zeros among them, takes half the time.
    """
    n, height, width, _ = x.shape
    y = lax.conv_general_dilated(
        x, kernel, (1, 1), ((0, 1), (0, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    # The two columns of a block lie side by side already.
    y = y.reshape(n, height, width, 2, -1).swapaxes(2, 3)
    return y.reshape(n, 2 * height, 2 * width, -1)


def as_products(kernel: Array) -> tuple[Array, Array, Array, Array]:
    """``transposed_conv``'s kernel (3, 3, C, F) as four matrices, for even and odd places.

    Returns:
        Right factors (C, F) of places that are even along both axes, (2 C, F) odd along the row,
        (2 C, F) odd along the column, (4 C, F) odd along both; see ``transposed_conv``.
    """
    even, odd = (1,), (2, 0)
    made = [
        jnp.concatenate([kernel[row, column] for row in rows for column in columns])
        for rows in (even, odd)
        for columns in (even, odd)
    ]
    return made[0], made[1], made[2], made[3]


def transposed_conv_by_products(x: Array, kernels: tuple[Array, Array, Array, Array]) -> Array:
    """``transposed_conv`` as four matrix products over patches.

    XLA for a CPU multiplies matrices of bfloat16 at twice the rate of float32 where the chip can,
    convolutions at the same rate.

    Args:
        x: (N, H, W, C).
        kernels: from ``as_products``; factors are of their type.

    Returns:
        (N, 2H, 2W, F), summed in float32.
    """
    n, height, width, _ = x.shape
    x = x.astype(kernels[0].dtype)
    ahead = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    # A place, the next one in its row, the one below, and the next one there.
    here, right = x, ahead[:, :-1, 1:]
    below, across = ahead[:, 1:, :-1], ahead[:, 1:, 1:]
    seen = (here,), (here, right), (here, below), (here, right, below, across)

    def made(places: tuple[Array, ...], kernel: Array) -> Array:
        patches = jnp.concatenate(places, axis=-1).reshape(n * height * width, -1)
        y = jnp.dot(patches, kernel, preferred_element_type=jnp.float32)
        return y.reshape(n, height, width, -1)

    return _woven(*(made(places, kernel) for places, kernel in zip(seen, kernels, strict=True)))


def side_by_side(kernel: Array) -> Array:
    """A kernel that reads and makes SIDE pixels of a row at once, as so many times the channels.

    Args:
        kernel: (K, K, C, F), same padding, K odd and at most 2 SIDE + 1.

    Returns:
        (K, 3, SIDE C, SIDE F), the same convolution of rows of W / SIDE groups: a group sees
        itself and its two neighbours.
    """
    size, _, channels, features = kernel.shape
    taps = np.zeros((3, SIDE, SIDE, size), np.float32)  # group, pixel read, pixel made, tap
    for pixel in range(SIDE):
        for tap in range(size):
            group, place = divmod(pixel + tap - size // 2, SIDE)
            taps[group + 1, place, pixel, tap] = 1
    grouped = jnp.einsum("gapt,ktcf->kgacpf", taps.astype(kernel.dtype), kernel)
    return grouped.reshape(size, 3, SIDE * channels, SIDE * features)


def wide_conv(x: Array, kernel: Array) -> Array:
    """Same-padded convolution from many channels of large maps to few: ``winograd.direct``.

    Its gradient to x, with many output channels, runs on several cores of a CPU.
    """
    return _wide_conv(x, kernel)


def _wide_gradients(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
    to_x = in_parts(winograd.direct)(gradient, kernel[::-1, ::-1].swapaxes(2, 3))
    (to_kernel,) = jax.vjp(lambda kernel: winograd.direct(x, kernel), kernel)[1](gradient)
    return to_x, to_kernel


_wide_conv = with_cpu_gradients(winograd.direct, winograd.direct, _wide_gradients)


def conv_side_by_side(x: Array, kernel: Array) -> Array:
    """Same-padded convolution with few channels: (N, H, W, C) -> (N, H, W, F), SIDE divides W.

    With 4 or 8 channels a 7 x 7 convolution is mostly overhead: a kernel from ``side_by_side``
    makes 1.7 times the products, zeros among them, in a fifth of the time.
    """
    n, height, width, channels = x.shape
    y = winograd.direct(x.reshape(n, height, width // SIDE, channels * SIDE), kernel)
    return y.reshape(n, height, width, -1)
