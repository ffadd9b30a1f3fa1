"""The multi-modal recurrence (MMRNN): a convolutional GRU over time."""

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
    padded = jnp.pad(x, ((0, 0), (DILATION, DILATION), (DILATION, DILATION), (0, 0)))
    starts = (0, DILATION, 2 * DILATION)
    shifted = [padded[:, i : i + h, j : j + w] for i in starts for j in starts]
    patches = jnp.concatenate(shifted, axis=-1).reshape(n * h * w, 9 * c)
    y = patches @ kernel.astype(x.dtype).reshape(9 * c, -1)
    return y.reshape(n, h, w, -1) + bias.astype(x.dtype)


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

        def step(hidden: Array, frame: Array) -> tuple[Array, Array]:
            from_hidden = dilated_conv(hidden.astype(self.dtype), hidden_kernel, hidden_bias)
            hidden = gru_update(frame, from_hidden, hidden).astype(accumulating(self.dtype))
            return hidden, hidden.astype(self.dtype)

        before = zeros if carry is None else carry
        after, states = lax.scan(step, before, unfold_time(from_input, batch).swapaxes(0, 1))
        return states.swapaxes(0, 1), after
