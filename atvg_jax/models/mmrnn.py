"""The multi-modal recurrence (MMRNN): a convolutional GRU over time."""

import itertools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from atvg_jax.models.blocks import accumulating, fold_time, unfold_time, uniform_init

Array = jax.Array

DILATION = 2
RECURRENCES = ("time", "none")


def dilated_conv(x: Array, kernel: Array, bias: Array) -> Array:
    """3 x 3 convolution with dilation 2 and same padding: (N, H, W, C) -> (N, H, W, F).

    Written as one matrix product over the nine shifted maps. The maps are small, and inside a scan
    XLA finds no fast path on the CPU for the gradients of a convolution, dilated or not; those of a
    product are products.
    """
    n, h, w, c = x.shape
    y = shifted(x).reshape(n * h * w, 9 * c) @ kernel.astype(x.dtype).reshape(9 * c, -1)
    return y.reshape(n, h, w, -1) + bias.astype(x.dtype)


def shifted(x: Array) -> Array:
    """What the nine taps of ``dilated_conv`` see: (N, H, W, C) -> (N, H, W, 9 C)."""
    _, h, w, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (DILATION, DILATION), (DILATION, DILATION), (0, 0)))
    starts = (0, DILATION, 2 * DILATION)
    return jnp.concatenate([padded[:, i : i + h, j : j + w] for i in starts for j in starts], -1)


def tapped_conv(x: Array, taps: list[list[Array]]) -> Array:
    """``dilated_conv`` without bias, tap by tap: (N, H, W, C), 3 x 3 of (C, F) -> (N, H, W, F).

    On an 8 x 8 map 44 of 144 products of ``dilated_conv`` are with zeros from beyond the edge; this
    leaves them out. Where products are cheap and calls are not, as on a GPU, it is the slower way.
    """
    return _by_taps(x, taps, _tap_places(x.shape))


def tapped_conv_gradient(gradient: Array, turned: list[list[Array]]) -> Array:
    """The gradient to x of ``tapped_conv``: (N, H, W, F), 3 x 3 of (F, C) -> (N, H, W, C)."""
    places = _tap_places(gradient.shape)
    return _by_taps(gradient, turned, [(tap, read, made) for tap, made, read in places])


def _by_taps(x: Array, taps: list[list[Array]], places: list[tuple[Any, Any, Any]]) -> Array:
    """Sums over taps (i, j) what (N, H, W, C) at the last places makes at the ones before."""
    features = taps[0][0].shape[-1]
    y = jnp.zeros((*x.shape[:3], features), x.dtype)
    for (i, j), made, read in places:
        seen = x[:, *read]
        product = seen.reshape(-1, x.shape[-1]) @ taps[i][j]
        y = y.at[:, *made].add(product.reshape(*seen.shape[:3], features))
    return y


def _tap_places(shape: tuple[int, ...]) -> list[tuple[tuple[int, int], Any, Any]]:
    """Each tap of a dilated convolution of maps (N, H, W, C), what it makes and what it reads."""

    def along(size: int) -> list[tuple[slice, slice]]:
        # A tap that is ``offset`` away reads within the map for so many places alone.
        offsets = (-DILATION, 0, DILATION)
        places = [(max(0, -offset), size - max(0, offset), offset) for offset in offsets]
        return [(slice(a, b), slice(a + offset, b + offset)) for a, b, offset in places]

    rows, columns = along(shape[1]), along(shape[2])
    return [
        ((i, j), (rows[i][0], columns[j][0]), (rows[i][1], columns[j][1]))
        for i, j in itertools.product(range(3), repeat=2)
    ]


def _kept_apart(kernel: Array, turn: bool) -> list[list[Array]]:
    """A kernel's taps as arrays of their own: sliced inside a scan, each would be copied anew."""
    taps = [[tap.T if turn else tap for tap in row] for row in kernel]
    return lax.optimization_barrier(taps)


