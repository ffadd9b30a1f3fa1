"""Lips that do not pass through each other.

AT-net's landmarks are a sum of six components, which is blind to where one lip ends and the other
begins: boosted, the upper lip of a closed mouth comes to lie below the lower one (in 9 % of the
frames that the bundled model hears with a boost of 1.3), and a mouth that should be shut reads, and
is drawn, as open. Such lips are put together in their middle. Not in the paper.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from atvg_jax.features.landmarks import COORDINATES, FloatArray, LandmarkBasis

INNER_LIP_PAIRS = ((61, 67), (62, 66), (63, 65))  # upper and lower, iBUG numbering


class Heights(NamedTuple):
    """How a point's height is bound by that of another.

    Attributes:
        partner: (136,) which number of the landmarks each one faces; most face themselves.
        upper: (136,) 1 for the heights of upper inner lips, 0 elsewhere.
        lower: (136,) 1 for those of lower ones.
    """

    partner: npt.NDArray[np.int64]
    upper: FloatArray
    lower: FloatArray


def heights() -> Heights:
    """Of the three pairs of inner lips."""
    partner = np.arange(COORDINATES)
    upper, lower = np.zeros((2, COORDINATES), np.float32)
    for pair in INNER_LIP_PAIRS:
        above, below = (2 * point + 1 for point in pair)
        partner[[above, below]] = below, above
        upper[above] = lower[below] = 1
    return Heights(partner, upper, lower)


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
    partner, upper, lower = heights()
    to_middle = (values[..., partner] - values) / 2
    return values + to_middle.clip(max=0) * upper + to_middle.clip(min=0) * lower


def closes(basis: LandmarkBasis) -> bool:
    """Whether crossed lips of this basis are closed."""
    return basis.normaliser.kind != "published"
