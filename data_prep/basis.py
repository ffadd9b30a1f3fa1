"""The landmark basis of a data set, from sums gathered in one pass over its train split."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from atvg_jax.features.landmarks import LandmarkBasis, LandmarkNormaliser, to_model

COORDINATES = 136


@dataclasses.dataclass
class Moments:
    """Number, sum and sum of outer products of landmarks: all that a PCA needs.

    They are added up in float64. The sums of each shard are gathered by whoever writes it and then
    added in the order of the shards, so the same data set has the same basis to the last bit
    whatever the number of processes, and memory does not grow with the data.

    Attributes:
        number: of shapes.
        total: (136,) their sum, in model units.
        products: (136, 136) the sum of their outer products.
    """

    number: int = 0
    total: npt.NDArray[np.float64] = dataclasses.field(
        default_factory=lambda: np.zeros(COORDINATES)
    )
    products: npt.NDArray[np.float64] = dataclasses.field(
        default_factory=lambda: np.zeros((COORDINATES, COORDINATES))
    )

    def add(self, landmarks: npt.ArrayLike) -> None:
        """Takes in the normalised landmarks (T, 68, 2) of one example."""
        values = to_model(landmarks).astype(np.float64).reshape(-1, COORDINATES)
        self.number += len(values)
        self.total += values.sum(axis=0)
        self.products += values.T @ values

    def merge(self, other: "Moments") -> None:
        """Takes in what others have gathered."""
        self.number += other.number
        self.total += other.total
        self.products += other.products

    def arrays(self) -> dict[str, Any]:
        """The sums as they are kept in an npz file; ``Moments(**arrays)`` has them back."""
        return {"number": self.number, "total": self.total, "products": self.products}

    def fit(self, normaliser: LandmarkNormaliser | None = None) -> LandmarkBasis:
        """The basis.

        Args:
            normaliser: that made the landmarks; None: this project's own.

        Raises:
            ValueError: there are fewer than two frames.
        """
        return LandmarkBasis.from_moments(
            self.number, self.total, self.products, normaliser=normaliser
        )


def merged(parts: Iterable[Moments]) -> Moments:
    """The sums over all parts, added in their order."""
    whole = Moments()
    for part in parts:
        whole.merge(part)
    return whole