def dilated_conv_gradient(gradient: Array, turned: Array) -> Array:
    """The gradient to x of ``dilated_conv``: (N, H, W, F), the kernel (F, 9 C) -> (N, H, W, C)."""
    n, h, w, features = gradient.shape
    to_shifted = (gradient.reshape(n * h * w, features) @ turned).reshape(n, h, w, -1)
    x = jax.ShapeDtypeStruct((n, h, w, to_shifted.shape[-1] // 9), to_shifted.dtype)
    return jax.linear_transpose(shifted, x)(to_shifted)[0]


def gru_update(from_input: Array, from_hidden: Array, hidden: Array, axis: int = -1) -> Array:
    """One GRU update in cuDNN's form, gates r, u, n along one axis.

    Args:
        from_input: (N, H, W, 3 F), the input convolution.
        from_hidden: (N, H, W, 3 F), the hidden convolution.
        hidden: (N, H, W, F), the state before.
        axis: of the channels, where they are not the last.

    Returns:
        (N, H, W, F), the state after: ``n + u (h - n)`` with ``n = tanh(i_n + r h_n)``.
    """
    i_r, i_u, i_n = jnp.split(from_input, 3, axis)
    h_r, h_u, h_n = jnp.split(from_hidden, 3, axis)
    r = nn.sigmoid(i_r + h_r)
    u = nn.sigmoid(i_u + h_u)
    n = jnp.tanh(i_n + r * h_n)
    return n + u * (hidden - n)


def _scan(
    conv: Callable[[Array], Array], frames: Array, bias: Array, before: Array
) -> tuple[Array, Array, Array]:
    """States, the last one, and the hidden convolution ``conv`` of each frame."""

    def step(hidden: Array, frame: Array) -> tuple[Array, tuple[Array, Array]]:
        from_hidden = conv(hidden.astype(frame.dtype)) + bias.astype(frame.dtype)
        after = gru_update(frame, from_hidden, hidden).astype(accumulating(frame.dtype))
        return after, (after.astype(frame.dtype), from_hidden)

    after, (states, from_hidden) = lax.scan(step, before, frames)
    return states, after, from_hidden


def _states(frames: Array, kernel: Array, bias: Array, before: Array) -> tuple[Array, ...]:
    """``_scan`` with the hidden convolution that suits the device."""

    def tap_by_tap(frames: Array, kernel: Array, bias: Array, before: Array) -> tuple[Array, ...]:
        taps = _kept_apart(kernel.astype(frames.dtype), turn=False)
        return _scan(lambda hidden: tapped_conv(hidden, taps), frames, bias, before)

    def at_once(frames: Array, kernel: Array, bias: Array, before: Array) -> tuple[Array, ...]:
        zero = jnp.zeros((), frames.dtype)
        return _scan(lambda hidden: dilated_conv(hidden, kernel, zero), frames, bias, before)

    inputs = frames, kernel, bias, before
    return lax.platform_dependent(*inputs, cpu=tap_by_tap, default=at_once)


@jax.custom_vjp
def _over_time(frames: Array, kernel: Array, bias: Array, before: Array) -> tuple[Array, Array]:
    """The recurrence: frames (T, B, H, W, 3 F) to states (T, B, H, W, F) and the last one.

    Going back, the gradient to the kernel is one product over all frames, made after the scan.
    Inside it, as differentiation would have it, each frame adds to a kernel's worth of numbers, 28
    MB at the published width.
    """
    states, after, _ = _states(frames, kernel, bias, before)
    return states, after


def _over_time_forward(
    frames: Array, kernel: Array, bias: Array, before: Array
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    states, after, from_hidden = _states(frames, kernel, bias, before)
    return (states, after), (frames, kernel, bias, before, states, from_hidden)


def _over_time_backward(
    kept: tuple[Array, ...], gradients: tuple[Array, Array]
) -> tuple[Array, Array, Array, Array]:
    frames, kernel, bias, before, states, from_hidden = kept
    to_states, to_after = gradients
    hidden = jnp.concatenate([before[None].astype(states.dtype), states[:-1]])

    def scan(back_of: Callable[[Array], Array], *inputs: Array) -> tuple[Array, Array, Array]:
        def step(to_next: Array, at: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
            frame, from_hidden, hidden, to_state = at
            to_next = to_next + to_state.astype(to_next.dtype)
            _, pull = jax.vjp(gru_update, frame, from_hidden, hidden)
            to_frame, to_conv, to_hidden = pull(to_next.astype(frame.dtype))
            back = back_of(to_conv)
            return to_hidden.astype(to_next.dtype) + back.astype(to_next.dtype), (to_frame, to_conv)

        to_after, *at = inputs
        to_before, (to_frames, to_conv) = lax.scan(step, to_after, tuple(at), reverse=True)
        return to_before, to_frames, to_conv

    def tap_by_tap(kernel: Array, *inputs: Array) -> tuple[Array, Array, Array]:
        turned = _kept_apart(kernel.astype(frames.dtype), turn=True)
        return scan(lambda to_conv: tapped_conv_gradient(to_conv, turned), *inputs)

    def at_once(kernel: Array, *inputs: Array) -> tuple[Array, Array, Array]:
        # The product's right factor as it lies in memory, turned once, not in each frame.
        turned = kernel.astype(frames.dtype).reshape(-1, kernel.shape[-1]).T
        turned = lax.optimization_barrier(turned)
        return scan(lambda to_conv: dilated_conv_gradient(to_conv, turned), *inputs)

    inputs = kernel, to_after, frames, from_hidden, hidden, to_states
    made = lax.platform_dependent(*inputs, cpu=tap_by_tap, default=at_once)
    to_before, to_frames, to_conv = made
    patches = shifted(fold_time(hidden))
    to_conv = fold_time(to_conv).reshape(-1, kernel.shape[-1])
    to_kernel = jnp.dot(
        patches.reshape(-1, patches.shape[-1]).T, to_conv, preferred_element_type=kernel.dtype
    )
    to_bias = to_conv.sum(0, dtype=bias.dtype)
    return to_frames, to_kernel.reshape(kernel.shape), to_bias, to_before


_over_time.defvjp(_over_time_forward, _over_time_backward)


class MMRNN(nn.Module):
    """Convolutional GRU.

    Attributes:
        features: channels of the state.
        recurrence: ``time`` scans over axis 1; ``none`` starts every frame from a zero state, as
            the released code does with one portrait.
    """

    features: int
    recurrence: str = "time"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, carry: Array | None = None) -> tuple[Array, Array]:
        """Runs over time.

        Args:
            x: (B, T, H, W, C).
            carry: (B, H, W, features), the state before the first frame; None for zeros.

        Returns:
            States (B, T, H, W, features) and the state after the last frame (float32).
        """
        if self.recurrence not in RECURRENCES:
            raise ValueError(f"recurrence is one of {RECURRENCES}, not {self.recurrence!r}")
        batch, _, h, w, c = x.shape
        init = uniform_init(self.features**-0.5)
        gates = 3 * self.features
        input_kernel = self.param("input_kernel", init, (3, 3, c, gates))
        hidden_kernel = self.param("hidden_kernel", init, (3, 3, self.features, gates))
        input_bias = self.param("input_bias", init, (gates,))
        hidden_bias = self.param("hidden_bias", init, (gates,))

        # The input's share of the gates does not depend on time: one convolution for all frames.
        from_input = dilated_conv(fold_time(x.astype(self.dtype)), input_kernel, input_bias)
        zeros = jnp.zeros((batch, h, w, self.features), accumulating(self.dtype))
        if self.recurrence == "none":
            # The hidden convolution of a zero state is its bias.
            states = gru_update(from_input, hidden_bias.astype(self.dtype), jnp.zeros((), x.dtype))
            return unfold_time(states, batch), zeros

        before = zeros if carry is None else carry
        frames = unfold_time(from_input, batch).swapaxes(0, 1)
        states, after = _over_time(frames, hidden_kernel, hidden_bias, before)
        return states.swapaxes(0, 1), after
