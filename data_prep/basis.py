"""The landmark basis of a data set, from sums gathered in one pass over its train split."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from atvg_jax.features.landmarks import LandmarkBasis, LandmarkNormaliser, to_model

COORDINATES = 136


class Moments:
    """Number, sum and sum of outer products of landmarks: all that a PCA needs.

    They are added up in float64 in the order given, so the same clips in the same order give the
    same basis to the last bit, and memory does not grow with the data.
    """

    def __init__(self) -> None:
        self.number = 0
        self.total = np.zeros(COORDINATES)
        self.products = np.zeros((COORDINATES, COORDINATES))

    def add(self, landmarks: npt.ArrayLike) -> None:
        """Takes in the normalised landmarks (T, 68, 2) of one example."""
        values = to_model(landmarks).astype(np.float64).reshape(-1, COORDINATES)
        self.number += len(values)
        self.total += values.sum(axis=0)
        self.products += values.T @ values


def fit(
    landmarks: Iterable[npt.ArrayLike], normaliser: LandmarkNormaliser | None = None
) -> LandmarkBasis:
    """Fits a basis to examples.

    Args:
        landmarks: normalised, (T, 68, 2) an example; each is looked at once.
        normaliser: that made them; None: this project's own.

    Raises:
        ValueError: there are fewer than two frames.
    """
    moments = Moments()
    for clip in landmarks:
        moments.add(clip)
    return LandmarkBasis.from_moments(
        moments.number, moments.total, moments.products, normaliser=normaliser
    )
