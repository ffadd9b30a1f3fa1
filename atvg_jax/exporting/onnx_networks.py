"""The four pieces (see ``pieces``) as ONNX graphs of a model's weights."""

from typing import Any

import numpy as np

from atvg_jax.exporting.onnx_layers import Graph, folded, whole_model
from atvg_jax.exporting.pieces import COORDINATES, POINTS, Piece
from atvg_jax.features import lips
from atvg_jax.features.faces import CROP_SIZE
from atvg_jax.features.landmarks import LANDMARK_SCALE
from atvg_jax.inference.model_directory import Model, Variables
from atvg_jax.models import ensemble
from atvg_jax.models.at_net import WINDOW_COEFFICIENTS, WINDOW_ROWS
from atvg_jax.models.mmrnn import DILATION
from atvg_jax.models.vg_net import LANDMARK_MAP, RESIDUAL_BLOCKS

# What two max-pools leave of a 28 x 12 window.
_POOLED = (12, 2)
_SHALLOW = CROP_SIZE // 4
_IMAGE_PADDING = 3  # reflected, for a 7 x 7 convolution


def build(model: Model, name: str, piece: Piece, precision: str = "float32") -> Any:
    """An ``onnx.ModelProto`` of one piece.

    Args:
        model: whose weights to take.
        name: of the piece.
        piece: its inputs and outputs.
        precision: of the weights in the file; see ``Graph``.
    """
    graph = Graph(precision)
    networks = _Networks(graph, model)
    made = getattr(networks, name)(set(piece.inputs))
    inputs, outputs = (
        {tensor: value.shape for tensor, value in tensors.items()}
        for tensors in (piece.inputs, piece.outputs)
    )
    return whole_model(graph, f"atvg_jax_{name}", inputs, outputs, made)


