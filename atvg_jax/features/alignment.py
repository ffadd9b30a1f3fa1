"""From picture to crop and back: one similarity transform, and which way a head looks.

Pixel coordinates are (x, y) with the centre of the top left pixel at (0, 0). OpenCV is imported at
the point of use.
"""

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from atvg_jax.features.face_shape import POINTS
from atvg_jax.features.images import check_frame, opencv

Frame = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

CROP_SIZE = 128

# The published frontal template, points 27..44 (nose and eyes) of base_68.npy, released with
# ATVGnet: pixels of the 163 x 163 picture whose rows and columns 1..128 are the crop.
# base_68_close.npy, for closed eyes, has the same numbers here (the two differ only in points that
# alignment does not use).
_TEMPLATE = np.array(
    [
        [65, 37], [65, 47], [65, 57], [66, 68], [54, 75], [60, 77], [66, 78], [71, 76], [77, 75],
        [28, 39], [35, 35], [43, 35], [50, 40], [43, 42], [34, 42], [79, 40], [86, 34], [94, 34],
    ],
    dtype=np.float64,
)  # fmt: skip
_TEMPLATE_MARGIN = 1.0  # rows and columns 1..128 of the template's picture are kept
_ALIGNED_POINTS = slice(27, 45)

# Frames over which the alignment of a clip is averaged. Real heads move and turn within a few
# frames but do not change in size within half a second, where a blink (5 to 8 frames) pulls at the
# points that the size is measured by.
_MEDIAN_FRAMES = 5
_PLACE_SIGMA, _ANGLE_SIGMA, _SIZE_SIGMA = 2.0, 4.0, 10.0


def crop_matrix(landmarks: npt.ArrayLike) -> FloatArray:
    """The similarity transform that takes a face to the crop.

    Args:
        landmarks: (..., 68, 2) pixels of the picture.

    Returns:
        (..., 2, 3) float64: crop = matrix @ (x, y, 1).
    """
    return invert(picture_matrix(landmarks))


def picture_matrix(landmarks: npt.ArrayLike) -> FloatArray:
    """The way back from the crop, (..., 2, 3).

    Least squares between the template's points 27..44 and the face's, with errors measured in the
    picture, as the authors' code does.
    """
    seen = _finite(landmarks)[..., _ALIGNED_POINTS, :]
    flat = seen.reshape(*seen.shape[:-2], -1) @ _template_fit()
    return flat.reshape(*flat.shape[:-1], 2, 3)


@cache
def _template_fit() -> FloatArray:
    return _similarity_fit(_TEMPLATE - _TEMPLATE_MARGIN)


def fit_similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> FloatArray:
    """The rotation, scale and shift without mirroring that brings ``source`` closest to ``target``.

    Args:
        source: (n, 2), n >= 2.
        target: (n, 2).

    Returns:
        (2, 3) float64 that minimises sum |matrix @ (source, 1) - target|^2.
    """
    flat = np.asarray(target, dtype=np.float64).reshape(-1)
    return (flat @ _similarity_fit(np.asarray(source, dtype=np.float64))).reshape(2, 3)


def _similarity_fit(source: FloatArray) -> FloatArray:
    """What makes the (2, 3) matrix, flat, of a flat target: (2 n, 6), because it is linear in it.

    Reference: Umeyama, PAMI 1991; in two dimensions with the complex numbers s and t of source and
    target, matrix = a, b with a = conj(s - mean s) . t / |s - mean s|^2 and b = mean t - a mean s.
    """
    s = source @ [1, 1j]
    centred = s - s.mean()
    spread = np.sum(np.abs(centred) ** 2)
    if spread < 1e-12:
        raise ValueError("all points of the shape are the same")
    a = centred.conj() / spread  # the mean of t does not count: ``centred`` sums to 0
    b = 1 / len(s) - a * s.mean()
    # The row of x, then that of y: t counts as it is, and turned by a quarter.
    a, b = (np.stack([v, 1j * v], axis=1).ravel() for v in (a, b))
    return np.stack([a.real, -a.imag, b.real, a.imag, a.real, b.imag], axis=1)


