"""Layers that the four networks share: convolutions with norm, transposed convolutions, LSTM.

All of them are NHWC, keep parameters and statistics in float32, and compute in ``dtype``.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from atvg_jax.errors import InputError
from atvg_jax.models import winograd
from atvg_jax.models.convolutions import same_conv, strided_conv, transposed_conv

Array = jax.Array
LSTMCarry = tuple[tuple[Array, Array], ...]

# The published definitions use PyTorch's BatchNorm defaults: eps 1e-5, and a momentum of 0.1 that
# weighs the new value where Flax's weighs the old one.
BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9
DROPOUT_LEVELS = 256  # of the byte that decides
# Standard deviation of the published initialisation, N(0, 0.02) for weights and N(1, 0.02) for
# norm scales, at the published width.
INIT_STDDEV = 0.02


def scaled(channels: int, width: float) -> int:
    """Returns ``channels * width`` rounded, at least 1: the one rule by which networks shrink."""
    return max(1, round(channels * width))


def weight_init(width: float) -> Callable[..., Array]:
    """N(0, 0.02), widened so that a narrower layer keeps the variance of its output.

    The variance of a layer's output is fan-in times that of its weights, and fan-in shrinks with
    ``width``; without the correction the signal of a ``width=0.25`` network starts at an eighth
    after three layers.
    """
    return nn.initializers.normal(INIT_STDDEV / max(width, 1e-6) ** 0.5)


def norm_scale_init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Draws batch-norm scales from N(1, 0.02)."""
    return 1.0 + INIT_STDDEV * jax.random.normal(key, shape, dtype)


def uniform_init(bound: float) -> Callable[..., Array]:
    """U(-bound, bound): PyTorch's initialisation of recurrent layers, bound = 1/sqrt(hidden)."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def accumulating(dtype: Any) -> Any:
    """The type of states, sums and outputs for a computation in ``dtype``: float32 or wider."""
    return jnp.promote_types(dtype, jnp.float32)


def fold_time(x: Array) -> Array:
    """(B, T, ...) -> (B * T, ...)."""
    return x.reshape((-1, *x.shape[2:]))


def unfold_time(x: Array, batch: int) -> Array:
    """(B * T, ...) -> (B, T, ...)."""
    return x.reshape((batch, -1, *x.shape[1:]))


def batch_norm(dtype: Any, name: str | None = None) -> nn.BatchNorm:
    """Batch norm over (B * T, H, W); statistics are this device's own (see training.steps)."""
    return nn.BatchNorm(
        momentum=BATCH_NORM_MOMENTUM,
        epsilon=BATCH_NORM_EPSILON,
        scale_init=norm_scale_init,
        dtype=dtype,
        name=name,
    )


