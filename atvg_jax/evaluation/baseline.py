"""Ridge regression from sound to landmarks: what a linear method makes of the same windows."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

PENALTIES = tuple(10.0**power for power in range(-4, 3))
"""Tried, times the number of frames, on standardised inputs."""


@dataclass(frozen=True)
class Ridge:
    """A linear map of one frame's window to its landmarks' components.

    Attributes:
        mean: (336,) of the inputs.
        weights: (336, n).
        intercept: (n,).
        penalty: the one chosen.
    """

    mean: FloatArray
    weights: FloatArray
    intercept: FloatArray
    penalty: float

    def predict(self, windows: npt.ArrayLike) -> FloatArray:
        """(T, 28, 12) windows to (T, n) components."""
        inputs = np.asarray(windows, np.float64)
        inputs = inputs.reshape(len(inputs), -1)
        return (inputs - self.mean) @ self.weights + self.intercept


Clip = tuple[npt.ArrayLike, npt.ArrayLike]  # (T, 28, 12) windows and (T, n) components


def fit(train: Iterable[Clip], held_out: Iterable[Clip]) -> Ridge:
    """Ridge regression on standardised inputs (Hoerl and Kennard, 1970).

    Args:
        train: clips to fit, each seen once.
        held_out: clips by which the penalty is chosen from ``PENALTIES``, by squared error.
    """
    size = outputs = frames = 0
    sums: list[FloatArray] = []
    for windows, components in train:
        x = np.asarray(windows, np.float64)
        x, y = x.reshape(len(x), -1), np.asarray(components, np.float64)
        size, outputs, frames = x.shape[1], y.shape[1], frames + len(x)
        both = np.concatenate([x, y], axis=1)
        own = [both.sum(axis=0), both.T @ both]
        sums = own if not sums else [a + b for a, b in zip(sums, own, strict=True)]
    if frames < 2:
        raise ValueError("ridge regression takes at least two frames")
    mean = sums[0] / frames
    covariance = sums[1] / frames - np.outer(mean, mean)
    spread = np.sqrt(np.maximum(np.diag(covariance)[:size], 1e-12))
    inputs = covariance[:size, :size] / np.outer(spread, spread)
    cross = covariance[:size, size : size + outputs] / spread[:, None]
    candidates = [
        Ridge(
            mean[:size],
            np.linalg.solve(inputs + penalty * np.eye(size), cross) / spread[:, None],
            mean[size:],
            penalty,
        )
        for penalty in PENALTIES
    ]
    errors = np.zeros(len(candidates))
    for windows, components in held_out:
        y = np.asarray(components, np.float64)
        errors += [np.square(one.predict(windows) - y).sum() for one in candidates]
    return candidates[int(np.argmin(errors))]
