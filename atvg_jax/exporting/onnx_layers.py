"""ONNX graphs, layer by layer: maps are (N, C, H, W) inside, as onnxruntime computes them fastest.

A graph is written node by node because the family of networks is small and fixed: each layer is one
of ONNX's own operators (LSTM, ConvTranspose, Scan), which a trace of the JAX code would take apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from atvg_jax import __version__
from atvg_jax.errors import InputError
from atvg_jax.models.blocks import BATCH_NORM_EPSILON
from atvg_jax.models.mmrnn import DILATION

# The oldest with all that is used here, so that old runtimes read it: onnxruntime 1.12 (2022).
OPSET, IR_VERSION = 17, 8
# Arrays smaller than this stay float32 whatever the precision: biases, norms, the basis.
LEAST_REDUCED = 4096
INT8_RANGE = 127
Array = np.ndarray
Tree = Mapping[str, Any]


def onnx_package() -> Any:
    """The ``onnx`` package, imported where it is used."""
    try:
        import onnx
    except ImportError as error:
        raise InputError(
            "writing ONNX takes the package onnx, and proving it onnxruntime: "
            'pip install "atvg_jax[onnx]"'
        ) from error
    return onnx


class Graph:
    """Nodes and weights in the making; tensors are called by their names.

    Attributes:
        nodes: in order.
        weights: initializers.
    """

    def __init__(self, precision: str = "float32", parent: "Graph | None" = None):
        """Begins a graph.

        Args:
            precision: of large weights in the file: float32, float16, bfloat16, or int8 with one
                scale for each output channel. The runtime computes in float32.
            parent: the graph that this one is the body of a loop in; its tensors can be read here,
                and the weights are kept there.
        """
        self._onnx = onnx_package()
        self._root: Graph = parent._root if parent else self
        self._count = 0
        self.precision = precision
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def fresh(self, kind: str) -> str:
        """A name that nothing else has."""
        self._root._count += 1
        return f"{kind}_{self._root._count}"

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns its output's name, or a list of several."""
        names = [self.fresh(kind) for _ in range(outputs)]
        self.nodes.append(self._onnx.helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def named(self, source: str, name: str) -> None:
        """Gives a tensor the name of a graph's output."""
        self.nodes.append(self._onnx.helper.make_node("Identity", [source], [name]))

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A small constant, as it is."""
        return self._stored(np.asarray(value, dtype))

    def integers(self, *values: int) -> str:
        """A shape or axes."""
        return self.constant(values, np.int64)

    def weight(self, value: Array, channel_axis: int) -> str:
        """A weight, stored in the graph's precision.

        Args:
            value: float32.
            channel_axis: of the output channels, which have a scale each in int8.
        """
        value = np.asarray(value, np.float32)
        if self.precision == "float32" or value.size < LEAST_REDUCED:
            return self._stored(value)
        # What is done to a constant on the way back to float32 is done once, when a session starts.
        if self.precision == "int8":
            others = tuple(axis for axis in range(value.ndim) if axis != channel_axis)
            largest = np.abs(value).max(axis=others, keepdims=True)
            scale = np.maximum(largest, 1e-30) / INT8_RANGE
            stored = self._stored(np.round(value / scale).astype(np.int8))
            return self.add("Mul", self._as_float(stored), self._stored(scale))
        dtype = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[self.precision]
        return self._as_float(self._stored(value.astype(dtype)))

    def _as_float(self, source: str) -> str:
        return self.add("Cast", source, to=self._onnx.TensorProto.FLOAT)

    def _stored(self, value: Array) -> str:
        name = self.fresh("weight")
        array = np.ascontiguousarray(value).reshape(value.shape)
        self._root.weights.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    # Layers. ``params`` and ``stats`` are a network's, as Flax keeps them: kernels (H, W, in, out).

    def conv(self, x: str, kernel: Array, bias: Array | None = None, **attributes: Any) -> str:
        """Convolution with a kernel (H, W, in, out), the size kept unless attributes say more."""
        size, dilation = kernel.shape[0], attributes.get("dilations", (1, 1))[0]
        settings = {"pads": [dilation * (size // 2)] * 4, **attributes}
        inputs = [x, self.weight(kernel.transpose(3, 2, 0, 1), 0)]
        if bias is not None:
            inputs.append(self.constant(bias))
        return self.add("Conv", *inputs, **settings)

    def up(self, x: str, kernel: Array, bias: Array | None = None) -> str:
        """Transposed convolution that doubles the map; kernel (3, 3, in, out), not flipped."""
        inputs = [x, self.weight(kernel.transpose(2, 3, 0, 1), 1)]
        if bias is not None:
            inputs.append(self.constant(bias))
        return self.add(
            "ConvTranspose", *inputs, strides=[2, 2], pads=[1] * 4, output_padding=[1, 1]
        )

    def dense(self, x: str, layer: Tree, relu: bool = True) -> str:
        """(..., in) -> (..., out)."""
        y = self.add("MatMul", x, self.weight(layer["kernel"], 1))
        y = self.add("Add", y, self.constant(layer["bias"]))
        return self.add("Relu", y) if relu else y

    def relu(self, x: str) -> str:
        """max(x, 0)."""
        return self.add("Relu", x)

    def reshape(self, x: str, *shape: int) -> str:
        """To a shape with at most one -1; 0 keeps a size."""
        return self.add("Reshape", x, self.integers(*shape))

    def with_time(self, x: str, sizes: str, *shape: int) -> str:
        """(b t, ...) -> (b, t, ...): ``sizes`` are b and t, ``shape`` is the rest."""
        return self.add("Reshape", x, self.add("Concat", sizes, self.integers(*shape), axis=0))

    def batch_and_time(self, x: str) -> str:
        """The first two sizes of a tensor."""
        return self.add("Shape", x, start=0, end=2)

    def nchw(self, x: str) -> str:
        """(N, H, W, C) -> (N, C, H, W)."""
        return self.add("Transpose", x, perm=[0, 3, 1, 2])

    def nhwc(self, x: str) -> str:
        """(N, C, H, W) -> (N, H, W, C)."""
        return self.add("Transpose", x, perm=[0, 2, 3, 1])

    def lstm(self, x: str, layer: Tree, state: tuple[str, str] | None) -> tuple[str, str, str]:
        """One layer over time.

        Args:
            x: (t, b, in).
            layer: ``LSTMLayer``'s arrays, gates in the order input, forget, cell, output.
            state: hidden and cell state before, (1, b, hidden) each; None for zeros.

        Returns:
            (t, b, hidden), and the states after.
        """
        hidden = layer["hidden_kernel"].shape[0]

        def gates(values: Array) -> Array:
            """To ONNX's order: input, output, forget, cell; (in, 4 H) -> (1, 4 H, in)."""
            i, f, g, o = np.split(np.asarray(values, np.float32), 4, axis=-1)
            return np.concatenate([i, o, f, g], axis=-1).T[None]

        biases = [gates(layer[name]) for name in ("input_bias", "hidden_bias")]
        inputs = [
            x,
            self.weight(gates(layer["input_kernel"]), 1),
            self.weight(gates(layer["hidden_kernel"]), 1),
            self.constant(np.concatenate(biases, axis=1)),
        ]
        if state is not None:
            inputs += ["", *state]
        y, h, c = self.add("LSTM", *inputs, outputs=3, hidden_size=hidden)
        return self.add("Squeeze", y, self.integers(1)), h, c

    def gru_update(self, from_input: str, from_hidden: Sequence[str], hidden: str | None) -> str:
        """One update of the convolutional GRU, gates r, u, n along axis 1; see ``models.mmrnn``.

        Args:
            from_input: (N, 3 F, 8, 8).
            from_hidden: the three gates' shares of the hidden convolution.
            hidden: (N, F, 8, 8), None for zeros.
        """
        i_r, i_u, i_n = self.add("Split", from_input, outputs=3, axis=1)
        h_r, h_u, h_n = from_hidden
        r = self.add("Sigmoid", self.add("Add", i_r, h_r))
        u = self.add("Sigmoid", self.add("Add", i_u, h_u))
        n = self.add("Tanh", self.add("Add", i_n, self.add("Mul", r, h_n)))
        if hidden is None:
            return self.add("Sub", n, self.add("Mul", u, n))
        return self.add("Add", n, self.add("Mul", u, self.add("Sub", hidden, n)))

    def conv_gru(self, from_input: str, layer: Tree, state: str) -> tuple[str, str]:
        """The recurrence over time.

        Args:
            from_input: (b, t, 3 F, 8, 8), the input convolution of every frame.
            layer: ``MMRNN``'s arrays.
            state: (b, F, 8, 8) before.

        Returns:
            States (b, t, F, 8, 8) and the one after.
        """
        body = Graph(self.precision, self)
        # Read from outside the loop, so that what is done to a weight is done once.
        kernel = self.weight(layer["hidden_kernel"].transpose(3, 2, 0, 1), 0)
        bias = self.constant(layer["hidden_bias"])
        before, frame, after, shown = (
            self.fresh(name) for name in ("before", "frame", "after", "shown")
        )
        moved = body.add(
            "Conv", before, kernel, bias, dilations=[DILATION] * 2, pads=[DILATION] * 4
        )
        hidden = body.gru_update(frame, body.add("Split", moved, outputs=3, axis=1), before)
        body.named(hidden, after)
        body.named(hidden, shown)
        value = self._onnx.helper.make_tensor_value_info
        kind = self._onnx.TensorProto.FLOAT
        graph = self._onnx.helper.make_graph(
            body.nodes,
            "frame_by_frame",
            [value(name, kind, None) for name in (before, frame)],
            [value(name, kind, None) for name in (after, shown)],
        )
        last, states = self.add(
            "Scan", state, from_input, outputs=2, body=graph, num_scan_inputs=1,
            scan_input_axes=[1], scan_output_axes=[1],
        )  # fmt: skip
        return states, last


def folded(variables: Tree, layer: str, conv: str = "conv", norm: str = "norm") -> list[Array]:
    """A convolution's kernel and bias with its batch norm in them, if it has one.

    Args:
        variables: of a network, ``params`` and ``batch_stats``.
        layer: its path, such as ``audio_encoder/conv_1``.
        conv: the convolution's name within it.
        norm: the norm's.
    """
    params, stats = variables["params"], variables.get("batch_stats", {})
    for part in layer.split("/"):
        params, stats = params[part], stats.get(part, {})
    kernel = np.asarray(params[conv]["kernel"], np.float32)
    bias = np.asarray(params[conv].get("bias", 0), np.float32)
    if norm not in params:
        return [kernel, np.broadcast_to(bias, kernel.shape[-1:])]
    scale = params[norm]["scale"] / np.sqrt(stats[norm]["var"] + BATCH_NORM_EPSILON)
    return [kernel * scale, params[norm]["bias"] + (bias - stats[norm]["mean"]) * scale]


def whole_model(
    graph: Graph,
    name: str,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    made: Mapping[str, str],
) -> Any:
    """A checked ``onnx.ModelProto``.

    Args:
        graph: the nodes.
        name: of the model.
        inputs: shape by name, open sizes by a letter.
        outputs: likewise.
        made: the graph's own name of each output.
    """
    onnx = graph._onnx
    for output, source in made.items():
        graph.named(source, output)

    def values(tensors: Mapping[str, Sequence[int | str]]) -> list[Any]:
        return [
            onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, list(shape))
            for tensor, shape in tensors.items()
        ]

    proto = onnx.helper.make_graph(
        graph.nodes, name, values(inputs), values(outputs), graph.weights
    )
    model = onnx.helper.make_model(
        proto,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="atvg_jax",
        producer_version=__version__,
    )
    onnx.checker.check_model(model)
    return model