def invert(matrix: npt.ArrayLike) -> FloatArray:
    """The way back: the (..., 2, 3) matrix that undoes a (..., 2, 3) affine one."""
    m = np.asarray(matrix, dtype=np.float64)
    if m.shape[-2:] != (2, 3):
        raise ValueError(f"an affine matrix is (2, 3), not {m.shape}")
    if m.ndim == 2:  # most are, and there are several for every frame
        (a, b, x), (c, d, y) = m.tolist()
        size = a * d - b * c
        if not size:
            raise ValueError(f"the matrix {m.tolist()} cannot be undone")
        a, b, c, d = d / size, -b / size, -c / size, a / size
        return np.array([[a, b, -a * x - b * y], [c, d, -c * x - d * y]])
    linear = np.linalg.inv(m[..., :2])
    return np.concatenate([linear, -linear @ m[..., 2:]], axis=-1)


def compose(outer: npt.ArrayLike, inner: npt.ArrayLike) -> FloatArray:
    """The (..., 2, 3) matrix that does what ``inner`` does and then what ``outer`` does."""
    first, then = np.asarray(inner, dtype=np.float64), np.asarray(outer, dtype=np.float64)
    both = then[..., :2] @ first
    both[..., 2] += then[..., 2]
    return both


def apply(matrix: npt.ArrayLike, points: npt.ArrayLike) -> FloatArray:
    """Points through affine matrices.

    Args:
        matrix: (2, 3), or (..., 2, 3) for as many sets of points.
        points: (..., 2), or (..., n, 2) for sets of n points.
    """
    m, xy = np.asarray(matrix, dtype=np.float64), np.asarray(points, dtype=np.float64)
    if m.ndim == 2:
        return xy @ m[:, :2].T + m[:, 2]
    return xy @ np.swapaxes(m[..., :2], -1, -2) + m[..., None, :, 2]


def warp(image: npt.ArrayLike, matrix: npt.ArrayLike, size: int = CROP_SIZE) -> Frame:
    """Resamples the picture into the crop; what lies outside the picture is black.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3), picture pixel -> crop pixel.
        size: of the crop, pixels.

    Returns:
        (size, size, 3) uint8, antialiased where the picture shrinks.
    """
    return _resampled(check_frame(image), matrix, size, grey=False)


def warp_grey(image: npt.ArrayLike, matrix: npt.ArrayLike, size: int) -> npt.NDArray[np.uint8]:
    """The same in grey, for programs to look at: (size, size) uint8, bilinear, at half the cost."""
    return _resampled(check_frame(image), matrix, size, grey=True)


