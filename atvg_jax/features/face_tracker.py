"""One face through a video, at about the cost of the landmark predictor."""

import cmath
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from atvg_jax.features.alignment import (
    apply,
    compose,
    crop_matrix,
    invert,
    picture_matrix,
    warp_grey,
)
from atvg_jax.features.detection import (
    CLEAR_SCORE,
    FIRST_DETECTION,
    Box,
    Face,
    detect,
    detect_at,
    grey_picture,
    is_believable,
    landmark_box,
    predict_in_square,
    predict_landmarks,
    rank,
    search_scales,
    square_matrix,
    stable_landmarks,
)
from atvg_jax.features.images import check_frame

Frame = npt.NDArray[np.uint8]
Landmarks = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

_CHECK_EVERY = 30  # frames
_SEARCH_EVERY = 8  # frames without a face between searches at all scales
_GLANCE = 192  # pixels on the shorter side of the copy that is searched for a large face first
_CHECKED_FACE = 90  # pixels that the face has in the small search
_CHECKED_MARGIN = 31  # pixels around it
_CHECK_THRESHOLD = -0.4  # below the detector's own: the face need not be found, just confirmed

# Of the box, in place or size. The detector's box and that of landmarks that fit differ by at most
# 0.19 (90 % by less than 0.14, over 190 faces); of landmarks that do not fit, mostly by 0.3.
_MISFIT = 0.22
_ELSEWHERE = 0.5  # another face

# Of the box, in place or size, or radians, within a frame.
_LEAP = 0.25
_STILL = 0.03  # less is noise, and the predictor looks where it looked

# Correlation of the face with itself in the frame before. Below it, something has happened to it.
_ALIKE = 0.7
_GLIMPSE = slice(18, None, 16)  # rows and columns of the predictor's square that are compared


