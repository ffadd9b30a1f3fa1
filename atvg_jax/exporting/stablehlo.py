"""Pieces as StableHLO: one file each, weights inside, for every batch and time and three platforms.

Read with ``jax.export.deserialize(file.read_bytes()).call({name: array})``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from atvg_jax.exporting.pieces import Piece, Tensor

PLATFORMS = ("cpu", "cuda", "tpu")


def write(folder: Path, pieces: Mapping[str, Piece], weights: Any) -> dict[str, Path]:
    """Writes ``NAME.stablehlo`` for each piece; returns the files by piece."""
    files = {}
    for name, piece in pieces.items():
        exported = export.export(_closed(piece, weights), platforms=PLATFORMS)(
            arguments(piece.inputs)
        )
        files[name] = folder / f"{name}.stablehlo"
        files[name].write_bytes(exported.serialize())
    return files


def arguments(tensors: Mapping[str, Tensor]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes with open batch and time."""
    b, t = export.symbolic_shape("b, t")
    sizes = {"b": b, "t": t}
    return {
        name: jax.ShapeDtypeStruct(
            tuple(sizes[size] if isinstance(size, str) else size for size in tensor.shape),
            np.float32,
        )
        for name, tensor in tensors.items()
    }


def _closed(piece: Piece, weights: Any) -> Any:
    """The piece's function with the weights in it."""

    def function(inputs: dict[str, Any]) -> dict[str, Any]:
        return piece.function(weights, inputs)

    return jax.jit(function)
