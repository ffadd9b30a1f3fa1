"""Lips that do not pass through each other.

AT-net's landmarks are a sum of six components, which is blind to where one lip ends and the other
begins: boosted, the upper lip of a closed mouth comes to lie below the lower one (in 9 % of the
validation people's frames by the bundled model), and a mouth that should be shut reads as open.
Such lips are put together in their middle. Not in the paper.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from atvg_jax.features.face_shape import LOWER_LIP, UPPER_LIP
from atvg_jax.features.landmarks import COORDINATES, FloatArray, LandmarkBasis


class Facing(NamedTuple):
    """Which height of the other lip bounds that of each inner point of a lip.

    Attributes:
        partner: (136,) number of the coordinate that each one faces; most face themselves.
        side: (136,) 1 for the heights of the upper lip, -1 for those of the lower, 0 elsewhere.
    """

    partner: npt.NDArray[np.int64]
    side: FloatArray


def facing() -> Facing:
    """Of the three pairs of inner lips."""
    partner, side = np.arange(COORDINATES), np.zeros(COORDINATES, np.float32)
    upper, lower = (2 * np.asarray(points) + 1 for points in (UPPER_LIP, LOWER_LIP))
    partner[upper], partner[lower] = lower, upper
    side[upper], side[lower] = 1, -1
    return Facing(partner, side)


def apart(values: Any, basis: LandmarkBasis) -> Any:
    """AT-net's landmarks with crossed inner lips closed.

    Args:
        values: (..., 136) in model units, a NumPy or JAX array.
        basis: that they were decoded with; those of a published basis stay as published.

    Returns:
        The same kind of array: each pair of points whose upper one lies lower, at their middle
        height; all other numbers as they were, to the bit.
    """
    if not closes(basis):
        return values
    partner, side = facing()
    to_middle = (values[..., partner] - values) / 2
    # y points down: the upper lip may move up alone, the lower one down alone.
    return values + (to_middle * side).clip(max=0) * side


def closes(basis: LandmarkBasis) -> bool:
    """Whether crossed lips of this basis are closed."""
    return basis.normaliser.kind != "published"
