"""LPIPS: a distance between pictures that was fitted to what people find alike.

Zhang, Isola, Efros, Shechtman and Wang, CVPR 2018: version 0.1 with AlexNet as the backbone, as the
package ``lpips`` has it (``LPIPS(net="alex")``).
"""

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from atvg_jax.evaluation.backbones import layers

NETWORK = "LPIPS 0.1 with AlexNet"

# AlexNet's convolutions: name, inputs, outputs, kernel, stride, padding; a 3 x 3 maximum over every
# second pixel comes before the second and the third.
_CONVOLUTIONS = (
    ("net.slice1.0", 3, 64, 11, 4, 2),
    ("net.slice2.3", 64, 192, 5, 1, 2),
    ("net.slice3.6", 192, 384, 3, 1, 1),
    ("net.slice4.8", 384, 256, 3, 1, 1),
    ("net.slice5.10", 256, 256, 3, 1, 1),
)
_POOLED = (1, 2)
# From pixels in [-1, 1] to what the backbone was trained on.
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)
_SMALLEST_NORM = 1e-10


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights."""
    wanted: dict[str, tuple[int, ...]] = {}
    for number, (name, inputs, outputs, kernel, _, _) in enumerate(_CONVOLUTIONS):
        wanted[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
        wanted[f"{name}.bias"] = (outputs,)
        wanted[f"lin{number}.model.1.weight"] = (1, outputs, 1, 1)
    return wanted


class Lpips:
    """The distance, with weights from a file.

    Raises:
        InputError: the file is not this network's.
    """

    def __init__(self, path: str | os.PathLike[str]):
        import jax

        self._weights = layers.read_weights(path, shapes(), NETWORK)
        self._distance = jax.jit(_distance)  # weights as arguments: as constants they cost minutes

    def __call__(self, real: npt.ArrayLike, generated: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(n,) distances of (n, H, W, 3) uint8 frames; 0 is equal, lower is better."""
        # One by one: every other number of frames would be compiled anew.
        pairs = zip(np.asarray(real)[:, None], np.asarray(generated)[:, None], strict=True)
        found = [self._distance(self._weights, one, other)[0] for one, other in pairs]
        return np.asarray(found, np.float64)


def _distance(weights: layers.Weights, real: Any, generated: Any) -> Any:
    import jax.numpy as jnp

    count = len(real)
    both = jnp.concatenate([real, generated]).astype(jnp.float32) / 127.5 - 1
    x = jnp.moveaxis((both - _SHIFT) / _SCALE, -1, 1)
    total = jnp.zeros(count)
    for number, (name, _, _, _, stride, padding) in enumerate(_CONVOLUTIONS):
        if number in _POOLED:
            x = layers.max_pool(x, 3, 2)
        x = layers.convolve(x, weights[f"{name}.weight"], stride, (padding, padding))
        x = jnp.maximum(x + weights[f"{name}.bias"][:, None, None], 0)
        length = jnp.sqrt(jnp.square(x).sum(axis=1, keepdims=True))
        unit = x / (length + _SMALLEST_NORM)
        difference = jnp.square(unit[:count] - unit[count:])
        # One weight a channel, then the mean over places.
        weighted = difference * weights[f"lin{number}.model.1.weight"][0]
        total += weighted.sum(axis=1).mean(axis=(1, 2))
    return total
