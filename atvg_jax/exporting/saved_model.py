"""Pieces as one TensorFlow SavedModel with a signature each, laid out as TF Serving reads it.

The weights are TensorFlow variables that the signatures share. TensorFlow compiles the StableHLO
inside with its own XLA: nobody who loads the model needs JAX.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from atvg_jax.errors import InputError
from atvg_jax.exporting.pieces import Piece, Tensor
from atvg_jax.exporting.stablehlo import PLATFORMS

# TF Serving: one folder a model, in it one a version.
MODEL, VERSION = "atvg", "1"


def write(folder: Path, pieces: Mapping[str, Piece], weights: Any) -> Path:
    """Writes ``atvg/1``, the SavedModel; returns its folder."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            'a SavedModel takes TensorFlow: pip install "atvg_jax[tensorflow]"'
        ) from error
    from jax.experimental import jax2tf

    module = tf.Module()
    module.weights = jax.tree.map(lambda array: tf.Variable(np.asarray(array)), weights)
    signatures = {
        name: _signature(tf, jax2tf, piece, module.weights) for name, piece in pieces.items()
    }
    made = folder / MODEL / VERSION
    tf.saved_model.save(module, str(made), signatures=signatures)
    return made


def _signature(tf: Any, jax2tf: Any, piece: Piece, weights: Any) -> Any:
    names = list(piece.inputs)

    def positional(weights: Any, *arrays: Any) -> Any:
        return piece.function(weights, dict(zip(names, arrays, strict=True)))

    converted = jax2tf.convert(
        positional,
        polymorphic_shapes=[None, *(_polymorphic(tensor) for tensor in piece.inputs.values())],
        native_serialization_platforms=PLATFORMS,
        with_gradient=False,
    )
    specification = {
        name: tf.TensorSpec(
            [None if isinstance(size, str) else size for size in tensor.shape], tf.float32, name
        )
        for name, tensor in piece.inputs.items()
    }

    def function(**inputs: Any) -> Any:
        return converted(weights, *(inputs[name] for name in names))

    return tf.function(function, autograph=False).get_concrete_function(**specification)


def _polymorphic(tensor: Tensor) -> str:
    return f"({', '.join(str(size) for size in tensor.shape)})"
