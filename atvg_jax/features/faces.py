"""Faces: from a picture to the aligned crop. What there is to know of faces is found under here.

``detection`` finds them and their 68 points, ``alignment`` is the geometry, ``face_tracker``
follows one through a video.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from atvg_jax.errors import InputError
from atvg_jax.features.alignment import (
    CROP_SIZE,
    apply,
    check_landmarks,
    compose,
    crop_matrix,
    fit_similarity,
    head_pose,
    invert,
    picture_matrix,
    smooth_alignment,
    warp,
)
from atvg_jax.features.detection import (
    Box,
    Face,
    detect,
    landmark_box,
    predict_landmarks,
    stable_landmarks,
)
from atvg_jax.features.face_tracker import FaceTracker
from atvg_jax.features.images import check_frame

__all__ = [
    "CROP_SIZE", "AlignedFace", "Face", "FaceTracker", "align", "apply", "compose", "crop_matrix",
    "detect", "fit_similarity", "head_pose", "invert", "landmark_box", "picture_matrix",
    "predict_landmarks", "smooth_alignment", "stable_landmarks", "warp",
]  # fmt: skip

Frame = npt.NDArray[np.uint8]
Landmarks = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]


class AlignedFace(NamedTuple):
    """A face in the crop and the way there."""

    crop: Frame  # (128, 128, 3) uint8
    landmarks: Landmarks  # (68, 2) in crop pixels
    matrix: FloatArray  # (2, 3), picture pixel -> crop pixel
    box: Box  # in the picture


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
    # Once as it is, and again turned upright, as a tracker sees it in a video.
    points, _ = stable_landmarks(frame, box)
    plane = crop_matrix(points)
    points, _ = stable_landmarks(frame, landmark_box(apply(plane, points)), plane)
    matrix = crop_matrix(points)
    moved = apply(matrix, points).astype(np.float32)
    return AlignedFace(warp(frame, matrix), moved, matrix, box)