def _resampled(frame: Frame, matrix: npt.ArrayLike, size: int, grey: bool) -> npt.NDArray[np.uint8]:
    cv2 = opencv()
    forward = np.array(matrix, dtype=np.float64)
    (a, b, x), (c, d, y) = invert(forward).tolist()
    factor = max(1, int(math.sqrt(abs(a * d - b * c))))
    # Only the part that the crop shows.
    half = (size - 1) / 2
    x, y = x + (a + b) * half, y + (c + d) * half
    wide, high = ((half + 1) * (abs(u) + abs(v)) + factor + 2 for u, v in ((a, b), (c, d)))
    left, top = max(0, int(x - wide)), max(0, int(y - high))
    region = frame[top : max(int(y + high) + 1, 0), left : max(int(x + wide) + 1, 0)]
    if region.shape[0] < factor or region.shape[1] < factor:
        return np.zeros((size, size) if grey else (size, size, 3), np.uint8)
    if grey:
        region = cv2.cvtColor(region, cv2.COLOR_RGB2GRAY)
    forward[:, 2] += forward[:, :2] @ (left, top)
    if factor > 1:
        # Reduced by a whole factor (box filter), so that the interpolation that follows meets
        # about one source pixel a step. Pixel x then covers factor * x .. factor * x + factor - 1.
        rows, columns = (side // factor for side in region.shape[:2])
        region = region[: rows * factor, : columns * factor]
        region = cv2.resize(region, (columns, rows), interpolation=cv2.INTER_AREA)
        forward[:, 2] += forward[:, :2].sum(axis=1) * (factor - 1) / 2
        forward[:, :2] *= factor
    how = cv2.INTER_LINEAR
    return cv2.warpAffine(region, forward, (size, size), flags=how)


def smooth_alignment(landmarks: npt.ArrayLike) -> FloatArray:
    """The crop of every frame of a clip, without what blinks and the predictor's noise do to it.

    A similarity transform has four parameters: where the crop's centre lies in the frame (2), its
    angle, and the logarithm of its size. Each is freed of single outliers by a running median and
    then averaged with a Gaussian, symmetric in time so that the crop does not lag.

    Args:
        landmarks: (n, 68, 2) pixels of the frames.

    Returns:
        (n, 2, 3) float64, pixel of frame -> pixel of crop.
    """
    back = picture_matrix(landmarks)
    middle = (CROP_SIZE - 1) / 2
    centre = back @ [middle, middle, 1.0]  # (n, 2)
    angle = np.unwrap(np.arctan2(back[:, 1, 0], back[:, 0, 0]))
    size = np.log(np.hypot(back[:, 0, 0], back[:, 1, 0]))
    centre = _smooth(centre, _PLACE_SIGMA)
    angle = _smooth(angle, _ANGLE_SIGMA)
    size = np.exp(_smooth(size, _SIZE_SIGMA))
    a, b = size * np.cos(angle), size * np.sin(angle)
    linear = np.stack([np.stack([a, -b], axis=-1), np.stack([b, a], axis=-1)], axis=-2)
    shift = centre - linear @ [middle, middle]
    smooth = np.concatenate([linear, shift[..., None]], axis=-1)
    return invert(smooth)


def _smooth(track: FloatArray, sigma: float) -> FloatArray:
    """A (n,) or (n, k) parameter over time, first through the median, then averaged."""
    # Imported here: whoever aligns a single picture does without.
    from scipy.ndimage import gaussian_filter1d, median_filter

    window = (_MEDIAN_FRAMES, 1)[: track.ndim]
    steady = median_filter(track, size=window, mode="nearest")
    return gaussian_filter1d(steady, sigma, axis=0, mode="nearest")


# Nose tip, chin, outer eye corners and mouth corners of a generic head, in its own units: x to the
# right of the picture, y down, z away from the camera. The widely used six-point model (S. Mallick,
# 2016), nodded by the 8.5 degrees at which it fits the mean face of people who talk to a camera.
_HEAD_POINTS = (30, 8, 36, 45, 48, 54)
_HEAD_NOD = np.radians(-8.5)
_HEAD = np.array(
    [
        (0, 0, 0),
        (0, 330, 65),
        (-225, -170, 135),
        (225, -170, 135),
        (-150, 150, 125),
        (150, 150, 125),
    ],
    dtype=np.float64,
) @ np.array(
    [
        (1, 0, 0),
        (0, np.cos(_HEAD_NOD), np.sin(_HEAD_NOD)),
        (0, -np.sin(_HEAD_NOD), np.cos(_HEAD_NOD)),
    ]
)


def head_pose(landmarks: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Which way a face looks, from a weak-perspective fit of a generic head.

    Args:
        landmarks: (..., 68, 2) pixels.

    Returns:
        (..., 3) yaw (positive: towards the right of the picture), pitch (positive: down), roll
        (positive: clockwise as seen in the picture), in degrees.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape[-2:] != (POINTS, 2):
        raise ValueError(f"landmarks are (..., 68, 2), not {points.shape}")
    seen = points[..., _HEAD_POINTS, :]
    seen = seen - seen.mean(axis=-2, keepdims=True)
    head = _HEAD - _HEAD.mean(axis=0)
    affine = np.swapaxes(seen, -1, -2) @ np.linalg.pinv(head).T  # (..., 2, 3): head -> picture
    u, _, vt = np.linalg.svd(affine, full_matrices=False)
    rows = u @ vt  # the nearest scaled orthographic projection: the rotation's first two rows
    third = np.cross(rows[..., 0, :], rows[..., 1, :])
    # rotation = roll about z (yaw about y (pitch about x))
    roll = np.arctan2(rows[..., 1, 0], rows[..., 0, 0])
    yaw = np.arctan2(third[..., 0], np.hypot(rows[..., 0, 0], rows[..., 1, 0]))
    pitch = np.arctan2(third[..., 1], third[..., 2])
    return np.degrees(np.stack([yaw, pitch, roll], axis=-1)).astype(np.float32)


def check_landmarks(landmarks: npt.ArrayLike) -> FloatArray:
    """One face's landmarks as (68, 2) float64.

    Raises:
        ValueError: for another shape, or values that are not finite.
    """
    points = _finite(landmarks)
    if points.ndim != 2:
        raise ValueError(f"the landmarks of one face are (68, 2), not {points.shape}")
    return points


def _finite(landmarks: npt.ArrayLike) -> FloatArray:
    """Landmarks of any number of faces as (..., 68, 2) float64."""
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape[-2:] != (POINTS, 2) or not np.isfinite(points).all():
        raise ValueError(f"landmarks are (..., 68, 2) finite numbers, not {points.shape}")
    return points
