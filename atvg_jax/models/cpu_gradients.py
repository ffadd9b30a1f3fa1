"""Convolutions and their gradients that XLA makes slowly on a CPU, made another way there."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
Conv = Callable[[Array, Array], Array]
Gradients = Callable[[Array, Array, Array], tuple[Array, Array]]

# Positions whose patches are laid out together: few enough to stay in the second-level cache, many
# enough for a product that is worth sharing between cores.
POSITIONS = 1024


# XLA's library for the CPU runs a whole convolution with fewer output channels on one core.
SHARED_FROM = 256
# Into how many parts a batch is cut for those. A second core is given work only where more than a
# few operations are ready at once, so that two parts stay on one.
PARTS = 8


def in_parts(conv: Conv) -> Conv:
    """A convolution of parts of the batch by themselves, for a CPU.

    Operations of a large program that do not depend on each other run side by side, so that parts
    keep several cores busy where one convolution would not.
    """

    def parts(x: Array, kernel: Array) -> Array:
        count = x.shape[0]  # not a number where a program is exported for any
        if not isinstance(count, int) or count % PARTS or kernel.shape[-1] >= SHARED_FROM:
            return conv(x, kernel)
        return jnp.concatenate([conv(part, kernel) for part in jnp.split(x, PARTS)])

    return parts


def in_parts_on_cpu(conv: Conv) -> Conv:
    """``in_parts`` where it is lowered for a CPU, the convolution itself elsewhere."""

    def by_platform(x: Array, kernel: Array) -> Array:
        return lax.platform_dependent(x, kernel, cpu=in_parts(conv), default=conv)

    return by_platform


def with_cpu_gradients(conv: Conv, definition: Conv, on_cpu: Gradients) -> Conv:
    """A convolution ``conv(x, kernel)`` with its own gradients on a CPU.

    Args:
        conv: makes the result.
        definition: the same, to differentiate on other devices.
        on_cpu: ``on_cpu(x, kernel, gradient) -> (of x, of kernel)``.

    Returns:
        ``conv``, which keeps x and kernel for the backward pass and nothing else.
    """

    def forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
        return conv(x, kernel), (x, kernel)

    def by_definition(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        return jax.vjp(definition, x, kernel)[1](gradient)

    def backward(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
        return lax.platform_dependent(*kept, gradient, cpu=on_cpu, default=by_definition)

    wrapped: Any = jax.custom_vjp(conv)
    wrapped.defvjp(forward, backward)
    return wrapped


def tap_products(padded: Array, x: Array, stride: int = 2) -> Array:
    """What each tap of a 3 x 3 kernel saw times what it made, summed over positions.

    That is the gradient to the kernel of a convolution (what it saw is its padded input, x the
    gradient of what it made) and, with the two exchanged, of a transposed one. The patches are laid
    out and multiplied a few maps at a time. XLA's own form, a convolution as large as the map,
    takes two to three times the processor time.

    Args:
        padded: (N, at least stride (H - 1) + 3, at least stride (W - 1) + 3, C).
        x: (N, H, W, F).
        stride: of the convolution.

    Returns:
        (3, 3, C, F), summed in float32 at least.
    """
    n, height, width, features = x.shape
    together = max(1, min(n, POSITIONS // (height * width)))
    while n % together:
        together -= 1
    channels = padded.shape[-1]
    dtype = jnp.promote_types(x.dtype, jnp.float32)

    def taps(maps: Array) -> Array:
        seen = [
            maps[
                :,
                i : i + stride * (height - 1) + 1 : stride,
                j : j + stride * (width - 1) + 1 : stride,
            ]
            for i in range(3)
            for j in range(3)
        ]
        return jnp.concatenate(seen, axis=-1).reshape(-1, 9 * channels)

    def add(total: Array, maps: tuple[Array, ...]) -> tuple[Array, None]:
        seen, made = taps(maps[0]), maps[1].reshape(-1, features)
        return total + jnp.dot(seen.T, made, preferred_element_type=dtype), None

    start = jnp.zeros((9 * channels, features), dtype)
    grouped = [a.reshape(-1, together, *a.shape[1:]) for a in (padded, x)]
    total, _ = lax.scan(add, start, tuple(grouped))
    return total.reshape(3, 3, channels, features)
