"""What a talking face is measured by: functions of arrays, frame by frame.

Frames are (..., H, W, 3) uint8 RGB and landmarks (..., 68, 2) in iBUG order; leading axes are kept,
so that a clip gives one value a frame. What a clip's values are averaged to is the business of
``protocol``.

The ``legacy`` functions repeat the released evaluation of ATVGnet (``evaluation_matrix.py``),
mistakes included, for comparison with tables that were made with it, and for nothing else.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from atvg_jax.evaluation.identity import identity_similarity
from atvg_jax.evaluation.sharpness import cpbd, grey
from atvg_jax.evaluation.similarity import WINDOW_RADIUS, Windowed, similarity
from atvg_jax.features.landmarks import MOUTH, mouth_opening

__all__ = [
    "MouthAgreement", "cpbd", "identity_similarity", "jitter", "landmark_distance",
    "legacy_landmark_distance", "legacy_psnr", "mouth_agreement", "mouth_opening", "mouth_psnr",
    "psnr", "ssim",
]  # fmt: skip

FloatArray = npt.NDArray[np.float64]

PEAK = 255.0
POINTS = 68

LARGEST_LAG = 5
"""Frames (200 ms) by which a mouth is looked for before and after the sound's own."""

SHORTEST_OVERLAP = 10
"""Frames below which a correlation says nothing."""

LEGACY_EQUAL = 100.0
"""dB that the released code gives to equal frames."""

_STILL = 1e-6  # spread of mouth openings, over the eye distance, that is no movement


def psnr(real: npt.ArrayLike, generated: npt.ArrayLike) -> FloatArray:
    """Peak signal-to-noise ratio of whole colour frames, in dB.

    Args:
        real: (..., H, W, 3) uint8.
        generated: the same shape.

    Returns:
        (...) float64, ``10 log10(255^2 / mean squared error)``; infinite for equal frames.
    """
    a, b = _pair(real, generated)
    return _decibels(mean_squared_error(a, b))


def mean_squared_error(real: npt.ArrayLike, generated: npt.ArrayLike) -> FloatArray:
    """(...) float64 squared difference of (..., H, W, 3) uint8 frames, averaged over a frame."""
    a, b = _pair(real, generated)
    # OpenCV takes a tenth of NumPy's time; its whole number has been through a square root.
    sums = [cv2.norm(x, y, cv2.NORM_L2SQR) for x, y in zip(_frames(a), _frames(b), strict=True)]
    return np.rint(sums).reshape(a.shape[:-3]) / np.prod(a.shape[-3:])


def mouth_psnr(
    real: npt.ArrayLike, generated: npt.ArrayLike, landmarks: npt.ArrayLike
) -> FloatArray:
    """Peak signal-to-noise ratio of the mouth alone, in dB.

    Args:
        real: (T, H, W, 3) uint8.
        generated: the same shape.
        landmarks: (T, 68, 2) pixels of the real frames: the mouth is a box around points 48 to 67,
            a quarter of the distance of the eyes wider on every side.

    Returns:
        (T,) float64; infinite for equal mouths, NaN where the box is outside of the frame.
    """
    return _decibels(mouth_squared_error(real, generated, landmarks))


def mouth_squared_error(
    real: npt.ArrayLike, generated: npt.ArrayLike, landmarks: npt.ArrayLike
) -> FloatArray:
    """(T,) mean squared difference in the box of ``mouth_psnr``."""
    a, b = _pair(real, generated)
    points = np.asarray(landmarks, np.float64)
    if a.ndim != 4 or points.shape != (len(a), POINTS, 2):
        raise ValueError(f"landmarks of frames {a.shape} are (T, 68, 2), not {points.shape}")
    low, high = _mouth_boxes(points)
    limit = (a.shape[2], a.shape[1])
    low, high = (np.clip(corner, 0, limit).astype(int) for corner in (low, high))
    values = np.full(len(a), np.nan)
    for frame, ((left, top), (right, bottom)) in enumerate(zip(low, high, strict=True)):
        if right > left and bottom > top:
            box = np.s_[frame, top:bottom, left:right]
            values[frame] = mean_squared_error(a[box], b[box])
    return values


