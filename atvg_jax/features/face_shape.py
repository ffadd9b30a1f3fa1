"""The mean face and how a mouth opens, estimated from clips; what own normalisation stands on.

``face_shape.npz`` beside this file ships with the project; ``fit_face_shape.py`` makes it again.
"""

import io
import os
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from atvg_jax.whole_files import written_whole

Array = npt.NDArray[np.float64]

POINTS = 68

# Inner lips: three pairs above and below the opening.
UPPER_LIP, LOWER_LIP = (61, 62, 63), (67, 66, 65)
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


# What shows that a head turns or nods, and neither speech nor a smile moves: the stable points and
# the upper ends of the jaw line. Nodding is read from heights alone, for a smile widens the
# nostrils.
_TURN_POINTS = (0, 1, 2, 14, 15, 16, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 39, 42, 45)
_NOD_POINTS = (0, 1, 2, 14, 15, 16, 27, 28, 29, 30, 33, 36, 39, 42, 45)
_TURN_CUES, _NOD_CUES = 6, 2


class FaceShape(NamedTuple):
    """What own normalisation knows of faces; in normalised units, left-right symmetric."""

    mean_shape: Array  # (68, 2), lips just closed, centred, Frobenius norm 1
    opening_direction: Array  # (68, 2), movement of every point for an inner-lip gap of 1
    pose_cues: Array  # (136, 8): movement within a clip @ pose_cues = how the head has turned
    pose_effects: Array  # (8, 136): what these turns move, the inner-lip gap excepted


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
    upper = shapes[..., UPPER_LIP, 1].mean(axis=-1)
    lower = shapes[..., LOWER_LIP, 1].mean(axis=-1)
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


def procrustes(shapes: Array, target: Array) -> Array:
    """Shapes (T, 68, 2) as ``scipy.spatial.procrustes(target, shape)`` gives its second result."""

    def standardised(points: Array) -> Array:
        centred = points - points.mean(axis=-2, keepdims=True)
        norm = np.linalg.norm(centred, axis=(-2, -1), keepdims=True)
        if (norm < 1e-12).any():
            raise ValueError("all points of a shape are the same")
        return centred / norm

    goal, centred = standardised(target), standardised(shapes)
    u, singular, vt = np.linalg.svd(np.swapaxes(centred, -1, -2) @ goal)
    return centred @ (u @ vt) * singular.sum(axis=-1)[..., None, None]


def fit_face_shape(clips: Sequence[npt.ArrayLike], rounds: int = 5) -> FaceShape:
    """Learns the mean face with closed lips, how points move as a mouth opens and as a head turns.

    Every clip counts the same, whatever its length, so that a person with much footage does not
    become the mean.

    Args:
        clips: of (T, 68, 2) landmarks in pixels, each of one person.
        rounds: of alignment to the estimate so far.

    Raises:
        ValueError: for no clips, or clips in which no mouth moves.
    """
    all_shapes = [check_shapes(clip) for clip in clips]
    if not all_shapes:
        raise ValueError("a face shape takes at least one clip")
    mean = standardised(all_shapes[0][0])
    everything = tuple(range(POINTS))
    for i in range(rounds):
        points = everything if i == 0 else STABLE_POINTS
        aligned = [align_to(shapes, mean, points) for shapes in all_shapes]
        direction, cues, effects = _fit_movements(aligned)
        neutral = [neutral_shape(shapes, direction) for shapes in aligned]
        mean = standardised(symmetric(upright(np.mean(neutral, axis=0))))
    return FaceShape(mean, direction, cues, effects)


def neutral_shape(shapes: Array, opening_direction: Array) -> Array:
    """(68, 2) the face of a clip (T, 68, 2) with its lips just closed."""
    gap = inner_lip_gap(shapes)[:, None, None]
    return (shapes - gap * opening_direction).mean(axis=0)


