"""VG-net's frames on a CPU, with fewer multiplications than the network's definition.

The same functions as ``VGNet.encode_portrait`` and ``frames_from`` for one portrait, rearranged
once at load:

- batch norm is folded into the convolutions;
- what the portrait adds to a layer that sees it beside the landmarks is computed once;
- convolutions on 8 x 8 maps are Winograd's (see ``winograd``) where enough frames come together;
- the recurrent convolution skips the taps that fall outside the map. Dilated by two, it is an
  ordinary one on the four 4 x 4 maps of even and odd rows and columns, which is how its state lies.

Everything is float32. Against ``VGNet`` in float32 the frames differ by rounding alone.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from atvg_jax import compiler
from atvg_jax.models import VGNet, winograd
from atvg_jax.models.blocks import BATCH_NORM_EPSILON
from atvg_jax.models.convolutions import (
    NARROW,
    at_once,
    conv_side_by_side,
    side_by_side,
    transposed_conv,
    transposed_conv_at_once,
    transposed_conv_by_products,
)
from atvg_jax.models.mmrnn import DILATION, gru_update
from atvg_jax.models.vg_net import LANDMARK_MAP, RESIDUAL_BLOCKS

Array = jax.Array
Weights = dict[str, Any]

WINOGRAD_FRAMES = winograd.FEWEST_EXAMPLES
# What ``VGNet.encode_portrait`` reads, of all variables.
PORTRAIT_LAYERS = (
    *(f"image_{index}" for index in range(1, 6)),
    "landmark_fc",
    "landmark_conv",
    "landmark_feature",
)
# Frames whose large maps are made together: 4 MB a frame at the published width, which then stay in
# the second-level cache, in memory that the next ones use again.
GROUP = 4
# Groups made side by side. Few of the decoder's layers keep two cores busy by themselves; what one
# group leaves idle the other takes.
GROUPS = 2
# Transposed convolutions of at most so many output channels are made at once.
NARROW_UP = 8
MAP = LANDMARK_MAP
SUBMAP = MAP // DILATION


class FastPortrait(NamedTuple):
    """What depends on the portrait alone.

    Attributes:
        image: (128, 128, 3) in [-1, 1].
        shallow: (32, 32, 128 width), f1 of the paper's figure.
        attention: (16, 16, 256 width), the portrait's share of the landmark attention's first
            layer, bias included.
        bottleneck: (8, 8, 1, 128 width), its share of the layer before the recurrence.
        feature: (8, 8, 1, 512 width), h of the example landmark.
    """

    image: Array
    shallow: Array
    attention: Array
    bottleneck: Array
    feature: Array


class Made(NamedTuple):
    """T frames.

    Attributes:
        frames: (T, 128, 128, 3) in [-1, 1].
        attention: (T, 128, 128) in [0, 1].
        motion: (T, 128, 128, 3) in [-1, 1].
    """

    frames: Array
    attention: Array
    motion: Array


class FastFrames:
    """The network's functions, of weights that ``prepare`` makes; each can be compiled."""

    def __init__(self, model: VGNet):
        """Takes the network; it is computed in float32 whatever its ``dtype``."""
        self._model = model.clone(dtype=jnp.float32)

    @property
    def compiler_options(self) -> dict[str, str | bool] | None:
        """What its programs are compiled with, for ``jax.jit``."""
        return compiler.options()

    def prepare(self, variables: Mapping[str, Any]) -> Weights:
        """Rearranges VG-net's variables; see the function ``prepare``."""
        return prepare(variables)

    def portrait(self, weights: Weights, image: Array, example_landmark: Array) -> FastPortrait:
        """Computes what depends on the portrait alone.

        Args:
            weights: from ``prepare``.
            image: (128, 128, 3) in [-1, 1].
            example_landmark: (136,), of the portrait.
        """
        seen: Any = self._model.apply(
            weights["portrait"], image[None], example_landmark[None], method="encode_portrait"
        )
        kernel, bias = weights["attention_portrait"]
        attention = transposed_conv(seen.landmark_map, kernel)[0] + bias
        kernel, bias = weights["bottleneck_portrait"]
        bottleneck = jnp.moveaxis(winograd.direct(seen.deep, kernel) + bias, 0, 2)
        feature = jnp.moveaxis(seen.landmark_feature, 0, 2)
        return FastPortrait(image, seen.shallow[0], attention, bottleneck, feature)

    def start(self, weights: Weights) -> Array:
        """The recurrent state before the first frame: zeros (512 width, 4, 4, 2 x 2)."""
        channels = weights["hidden"][0][0].shape[0]
        return jnp.zeros((channels, SUBMAP, SUBMAP, DILATION**2), jnp.float32)

    def frames(
        self, weights: Weights, portrait: FastPortrait, landmarks: Array, carry: Array
    ) -> tuple[Made, Array]:
        """Makes one piece of a clip.

        Args:
            weights: from ``prepare``.
            portrait: from ``portrait``.
            landmarks: (T, 136), normalised times 5.
            carry: from ``start`` or from the call before.

        Returns:
            T frames, and the state after them.
        """
        maps = self.maps(weights, landmarks)
        x, carry = self.states(weights, portrait, maps, carry)
        x = self.refined(weights, x)

        def few(maps: Array, x: Array) -> Made:
            attention = self.attention(weights, portrait, maps)
            return self.decoded(weights, portrait, attention, x)

        return _in_groups(few, maps, x), carry

    # The stages of ``frames``, which take its ``weights`` and ``portrait``. Only one has a state.

    def maps(self, weights: Weights, landmarks: Array) -> Array:
        """Landmarks (T, 136) to g of the paper's figure, (T, 8, 8, 256 width)."""
        fc = weights["landmark_fc"]
        maps = nn.relu(landmarks @ fc["kernel"] + fc["bias"]).reshape(-1, MAP, MAP, 1)
        kernel, bias = weights["landmark_conv"]
        return nn.relu(winograd.direct(maps, kernel) + bias)

    def states(
        self,
        weights: Weights,
        portrait: FastPortrait,
        maps: Array,
        carry: Array,
        one_core: bool = False,
    ) -> tuple[Array, Array]:
        """Landmark maps through the recurrence.

        Args:
            weights: from ``prepare``.
            portrait: from ``portrait``.
            maps: (T, 8, 8, 256 width).
            carry: the state before.
            one_core: whether it will run on one, for which the products are laid out then.

        Returns:
            The recurrence's states (8, 8, T, 512 width), and the last one to carry on.
        """
        x = nn.relu(_on_map(jnp.moveaxis(maps, 0, 2), weights["landmark_feature"]))
        x = _on_map(x - portrait.feature, {**weights["bottleneck"], "bias": portrait.bottleneck})
        return _recurrence(weights, nn.relu(x), carry, self._model.recurrence, one_core)

    def refined(self, weights: Weights, x: Array) -> Array:
        """The residual blocks: (8, 8, T, 512 width) -> (T, 8, 8, 512 width)."""
        for index in range(RESIDUAL_BLOCKS):
            y = nn.relu(_on_map(x, weights[f"residual_{index}_1"]))
            x = x + _on_map(y, weights[f"residual_{index}_2"])
        return jnp.moveaxis(x, 2, 0)

    def attention(self, weights: Weights, portrait: FastPortrait, maps: Array) -> Array:
        """Where landmarks move features: maps (T, 8, 8, 256 width) to (T, 32, 32, 1) in [0, 1]."""
        y = _transposed(maps, weights["attention_up_1"], portrait.attention.shape[-1])
        y = _up(nn.relu(y + portrait.attention), weights["attention_up_2"])
        head = weights["attention_head"]
        return nn.sigmoid(winograd.direct(y, head["kernel"]) + head["bias"])

    def decoded(self, weights: Weights, portrait: FastPortrait, attention: Array, x: Array) -> Made:
        """What ``attention`` and ``refined`` give, of T frames, to the frames."""
        x = _up(_up(x, weights["decoder_up_1"]), weights["decoder_up_2"])
        x = portrait.shallow * (1 - attention) + x * attention
        x = _up(_up(x, weights["base_up_1"]), weights["base_up_2"])
        x = _heads(x, weights["heads"])
        motion, alpha = jnp.tanh(x[..., :3]), nn.sigmoid(x[..., 3:])
        if not self._model.attention:
            alpha = jnp.ones_like(alpha)
        return Made(alpha * motion + (1 - alpha) * portrait.image, alpha[..., 0], motion)