def _mouth_boxes(points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(T, 2) left top and right bottom corners around mouths, the last column and row excluded."""
    eyes = points[:, 42:48].mean(axis=1) - points[:, 36:42].mean(axis=1)
    margin = np.linalg.norm(eyes, axis=-1)[:, None] / 4
    low = np.floor(points[:, MOUTH].min(axis=1) - margin)
    return low, np.ceil(points[:, MOUTH].max(axis=1) + margin) + 1


def _decibels(error: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(PEAK**2 / error))


def ssim(real: npt.ArrayLike, generated: npt.ArrayLike, window: str = "gaussian") -> FloatArray:
    """Structural similarity of colour frames: the mean over channels and over whole windows.

    Args:
        real: (..., H, W, 3) uint8, at least 11 x 11.
        generated: the same shape.
        window: ``gaussian``, of the paper that defined SSIM: scikit-image's
            ``structural_similarity(channel_axis=-1, data_range=255, gaussian_weights=True,
            sigma=1.5, use_sample_covariance=False)``. ``uniform``, 7 x 7 pixels with sample
            covariance: scikit-image's default, ``structural_similarity(channel_axis=-1,
            data_range=255)``. See ``similarity`` for how close.

    Returns:
        (...) float64 in [-1, 1], 1 for equal frames.
    """
    a, b = _pair(real, generated)
    if window not in WINDOW_RADIUS:
        raise ValueError(f"the window is {' or '.join(WINDOW_RADIUS)}, not {window!r}")
    height, width = a.shape[-3:-1]
    if min(height, width) <= 2 * WINDOW_RADIUS[window]:
        raise ValueError(f"frames of {width} x {height} are smaller than the window")
    values = [
        similarity(Windowed(x, (window,)), Windowed(y, (window,)))[window]
        for x, y in zip(_frames(a), _frames(b), strict=True)
    ]
    return np.asarray(values, np.float64).reshape(a.shape[:-3])


def landmark_distance(
    real: npt.ArrayLike, generated: npt.ArrayLike, part: str = "mouth"
) -> FloatArray:
    """Mean Euclidean distance of a point from where it should be (LMD), in the landmarks' unit.

    Args:
        real: (..., 68, 2).
        generated: the same shape.
        part: ``mouth``, points 48 to 67, each mouth centred on its own mean, so that only its
            shape counts; ``face``, all 68 points where they are.

    Returns:
        (...) float64, the mean over the points.

    Reference: Chen et al., ECCV 2018 ("Lip movements generation at a glance"), which defined LMD.
    """
    a, b = _landmark_pair(real, generated)
    if part == "mouth":
        a, b = _centred_mouth(a), _centred_mouth(b)
    elif part != "face":
        raise ValueError(f"the part is mouth or face, not {part!r}")
    return np.linalg.norm(a - b, axis=-1).mean(axis=-1)


class MouthAgreement(NamedTuple):
    """How one mouth follows another's opening.

    Attributes:
        by_lag: (2 L + 1,) Pearson correlation with the generated mouth taken 0 to L frames early
            and late, from -L to L: positive lags are a generated mouth that is late. 0 where the
            generated mouth does not move, NaN where the target does not or the overlap is shorter
            than ``SHORTEST_OVERLAP`` frames.
        correlation: at lag 0.
        lag: frames at which the correlation is largest, the smallest of equals; NaN if there is
            none.
        spread_ratio: standard deviation of the generated opening over the target's; NaN where the
            target does not move.
    """

    by_lag: FloatArray
    correlation: float
    lag: float
    spread_ratio: float


def mouth_agreement(
    target: npt.ArrayLike, generated: npt.ArrayLike, largest_lag: int = LARGEST_LAG
) -> MouthAgreement:
    """Compares the mouth openings of two clips.

    Args:
        target: (T,) openings as ``mouth_opening`` gives them.
        generated: (T,).
        largest_lag: L, frames.
    """
    a, b = np.asarray(target, np.float64), np.asarray(generated, np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"openings are (T,) and of one length, not {a.shape} and {b.shape}")
    lags = range(-largest_lag, largest_lag + 1)
    by_lag = np.array([_correlation_at(a, b, lag) for lag in lags])
    known = [(-by_lag[lag + largest_lag], abs(lag), lag) for lag in lags]
    known = [entry for entry in known if not np.isnan(entry[0])]
    best = float(min(known)[2]) if known and np.nanmax(by_lag) != 0 else np.nan
    moves = len(a) > 0 and a.std() > _STILL
    spread = float(b.std() / a.std()) if moves else np.nan
    return MouthAgreement(by_lag, float(by_lag[largest_lag]), best, spread)


def _correlation_at(target: FloatArray, generated: FloatArray, lag: int) -> float:
    """Pearson correlation of the generated opening with the target of ``lag`` frames before."""
    count = len(target) - abs(lag)
    if count < SHORTEST_OVERLAP:
        return np.nan
    a = target[max(0, -lag) :][:count]
    b = generated[max(0, lag) :][:count]
    a, b = a - a.mean(), b - b.mean()
    if a.std() <= _STILL:
        return np.nan
    if b.std() <= _STILL:
        return 0.0
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def jitter(frames: npt.ArrayLike, landmarks: npt.ArrayLike) -> FloatArray:
    """How much a clip changes from frame to frame where speech moves nothing, in grey levels.

    The mean absolute difference of a pixel from the frame before, over all channels and all pixels
    but those of the mouth: a box around points 48 to 67 of both frames, a quarter of the eye
    distance wider on either side and above, and down to the lower edge, because the jaw moves with
    the mouth.

    Args:
        frames: (T, H, W, 3) uint8.
        landmarks: (T, 68, 2) pixels of the frames, which say where the mouth is.

    Returns:
        (T - 1,) float64; 0 is a still.
    """
    pictures, points = np.asarray(frames), np.asarray(landmarks, np.float64)
    if pictures.ndim != 4 or pictures.dtype != np.uint8 or pictures.shape[3] != 3:
        raise ValueError(f"frames are (T, H, W, 3) uint8, not {pictures.shape} {pictures.dtype}")
    if points.shape != (len(pictures), POINTS, 2):
        raise ValueError(
            f"landmarks of {len(pictures)} frames are ({len(pictures)}, 68, 2), not {points.shape}"
        )
    height, width = pictures.shape[1:3]
    low, high = _mouth_boxes(points)
    values = np.zeros(max(0, len(pictures) - 1))
    for frame in range(len(values)):
        left, top = np.clip(low[frame : frame + 2].min(axis=0), 0, (width, height)).astype(int)
        right = int(np.clip(high[frame : frame + 2, 0].max(), left, width))
        outside = cv2.norm(pictures[frame], pictures[frame + 1], cv2.NORM_L1)
        if top < height and left < right:
            mouth = np.s_[top:, left:right]
            outside -= cv2.norm(pictures[frame][mouth], pictures[frame + 1][mouth], cv2.NORM_L1)
        pixels = height * width - (height - top) * (right - left)
        values[frame] = outside / max(1, 3 * pixels)
    return values


def legacy_psnr(real: npt.ArrayLike, generated: npt.ArrayLike) -> FloatArray:
    """PSNR as the released evaluation computed it: wrong, and only for its tables.

    Grey pictures of 8 bits are subtracted and squared in 8 bits, so both wrap around at 256: noise
    against noise scores 27.9 dB, where 7.7 would be right. Equal frames score 100 dB. (The released
    code first enlarges to 256 x 256 with OpenCV's area interpolation, which doubles 128 pixels by
    repeating them and so changes no mean.)

    Args:
        real: (..., H, W, 3) uint8.
        generated: the same shape.

    Returns:
        (...) float64 dB.
    """
    a, b = _pair(real, generated)
    return legacy_psnr_of_grey(grey(a), grey(b))


def legacy_psnr_of_grey(
    real: npt.NDArray[np.uint8], generated: npt.NDArray[np.uint8]
) -> FloatArray:
    """``legacy_psnr`` of pictures (..., H, W) uint8 that ``grey`` has made; (...) float64 dB."""
    difference = real - generated  # uint8, wraps
    error = (difference * difference).mean(axis=(-2, -1))  # wraps again
    return np.where(error == 0, LEGACY_EQUAL, _decibels(error))


def legacy_landmark_distance(real: npt.ArrayLike, generated: npt.ArrayLike) -> FloatArray:
    """LMD as the released evaluation computed it: the sum over the 20 points, not the mean.

    Args:
        real: (..., 68, 2); the published numbers are pixels of the crop.
        generated: the same shape.

    Returns:
        (...) float64, 20 times ``landmark_distance`` of the mouth.
    """
    a, b = _landmark_pair(real, generated)
    return np.linalg.norm(_centred_mouth(a) - _centred_mouth(b), axis=-1).sum(axis=-1)


def _centred_mouth(landmarks: FloatArray) -> FloatArray:
    mouth = landmarks[..., MOUTH, :]
    return mouth - mouth.mean(axis=-2, keepdims=True)


def _frames(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(..., H, W, 3) as (n, H, W, 3)."""
    return frames.reshape(-1, *frames.shape[-3:])


def _pair(real: npt.ArrayLike, generated: npt.ArrayLike) -> tuple[Any, Any]:
    a, b = np.asarray(real), np.asarray(generated)
    for array in (a, b):
        if array.ndim < 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
            raise ValueError(f"frames are (..., H, W, 3) uint8, not {array.shape} {array.dtype}")
    if a.shape != b.shape:
        raise ValueError(f"frames of {a.shape} cannot be compared with {b.shape}")
    return a, b


def _landmark_pair(real: npt.ArrayLike, generated: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if a.shape != b.shape or a.shape[-2:] != (POINTS, 2):
        raise ValueError(f"landmarks are (..., 68, 2) twice, not {a.shape} and {b.shape}")
    return a, b
