"""From picture to crop and back: one similarity transform, and which way a head looks.

Pixel coordinates are (x, y) with the centre of the top left pixel at (0, 0).
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from atvg_jax.features.face_shape import POINTS
from atvg_jax.features.images import check_frame

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
    """The similarity transform that takes the face to the crop.

    Least squares between the template's points 27..44 and the face's, with errors measured in the
    picture, as the authors' code does.

    Args:
        landmarks: (68, 2) pixels of the picture.

    Returns:
        (2, 3) float64: crop = matrix @ (x, y, 1).
    """
    points = check_landmarks(landmarks)
    template = _TEMPLATE - _TEMPLATE_MARGIN
    return invert(fit_similarity(template, points[_ALIGNED_POINTS]))


def fit_similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> FloatArray:
    """The rotation, scale and shift without mirroring that brings ``source`` closest to ``target``.

    Args:
        source: (n, 2), n >= 2.
        target: (n, 2).

    Returns:
        (2, 3) float64 that minimises sum |matrix @ (source, 1) - target|^2.

    Reference: Umeyama, PAMI 1991; in two dimensions a complex number a = conj(s) . t / |s|^2.
    """
    s = np.asarray(source, dtype=np.float64) @ [1, 1j]
    t = np.asarray(target, dtype=np.float64) @ [1, 1j]
    spread = np.sum(np.abs(s - s.mean()) ** 2)
    if spread < 1e-12:
        raise ValueError("all points of the shape are the same")
    a = np.vdot(s - s.mean(), t - t.mean()) / spread
    b = t.mean() - a * s.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def invert(matrix: npt.ArrayLike) -> FloatArray:
    """The way back: the (2, 3) matrix that undoes a (2, 3) affine one."""
    m = np.asarray(matrix, dtype=np.float64)
    if m.shape != (2, 3):
        raise ValueError(f"an affine matrix is (2, 3), not {m.shape}")
    linear = np.linalg.inv(m[:, :2])
    return np.concatenate([linear, -linear @ m[:, 2:]], axis=1)


def apply(matrix: npt.ArrayLike, points: npt.ArrayLike) -> FloatArray:
    """(..., 2) points through a (2, 3) affine matrix."""
    m = np.asarray(matrix, dtype=np.float64)
    return np.asarray(points, dtype=np.float64) @ m[:, :2].T + m[:, 2]


def warp(image: npt.ArrayLike, matrix: npt.ArrayLike, size: int = CROP_SIZE) -> Frame:
    """Resamples the picture into the crop; what lies outside the picture is black.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3), picture pixel -> crop pixel.
        size: of the crop, pixels.

    Returns:
        (size, size, 3) uint8, antialiased where the picture shrinks.
    """
    frame = check_frame(image)
    back = invert(matrix)
    picture = Image.fromarray(frame)
    shrink = float(np.sqrt(abs(np.linalg.det(back[:, :2]))))
    # Only the part that the crop shows; then that part is reduced by a whole factor (box
    # filter) so that the interpolation that follows meets about one source pixel a step.
    corners = apply(back, [(-1, -1), (size, -1), (-1, size), (size, size)])
    x0, y0 = np.maximum(np.floor(corners.min(axis=0)).astype(int) - 2, 0)
    x1, y1 = np.minimum(np.ceil(corners.max(axis=0)).astype(int) + 3, picture.size)
    if x1 <= x0 or y1 <= y0:
        return np.zeros((size, size, 3), np.uint8)
    picture = picture.crop((x0, y0, x1, y1))
    factor = max(1, int(shrink))
    if factor > 1:
        picture = picture.reduce(factor)
    # Pillow wants crop -> picture with pixel edges, not centres, on whole numbers.
    linear = back[:, :2]
    shift = back[:, 2] + 0.5 - linear @ [0.5, 0.5] - (x0, y0)
    coefficients = np.concatenate([linear, shift[:, None]], axis=1) / factor
    # As floating point, because Pillow cuts 8-bit results off instead of rounding them.
    bands = [
        band.convert("F").transform(
            (size, size),
            Image.Transform.AFFINE,
            tuple(coefficients.ravel()),
            resample=Image.Resampling.BICUBIC,
        )
        for band in picture.split()
    ]
    out = np.stack([np.asarray(band) for band in bands], axis=-1)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


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
    back = np.stack([invert(crop_matrix(points)) for points in np.asarray(landmarks)])
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
    return np.stack([invert(matrix) for matrix in smooth])


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
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (POINTS, 2) or not np.isfinite(points).all():
        raise ValueError(f"landmarks are (68, 2) finite numbers, not {points.shape}")
    return points
