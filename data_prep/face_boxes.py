"""Where a face is said to be, frame by frame: VoxCeleb's text files, and a tracker led by them.

Such a file begins with a header (``Identity``, ``Reference`` and others), then ``FRAME X Y W H``,
then a line a frame: its number at 25 frames/s from the start of the whole video, left and top of
the box, width and height. VoxCeleb1 measures in pixels of a video that is 360 pixels high,
VoxCeleb2 in parts of the picture's width and height.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from atvg_jax.errors import InputError
from atvg_jax.features import faces

FloatArray = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]

REFERENCE_HEIGHT = 360.0
"""Pixels of the height of the videos that VoxCeleb1 was annotated on."""

_HEAD = ["FRAME", "X", "Y", "W", "H"]
_LARGEST_PART = 2.0
"""Boxes in parts of the picture are below this, though they may reach out of it."""
_LONGEST_GAP = 25
"""Frames without a box between two with one; a face is taken to move evenly between them."""
_MARGIN = 0.35
"""Of the box: what is searched on every side of it. Neighbours' faces are cut off there."""
_LEAST_MARGIN = 0.1
"""Of the box: the window that is searched stays in place until the box comes so near its edge."""


class Tracker(Protocol):
    """What follows one face through a video, such as ``faces.FaceTracker``."""

    def track(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32] | None:
        """(68, 2) points in pixels of the next frame; None if it has no face."""


class FaceBoxes(NamedTuple):
    """The boxes of one face.

    Attributes:
        start: the first one's frame, at 25 frames/s from the start of the video.
        boxes: (n, 4) left, top, right, bottom.
        in_parts: of the picture's width and height; else pixels of one 360 high.
    """

    start: int
    boxes: FloatArray
    in_parts: bool

    def at(self, number: int, height: int, width: int) -> Box | None:
        """The box of frame ``start + number`` in pixels of a picture; None if there is none."""
        if not 0 <= number < len(self.boxes):
            return None
        x = width if self.in_parts else height / REFERENCE_HEIGHT
        y = height if self.in_parts else height / REFERENCE_HEIGHT
        left, top, right, bottom = self.boxes[number]
        return float(left * x), float(top * y), float(right * x), float(bottom * y)


def read(path: Path) -> FaceBoxes:
    """Reads a text file of VoxCeleb.

    Raises:
        InputError: ``unreadable``: it is missing or no such file.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        head = next(
            n for n, line in enumerate(lines) if line.split() == ["FRAME", "X", "Y", "W", "H"]
        )
        rows = np.array([line.split() for line in lines[head + 1 :] if line.strip()], np.float64)
        numbers, (left, top, wide, high) = rows[:, 0], rows[:, 1:].T
        steps = np.diff(numbers)
        if not np.isfinite(rows).all() or (wide <= 0).any() or (high <= 0).any():
            raise ValueError("a box is no box")
        if numbers[0] < 0 or (steps < 1).any() or (steps > _LONGEST_GAP).any():
            raise ValueError("the frames are not in order")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", reason="unreadable") from error
    except (ValueError, StopIteration, IndexError) as error:
        raise InputError(
            f"{path}: no lines of FRAME X Y W H ({error}); get it again", reason="unreadable"
        ) from error
    given = np.stack([left, top, left + wide, top + high], axis=1)
    wanted = np.arange(numbers[0], numbers[-1] + 1)
    boxes = np.stack([np.interp(wanted, numbers, side) for side in given.T], axis=1)
    return FaceBoxes(int(numbers[0]), boxes, bool(rows[:, 1:].max() <= _LARGEST_PART))


class LedTracker:
    """Follows the face that boxes are around, and no other.

    Only a window around the box is looked at; it stays in place while the box moves little, so that
    the tracker in it need not begin again.
    """

    def __init__(self, boxes: FaceBoxes, number: int):
        """Args: the boxes, and the number of the first frame, counted from ``boxes.start``."""
        self._boxes = boxes
        self._number = number
        self._window: tuple[int, int, int, int] | None = None
        self._tracker = faces.FaceTracker()

    def track(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32] | None:
        """(68, 2) points in pixels of this frame, the next of the video; None if it has no face."""
        height, width, _ = frame.shape
        box = self._boxes.at(self._number, height, width)
        self._number += 1
        if box is None:
            return None
        if self._window is None or not _holds(self._window, box, _LEAST_MARGIN, frame.shape):
            self._window = _grown(box, _MARGIN, frame.shape)
            self._tracker = faces.FaceTracker()
        left, top, right, bottom = self._window
        if right - left < 2 or bottom - top < 2:  # the box is outside of the picture
            return None
        points = self._tracker.track(frame[top:bottom, left:right])
        if points is None:
            return None
        points = points + np.array([left, top], np.float32)
        x, y = points.mean(axis=0)
        if box[0] <= x <= box[2] and box[1] <= y <= box[3]:
            return points
        self._tracker = faces.FaceTracker()
        return None


def _grown(box: Box, margin: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """A box with a margin (a part of its size) around it, in whole pixels inside the picture."""
    left, top, right, bottom = box
    x, y = margin * (right - left), margin * (bottom - top)
    sides = np.array([[left - x, top - y], [right + x, bottom + y]])
    low, high = np.clip(np.round(sides), 0, (shape[1], shape[0])).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _holds(
    window: tuple[int, int, int, int], box: Box, margin: float, shape: tuple[int, ...]
) -> bool:
    """Whether a window holds a box with a margin around it, and is not far too large for it."""
    left, top, right, bottom = _grown(box, margin, shape)
    inside = window[0] <= left and window[1] <= top and right <= window[2] and bottom <= window[3]
    wide = (box[2] - box[0]) * (1 + 3 * _MARGIN)
    return inside and window[2] - window[0] <= wide
