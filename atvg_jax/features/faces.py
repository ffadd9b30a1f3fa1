"""Faces: dlib finds them and their 68 points, and a tracker follows one through a video.

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
from atvg_jax.features.alignment import (
    CROP_SIZE,
    apply,
    check_landmarks,
    crop_matrix,
    fit_similarity,
    head_pose,
    invert,
    smooth_alignment,
    warp,
)
from atvg_jax.features.images import check_frame

__all__ = [
    "CROP_SIZE", "AlignedFace", "Face", "FaceTracker", "align", "apply", "crop_matrix", "detect",
    "fit_similarity", "head_pose", "invert", "landmark_box", "predict_landmarks",
    "smooth_alignment", "stable_landmarks", "warp",
]  # fmt: skip

Frame = npt.NDArray[np.uint8]
Landmarks = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]

_FIRST_DETECTION = 640  # pixels on the longer side of the copy that is searched first
_LARGEST_DETECTION = 2560  # pixels: larger copies are not searched
_PREDICTED_FACE = (200, 400)  # pixels that a face is brought to before its points are predicted
_PREDICTION_MARGIN = 0.2  # of the box, on every side

# Right and down by parts of the box, and times its size: as far off as detections are.
_MOVED_BOXES = (
    (0, 0, 1), (0.06, 0, 1), (-0.06, 0, 1), (0, 0.06, 1), (0, -0.06, 1), (0, 0, 1.1), (0, 0, 0.92),
)  # fmt: skip

# The lower its score, the better must the predictor agree with itself about a face. The largest
# spread seen in frames of people talking that score below 1 was 0.028 x score; a dog's muzzle has
# 0.044 x score.
_CLEAR_SCORE = 1.0
_SPREAD_PER_SCORE = 0.032


class Face(NamedTuple):
    """One detection."""

    box: Box  # left, top, right, bottom in pixels
    score: float  # dlib's confidence: above 1 is a clear face


class AlignedFace(NamedTuple):
    """A face in the crop and the way there."""

    crop: Frame  # (128, 128, 3) uint8
    landmarks: Landmarks  # (68, 2) in crop pixels, detected again on the crop
    matrix: FloatArray  # (2, 3), picture pixel -> crop pixel
    box: Box  # in the picture


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


def detect(image: npt.ArrayLike, at_least: int = 1) -> list[Face]:
    """Finds upright, roughly frontal faces.

    A reduced copy is searched first, larger ones, up to twice the picture's size, only while too
    few are found. What scores low and has no stable landmarks is no face.

    Args:
        image: (H, W, 3) uint8.
        at_least: how many faces to look for before the search ends early.

    Returns:
        Faces, best first: by score, and by size, of which a doubling is worth one point of score.
        Empty if there is none.
    """
    frame = check_frame(image)
    grey = Image.fromarray(frame).convert("L")
    most: list[Face] = []
    for scale in _search_scales(max(grey.size)):
        faces = [face for face in _detect_at(grey, scale) if _is_believable(frame, face)]
        most = max(most, faces, key=len)
        if len(most) >= max(at_least, 1):
            break
    return most


def _search_scales(longest: int) -> list[float]:
    """Of the copies to search, until one has a face: 640 pixels, then ever twice as many."""
    scales = [min(1.0, _FIRST_DETECTION / longest)]
    while scales[-1] < 2.0 and longest * min(2.0, 2 * scales[-1]) <= _LARGEST_DETECTION:
        scales.append(min(2.0, 2 * scales[-1]))
    return scales


def _detect_at(grey: Image.Image, scale: float, threshold: float = 0.0) -> list[Face]:
    """Faces in a copy of a grey picture, best first, in pixels of the picture."""
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
    return face.score + float(np.log2(max(right - left, 1.0)))


def _is_believable(frame: Frame, face: Face) -> bool:
    if face.score >= _CLEAR_SCORE:
        return True
    try:
        return stable_landmarks(frame, face.box)[1] <= _SPREAD_PER_SCORE * face.score
    except ValueError:  # (almost) outside the picture
        return False


def predict_landmarks(image: npt.ArrayLike, box: Box) -> Landmarks:
    """The 68 points of the face in ``box``.

    Only the face's surroundings are touched. A small face is enlarged, because dlib rounds its
    points to whole pixels, and a large one reduced, which smooths what the predictor reads.

    Args:
        image: (H, W, 3) uint8.
        box: (left, top, right, bottom) as ``detect`` gives it.

    Returns:
        (68, 2) float32 pixels of ``image``.

    Raises:
        ValueError: for a box that is empty or outside the picture.
    """
    frame = check_frame(image)
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if not (width > 0 and height > 0):
        raise ValueError(f"a box is (left, top, right, bottom), not {box}")
    x0 = max(0, int(left - _PREDICTION_MARGIN * width))
    y0 = max(0, int(top - _PREDICTION_MARGIN * height))
    x1 = min(frame.shape[1], int(right + _PREDICTION_MARGIN * width) + 1)
    y1 = min(frame.shape[0], int(bottom + _PREDICTION_MARGIN * height) + 1)
    if x1 - x0 < 2 or y1 - y0 < 2:
        raise ValueError(f"the box {box} lies outside the picture {frame.shape}")
    region = Image.fromarray(frame[y0:y1, x0:x1]).convert("L")
    region, zoom = _resized_for_prediction(region, height)
    rectangle = _dlib().rectangle(
        round((left - x0) * zoom),
        round((top - y0) * zoom),
        round((right - x0) * zoom) - 1,
        round((bottom - y0) * zoom) - 1,
    )
    points = _predictor()(np.asarray(region), rectangle).parts()
    found = np.array([(p.x, p.y) for p in points], dtype=np.float64)
    return ((found + 0.5) / zoom - 0.5 + (x0, y0)).astype(np.float32)


def _resized_for_prediction(region: Image.Image, face: float) -> tuple[Image.Image, float]:
    """The region with its face, ``face`` pixels high, brought to a good size; and the scale."""
    smallest, largest = _PREDICTED_FACE
    if face < smallest:
        zoom = smallest / face
        size = (int(region.width * zoom), int(region.height * zoom))
        part = (0.0, 0.0, size[0] / zoom, size[1] / zoom)  # so that both axes are scaled by `zoom`
        return region.resize(size, Image.Resampling.BILINEAR, box=part), zoom
    factor = int(face // smallest)
    if face > largest:
        return region.reduce(factor), 1 / factor
    return region, 1.0


def stable_landmarks(image: npt.ArrayLike, box: Box) -> tuple[Landmarks, float]:
    """The 68 points of a still, at the cost of seven predictions.

    Args:
        image: (H, W, 3) uint8.
        box: (left, top, right, bottom) as ``detect`` gives it.

    Returns:
        (68, 2) float32 pixels, the median over slightly moved and scaled boxes; and their spread,
        the mean distance from it over the distance of the eyes: 0.005 to 0.02 for faces.
    """
    left, top, right, bottom = box
    size = right - left
    shapes = []
    for dx, dy, scale in _MOVED_BOXES:
        x, y = (left + right) / 2 + dx * size, (top + bottom) / 2 + dy * size
        half = scale * size / 2
        shapes.append(predict_landmarks(image, (x - half, y - half, x + half, y + half)))
    median = np.median(shapes, axis=0)
    eyes = np.linalg.norm(median[42:48].mean(axis=0) - median[36:42].mean(axis=0))
    spread = np.linalg.norm(shapes - median, axis=-1).mean() / max(eyes, 1e-6)
    return median.astype(np.float32), float(spread)


def landmark_box(landmarks: npt.ArrayLike) -> Box:
    """The box that the detector would give a face with these (68, 2) points.

    Size and place relative to the points are averages over 139 frames of people talking; single
    boxes differ from them by about 7 % in size and 4 % in place.
    """
    points = check_landmarks(landmarks)
    x, y = points.mean(axis=0)
    radius = float(np.sqrt(((points - (x, y)) ** 2).sum(axis=1).mean()))
    half = 1.402 * radius
    y -= 0.034 * 2 * half
    return float(x - half), float(y - half), float(x + half), float(y + half)


def align(
    image: npt.ArrayLike, landmarks: npt.ArrayLike | None = None, face: int = 0
) -> AlignedFace:
    """Finds a face and brings it into the crop.

    Args:
        image: (H, W, 3) uint8.
        landmarks: (68, 2) pixels of the picture, for a face that no detector finds; they are
            believed, and the crop's landmarks are these, moved. None: detect.
        face: which of several, best first.

    Raises:
        InputError: ``no_face`` if there is none, or not so many.
    """
    frame = check_frame(image)
    if landmarks is not None:
        given = check_landmarks(landmarks)
        matrix = crop_matrix(given)
        moved = apply(matrix, given).astype(np.float32)
        return AlignedFace(warp(frame, matrix), moved, matrix, landmark_box(given))
    faces = detect(frame, at_least=face + 1)
    if not faces:
        raise InputError(
            "no face found in the picture; use one that looks at the camera, or give its landmarks",
            reason="no_face",
        )
    if not 0 <= face < len(faces):
        many = "1 face" if len(faces) == 1 else f"{len(faces)} faces"
        raise InputError(
            f"the picture has {many}, so there is no number {face}; they are counted from 0",
            reason="no_face",
        )
    box = faces[face].box
    points, _ = stable_landmarks(frame, box)
    matrix = crop_matrix(points)
    crop = warp(frame, matrix)
    return AlignedFace(crop, _again(crop, apply(matrix, points)), matrix, box)


def _again(crop: Frame, landmarks: FloatArray) -> Landmarks:
    """The landmarks as the predictor sees them in the crop itself."""
    try:
        return stable_landmarks(crop, landmark_box(landmarks))[0]
    except ValueError:  # a crop that hardly shows the face
        return landmarks.astype(np.float32)


class FaceTracker:
    """Follows one face through a video at about the cost of the landmark predictor.

    The box of a frame comes from the landmarks of the one before. A small search around it, every
    few frames and whenever the box leaps, makes sure that there still is a face.
    """

    _CHECK_EVERY = 8  # frames
    _SEARCH_EVERY = 8  # frames without a face between searches at all scales
    _CHECKED_FACE = 90  # pixels that the face has in the small search
    _CHECK_THRESHOLD = -0.4  # below the detector's own: the face need not be found, just confirmed
    _LEAP = 0.25  # of the box, in place or size, within a frame
    _STILL = 0.03  # of the box: less is noise, and the box stays

    def __init__(self) -> None:
        self._box: Box | None = None
        self._unchecked = 0  # frames since the face was last confirmed
        self._lost = 0  # frames since the last search at all scales

    def track(self, frame: npt.ArrayLike) -> Landmarks | None:
        """(68, 2) points in pixels of this frame, the next of the video; None if it has no face."""
        picture = check_frame(frame)
        if self._box is not None:
            landmarks = self._follow(picture, self._box)
            if landmarks is not None:
                return landmarks
            self._box, self._lost = None, 0
        face = self._search(picture)
        if face is None:
            return None
        self._unchecked = 0
        landmarks = predict_landmarks(picture, face.box)
        self._box = landmark_box(landmarks)
        return landmarks

    def _follow(self, picture: Frame, box: Box) -> Landmarks | None:
        try:
            landmarks = predict_landmarks(picture, box)
        except ValueError:  # it has left the picture
            return None
        new = landmark_box(landmarks)
        change = _change(box, new)
        self._unchecked += 1
        if change > self._LEAP or self._unchecked >= self._CHECK_EVERY:
            found = self._confirm(picture, new)
            if found is None:
                return None
            self._unchecked = 0
            if change > self._LEAP:
                landmarks = predict_landmarks(picture, found)
                new = landmark_box(landmarks)
        if change > self._STILL:
            self._box = new
        return landmarks

    def _confirm(self, picture: Frame, box: Box) -> Box | None:
        """The detector's box of the face around ``box``, if it sees one."""
        left, top, right, bottom = box
        size = right - left
        margin = 0.35 * size
        x0, y0 = max(0, int(left - margin)), max(0, int(top - margin))
        region = picture[y0 : int(bottom + margin), x0 : int(right + margin)]
        if min(region.shape[:2]) < 2:
            return None
        grey = Image.fromarray(region).convert("L")
        for face in _detect_at(grey, self._CHECKED_FACE / size, self._CHECK_THRESHOLD):
            x, y = face.box[0] + x0, face.box[1] + y0
            found = (x, y, face.box[2] + x0, face.box[3] + y0)
            if _change(box, found) < 0.5:
                return found
        return None

    def _search(self, picture: Frame) -> Face | None:
        """The best face; most frames of a stretch without one are searched at low cost."""
        thorough = self._lost % self._SEARCH_EVERY == 0
        self._lost += 1
        if thorough:
            faces = detect(picture)
        else:
            grey = Image.fromarray(picture).convert("L")
            longest = max(grey.size)
            cheap = [s for s in _search_scales(longest) if s * longest <= _FIRST_DETECTION]
            found = [face for scale in cheap for face in _detect_at(grey, scale)]
            faces = sorted(found, key=_rank, reverse=True)
            faces = [face for face in faces if _is_believable(picture, face)]
        return faces[0] if faces else None


def _change(old: Box, new: Box) -> float:
    """The larger of shift and growth from one box to another, over the old one's size."""
    size = max(old[2] - old[0], 1e-6)
    shift = max(abs(old[0] + old[2] - new[0] - new[2]), abs(old[1] + old[3] - new[1] - new[3])) / 2
    return max(shift, abs((new[2] - new[0]) - size)) / size
