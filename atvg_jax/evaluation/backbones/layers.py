"""Convolution, pooling and weights of published networks, under their published names.

Arrays are NCHW and weights OIHW, as the files have them. jax is imported at the point of use.
"""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from atvg_jax.errors import InputError

Weights = Mapping[str, npt.NDArray[np.float32]]
Pair = tuple[int, int]

_NAMES_SHOWN = 3


def read_weights(
    path: str | os.PathLike[str], shapes: Mapping[str, tuple[int, ...]], network: str
) -> dict[str, npt.NDArray[np.float32]]:
    """Reads what a network needs from a file of arrays; nothing in it is executed.

    Args:
        path: .safetensors or .npz, with the published names, bare or each after ``module.``.
        shapes: of the arrays that are needed, by name. Others in the file are left alone.
        network: what to call it in a complaint.

    Raises:
        InputError: no such file, another kind, or arrays are missing or of another shape.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise InputError(
            f"{path}: weights of {network} are read from .safetensors or .npz; "
            "docs/evaluation.md says how to turn a .pth into one"
        )
    try:
        arrays = _arrays(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, SafetensorError) as error:
        raise InputError(f"{path} holds no arrays ({error})", reason="unreadable") from error
    arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    wrong = [
        f"{name} {shape}" if name not in arrays else f"{name} {shape}, not {arrays[name].shape}"
        for name, shape in shapes.items()
        if name not in arrays or arrays[name].shape != shape
    ]
    if wrong:
        shown = "; ".join(wrong[:_NAMES_SHOWN]) + (" ..." if len(wrong) > _NAMES_SHOWN else "")
        raise InputError(f"{path} is not {network}: it lacks {shown}", reason="unreadable")
    chosen = {name: np.asarray(arrays[name], np.float32) for name in shapes}
    if not all(np.isfinite(array).all() for array in chosen.values()):
        raise InputError(f"{path}: weights of {network} that are not finite", reason="unreadable")
    return chosen


def _arrays(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def convolve(x: Any, weight: Any, stride: int, padding: Pair) -> Any:
    """(N, C, H, W) and (O, C, h, w) -> (N, O, H', W'); ``padding`` zeros above and beside."""
    import jax

    sides = [(size, size) for size in padding]
    return jax.lax.conv_general_dilated(
        x, weight, (stride, stride), sides, dimension_numbers=("NCHW", "OIHW", "NCHW")
    )


def max_pool(x: Any, size: int, stride: int | Pair, padding: int = 0) -> Any:
    """The largest of each ``size`` x ``size`` window of (N, C, H, W)."""
    import jax

    steps = (stride, stride) if isinstance(stride, int) else stride

    sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    return jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 1, size, size), (1, 1, *steps), sides)


def average_pool(x: Any) -> Any:
    """The mean of what there is in each 3 x 3 window around a pixel: padding does not count."""
    import jax
    import jax.numpy as jnp

    def add(values: Any) -> Any:
        sides = ((0, 0), (0, 0), (1, 1), (1, 1))
        return jax.lax.reduce_window(values, 0.0, jax.lax.add, (1, 1, 3, 3), (1, 1, 1, 1), sides)

    return add(x) / add(jnp.ones((1, 1, *x.shape[2:]), x.dtype))
