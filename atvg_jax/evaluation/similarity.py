"""SSIM: how alike two pictures are in structure, window by window.

Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 13(4), 2004.

Arithmetic is in single precision, variances about the middle grey, so that they are not the small
difference of two large numbers. Values of photographs are within 1e-6 of scikit-image's, which
computes in double precision and takes several times as long, and those of flat black or white
pictures, whose variance is all rounding, within 3e-5.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

WINDOW_RADIUS = {"gaussian": 5, "uniform": 3}  # 11 x 11 and 7 x 7 pixels

_SIGMA = 1.5
_PEAK = 255.0
_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
_MIDDLE = 128.0
# The uniform window's variances are those of a sample: 49 pixels over 48.
_VARIANCE_SCALE = {"gaussian": 1.0, "uniform": 49 / 48}


class Windowed:
    """What SSIM needs of one side alone; a frame that is compared with several others keeps it.

    Within a window's radius of the border the values by window are of no use.

    Attributes:
        picture: (H, W, 3) grey levels less 128.
        means: by window, (H, W, 3) of ``picture`` around each pixel.
        variances: by window, (H, W, 3) of the grey levels around each pixel.
    """

    def __init__(self, frame: Frame, windows: Iterable[str] = tuple(WINDOW_RADIUS)):
        """``frame`` is (H, W, 3) uint8, ``windows`` some of ``WINDOW_RADIUS``."""
        self.picture: Floats = frame.astype(np.float32, order="C")
        self.picture -= _MIDDLE
        self.means: dict[str, Floats] = {}
        self.variances: dict[str, Floats] = {}
        squares, mean_squares = _scratch(frame.shape)[:2]
        np.multiply(self.picture, self.picture, out=squares)
        for window in windows:
            mean = _average(self.picture, window)
            variance = _average(squares, window)
            variance -= np.multiply(mean, mean, out=mean_squares)
            self.means[window], self.variances[window] = mean, variance


def similarity(real: Windowed, generated: Windowed) -> dict[str, float]:
    """SSIM of two frames by window: the mean over channels and over windows that are whole.

    It is exactly 1 for equal frames.
    """
    scratch = _scratch(real.picture.shape)
    product, covariance = scratch[:2]
    np.multiply(real.picture, generated.picture, out=product)
    values = {}
    for window in real.means:
        _average(product, window, covariance)
        radius = WINDOW_RADIUS[window]
        # Whole rows: what is outside of the columns is left out in the end.
        rows = [
            array[radius:-radius]
            for array in (
                real.means[window],
                generated.means[window],
                real.variances[window],
                generated.variances[window],
                *scratch[1:],
            )
        ]
        similar = _similar(_VARIANCE_SCALE[window], *rows)
        inside = similar[:, radius:-radius]
        values[window] = sum(cv2.sumElems(inside)) / inside.size
    return values


def _similar(
    variance_scale: float,
    mean_x: Floats,  # these and what follows: about the middle grey
    mean_y: Floats,
    variance_x: Floats,
    variance_y: Floats,
    covariance: Floats,  # with the means still in it; overwritten, as are those after it
    light: Floats,
    scale: Floats,
    spare: Floats,
) -> Floats:
    """``(2 mx my + C1)(2 cov + C2) / ((mx^2 + my^2 + C1)(vx + vy + C2))`` of every window."""
    covariance -= np.multiply(mean_x, mean_y, out=light)
    covariance *= 2 * variance_scale
    covariance += _C2
    np.add(mean_x, _MIDDLE, out=light)
    light *= np.add(mean_y, _MIDDLE, out=scale)
    light *= 2
    light += _C1
    # mx^2 + my^2 is 2 mx my and the square of the difference.
    np.subtract(mean_x, mean_y, out=scale)
    scale *= scale
    scale += light
    np.add(variance_x, variance_y, out=spare)
    spare *= variance_scale
    spare += _C2
    light *= covariance
    scale *= spare
    light /= scale
    return light


def _average(picture: Floats, window: str, out: Floats | None = None) -> Floats:
    """(H, W, 3) the weighted mean of the pixels around each, written to ``out`` if it is given."""
    found: Any
    if window == "uniform":
        side = 2 * WINDOW_RADIUS[window] + 1
        found = cv2.boxFilter(picture, cv2.CV_32F, (side, side), dst=out)
    else:
        found = cv2.sepFilter2D(picture, cv2.CV_32F, _gaussian(), _gaussian(), dst=out)
    return found


@cache
def _gaussian() -> npt.NDArray[np.float64]:
    radius = WINDOW_RADIUS["gaussian"]
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / _SIGMA) ** 2)
    return weights / weights.sum()


@cache
def _scratch(shape: tuple[int, ...]) -> list[Floats]:
    """Buffers, kept: fresh memory for every frame takes as long as what is done in it."""
    return list(np.empty((5, *shape), np.float32))