def _as_dilated(conv: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """``conv`` in the place of ``lax.conv_general_dilated``, whose settings it knows."""
    return lambda x, kernel, *_, **__: conv(x, kernel)


# By kernel, stride and whether the caller leaves the padding to the layer.
_TRAINED = {(3, 2, True): _as_dilated(strided_conv), (3, 1, True): _as_dilated(same_conv)}


class MapConv(nn.Module):
    """3 x 3 convolution without bias, stride 1, same padding: ``nn.Conv`` with faster gradients."""

    features: int
    width: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """(N, H, W, C) -> (N, H, W, features)."""
        kernel = self.param("kernel", weight_init(self.width), (3, 3, x.shape[-1], self.features))
        # Outside training the definition itself: what is to be fast there is rearranged at load.
        conv = winograd.conv if train else winograd.direct
        return conv(x.astype(self.dtype), kernel.astype(self.dtype))


class ConvBlock(nn.Module):
    """Convolution, optional batch norm, ReLU.

    Attributes:
        features: output channels.
        kernel: side of the square kernel; padding keeps the size at stride 1.
        stride: in both directions.
        bias: whether the convolution has one.
        norm: whether batch norm follows.
        pad: whether to pad with zeros; False where the caller has already padded.
        small_map: the convolution is a ``MapConv``: 3 x 3, stride 1, no bias; for many channels.
        width: of the network, for the initialisation alone.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    bias: bool = False
    norm: bool = True
    pad: bool = True
    small_map: bool = False
    width: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """(N, H, W, C) -> (N, H / stride, W / stride, features)."""
        if self.small_map:
            x = MapConv(self.features, self.width, self.dtype, name="conv")(x, train)
        else:
            shape = (self.kernel, self.stride, self.pad)
            x = nn.Conv(
                self.features,
                (self.kernel, self.kernel),
                strides=self.stride,
                padding=self.kernel // 2 if self.pad else 0,
                use_bias=self.bias,
                kernel_init=weight_init(self.width),
                dtype=self.dtype,
                conv_general_dilated=_TRAINED.get(shape) if train else None,
                name="conv",
            )(x)
        if self.norm:
            x = batch_norm(self.dtype, "norm")(x, use_running_average=not train)
        return nn.relu(x)


class TransposedConv(nn.Module):
    """``transposed_conv`` as a layer, its kernel (3, 3, C, features)."""

    features: int
    bias: bool = False
    width: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(N, H, W, C) -> (N, 2H, 2W, features)."""
        kernel = self.param("kernel", weight_init(self.width), (3, 3, x.shape[-1], self.features))
        y = transposed_conv(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.astype(self.dtype)
        return y


class UpBlock(nn.Module):
    """Transposed convolution, batch norm, ReLU."""

    features: int
    bias: bool = False
    width: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """(N, H, W, C) -> (N, 2H, 2W, features)."""
        x = TransposedConv(self.features, self.bias, self.width, self.dtype, name="conv")(x)
        x = batch_norm(self.dtype, "norm")(x, use_running_average=not train)
        return nn.relu(x)


class Dropout(nn.Module):
    """Dropout by eight random bits an element, where ``nn.Dropout`` draws thirty-two.

    On a CPU, drawing takes longer than a layer's own work. The share that is kept is a whole number
    of 256ths, one at least: 0.5 is exact and any rate up to 0.996 met within 0.002. What is kept is
    divided by that share.

    Attributes:
        rate: the share that is left out, from 0 to below 1 (``InputError``); draws from the
            ``dropout`` stream.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """Any shape; the same without ``train``."""
        if not 0 <= self.rate < 1:
            raise InputError(f"a dropout rate is from 0 to below 1, not {self.rate}")
        kept = max(1, round((1 - self.rate) * DROPOUT_LEVELS))
        if not train or kept == DROPOUT_LEVELS:
            return x
        words = jax.random.bits(self.make_rng("dropout"), (-(-x.size // 4),), jnp.uint32)
        drawn = lax.bitcast_convert_type(words, jnp.uint8).reshape(-1)[: x.size]
        scaled_up = x * jnp.asarray(DROPOUT_LEVELS / kept, x.dtype)
        return jnp.where(drawn.reshape(x.shape) < kept, scaled_up, jnp.zeros((), x.dtype))


class ResidualBlock(nn.Module):
    """x + (conv, norm, ReLU, dropout, conv, norm)(x), 3 x 3, channels kept.

    Attributes:
        dropout_rate: active in training alone; draws from the ``dropout`` stream.
    """

    dropout_rate: float
    width: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """(N, H, W, C) -> (N, H, W, C)."""

        def conv(name: str) -> MapConv:
            return MapConv(x.shape[-1], self.width, self.dtype, name=name)

        y = conv("conv_1")(x, train)
        y = nn.relu(batch_norm(self.dtype, "norm_1")(y, use_running_average=not train))
        y = Dropout(self.dropout_rate, name="dropout")(y, train)
        y = conv("conv_2")(y, train)
        return x + batch_norm(self.dtype, "norm_2")(y, use_running_average=not train)


class Linear(nn.Module):
    """Dense layer, optionally followed by ReLU."""

    features: int
    relu: bool = True
    width: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """(..., C) -> (..., features)."""
        x = nn.Dense(
            self.features, kernel_init=weight_init(self.width), dtype=self.dtype, name="dense"
        )(x)
        return nn.relu(x) if self.relu else x


class LSTMLayer(nn.Module):
    """One LSTM layer, gates in cuDNN's order (input, forget, cell, output), two biases.

    The input's share of the gates is one matrix product over all frames; the scan holds the hidden
    share alone. It runs over plain arrays, not over a submodule, so that it can be exported to
    runtimes that know no Flax.
    """

    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, carry: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        """Runs over time.

        Args:
            x: (B, T, C).
            carry: hidden and cell state before the first frame, each (B, hidden).

        Returns:
            Hidden states (B, T, hidden) and the carry after the last frame.
        """
        init = uniform_init(self.hidden**-0.5)
        gates = 4 * self.hidden
        input_kernel = self.param("input_kernel", init, (x.shape[-1], gates))
        hidden_kernel = self.param("hidden_kernel", init, (self.hidden, gates))
        input_bias = self.param("input_bias", init, (gates,))
        hidden_bias = self.param("hidden_bias", init, (gates,))
        projected = x.astype(self.dtype) @ input_kernel.astype(self.dtype)
        projected = projected.astype(accumulating(self.dtype)) + (
            input_bias + hidden_bias
        )  # (B, T, 4 hidden)
        recurrent = hidden_kernel.astype(self.dtype)

        def step(
            state: tuple[Array, Array], from_input: Array
        ) -> tuple[tuple[Array, Array], Array]:
            h, c = state
            i, f, g, o = jnp.split(from_input + h.astype(self.dtype) @ recurrent, 4, axis=-1)
            c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
            h = nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        carry, outputs = lax.scan(step, carry, projected.swapaxes(0, 1))
        return outputs.swapaxes(0, 1), carry


class StackedLSTM(nn.Module):
    """Several LSTM layers on top of each other.

    Attributes:
        hidden: size of every layer's state.
        layers: how many.
    """

    hidden: int
    layers: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, carry: LSTMCarry | None = None) -> tuple[Array, LSTMCarry]:
        """(B, T, C) -> ((B, T, hidden), carry); ``carry=None`` starts from zeros."""
        if carry is None:
            zeros = jnp.zeros((x.shape[0], self.hidden), accumulating(self.dtype))
            carry = ((zeros, zeros),) * self.layers
        after = []
        for index in range(self.layers):
            layer = LSTMLayer(self.hidden, self.dtype, name=f"layer_{index}")
            x, state = layer(x, carry[index])
            after.append(state)
        return x, tuple(after)
