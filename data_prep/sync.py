"""How late the sound of each clip is against its picture, told from the clips themselves.

A clip of three seconds says too little by itself: the mouth is also open when it is silent, and
closed in the middle of the loudest vowel. So first, over many clips, a linear regression learns to
tell the mouth's shape from a window of sound. For a single clip its answer is then moved against
the picture in steps of 10 ms, and where it fits best is the clip's offset. Each clip is judged by a
regression that has not seen its speaker. Then the regression is made once more with the clips moved
by what was found, and the clips are judged by that.

The regression can only tell how a clip differs from the others. How far all of them are off is told
by the plain correlation of mouth opening and loudness, over all clips at once, each moved to where
the others are: ``energy_peak``.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from atvg_jax.features import audio
from atvg_jax.features.landmarks import mouth_opening

FloatArray = npt.NDArray[np.float64]

ROW_SECONDS = 1 / (audio.FRAME_RATE * audio.ROWS_PER_FRAME)
MAX_LAG = 50
"""Rows (10 ms) to either side: half a second. Sound that is later is a fault of another kind."""

LAGS = np.arange(-MAX_LAG, MAX_LAG + 1)

POINTS = (*range(5, 12), *range(48, 68))
"""The chin's and the lips' points. The lips' opening alone finds the offset of two in three clips
to a frame, all of these points that of nine in ten (each judged by a regression over other
speakers; 455 stretches of real footage, presumed in sync)."""

SLOW_FRAMES = 8.0
"""Sigma in frames of the slow movement that is taken off: smiles, poses, remains of head turns."""

SHORTEST_OVERLAP = 12
"""Frames that must be left when sound and picture are moved against each other."""

RIDGE = 0.1
"""Of the regression, as a share of the mean variance; 0.003 to 0.3 make no difference."""

FOLDS = 8
FEW_SPEAKERS = 16
"""Below this many, whole speakers are too much to leave out, and single clips are."""

CONFIDENT = 0.7
"""Probability from which an offset counts as known. Of the 455 stretches 88 % reach it, 94 % of
these are right to a frame and 98 % to two; of the others 77 % are right to a frame."""

FEWEST_FRAMES = 1000
"""Of sound and picture, below which no regression is made: 40 s."""

ENERGY_PEAK = -0.02
"""Seconds: where mouth opening and loudness fit best when nothing is late. -0.02 over the clips of
GRID as they were recorded, -0.03 over other footage put right by a list of offsets."""

_WINDOW = audio.WINDOW_ROWS * audio.MFCC_COUNT
_SHAPE = 2 * len(POINTS)


class Track(NamedTuple):
    """What is compared of an example of T frames; each column has mean 0 and variance 1.

    Attributes:
        windows: (4 T - 3, 364) the sound; row 4 t is what frame t hears.
        shape: (T, 54) the mouth.
    """

    windows: FloatArray
    shape: FloatArray


class Estimate(NamedTuple):
    """How late the sound of an example is.

    Attributes:
        offset: seconds, in steps of 0.01; negative: early.
        confidence: probability that it is right to a frame.
        correlation: of the mouth's shape with what was expected, at that offset.
    """

    offset: float
    confidence: float
    correlation: float


def _standard(values: FloatArray) -> FloatArray:
    """Columns with mean 0 and variance 1; constant ones become 0."""
    centred = values - values.mean(axis=0)
    deviation = centred.std(axis=0)
    return centred / np.where(deviation > 1e-6, deviation, np.inf)


def track(example: dict[str, Any]) -> Track:
    """What is compared of an example, see ``schema.deserialize``."""
    points = np.asarray(example["landmarks"], dtype=np.float64)[:, POINTS]
    shape = points.reshape(len(points), -1)
    shape = shape - gaussian_filter1d(shape, SLOW_FRAMES, axis=0)
    rows = _standard(np.asarray(example["mfcc"], dtype=np.float64))
    view = np.lib.stride_tricks.sliding_window_view(rows, audio.WINDOW_ROWS, axis=0)
    # The float32 of landmarks that do not move has a noise of 1e-7 that is no movement.
    still = shape.std(axis=0) < 1e-5
    return Track(view.reshape(len(view), _WINDOW), _standard(np.where(still, 0.0, shape)))


def fold(name: str) -> int:
    """Which part of the clips a speaker, or a clip, belongs to: the same on every machine."""
    return hashlib.sha256(name.encode()).digest()[0] % FOLDS


class Moments:
    """Sums from which the regression of each fold is made; float64.

    Attributes:
        frames: (FOLDS,) how many.
        sound: (FOLDS, 364, 364) the windows' outer products.
        both: (FOLDS, 364, 54) those of windows and shapes.
    """

    def __init__(self) -> None:
        self.frames = np.zeros(FOLDS, dtype=np.int64)
        self.sound = np.zeros((FOLDS, _WINDOW, _WINDOW))
        self.both = np.zeros((FOLDS, _WINDOW, _SHAPE))

    def add(self, of: Track, part: int, lag: int = 0) -> None:
        """Takes in an example of a fold whose sound is late by a number of rows."""
        rows = 4 * np.arange(len(of.shape)) + lag
        inside = (rows >= 0) & (rows < len(of.windows))
        windows, shape = of.windows[rows[inside]], of.shape[inside]
        self.frames[part] += len(windows)
        self.sound[part] += windows.T @ windows
        self.both[part] += windows.T @ shape

    def merge(self, other: "Moments") -> None:
        """Takes in what others have gathered."""
        self.frames += other.frames
        self.sound += other.sound
        self.both += other.both

    def fit(self) -> FloatArray:
        """(FOLDS, 364, 54): for each fold, the regression over all others."""
        weights = np.zeros((FOLDS, _WINDOW, _SHAPE))
        for part in range(FOLDS):
            others = np.arange(FOLDS) != part
            sound = self.sound[others].sum(axis=0)
            variance = np.trace(sound) / _WINDOW
            if self.frames[others].sum() >= FEWEST_FRAMES and variance > 0:
                ridge = RIDGE * variance * np.eye(_WINDOW)
                weights[part] = np.linalg.solve(sound + ridge, self.both[others].sum(axis=0))
        return weights


def estimate(of: Track, weights: FloatArray) -> Estimate:
    """Where the sound of an example fits its picture best.

    For a Gaussian error the likelihood of a lag is a power of one minus the squared correlation,
    and with every lag as probable as another it is, scaled to a sum of one, the lag's probability.
    Errors of neighbouring frames are alike and those of the 54 coordinates too; counted as one
    independent error a frame the probabilities come out right: 0.90 in the mean, where 0.92 of 455
    stretches were right to a frame.

    Args:
        of: the example.
        weights: (364, 54) a regression.
    """
    expected = of.windows @ weights
    base = 4 * np.arange(len(of.shape))
    correlation, weight = np.zeros(len(LAGS)), np.zeros(len(LAGS))
    for index, lag in enumerate(LAGS):
        rows = base + lag
        inside = (rows >= 0) & (rows < len(expected))
        weight[index] = inside.sum()
        if weight[index] < SHORTEST_OVERLAP:
            continue
        a, b = expected[rows[inside]], of.shape[inside]
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        power = np.vdot(a, a) * np.vdot(b, b)
        correlation[index] = np.vdot(a, b) / np.sqrt(power) if power > 0 else 0.0
    likelihood = -weight * np.log1p(-(np.clip(correlation, 0.0, 0.999) ** 2))
    probability = np.exp(likelihood - likelihood.max())
    best = int(likelihood.argmax())
    near = np.abs(LAGS - LAGS[best]) <= audio.ROWS_PER_FRAME
    return Estimate(
        round(float(LAGS[best]) * ROW_SECONDS, 2),
        round(float(probability[near].sum() / probability.sum()), 4),
        round(float(correlation[best]), 4),
    )


def energy_sums(example: dict[str, Any], late: int = 0) -> FloatArray:
    """(3, 101): products of opening and loudness at each lag, and both their squares.

    Sums over examples give the correlation by lag, see ``energy_peak``.

    Args:
        example: of ``schema.deserialize``.
        late: rows that its sound is moved by, because it differs so much from the others'.
    """
    opening = np.asarray(mouth_opening(example["aligned_landmarks"]), dtype=np.float64)
    loudness = gaussian_filter1d(np.asarray(example["mfcc"], dtype=np.float64)[:, 0], 4.0)
    opening = _standard(opening - gaussian_filter1d(opening, SLOW_FRAMES))
    loudness = _standard(loudness - gaussian_filter1d(loudness, 4 * SLOW_FRAMES))
    # The row in the middle of a frame's window.
    base = audio.WINDOW_ROWS // 2 + 4 * np.arange(len(opening)) + late
    sums = np.zeros((3, len(LAGS)))
    for index, lag in enumerate(LAGS):
        rows = base + lag
        inside = (rows >= 0) & (rows < len(loudness))
        a, b = opening[inside], loudness[rows[inside]]
        sums[:, index] = np.vdot(a, b), np.vdot(a, a), np.vdot(b, b)
    return sums


def energy_peak(sums: FloatArray) -> tuple[float, float] | None:
    """The lag in seconds at which opening and loudness fit best, and their correlation there.

    Args:
        sums: (3, 101) of ``energy_sums``, added up over examples.
    """
    power = np.sqrt(sums[1] * sums[2])
    if not power.all():
        return None
    correlation = sums[0] / power
    best = int(correlation.argmax())
    return round(float(LAGS[best]) * ROW_SECONDS, 2), round(float(correlation[best]), 4)