class _Networks:
    """Both networks' nodes in one graph. Inputs go by their names, outputs are returned by them."""

    def __init__(self, graph: Graph, model: Model):
        self._graph = graph
        self._at = ensemble.members_of(model.variables["at_net"])
        self._vg = model.variables["vg_net"]
        self._at_name = model.networks["at_net"].name
        settings = model.networks["vg_net"].settings
        self._recurrent = settings.get("recurrence", "time") == "time"
        self._attended = settings.get("attention", True)
        self._basis = model.basis

    def portrait(self, inputs: set[str]) -> dict[str, str]:
        """What the other pieces need of a portrait."""
        graph = self._graph
        mean = graph.constant(self._basis.mean)
        values = graph.add("Sub", self._to_model("landmarks", 0, COORDINATES), mean)
        components = graph.add("MatMul", values, graph.constant(self._basis.components))
        example = graph.add("MatMul", components, graph.constant(self._basis.components.T))
        maps, feature = self._landmark_maps(graph.add("Add", example, mean))

        pads = [0, 0, _IMAGE_PADDING, _IMAGE_PADDING] * 2
        x = graph.add("Pad", graph.nchw("image"), graph.integers(*pads), mode="reflect")
        x = self._conv(x, "image_1", pads=[0] * 4)
        x = self._conv(x, "image_2", strides=[2, 2])
        shallow = self._conv(x, "image_3", strides=[2, 2])
        x = self._conv(shallow, "image_4", strides=[2, 2])
        deep = self._conv(x, "image_5", strides=[2, 2])
        made = {
            "shallow": shallow, "deep": deep, "landmark_map": maps, "landmark_feature": feature
        }  # fmt: skip
        return {"components": components, **{name: graph.nhwc(x) for name, x in made.items()}}

    def landmarks(self, inputs: set[str]) -> dict[str, str]:
        """Landmarks from sound."""
        return {"landmarks": self._speak(None)[0]}

    def frames(self, inputs: set[str]) -> dict[str, str]:
        """Frames from landmarks."""
        return self._show("landmarks", None)[0]

    def step(self, inputs: set[str]) -> dict[str, str]:
        """Both, with state."""
        states = {}
        landmarks, lstm_state = self._speak("lstm_state" if "lstm_state" in inputs else None)
        made, gru_state = self._show(landmarks, "gru_state" if self._recurrent else None)
        if "lstm_state" in inputs:
            states["next_lstm_state"] = lstm_state
        if self._recurrent:
            states["next_gru_state"] = gru_state
        return {"landmarks": landmarks, **made, **states}

    def _to_model(self, landmarks: str, *shape: int) -> str:
        """Normalised landmarks (..., 68, 2) -> model units of this shape."""
        values = self._graph.reshape(landmarks, *shape)
        return self._graph.add("Mul", values, self._graph.constant(LANDMARK_SCALE))

    def _conv(self, x: str, layer: str, **attributes: Any) -> str:
        return self._graph.relu(self._graph.conv(x, *folded(self._vg, layer), **attributes))

    def _up(self, x: str, layer: str) -> str:
        return self._graph.relu(self._graph.up(x, *folded(self._vg, layer)))

    # AT-net.

    def _speak(self, state: str | None) -> tuple[str, str]:
        """Windows to landmarks (b, t, 68, 2), and the LSTM's packed state."""
        graph, count = self._graph, len(self._at)
        sizes = graph.batch_and_time("mfcc")
        before: list[str | None] = [state] * count
        if state is not None and count > 1:
            before = graph.add("Split", state, outputs=count, axis=3)
        windows = graph.reshape("mfcc", -1, 1, WINDOW_ROWS, WINDOW_COEFFICIENTS)
        each = [
            self._components(member, windows, sizes, packed)
            for member, packed in zip(self._at, before, strict=True)
        ]
        components, packed = each[0]
        if count > 1:
            components = graph.add("Mean", *(said for said, _ in each))
            packed = graph.add("Concat", *(after for _, after in each), axis=3)
        # Boost, basis and scale are one affine map, computed here.
        directions = (self._basis.components * self._basis.boost).T / LANDMARK_SCALE
        values = graph.add("MatMul", components, graph.constant(directions))
        values = graph.add("Add", values, graph.constant(self._basis.mean / LANDMARK_SCALE))
        return graph.with_time(self._lips_apart(values), sizes, POINTS, 2), packed

    def _components(
        self, member: Variables, windows: str, sizes: str, state: str | None
    ) -> tuple[str, str]:
        """What one AT-net makes of windows (b t, 1, 28, 12): (b, t, 6), and its packed state."""
        graph, params = self._graph, member["params"]
        audio = self._heard(member, windows)
        if self._at_name == "at_single":
            return graph.dense(audio, params["output"]["dense"], relu=False), ""
        landmark = graph.dense("components", params["landmark_encoder_1"]["dense"])
        landmark = graph.dense(landmark, params["landmark_encoder_2"]["dense"])
        width = params["landmark_encoder_2"]["dense"]["bias"].size
        whole = graph.add("Concat", sizes, graph.integers(width), axis=0)
        landmark = graph.add("Expand", graph.reshape(landmark, 0, 1, width), whole)
        heard = params["audio_encoder"]["fc_2"]["dense"]["bias"].size
        audio = graph.with_time(audio, sizes, heard)
        x = graph.add("Concat", landmark, audio, axis=2)
        x, packed = self._lstm(params["lstm"], graph.add("Transpose", x, perm=[1, 0, 2]), state)
        x = graph.add("Transpose", x, perm=[1, 0, 2])
        return graph.dense(x, params["output"]["dense"], relu=False), packed

    def _lips_apart(self, values: str) -> str:
        """Landmarks (..., 136) with crossed lips closed, see ``features.lips``."""
        if not lips.closes(self._basis):
            return values
        graph = self._graph
        partner, side = lips.facing()
        faced = graph.add("Gather", values, graph.integers(*partner.tolist()), axis=-1)
        to_middle = graph.add("Mul", graph.add("Sub", faced, values), graph.constant(side / 2))
        shift = graph.add("Min", to_middle, graph.constant(0))
        return graph.add("Add", values, graph.add("Mul", shift, graph.constant(side)))

    def _heard(self, member: Variables, x: str) -> str:
        """Windows (N, 1, 28, 12) -> (N, 256 width)."""
        graph, params = self._graph, member["params"]["audio_encoder"]

        def conv(x: str, name: str) -> str:
            return graph.relu(graph.conv(x, *folded(member, f"audio_encoder/{name}")))

        x = conv(conv(x, "conv_1"), "conv_2")
        x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[1, 2])
        x = conv(conv(conv(x, "conv_3"), "conv_4"), "conv_5")
        x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
        # Channels come first here, so the rows of the layer that reads them all are moved.
        kernel, bias = params["fc_1"]["dense"]["kernel"], params["fc_1"]["dense"]["bias"]
        moved = kernel.reshape(*_POOLED, -1, bias.size).transpose(2, 0, 1, 3)
        flat = {"kernel": moved.reshape(-1, bias.size), "bias": bias}
        x = graph.dense(graph.reshape(x, -1, len(kernel)), flat)
        return graph.dense(x, params["fc_2"]["dense"])

    def _lstm(self, layers: Variables, x: str, packed: str | None) -> tuple[str, str]:
        """(t, b, C) through all layers; states are packed as (b, layers, 2, hidden)."""
        graph, after = self._graph, []
        for index in range(len(layers)):
            state = None
            if packed is not None:
                layer = graph.add("Gather", packed, graph.constant(index, np.int64), axis=1)
                h, c = (
                    graph.add("Gather", layer, graph.constant(part, np.int64), axis=1)
                    for part in (0, 1)
                )
                first = graph.integers(0)
                state = graph.add("Unsqueeze", h, first), graph.add("Unsqueeze", c, first)
            x, *states = graph.lstm(x, layers[f"layer_{index}"], state)
            # (1, b, H) twice -> (b, 1, 2, H)
            pair = graph.add("Concat", *states, axis=0)
            pair = graph.add("Transpose", pair, perm=[1, 0, 2])
            after.append(graph.add("Unsqueeze", pair, graph.integers(1)))
        return x, graph.add("Concat", *after, axis=1)

    # VG-net.

    def _landmark_maps(self, values: str) -> tuple[str, str]:
        """(N, 136) -> g (N, 256 width, 8, 8), h (N, 512 width, 8, 8)."""
        graph = self._graph
        x = graph.dense(values, self._vg["params"]["landmark_fc"]["dense"])
        maps = self._conv(graph.reshape(x, -1, 1, LANDMARK_MAP, LANDMARK_MAP), "landmark_conv")
        return maps, self._conv(maps, "landmark_feature")

    def _show(self, landmarks: str, state: str | None) -> tuple[dict[str, str], str]:
        """Landmarks (b, t, 68, 2) to frames, attention and motion, and the recurrence's state."""
        graph = self._graph
        sizes = graph.batch_and_time(landmarks)
        maps, features = self._landmark_maps(self._to_model(landmarks, -1, COORDINATES))
        attention = self._landmark_attention(maps, sizes)
        x, state = self._recurrence(features, sizes, state)
        for index in range(RESIDUAL_BLOCKS):
            first, second = (
                folded(self._vg, f"residual_{index}", f"conv_{part}", f"norm_{part}")
                for part in (1, 2)
            )
            y = graph.conv(graph.relu(graph.conv(x, *first)), *second)
            x = graph.add("Add", x, y)
        x = self._up(self._up(x, "decoder_up_1"), "decoder_up_2")
        # shallow (1 - a) + x a, as shallow + (x - shallow) a
        channels = self._channels("image_3")
        shape = (channels, _SHALLOW, _SHALLOW)
        shallow = graph.reshape(graph.nchw("shallow"), 0, 1, *shape)
        moved = graph.add("Sub", graph.with_time(x, sizes, *shape), shallow)
        blend = graph.with_time(attention, sizes, 1, _SHALLOW, _SHALLOW)
        x = graph.add("Add", shallow, graph.add("Mul", moved, blend))
        x = self._up(self._up(graph.reshape(x, -1, *shape), "base_up_1"), "base_up_2")
        return self._blended(x, sizes), state

    def _channels(self, layer: str) -> int:
        return int(self._vg["params"][layer]["conv"]["kernel"].shape[-1])

    def _shared(self, of_frames: str, of_portrait: str, sizes: str, *shape: int) -> str:
        """Adds what depends on the portrait alone, (b, C, H, W), to every frame's; then ReLU."""
        graph = self._graph
        frames = graph.with_time(of_frames, sizes, *shape)
        both = graph.add("Add", frames, graph.reshape(of_portrait, 0, 1, *shape))
        return graph.reshape(graph.relu(both), -1, *shape)

    def _landmark_attention(self, maps: str, sizes: str) -> str:
        """Landmark maps g -> (b t, 1, 32, 32), where landmarks move features."""
        graph = self._graph
        kernel, bias = folded(self._vg, "attention_up_1")
        half = kernel.shape[2] // 2
        x = self._shared(
            graph.up(maps, kernel[:, :, :half]),
            graph.up(graph.nchw("landmark_map"), kernel[:, :, half:], bias),
            sizes,
            kernel.shape[-1],
            2 * LANDMARK_MAP,
            2 * LANDMARK_MAP,
        )
        x = self._up(x, "attention_up_2")
        head = self._vg["params"]["attention_head"]
        return graph.add("Sigmoid", graph.conv(x, head["kernel"], head["bias"]))

    def _recurrence(self, features: str, sizes: str, state: str | None) -> tuple[str, str]:
        """Landmark features h (b t, C, 8, 8) -> the recurrence's states, and the last one."""
        graph, layer = self._graph, self._vg["params"]["mmrnn"]
        kernel, bias = folded(self._vg, "bottleneck")
        deep = self._channels("image_5")
        size = (LANDMARK_MAP, LANDMARK_MAP)
        channels = layer["hidden_kernel"].shape[2]
        # The convolution is linear: what it makes of the portrait's landmarks is of the portrait.
        feature = graph.conv(graph.nchw("landmark_feature"), kernel[:, :, deep:])
        constant = graph.conv(graph.nchw("deep"), kernel[:, :, :deep], bias)
        x = self._shared(
            graph.conv(features, kernel[:, :, deep:]),
            graph.add("Sub", constant, feature),
            sizes,
            kernel.shape[-1],
            *size,
        )
        gates = graph.conv(x, layer["input_kernel"], layer["input_bias"], dilations=[DILATION] * 2)
        if not self._recurrent:
            shares = np.split(layer["hidden_bias"].reshape(1, -1, 1, 1), 3, axis=1)
            return graph.gru_update(gates, [graph.constant(share) for share in shares], None), ""
        gates = graph.with_time(gates, sizes, 3 * channels, *size)
        if state is None:
            batch = graph.add("Slice", sizes, graph.integers(0), graph.integers(1))
            shape = graph.add("Concat", batch, graph.integers(channels, *size), axis=0)
            before = graph.add("ConstantOfShape", shape)
        else:
            before = graph.nchw(state)
        states, last = graph.conv_gru(gates, layer, before)
        return graph.reshape(states, -1, channels, *size), graph.nhwc(last)

    def _blended(self, x: str, sizes: str) -> dict[str, str]:
        """(b t, 32 width, 128, 128) -> frames, attention and motion."""
        graph, params = self._graph, self._vg["params"]
        heads = params["motion_head"], params["alpha_head"]
        kernel, bias = (
            np.concatenate([head[part] for head in heads], axis=-1) for part in ("kernel", "bias")
        )
        side = (CROP_SIZE, CROP_SIZE)
        maps = graph.with_time(graph.nhwc(graph.conv(x, kernel, bias)), sizes, *side, 4)
        motion, alpha = graph.add("Split", maps, graph.integers(3, 1), outputs=2, axis=4)
        motion = graph.add("Tanh", motion)
        if not self._attended:
            whole = graph.add("Concat", sizes, graph.integers(*side), axis=0)
            one = graph.add("Expand", graph.constant(1.0), whole)
            return {"frames": motion, "attention": one, "motion": motion}
        alpha = graph.add("Sigmoid", alpha)
        image = graph.reshape("image", 0, 1, *side, 3)
        change = graph.add("Mul", alpha, graph.add("Sub", motion, image))
        attention = graph.add("Squeeze", alpha, graph.integers(4))
        return {"frames": graph.add("Add", image, change), "attention": attention, "motion": motion}
