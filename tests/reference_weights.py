"""Weights from a name and a shape alone: the published layouts' and our own networks'."""

import zlib
from typing import Any

import flax.traverse_util
import numpy as np

from atvg_jax.models import abstract_variables

# Tests compile without LLVM's optimisation (see conftest.py). Full-size networks run for longer
# than they compile, so they ask for it: jax.jit(f, compiler_options=OPTIMISED).
OPTIMISED = {"xla_backend_optimization_level": "3"}


def random_variables(name: str, settings: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """Variables of any network with statistics that are not the identity; compiles nothing."""
    flat = flax.traverse_util.flatten_dict(abstract_variables(name, settings))
    drawn = {path: _draw(path, leaf.shape, seed) for path, leaf in flat.items()}
    return flax.traverse_util.unflatten_dict(drawn)


def _draw(path: tuple[str, ...], shape: tuple[int, ...], seed: int) -> np.ndarray:
    draw = np.random.default_rng([seed, zlib.crc32("/".join(path).encode())]).standard_normal(shape)
    if path[-1] == "var":
        draw = 0.5 + np.abs(draw)
    elif len(shape) == 1:
        draw = float(path[-1] == "scale") + 0.1 * draw
    else:
        draw = draw * np.sqrt(2.0 / np.prod(shape[:-1]))
    return draw.astype(np.float32)


# The same rule as the golden numbers were made with.


def state_dict(layout: dict[str, list[int]], seed: int = 0) -> dict[str, np.ndarray]:
    """Draws every entry of a published layout, the same on any machine."""
    return {name: _array(name, tuple(shape), seed) for name, shape in layout.items()}


def _array(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.asarray(1, np.int64)
    draw = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
    if name.endswith("running_var"):
        draw = 0.5 + np.abs(draw)
    elif name.endswith("running_mean"):
        draw = 0.1 * draw
    elif len(shape) == 1:
        draw = float(name.endswith("weight")) + 0.1 * draw
    else:
        draw = draw * np.sqrt(2.0 / np.prod(shape[1:]))
    return draw.astype(np.float32)
