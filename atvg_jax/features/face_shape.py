"""The mean face and how a mouth opens, estimated from clips; what own normalisation stands on.

``face_shape.npz`` beside this file holds the result for the training footage. It is made again by
tracking the clips and calling ``fit_face_shape`` on their landmarks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

POINTS = 68

# Inner lips: three pairs above and below the opening.
_UPPER_LIP, _LOWER_LIP = (61, 62, 63), (67, 66, 65)
# Nose bridge and tip, nostrils, eye corners: what speech, blinks and brows leave in place.
STABLE_POINTS = (27, 28, 29, 30, 31, 33, 35, 36, 39, 42, 45)


def _mirror_order() -> npt.NDArray[np.int64]:
    order = np.arange(POINTS)
    pairs = [(i, 16 - i) for i in range(17)]  # jaw
    pairs += [(17 + i, 26 - i) for i in range(10)]  # brows
    pairs += [(31 + i, 35 - i) for i in range(5)]  # nostrils
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]  # eyes
    pairs += [(48 + i, 54 - i) for i in range(7)] + [
        (55 + i, 59 - i) for i in range(5)
    ]  # outer lips
    pairs += [(60 + i, 64 - i) for i in range(5)] + [
        (65 + i, 67 - i) for i in range(3)
    ]  # inner lips
    for a, b in pairs:
        order[a], order[b] = b, a
    return order


# landmarks[..., FLIP_PERMUTATION, :] with x negated are the landmarks of the mirrored picture.
FLIP_PERMUTATION = _mirror_order()


class FaceShape(NamedTuple):
    """Both left-right symmetric, in normalised units."""

    mean_shape: Array  # (68, 2), lips just closed, centred, Frobenius norm 1
    opening_direction: Array  # (68, 2), movement of every point for an inner-lip gap of 1


def check_shapes(landmarks: npt.ArrayLike) -> Array:
    """Landmarks as (..., 68, 2) float64.

    Raises:
        ValueError: for another shape, or values that are not finite.
    """
    shapes = np.asarray(landmarks, dtype=np.float64)
    if shapes.ndim < 2 or shapes.shape[-2:] != (POINTS, 2):
        raise ValueError(f"landmarks are (..., 68, 2), not {shapes.shape}")
    if not np.isfinite(shapes).all():
        raise ValueError("landmarks hold values that are not finite")
    return shapes


def mirrored(shapes: Array) -> Array:
    """(..., 68, 2) shapes of the picture mirrored about x = 0."""
    return shapes[..., FLIP_PERMUTATION, :] * (-1.0, 1.0)


def inner_lip_gap(shapes: Array) -> Array:
    """(...) height of the gap between the inner lips of upright shapes; below 0 if they overlap."""
    upper = shapes[..., _UPPER_LIP, 1].mean(axis=-1)
    lower = shapes[..., _LOWER_LIP, 1].mean(axis=-1)
    return lower - upper


def align_to(shapes: Array, mean_shape: Array, points: Sequence[int] = STABLE_POINTS) -> Array:
    """Each of (..., 68, 2) shapes moved, turned and scaled to lie closest to the mean shape.

    Only ``points`` count. Least squares in the mean shape's units; no mirroring.
    """
    index = list(points)
    z = shapes @ np.array([1, 1j])  # (..., 68): the plane as complex numbers
    target = mean_shape[index] @ np.array([1, 1j])
    centre = z[..., index].mean(axis=-1, keepdims=True)
    source = z[..., index] - centre
    target_centre = target.mean()
    spread = np.sum(np.abs(source) ** 2, axis=-1, keepdims=True)
    if (spread < 1e-12).any():
        raise ValueError("all points of a shape are the same")
    turn = np.sum(np.conj(source) * (target - target_centre), axis=-1, keepdims=True) / spread
    moved = (z - centre) * turn + target_centre
    return np.stack([moved.real, moved.imag], axis=-1)


def fit_face_shape(clips: Sequence[npt.ArrayLike], rounds: int = 5) -> FaceShape:
    """The mean face with its lips closed, and how points move as a mouth opens.

    Every clip counts the same in the mean, whatever its length, so that a person with much footage
    does not become the mean.

    Args:
        clips: of (T, 68, 2) landmarks in pixels, each of one person.
        rounds: of alignment to the estimate so far.

    Returns:
        The shape and direction, symmetric.
    """
    all_shapes = [check_shapes(clip) for clip in clips]
    if not all_shapes:
        raise ValueError("a face shape takes at least one clip")
    mean = standardised(all_shapes[0][0])
    direction = np.zeros((POINTS, 2))
    everything = tuple(range(POINTS))
    for i in range(rounds):
        points = everything if i == 0 else STABLE_POINTS
        aligned = [align_to(shapes, mean, points) for shapes in all_shapes]
        direction = symmetric(_regression_on_gap(aligned))
        neutral = [
            (shapes - inner_lip_gap(shapes)[:, None, None] * direction).mean(axis=0)
            for shapes in aligned
        ]
        mean = standardised(symmetric(upright(np.mean(neutral, axis=0))))
    # The direction was measured in the units of the mean before its last rescaling, which has
    # converged.
    return FaceShape(mean, direction)


def upright(shape: Array) -> Array:
    """A (68, 2) shape turned so that its eyes are level, and centred."""
    z = (shape - shape.mean(axis=0)) @ np.array([1, 1j])
    across = z[42:48].mean() - z[36:42].mean()
    z = z * np.conj(across) / abs(across)
    return np.stack([z.real, z.imag], axis=-1)


def symmetric(shape: Array) -> Array:
    """Mean of a (68, 2) centred shape and its mirror image."""
    return (shape + mirrored(shape)) / 2


def standardised(shape: Array) -> Array:
    """A (68, 2) shape centred, with Frobenius norm 1."""
    centred = shape - shape.mean(axis=0)
    return centred / np.linalg.norm(centred)


def _regression_on_gap(clips: Sequence[Array]) -> Array:
    """(68, 2) movement within clips for a unit of inner-lip gap."""
    covariance, variance = np.zeros((POINTS, 2)), 0.0
    for shapes in clips:
        gap = inner_lip_gap(shapes)
        gap = gap - gap.mean()
        covariance += np.tensordot(gap, shapes - shapes.mean(axis=0), axes=1)
        variance += float(gap @ gap)
    if variance < 1e-12:
        raise ValueError("no mouth moves in these clips")
    return covariance / variance