def without_pose(shapes: Array, pose_cues: Array, pose_effects: Array) -> Array:
    """Aligned (T, 68, 2) shapes less what turning away from the clip's mean pose moves."""
    flat = shapes.reshape(len(shapes), -1)
    movement = flat - flat.mean(axis=0)
    return (flat - movement @ pose_cues @ pose_effects).reshape(shapes.shape)


def _fit_movements(clips: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Opening direction (68, 2), pose cues (136, 8) and effects (8, 136) of aligned clips.

    A turn moves the two halves of a face in opposite senses, a nod and speech in the same: the
    movement is split into these parts, and in each the leading directions of the cue points are
    regressed on. The gap between the lips takes part in the second regression, so that no effect of
    a nod moves it.
    """
    weights = [1 / np.sqrt(len(shapes)) for shapes in clips]
    movement = [w * (s - s.mean(axis=0)) for w, s in zip(weights, clips, strict=True)]
    moved = np.concatenate(movement)
    same = symmetric(moved)
    opposite = moved - same
    gap = inner_lip_gap(moved)[:, None]  # linear in the shape, so the movement's gap is the gap's
    if float((gap**2).sum()) < 1e-12:
        raise ValueError("no mouth moves in these clips")

    turn = _leading_directions(opposite, _TURN_POINTS, (0, 1), _TURN_CUES)
    nod = _leading_directions(same, _NOD_POINTS, (1,), _NOD_CUES)
    flat_same, flat_opposite = same.reshape(len(same), -1), opposite.reshape(len(same), -1)
    turn_effects = np.linalg.lstsq(flat_opposite @ turn, flat_opposite)[0]
    causes = np.concatenate([flat_same @ nod, gap], axis=1)
    nod_effects = np.linalg.lstsq(causes, flat_same)[0]
    # Cues that read the two parts of a movement: for a symmetric cue part = cue . whole.
    return (
        nod_effects[-1].reshape(POINTS, 2),
        np.concatenate([turn, nod], axis=1),
        np.concatenate([turn_effects, nod_effects[:-1]]),
    )


def _leading_directions(
    movement: Array, points: Sequence[int], axes: Sequence[int], count: int
) -> Array:
    """(136, count) orthonormal principal directions of some coordinates of (N, 68, 2) movements."""
    chosen = np.zeros((POINTS, 2), dtype=bool)
    chosen[np.ix_(list(points), list(axes))] = True
    _, _, directions = np.linalg.svd(movement[:, chosen], full_matrices=False)
    count = min(count, len(directions))
    out = np.zeros((2 * POINTS, count))
    out[chosen.ravel()] = directions[:count].T
    return out


def upright(shape: Array) -> Array:
    """A (68, 2) shape turned so that its eyes are level, and centred."""
    z = (shape - shape.mean(axis=0)) @ np.array([1, 1j])
    across = z[42:48].mean() - z[36:42].mean()
    z = z * np.conj(across) / abs(across)
    return np.stack([z.real, z.imag], axis=-1)


def symmetric(shape: Array) -> Array:
    """Mean of (..., 68, 2) centred shapes and their mirror images."""
    return (shape + mirrored(shape)) / 2


def standardised(shape: Array) -> Array:
    """A (68, 2) shape centred, with Frobenius norm 1."""
    centred = shape - shape.mean(axis=0)
    return centred / np.linalg.norm(centred)


@cache
def bundled_face_shape() -> FaceShape:
    """What ``fit_face_shape`` learned of the training footage, as it ships with the project."""
    data = resources.files("atvg_jax.features").joinpath("face_shape.npz").read_bytes()
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return FaceShape(*(arrays[name].astype(np.float64) for name in FaceShape._fields))


def save(shape: FaceShape, path: str | os.PathLike[str]) -> None:
    """Writes a face shape as an npz file of float32 arrays, whole or not at all."""
    arrays = {name: array.astype(np.float32) for name, array in shape._asdict().items()}
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
