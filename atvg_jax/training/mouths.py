"""The mouths that a landmark predictor finds in made frames, against those in the real ones."""

from collections.abc import Mapping
from functools import cache

import numpy as np

from atvg_jax.errors import InputError
from atvg_jax.features import faces
from atvg_jax.features.face_shape import bundled_face_shape
from atvg_jax.features.landmarks import MOUTH
from atvg_jax.training import samples

FRAMES_JUDGED = 4  # of each window, evenly spread: a prediction takes a millisecond or two


def mouth_distances(batch: Mapping[str, np.ndarray], frames: np.ndarray) -> dict[str, np.ndarray]:
    """Mean distance of a mouth point (LMD) in pixels, each mouth centred on its own mean.

    Args:
        batch: ``frames`` (B, T, 128, 128, 3) uint8, real, and ``example_image`` (B, 128, 128, 3).
        frames: (B, T, 128, 128, 3) in [-1, 1], made.

    Returns:
        ``landmark_distance`` (B,), and ``static_landmark_distance`` (B,) of the portrait unmoved;
        nothing where dlib or its model is not installed.
    """
    if not _predictor_is_there():
        return {}
    count = frames.shape[1]
    times = np.unique(np.linspace(0, count - 1, FRAMES_JUDGED).round().astype(int))
    shown = samples.pixels(frames[:, times])
    found: dict[str, list[float]] = {"landmark_distance": [], "static_landmark_distance": []}
    for real, made, portrait in zip(
        batch["frames"][:, times], shown, batch["example_image"], strict=True
    ):
        truth = [_mouth(picture) for picture in real]
        still = _mouth(portrait)
        own = [_mouth(picture) for picture in made]
        found["landmark_distance"].append(_distance(own, truth))
        found["static_landmark_distance"].append(_distance([still] * len(truth), truth))
    return {name: np.asarray(values) for name, values in found.items()}


def _mouth(crop: np.ndarray) -> np.ndarray:
    """(20, 2) the mouth in an aligned crop, about its own middle."""
    mouth = faces.predict_landmarks(crop, _crop_box())[MOUTH]
    return mouth - mouth.mean(axis=0)


def _distance(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return float(np.linalg.norm(np.stack(a) - np.stack(b), axis=-1).mean())


@cache
def _crop_box() -> faces.Box:
    """The box of the mean face in the crop, whose alignment puts all faces into one place."""
    mean_shape = 100 * np.asarray(bundled_face_shape().mean_shape, np.float64)
    aligned = faces.apply(faces.crop_matrix(mean_shape), mean_shape)
    return faces.landmark_box(aligned)


@cache
def _predictor_is_there() -> bool:
    try:
        faces.predict_landmarks(np.zeros((128, 128, 3), np.uint8), _crop_box())
    except InputError:
        return False
    return True
