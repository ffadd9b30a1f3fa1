"""CPBD: how sharp a picture looks, without another to compare it with.

Narvekar and Karam, "A No-Reference Image Blur Metric Based on the Cumulative Probability of Blur
Detection (CPBD)", IEEE TIP 20(9), 2011; edge widths after Marziliano, Dufaux, Winkler and Ebrahimi,
ICIP 2002. Where the paper leaves a choice, it is that of the authors' CPBD software release 1.0.
"""

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate

FloatArray = npt.NDArray[np.float64]

BLOCK = 64
"""Pixels: contrast, and with it the width that looks sharp, is judged in blocks of this size."""

EDGE_BLOCK = 0.002  # share of a block's pixels that are edges, above which it counts
_LOW_CONTRAST = 50  # grey levels: up to here an edge may be 5 pixels wide, above it 3
_WIDE, _NARROW = 5, 3
_EDGE_THRESHOLD = 2.0  # of the Sobel response with weights 1, 2, 1 over 8
_SOBEL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]) / 8
_LONGEST_SIDE = 101  # pixels that an edge is followed to each side


def grey(frames: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """(..., H, W, 3) uint8 RGB to (..., H, W) uint8: 0.299 R + 0.587 G + 0.114 B, rounded."""
    weights = np.array([19595, 38470, 7471], np.float32)  # of 65536
    # Whole numbers below 2^24, which single precision holds exactly.
    luma = np.asarray(frames).astype(np.float32) @ weights
    luma += 32768
    luma /= 65536
    return luma.astype(np.uint8)


def cpbd(frames: npt.ArrayLike) -> FloatArray:
    """Share of a picture's vertical edges whose blur a viewer would not notice.

    An edge is as wide as the grey levels rise or fall without a break around it. In a block of 64 x
    64 pixels, one of width w is seen as blurred with probability ``1 - exp(-(w / w_JNB)^3.6)``,
    where w_JNB is 5 pixels up to a contrast of 50 in the block and 3 above; CPBD counts those up to
    63 %, which are those no wider than w_JNB. Blocks with hardly any edge are left out; edge pixels
    are Sobel's, where the authors' software asks Canny's detector which blocks those are.

    Args:
        frames: (..., H, W, 3) uint8 RGB, or one grey picture (H, W) uint8; at least 64 x 64.

    Returns:
        (...) float64 in [0, 1], 1 is sharp; 0 for a picture without edges, as in the authors'
        software.
    """
    pictures = np.asarray(frames)
    if pictures.dtype != np.uint8 or (pictures.ndim != 2 and pictures.shape[-1:] != (3,)):
        raise ValueError(
            f"frames are (..., H, W, 3) or (H, W) uint8, not {pictures.shape} {pictures.dtype}"
        )
    if pictures.ndim != 2:
        pictures = grey(pictures)
    height, width = pictures.shape[-2:]
    if min(height, width) < BLOCK:
        raise ValueError(f"frames of {width} x {height} are smaller than a block of {BLOCK}")
    values = [_cpbd(picture) for picture in pictures.reshape(-1, height, width)]
    return np.asarray(values, np.float64).reshape(pictures.shape[:-2])


def _cpbd(picture: npt.NDArray[np.uint8]) -> float:
    image = picture.astype(np.float64)
    edges = vertical_edges(image)
    widths = np.where(edges, edge_widths(image), 0)
    sharp = count = 0  # edge pixels
    for top in range(0, image.shape[0] - BLOCK + 1, BLOCK):
        for left in range(0, image.shape[1] - BLOCK + 1, BLOCK):
            block = slice(top, top + BLOCK), slice(left, left + BLOCK)
            if np.count_nonzero(edges[block]) <= EDGE_BLOCK * BLOCK**2:
                continue
            contrast = np.ptp(image[block])
            noticeable = _WIDE if contrast <= _LOW_CONTRAST else _NARROW
            found = widths[block][widths[block] > 0]
            sharp += int(np.count_nonzero(found <= noticeable))
            count += len(found)
    return sharp / count if count else 0.0


def vertical_edges(image: FloatArray) -> npt.NDArray[np.bool_]:
    """(H, W) where a grey picture has an edge that runs up and down.

    Sobel's response above the threshold of the authors' software, thinned to its crest along the
    row. (MATLAB's own thinning, which their software calls, is not published.)
    """
    strength = correlate(image, _SOBEL, mode="nearest") ** 2
    before = np.pad(strength[:, :-1], ((0, 0), (1, 0)))
    after = np.pad(strength[:, 1:], ((0, 0), (0, 1)))
    # A crest of two equal pixels keeps one of them.
    return (strength > _EDGE_THRESHOLD**2) & (strength > before) & (strength >= after)


def edge_widths(image: FloatArray) -> npt.NDArray[np.int64]:
    """(H, W) pixels between the two ends of the slope that each pixel lies on, along its row.

    0 where the gradient does not point to the left or right within 22.5 degrees, and on the
    outermost pixels.
    """
    down, across = np.gradient(image)
    level = 45 * np.round(np.degrees(np.arctan2(down, across)) / 45)
    widths = np.where(level == 0, _slope(image), 0)
    widths = np.where(np.abs(level) == 180, _slope(-image), widths)
    inside = np.zeros(image.shape, bool)
    inside[1:-1, 1:-1] = True
    # Without any gradient there is no direction.
    return np.where(inside & (across != 0), widths, 0)


def _slope(image: FloatArray) -> npt.NDArray[np.int64]:
    """Of every pixel, how far the grey levels keep rising to its right and falling to its left.

    The next pixel on either side belongs to the slope whatever it is.
    """
    height, width = image.shape
    rises = np.diff(image, axis=1) > 0  # (H, W - 1): from pixel x to x + 1
    column = np.arange(width)
    # The first step at or after x that does not rise: where a climb from x ends.
    ends = np.where(rises, width - 1, column[:-1])
    top = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    top = np.concatenate([top, np.full((height, 1), width - 1)], axis=1)
    # The step before x that does not rise, plus one: where a descent to the left from x ends.
    starts = np.where(rises, 0, column[1:])
    bottom = np.maximum.accumulate(starts, axis=1)
    bottom = np.concatenate([np.zeros((height, 1), int), bottom], axis=1)
    right = top[:, np.minimum(column + 1, width - 1)] - column
    left = column - bottom[:, np.maximum(column - 1, 0)]
    return np.clip(right, 1, _LONGEST_SIDE) + np.clip(left, 1, _LONGEST_SIDE)