def prepare(variables: Mapping[str, Any]) -> Weights:
    """Rearranges VG-net's variables.

    Args:
        variables: of a ``VGNet``, ``params`` and ``batch_stats``, of any float type.

    Returns:
        Arrays by layer, float32; for the published size 1.1 GB, most of it Winograd's kernels.
    """
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), dict(variables["params"]))
    stats = jax.tree.map(lambda x: np.asarray(x, np.float32), dict(variables["batch_stats"]))

    def folded(layer: str, conv: str = "conv", norm: str = "norm") -> tuple[np.ndarray, np.ndarray]:
        """A convolution's kernel and bias with its norm's scale, mean and shift in them."""
        scale, shift = params[layer][norm]["scale"], params[layer][norm]["bias"]
        mean, variance = stats[layer][norm]["mean"], stats[layer][norm]["var"]
        scale = scale / np.sqrt(variance + BATCH_NORM_EPSILON)
        bias = params[layer][conv].get("bias", np.float32(0))
        return params[layer][conv]["kernel"] * scale, shift + (bias - mean) * scale

    def on_map(kernel: np.ndarray, bias: np.ndarray) -> Weights:
        return {"kernel": kernel, "winograd": winograd.kernels(kernel), "bias": bias}

    def turned(tap: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(tap.T)

    seen = {"params": params, "batch_stats": stats}
    weights: Weights = {
        "portrait": {
            collection: {name: tree[name] for name in PORTRAIT_LAYERS if name in tree}
            for collection, tree in seen.items()
        },
        "landmark_fc": params["landmark_fc"]["dense"],
    }
    weights["landmark_conv"] = folded("landmark_conv")
    weights["landmark_feature"] = on_map(*folded("landmark_feature"))
    # Layers that read the landmarks' maps beside the portrait's: one kernel for each.
    kernel, bias = folded("attention_up_1")
    half = kernel.shape[2] // 2
    weights["attention_up_1"] = kernel[:, :, :half]
    weights["attention_portrait"] = kernel[:, :, half:], bias
    weights["attention_up_2"] = folded("attention_up_2")
    weights["attention_head"] = params["attention_head"]
    kernel, bias = folded("bottleneck")
    half = kernel.shape[2] // 2
    weights["bottleneck_portrait"] = kernel[:, :, :half], bias
    weights["bottleneck"] = on_map(kernel[:, :, half:], bias)
    recurrent = params["mmrnn"]
    weights["gates"] = on_map(recurrent["input_kernel"], recurrent["input_bias"])
    # A tap an array: sliced inside the recurrence, the kernel would be copied for every frame.
    weights["hidden"] = [list(row) for row in recurrent["hidden_kernel"]]
    weights["hidden_turned"] = [[turned(tap) for tap in row] for row in weights["hidden"]]
    weights["hidden_bias"] = recurrent["hidden_bias"]
    for index in range(RESIDUAL_BLOCKS):
        for part in (1, 2):
            pair = folded(f"residual_{index}", f"conv_{part}", f"norm_{part}")
            weights[f"residual_{index}_{part}"] = on_map(*pair)
    for layer in ("decoder_up_1", "decoder_up_2", "base_up_1"):
        weights[layer] = folded(layer)
    kernel, bias = folded("base_up_2")
    if bias.size <= NARROW_UP:
        kernel = np.asarray(at_once(jnp.asarray(kernel)))
    weights["base_up_2"] = kernel, bias
    heads = params["motion_head"], params["alpha_head"]
    kernel, bias = (
        np.concatenate([head[part] for head in heads], axis=-1) for part in ("kernel", "bias")
    )
    if kernel.shape[2] <= NARROW:
        kernel = np.asarray(side_by_side(jnp.asarray(kernel)))
    weights["heads"] = kernel, bias
    return weights


def _in_groups(function: Callable[..., Any], *arrays: Array) -> Any:
    """Maps over axis 0, a few groups at a time where they divide, to stay within the caches."""
    count = len(arrays[0])
    if count % GROUP:
        return function(*arrays)
    groups = GROUPS if count % (GROUPS * GROUP) == 0 else 1
    grouped = [x.reshape(-1, groups, GROUP, *x.shape[1:]) for x in arrays]

    def several_at_once(several: tuple[Array, ...]) -> Any:
        made = [function(*(x[group] for x in several)) for group in range(groups)]
        return jax.tree.map(lambda *parts: jnp.stack(parts), *made)

    made = lax.map(several_at_once, tuple(grouped))
    return jax.tree.map(lambda x: x.reshape(count, *x.shape[3:]), made)


def _heads(x: Array, layer: tuple[Array, Array]) -> Array:
    """(T, 128, 128, 32 width) -> (T, 128, 128, 4), motion and alpha before activation."""
    kernel, bias = layer
    narrow = kernel.shape[-1] > bias.size
    return (conv_side_by_side(x, kernel) if narrow else winograd.direct(x, kernel)) + bias


def _up(x: Array, layer: tuple[Any, Array]) -> Array:
    kernel, bias = layer
    return nn.relu(_transposed(x, kernel, bias.size) + bias)


def _transposed(x: Array, kernel: Any, features: int) -> Array:
    """A transposed convolution in the form that ``prepare`` has given its kernel."""
    if isinstance(kernel, tuple):
        return transposed_conv_by_products(x, kernel)
    return (transposed_conv_at_once if kernel.shape[-1] > features else transposed_conv)(x, kernel)


def _on_map(x: Array, layer: Weights, frames: int | None = None) -> Array:
    """3 x 3 convolution with bias on small maps (H, W, N, C); ``frames``, where N counts more."""
    if (frames or x.shape[2]) >= WINOGRAD_FRAMES:
        return winograd.convolve(x, layer["winograd"]) + layer["bias"]
    return (
        jnp.moveaxis(winograd.direct(jnp.moveaxis(x, 2, 0), layer["kernel"]), 0, 2) + layer["bias"]
    )


def _recurrence(
    weights: Weights, x: Array, carry: Array, recurrence: str, one_core: bool
) -> tuple[Array, Array]:
    """The MMRNN: (8, 8, T, 128) and a state to states (8, 8, T, 512) and the last one."""
    count = x.shape[2]
    # Where the state's channels lie; see ``_inner_taps``.
    axis = 3 if one_core else 0
    taps = weights["hidden" if one_core else "hidden_turned"]
    hidden_bias = jnp.expand_dims(weights["hidden_bias"], [i for i in range(4) if i != axis])
    # Rows and columns apart by parity: (4, 4, T, 2 x 2, C).
    x = x.reshape(SUBMAP, DILATION, SUBMAP, DILATION, count, -1)
    x = x.transpose(0, 2, 4, 1, 3, 5).reshape(SUBMAP, SUBMAP, count * DILATION**2, -1)
    gates = _on_map(x, weights["gates"], count)
    gates = gates.reshape(SUBMAP, SUBMAP, count, DILATION**2, -1)
    gates = jnp.moveaxis(jnp.moveaxis(gates, 2, 0), -1, axis + 1)  # (T, 4, 4, 2 x 2) and channels
    if recurrence == "none":
        states = gru_update(gates, hidden_bias, jnp.zeros((), x.dtype), axis - 4)
    else:

        def step(hidden: Array, frame: Array) -> tuple[Array, Array]:
            from_hidden = _inner_taps(hidden, taps, axis) + hidden_bias
            hidden = gru_update(frame, from_hidden, hidden, axis)
            return hidden, hidden

        carry, states = lax.scan(step, jnp.moveaxis(carry, 0, axis), gates)
        carry = jnp.moveaxis(carry, axis, 0)
    states = jnp.moveaxis(states, axis + 1, -1)
    states = states.reshape(count, SUBMAP, SUBMAP, DILATION, DILATION, -1)
    return states.transpose(1, 3, 2, 4, 0, 5).reshape(MAP, MAP, count, -1), carry


# Summed in float32, whatever the type of the factors.
_product = functools.partial(jnp.dot, preferred_element_type=jnp.float32)


def _inner_taps(x: Array, taps: list[list[Array]], axis: int) -> Array:
    """3 x 3 convolution of a state, a product for each tap over the positions it falls on.

    Two threads share a product by its larger side: as right factors XLA copies the taps, 28 MB at
    the published width, for each frame and each thread, half as long again on two cores. On one
    core, where nothing is shared, the right is the faster side, by a fifth.

    Args:
        x: (4, 4, 2 x 2) with the channels at ``axis``.
        taps: 3 x 3 right factors (C, F) where the channels are last, left ones (F, C) where first.
        axis: 3 or 0.

    Returns:
        The same with F channels.
    """

    def inside(offset: int) -> tuple[slice, slice]:
        """Positions that read within the map, and what they read."""
        first, last = max(0, -offset), SUBMAP - max(0, offset)
        return slice(first, last), slice(first + offset, last + offset)

    before = (slice(None),) if axis == 0 else ()
    channels = x.shape[axis]
    features = taps[0][0].size // channels
    y = jnp.zeros((*x.shape[:axis], features, *x.shape[axis + 1 :]), x.dtype)
    for i, j in itertools.product(range(3), repeat=2):
        (rows, from_rows), (columns, from_columns) = inside(i - 1), inside(j - 1)
        tap = taps[i][j]
        read = x[*before, from_rows, from_columns].astype(tap.dtype)
        if axis == 0:
            product = _product(tap, read.reshape(channels, -1)).reshape(-1, *read.shape[1:])
        else:
            product = _product(read.reshape(-1, channels), tap).reshape(*read.shape[:-1], -1)
        y = y.at[*before, rows, columns].add(product)
    return y
