"""Landmarks for speech that nobody filmed: a regression learns them from speech that was.

Labels that one model gives to examples without any, for another to learn from (Lee,
"Pseudo-Label", 2013). The regression is linear, from what a pretrained speech encoder hears
(``speech_encoder``) to how a face's landmark components differ from the clip's mean.
"""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]

RIDGE = 0.3
"""Of the features' mean variance, added to each. Chosen among 0.01 to 1 on the 48 training people
of the bundled model in three parts, each judged by a regression of the mouth's opening on the
others: it correlates by 0.634 there, with others by 0.600 to 0.630 (from MFCC windows by 0.44)."""

BALANCE = 0.7
"""A speaker with n frames weighs n ** (1 - 0.7): not as much as nine others because of nine times
the film."""


class Regression:
    """Ridge regression of landmark components, made of sums over clips.

    Args:
        frames: of each speaker, for their weights.
    """

    def __init__(self, frames: dict[str, int]):
        self._frames = frames
        self._weight = 0.0
        self._mean: Sums = np.zeros(1)
        self._products: Sums = np.zeros(1)
        self._targets: Sums = np.zeros(1)
        self._moved: Sums = np.zeros(1)

    def add(self, features: FloatArray, components: FloatArray, speaker: str) -> None:
        """Takes a clip in: (T, F) features and its (T, n) components."""
        weight = self._frames[speaker] ** -BALANCE
        x = features.astype(np.float64)
        y = components - components.mean(axis=0, dtype=np.float64)
        self._weight += weight * len(x)
        self._mean = self._mean + weight * x.sum(axis=0)
        self._products = self._products + weight * (x.T @ x)
        self._targets = self._targets + weight * (x.T @ y)
        self._moved = self._moved + weight * y.sum(axis=0)

    def fit(self) -> "Labeller":
        """Solves it.

        Raises:
            ValueError: no clip was added.
        """
        if not self._weight:
            raise ValueError("a regression takes at least one clip")
        mean = self._mean / self._weight
        covariance = self._products / self._weight - np.outer(mean, mean)
        scale = np.sqrt(np.maximum(covariance.diagonal(), 1e-12))
        correlations = covariance / np.outer(scale, scale)
        targets = (self._targets - np.outer(mean, self._moved)) / self._weight / scale[:, None]
        correlations[np.diag_indices_from(correlations)] += RIDGE
        weights = np.linalg.solve(correlations, targets) / scale[:, None]
        return Labeller(weights.astype(np.float32))


class Labeller:
    """A fitted regression.

    Args:
        weights: (F, n).
    """

    def __init__(self, weights: FloatArray):
        self._weights = weights

    def label(self, features: FloatArray) -> FloatArray:
        """(T, F) features of a clip to (T, n): its components less their mean over the clip."""
        values = features @ self._weights
        return values - values.mean(axis=0)
