"""One face through a video: stretches without a cut, and an alignment that does not shake."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from atvg_jax.features import faces
from data_prep.face_boxes import Tracker

FloatArray = npt.NDArray[np.float64]
Frame = npt.NDArray[np.uint8]

CUT = 30.0
"""Mean change of brightness (of 255) between neighbouring frames that is a cut."""

JUMP, GROWTH = 0.5, 1.3
"""A face cannot move by more than half its eye distance, or grow by more than 30 %, in 40 ms; what
does is another face or a landmark predictor that has lost it."""

_MARGIN = 38.0
"""Crop pixels kept around the crop, so that the smoothed crop still lies in what was kept."""


class Region(NamedTuple):
    """The part of a frame around the face, reduced by a whole factor where it is very large."""

    picture: Frame  # (h, w, 3) uint8
    matrix: FloatArray  # (2, 3), pixel of the frame -> pixel of ``picture``


class Stretch(NamedTuple):
    """Neighbouring frames that show one face."""

    start: int  # number of the first frame
    landmarks: FloatArray  # (n, 68, 2) pixels of the frames
    regions: list[Region]  # n


def any_face(_number: int) -> Tracker:
    """What follows the best face from a frame on, whichever it is."""
    return faces.FaceTracker()


def stretches(
    frames: Iterable[Frame],
    shortest: int,
    longest: int,
    first: int = 0,
    tracker_from: Callable[[int], Tracker] = any_face,
) -> Iterator[Stretch | int]:
    """Follows the face through a video and cuts it where it stops being one steady face.

    Only what is around the face is kept, for at most ``longest + shortest`` frames, so memory does
    not grow with the video.

    Args:
        frames: of (H, W, 3) uint8.
        shortest: shorter stretches are dropped.
        longest: longer ones are cut into pieces of this length, and a last one of at least
            ``shortest``.
        first: frames before this one are passed over.
        tracker_from: makes what follows a face from a frame on, given the frame's number.

    Yields:
        Stretches in order; for frames between them that show a face too briefly, their number.
    """
    tracker = tracker_from(first)
    before: FloatArray | None = None
    glance: FloatArray | None = None
    kept: list[tuple[FloatArray, Region]] = []
    start = 0
    for number, frame in enumerate(frames):
        if number < first:
            continue
        last_glance, glance = glance, _glance(frame)
        cut = last_glance is not None and _changed(last_glance, glance)
        if cut:
            tracker = tracker_from(number)
        points = tracker.track(frame)
        if points is not None and before is not None and not cut and _jumped(before, points):
            cut = True
            tracker = tracker_from(number)
            points = tracker.track(frame)
        if (cut or points is None) and kept:
            yield _finish(start, kept, shortest)
            kept = []
        before = None if points is None else np.asarray(points, dtype=np.float64)
        if before is None:
            continue
        if not kept:
            start = number
        kept.append((before, _region(frame, before)))
        if len(kept) == longest + shortest:
            yield _finish(start, kept[:longest], shortest)
            start, kept = start + longest, kept[longest:]
    if len(kept) > longest:
        # Both halves of what is left are long enough: it is more than ``longest`` frames.
        half = max(len(kept) // 2, shortest)
        yield _finish(start, kept[:half], shortest)
        start, kept = start + half, kept[half:]
    if kept:
        yield _finish(start, kept, shortest)


def _finish(start: int, kept: list[tuple[FloatArray, Region]], shortest: int) -> Stretch | int:
    """A stretch of what was kept, or how much there is where it is too short."""
    if len(kept) < shortest:
        return len(kept)
    return Stretch(start, np.stack([points for points, _ in kept]), [region for _, region in kept])


def _glance(frame: Frame) -> FloatArray:
    """(24, 32) brightness of a frame, roughly: a grid of its pixels."""
    height, width, _ = frame.shape
    rows = np.linspace(0, height - 1, 24).astype(int)
    columns = np.linspace(0, width - 1, 32).astype(int)
    return frame[np.ix_(rows, columns)].mean(axis=2)


def _changed(before: FloatArray, after: FloatArray) -> bool:
    """Whether there is a cut between two glances."""
    return bool(np.abs(after - before).mean() > CUT)


def _eyes(points: npt.ArrayLike) -> FloatArray:
    """(2, 2) centres of both eyes."""
    array = np.asarray(points, dtype=np.float64)
    return np.stack([array[36:42].mean(axis=0), array[42:48].mean(axis=0)])


def _jumped(before: FloatArray, after: npt.ArrayLike) -> bool:
    """Whether two neighbouring frames' landmarks cannot be one face's."""
    old, new = _eyes(before), _eyes(after)
    sizes = [float(np.linalg.norm(eyes[1] - eyes[0])) + 1e-6 for eyes in (old, new)]
    moved = float(np.linalg.norm(new.mean(axis=0) - old.mean(axis=0)))
    return moved > JUMP * max(sizes) or max(sizes) > GROWTH * min(sizes)


def _region(frame: Frame, points: FloatArray) -> Region:
    """What is around a face, at most about four times the crop in either direction."""
    back = faces.invert(faces.crop_matrix(points))
    low, high = -_MARGIN, faces.CROP_SIZE + _MARGIN
    corners = faces.apply(back, [(low, low), (high, low), (low, high), (high, high)])
    height, width, _ = frame.shape
    left, top = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (width - 1, height - 1))
    right, bottom = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 1, (width, height))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    picture = frame[top:bottom, left:right]
    factor = max(1, int(np.hypot(back[0, 0], back[1, 0])))
    # Never a view, which would keep the whole frame.
    picture = np.array(Image.fromarray(picture).reduce(factor)) if factor > 1 else picture.copy()
    # Pixel x covers [x - 0.5, x + 0.5]; the factor acts on edges, not on centres.
    shift = [(0.5 - corner) / factor - 0.5 for corner in (left, top)]
    return Region(picture, np.array([[1 / factor, 0, shift[0]], [0, 1 / factor, shift[1]]]))


def crop(region: Region, matrix: FloatArray) -> Frame:
    """The (128, 128, 3) crop that ``matrix`` (frame -> crop) cuts from what was kept of a frame."""
    back = faces.invert(region.matrix)
    linear = matrix[:, :2] @ back[:, :2]
    shift = matrix[:, :2] @ back[:, 2] + matrix[:, 2]
    return faces.warp(region.picture, np.concatenate([linear, shift[:, None]], axis=1))
