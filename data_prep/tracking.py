"""One face through a video: stretches without a cut, and an alignment that does not shake."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import cache
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

EYES = 48.0
"""Crop pixels between the centres of the eyes."""

MOST_FACES = 3
"""That are followed at once, until the last of them has gone."""

BLOCK_FRAMES, BLOCK_BYTES = 32, 2**24
"""Decoded in one go: as many as there are in a clip of LRW, fewer if they are large."""

MOST_KEPT = 3
"""Times what is needed of a frame that is kept rather than copied."""

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


class _Take:
    """One face through neighbouring frames, and what is kept of it."""

    def __init__(self, tracker: Tracker):
        self.tracker = tracker
        self.kept: list[tuple[FloatArray, Region]] = []
        self.jumped = False  # whether the last frame's landmarks were another face's
        self._back: FloatArray | None = None  # (2, 3), crop -> frame, of the frame before

    def shoot(self, frame: Frame) -> bool:
        """Adds a frame; False, and nothing is added, where it does not show the face."""
        points = self.tracker.track(frame)
        if points is None:
            return False
        landmarks = np.asarray(points, dtype=np.float64)
        back = faces.picture_matrix(landmarks)
        self.jumped = self._back is not None and _jumped(self._back, back)
        if self.jumped:
            return False
        self._back = back
        self.kept.append((landmarks, _region(frame, back)))
        return True

    def with_rivals(self, frame: Frame) -> list["_Take"]:
        """This one and, where its first frame shows more faces, those of the others."""
        if len(self.kept) > 1 or not isinstance(self.tracker, faces.FaceTracker):
            return [self]
        rivals = [_Take(tracker) for tracker in self.tracker.rivals()[: MOST_FACES - 1]]
        return [self, *(rival for rival in rivals if rival.shoot(frame))]


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

    Where there are several faces, all are followed, and the stretch is of the one that is there
    longest: of the best one where they end together.

    Only what is around the faces is kept, for at most ``longest + shortest`` frames, so memory does
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
    frames = _in_blocks(frames)
    takes = [_Take(tracker_from(first))]
    glance: npt.NDArray[np.int64] | None = None
    start = first
    for number, frame in enumerate(frames):
        if number < first:
            continue
        last_glance, glance = glance, _glance(frame)
        if last_glance is not None and _changed(last_glance, glance):
            yield from _finish(start, takes[0], shortest)
            takes = [_Take(tracker_from(number))]
        there = [take for take in takes if take.shoot(frame)]
        if not there and takes[0].kept:
            yield from _finish(start, takes[0], shortest)
            # A tracker that has lost its face has searched this frame for another one already.
            if takes[0].jumped:
                takes = [_Take(tracker_from(number))]
                there = [take for take in takes if take.shoot(frame)]
            else:
                takes = [_Take(takes[0].tracker)]
        if not there:
            continue
        if len(there[0].kept) == 1:
            start = number
            there = there[0].with_rivals(frame)
        takes = there
        if len(takes[0].kept) == longest + shortest:
            takes = takes[:1]
            kept = takes[0].kept
            yield _stretch(start, kept[:longest])
            start, takes[0].kept = start + longest, kept[longest:]
    kept = takes[0].kept
    if len(kept) > longest:
        # Both halves of what is left are long enough: it is more than ``longest`` frames.
        half = max(len(kept) // 2, shortest)
        yield _stretch(start, kept[:half])
        start, takes[0].kept = start + half, kept[half:]
    yield from _finish(start, takes[0], shortest)


def _in_blocks(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The same, but several are decoded before the first of them is looked at.

    Decoder and predictor each work faster while the processor's cache holds what is theirs.
    """
    coming = iter(frames)
    while (frame := next(coming, None)) is not None:
        count = max(1, min(BLOCK_FRAMES, BLOCK_BYTES // frame.nbytes))
        block = collections.deque([frame, *itertools.islice(coming, count - 1)])
        while block:
            yield block.popleft()


def _finish(start: int, take: _Take, shortest: int) -> Iterator[Stretch | int]:
    """The stretch of what was kept, if any, or how much there is where it is too short."""
    if len(take.kept) >= shortest:
        yield _stretch(start, take.kept)
    elif take.kept:
        yield len(take.kept)


def _stretch(start: int, kept: list[tuple[FloatArray, Region]]) -> Stretch:
    return Stretch(start, np.stack([points for points, _ in kept]), [region for _, region in kept])


def _glance(frame: Frame) -> npt.NDArray[np.int64]:
    """(24, 32) brightness of a frame, roughly: the green of a grid of its pixels."""
    return frame.take(_grid(*frame.shape)).astype(np.int64)


@cache
def _grid(height: int, width: int, channels: int) -> npt.NDArray[np.int64]:
    """Where in a flat frame they are."""
    rows = np.linspace(0, height - 1, 24).astype(np.int64)
    columns = np.linspace(0, width - 1, 32).astype(np.int64)
    return (rows[:, None] * width + columns) * channels + 1


def _changed(before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> bool:
    """Whether there is a cut between two glances."""
    return bool(np.abs(after - before).sum() > CUT * before.size)


def _place(back: FloatArray) -> tuple[complex, complex]:
    """Of an alignment (crop -> frame): where in the frame the middle of the crop is, as x + i y,
    and a pixel of the crop to the right.
    """
    (a, _, x), (b, _, y) = back.tolist()
    step, middle = complex(a, b), (faces.CROP_SIZE - 1) / 2
    return step * complex(middle, middle) + complex(x, y), step


def _jumped(before: FloatArray, after: FloatArray) -> bool:
    """Whether two neighbouring frames' alignments (crop -> frame) cannot be one face's."""
    (old_middle, old_step), (middle, step) = _place(before), _place(after)
    small, large = sorted((abs(old_step), abs(step)))
    return abs(middle - old_middle) > JUMP * EYES * large or large > GROWTH * small


def _region(frame: Frame, back: FloatArray) -> Region:
    """What is around a face, at most about four times the crop in either direction.

    Args:
        frame: (H, W, 3) uint8.
        back: (2, 3), crop -> frame.
    """
    middle, step = _place(back)
    x, y = middle.real, middle.imag
    half = faces.CROP_SIZE / 2 + _MARGIN
    reach = (abs(step.real) + abs(step.imag)) * half + 1  # the turned crop's half width and height
    height, width, _ = frame.shape
    left, top = (max(0, min(int(v - reach), n - 1)) for v, n in ((x, width), (y, height)))
    right, bottom = max(int(x + reach) + 2, left + 1), max(int(y + reach) + 2, top + 1)
    picture = frame[top:bottom, left:right]
    factor = max(1, int(abs(step)))
    if factor > 1:
        picture = np.array(Image.fromarray(picture).reduce(factor))
    elif MOST_KEPT * picture.size < frame.size:  # a view would keep the whole frame
        picture = picture.copy()
    # Pixel x covers [x - 0.5, x + 0.5]; the factor acts on edges, not on centres.
    shift = [(0.5 - corner) / factor - 0.5 for corner in (left, top)]
    return Region(picture, np.array([[1 / factor, 0, shift[0]], [0, 1 / factor, shift[1]]]))


def crops(regions: list[Region], matrices: FloatArray) -> list[Frame]:
    """The crops (128, 128, 3) that alignments cut from what was kept of frames.

    Args:
        regions: n.
        matrices: (n, 2, 3), frame -> crop.
    """
    kept = np.stack([region.matrix for region in regions])
    moved = faces.compose(matrices, faces.invert(kept))
    return [faces.warp(region.picture, m) for region, m in zip(regions, moved, strict=True)]