class FaceTracker:
    """Follows one face through a video.

    Where a face was in the frame before, upright, is where its points are predicted in the next. A
    small search around it, every 30 frames and whenever it leaps or looks different, makes sure
    that there still is a face and that the points fit it.
    """

    def __init__(self, box: Box | None = None) -> None:
        """Args: where the face is in the first frame, if that is known."""
        self._given = box
        self._others: list[Box] = []
        self._upright: FloatArray | None = None  # (2, 3), picture -> crop, where it is looked for
        self._box: Box = (0.0, 0.0, 0.0, 0.0)  # of the face in the crop
        self._square = np.zeros((2, 3))  # picture -> predictor's square
        self._glimpse: FloatArray | None = None  # of the frame before
        self._unchecked = 0  # frames since the face was last confirmed
        self._lost = 0  # frames since the last search at all scales

    def track(self, frame: npt.ArrayLike) -> Landmarks | None:
        """(68, 2) points in pixels of this frame, the next of the video; None if it has no face."""
        picture = check_frame(frame)
        if self._upright is not None:
            landmarks = self._follow(picture, self._upright)
            if landmarks is not None:
                return landmarks
            self._upright, self._lost = None, 0
        if self._given is not None:
            box, self._given = self._given, None
            return self._begin(picture, box)
        found = self._search(picture)
        self._others = [face.box for face in found[1:]]
        return self._begin(picture, found[0].box) if found else None

    def rivals(self) -> list["FaceTracker"]:
        """Trackers for the other faces of the frame in which this one's was found, best first."""
        return [FaceTracker(box) for box in self._others]

    def _begin(self, picture: Frame, box: Box) -> Landmarks | None:
        """Takes hold of a face that was detected."""
        try:
            landmarks = predict_landmarks(picture, box)
            if _difference(box, landmark_box(landmarks)) > _MISFIT:
                landmarks, _ = stable_landmarks(picture, box)
        except ValueError:  # (almost) outside the picture
            return None
        self._hold(landmarks)
        return landmarks

    def _hold(self, landmarks: Landmarks) -> None:
        """From now on the face is looked for where and as large as it is here."""
        upright = crop_matrix(landmarks)
        # One box for all frames to come: one that follows the chin would let the mouth move
        # everything else.
        self._box = landmark_box(apply(upright, landmarks))
        self._glimpse, self._unchecked = None, 0
        self._aim(upright)

    def _aim(self, upright: FloatArray) -> None:
        """Where and as large as an alignment says."""
        self._upright = upright
        self._square = compose(square_matrix(self._box), upright)

    def _follow(self, picture: Frame, upright: FloatArray) -> Landmarks | None:
        """The points of the face in the next frame; None if it is lost."""
        try:
            landmarks, square = predict_in_square(picture, self._square)
        except ValueError:  # it has left the picture
            return None
        back = picture_matrix(landmarks)
        change = _change(compose(upright, back), self._box)
        self._unchecked += 1
        if change > _LEAP or not self._looks_the_same(square) or self._unchecked >= _CHECK_EVERY:
            checked = self._check(picture, landmarks, invert(back))
            if checked is None:
                return None
            self._unchecked = 0
            if checked is not landmarks:
                self._hold(checked)
                return checked
        if change > _STILL:
            self._aim(invert(back))
        return landmarks

    def _looks_the_same(self, square: Frame) -> bool:
        """Whether what is in the predictor's square is like what was in it a frame before."""
        before = self._glimpse
        glimpse = square[_GLIMPSE, _GLIMPSE].astype(np.float64).ravel()
        glimpse -= glimpse.sum() / glimpse.size
        glimpse /= max(math.sqrt(glimpse @ glimpse), 1e-6)
        self._glimpse = glimpse
        return before is None or float(before @ glimpse) >= _ALIKE

    def _check(self, picture: Frame, landmarks: Landmarks, upright: FloatArray) -> Landmarks | None:
        """The landmarks, or better ones where they do not fit the face; None if there is none."""
        small = square_matrix(self._box, _CHECKED_FACE, _CHECKED_MARGIN)
        plane = compose(small, upright)
        square = warp_grey(picture, plane, _CHECKED_FACE + 2 * _CHECKED_MARGIN)
        box = landmark_box(apply(plane, landmarks))
        for face in detect_at(Image.fromarray(square), 1.0, _CHECK_THRESHOLD):
            difference = _difference(face.box, box)
            if difference > _ELSEWHERE:
                continue
            if difference > _MISFIT:
                again, _ = predict_in_square(picture, compose(square_matrix(face.box), plane))
                if _difference(face.box, landmark_box(apply(plane, again))) < difference:
                    return again
            return landmarks
        return None

    def _search(self, picture: Frame) -> list[Face]:
        """Faces, best first; most frames of a stretch without one are searched at low cost."""
        thorough = self._lost % _SEARCH_EVERY == 0
        self._lost += 1
        grey = grey_picture(picture)
        if thorough:
            scale = _GLANCE / min(grey.size)
            found = detect_at(grey, scale) if scale < 0.9 else []
            found = [face for face in found if face.score >= CLEAR_SCORE]
            if not found:
                found = detect(picture)
            return found
        longest = max(grey.size)
        cheap = [s for s in search_scales(longest) if s * longest <= FIRST_DETECTION]
        found = sorted((f for s in cheap for f in detect_at(grey, s)), key=rank, reverse=True)
        return [face for face in found if is_believable(picture, face)]


def _difference(detected: Box, other: Box) -> float:
    """The larger of shift and growth from one box to another, over the first one's size."""
    size = max(detected[2] - detected[0], 1e-6)
    x = abs(detected[0] + detected[2] - other[0] - other[2]) / 2
    y = abs(detected[1] + detected[3] - other[1] - other[3]) / 2
    return max(x, y, abs((other[2] - other[0]) - size)) / size


def _change(across: FloatArray, box: Box) -> float:
    """How far a face has moved: shift over its size, growth, or angle.

    Args:
        across: (2, 3), from where it is in the crop to where it was.
        box: of the face in the crop.
    """
    (a, _, x), (b, _, y) = across.tolist()
    left, top, right, bottom = box
    middle = complex(left + right - 1, top + bottom - 1) / 2
    factor = complex(a, b)
    shift = abs(factor * middle + complex(x, y) - middle) / (right - left)
    return max(shift, abs(abs(factor) - 1), abs(cmath.phase(factor)))
