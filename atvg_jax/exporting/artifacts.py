"""A model to a folder of artifacts: written, run where this package is not, compared, described.

DIR/PIECE.stablehlo, DIR/PIECE.onnx or DIR/atvg/1/ (a SavedModel)
DIR/basis.npz       the landmark basis and what normalises landmarks, plain arrays
DIR/manifest.json   inputs and outputs, sizes, checksums, versions, and what the proof found
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from atvg_jax import __version__, compilation_cache
from atvg_jax.errors import InputError
from atvg_jax.exporting import onnx_layers, onnx_networks, parity, saved_model, stablehlo
from atvg_jax.exporting.pieces import Piece, Tensor, pieces, weights
from atvg_jax.inference import model_directory
from atvg_jax.whole_files import folder_written_whole

MANIFEST = "manifest.json"
LAYOUT_VERSION = 1
# Format -> precisions that it can be written in.
PRECISIONS = {
    "stablehlo": ("float32", "bfloat16"),
    "savedmodel": ("float32", "bfloat16"),
    "onnx": ("float32", "float16", "bfloat16", "int8"),
}
_WRITERS = {"stablehlo": ("jax", "jaxlib"), "savedmodel": ("jax", "tensorflow"), "onnx": ("onnx",)}


def write(
    model: model_directory.Model,
    form: str,
    folder: str | os.PathLike[str],
    precision: str = "float32",
) -> dict[str, Any]:
    """Writes all pieces of a model in one format and proves them.

    Args:
        model: in memory.
        form: stablehlo, savedmodel or onnx.
        folder: to make; one that is there already is replaced if it is of this kind, and anything
            else that is there is left alone.
        precision: one of ``PRECISIONS[form]``.

    Returns:
        The manifest.

    Raises:
        InputError: the precision is none of the format's, a package is missing, the folder cannot
            be written, or the artifacts do not compute what the model does.
    """
    if precision not in PRECISIONS[form]:
        raise InputError(f"{form} is written in {', '.join(PRECISIONS[form])}, not in {precision}")
    compilation_cache.enable()
    with (
        folder_written_whole(folder, MANIFEST, "a folder of artifacts") as temporary,
        tqdm(total=3, desc=form, unit="stage") as progress,
    ):
        made = pieces(
            model, "bfloat16" if precision == "bfloat16" and form != "onnx" else "float32"
        )
        files = _write_pieces(model, form, temporary, made, precision)
        model.basis.save(temporary / model_directory.BASIS_FILE)
        progress.update()
        proof = parity.prove(model, form, temporary, made, precision)
        progress.update()
        manifest = {
            "layout_version": LAYOUT_VERSION,
            "format": form,
            "precision": precision,
            "model": {
                **{slot: config.__dict__ for slot, config in model.networks.items()},
                "features": model_directory.feature_settings(),
                "training": dict(model.training),
            },
            "pieces": {name: _described(made[name], files[name]) for name in made},
            "files": _files(temporary),
            "parity": {
                "tolerance": parity.TOLERANCE if precision == "float32" else None,
                "batch_and_time": [[parity.BATCH, parity.FRAMES], [1, parity.fresh_process.FEWER]],
                **parity.summary(proof),
                "differences": proof.differences,
            },
            "versions": {
                "written_by": {
                    "atvg_jax": __version__,
                    "python": platform.python_version(),
                    **{name: _version(name) for name in _WRITERS[form]},
                },
                "proved_on": proof.versions,
            },
        }
        text = json.dumps(manifest, indent=2, default=dict) + "\n"
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        progress.update()
    return manifest


def _write_pieces(
    model: model_directory.Model,
    form: str,
    folder: Path,
    made: Mapping[str, Piece],
    precision: str,
) -> dict[str, str]:
    """Writes the artifacts; returns where each piece is, within the folder."""
    if form == "onnx":
        onnx_layers.onnx_package()
        for name, piece in made.items():
            content = onnx_networks.build(model, name, piece, precision).SerializeToString()
            (folder / f"{name}.onnx").write_bytes(content)
        return {name: f"{name}.onnx" for name in made}
    arrays = weights(model)
    if precision == "bfloat16":
        arrays = {**arrays, **{slot: _kernels_halved(arrays[slot]) for slot in model.networks}}
    if form == "savedmodel":
        place = saved_model.write(folder, made, arrays).relative_to(folder)
        return {name: f"{place.as_posix()}: signature {name}" for name in made}
    return {name: file.name for name, file in stablehlo.write(folder, made, arrays).items()}


def _kernels_halved(variables: Any) -> Any:
    """Kernels in bfloat16; biases, norms and statistics as they are."""
    return jax.tree.map(
        lambda array: array.astype(jnp.bfloat16) if np.ndim(array) > 1 else array, variables
    )


def _described(piece: Piece, place: str) -> dict[str, Any]:
    def tensors(of: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            name: {"shape": list(tensor.shape), "type": "float32", "meaning": tensor.meaning}
            for name, tensor in of.items()
        }

    return {"file": place, "inputs": tensors(piece.inputs), "outputs": tensors(piece.outputs)}


def _files(folder: Path) -> dict[str, Any]:
    """Size and SHA-256 of every file, by its place."""
    return {
        file.relative_to(folder).as_posix(): {
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def _version(package: str) -> str:
    for name in (package, f"{package}-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
