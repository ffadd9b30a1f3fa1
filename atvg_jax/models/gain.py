"""A VG-net that moves faces further than it learned to.

Trained by an absolute error on little data, VG-net leans towards the mean of what it has seen, so
its mouths move less than its landmarks: the bundled one's 0.7 times as far on people that it has
not seen. It reads landmarks through one affine layer, so to give it landmarks that lie ``gain``
times as far from the mean face as the true ones, ``m + gain (p - m)``, takes no more than other
weights of that layer; whatever runs, exports or measures a VG-net runs this one unchanged.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

LAYER = "landmark_fc"  # of the driving landmarks and of the portrait's alike


def with_landmark_gain(params: Mapping[str, Any], mean: npt.ArrayLike, gain: float) -> Any:
    """VG-net's parameters, with every movement of its landmarks multiplied.

    Args:
        params: parameters of ``VGNet``.
        mean: (136,) the landmarks that stay what they are, in model units.
        gain: above 0; 1 changes nothing, 1.5 moves a face half as much again.

    Returns:
        The parameters, NumPy float32 where they were changed.

    Raises:
        ValueError: the gain is not above 0 and finite.
    """
    if not (gain > 0 and math.isfinite(gain)):
        raise ValueError(f"a gain is above 0, not {gain}")
    dense = params[LAYER]["dense"]
    kernel = np.asarray(dense["kernel"], np.float64)
    bias = np.asarray(dense["bias"], np.float64)
    changed = {
        "kernel": (gain * kernel).astype(np.float32),
        "bias": (bias + (1 - gain) * np.asarray(mean, np.float64) @ kernel).astype(np.float32),
    }
    return {**params, LAYER: {**params[LAYER], "dense": {**dense, **changed}}}
