"""What is judged: clips of one aligned face, from memory or from any video."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from atvg_jax.errors import InputError
from atvg_jax.features import faces, video

Frames = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


class Footage(Protocol):
    """A clip of T aligned frames at 25 frames/s.

    Attributes:
        landmarks: (T, 68, 2) pixels of the frames: where to look, and what is the mouth.
        pose: (T, 3) yaw, pitch, roll in degrees.
        has_face: (T,) bool; frames without one are not judged.
    """

    @property
    def landmarks(self) -> FloatArray: ...  # noqa: D102

    @property
    def pose(self) -> FloatArray: ...  # noqa: D102

    @property
    def has_face(self) -> npt.NDArray[np.bool_]: ...  # noqa: D102

    def frames(self) -> Iterator[Frames]:
        """The (128, 128, 3) uint8 frames, from the first; can be called again."""
        ...


@dataclass(frozen=True)
class Crops:
    """Frames in memory, aligned already.

    Attributes:
        pictures: (T, 128, 128, 3) uint8.
        landmarks: (T, 68, 2) pixels of the frames.
        pose: (T, 3) degrees.
    """

    pictures: Frames
    landmarks: FloatArray
    pose: FloatArray

    @property
    def has_face(self) -> npt.NDArray[np.bool_]:
        """(T,) True: what is aligned has a face."""
        return np.ones(len(self.pictures), bool)

    def frames(self) -> Iterator[Frames]:
        """The frames."""
        return iter(self.pictures)


class AlignedVideo:
    """A video of one person in one shot, brought to 25 frames/s and aligned.

    The face is followed through the whole video once, when this is made; ``frames`` decodes it
    again and cuts the crops out, so that memory does not grow with the video's length. Alignment
    is that of data preparation: smooth in time, so that it neither shakes nor follows the mouth.

    Raises:
        InputError: ``unreadable`` or ``no_video`` for a file that cannot be decoded to its end,
            ``no_face`` if no frame shows one.
    """

    def __init__(self, path: Path):
        self.path = path
        tracker = faces.FaceTracker()
        found = [tracker.track(frame) for frame in video.iter_frames(path)]
        self._has_face = np.array([points is not None for points in found])
        if not self._has_face.any():
            raise InputError(f"{path}: no face was found in any frame", reason="no_face")
        places = np.flatnonzero(self._has_face)
        known = np.stack([points for points in found if points is not None]).astype(np.float64)
        # Between two frames with a face the alignment goes on smoothly.
        numbers = np.arange(len(found))
        tracked = np.stack(
            [np.interp(numbers, places, column) for column in known.reshape(len(known), -1).T],
            axis=-1,
        ).reshape(-1, *known.shape[1:])
        self._matrices = faces.smooth_alignment(tracked)
        self._pose = np.asarray(faces.head_pose(tracked), np.float64)
        self._landmarks = np.stack(
            [
                faces.apply(matrix, points)
                for matrix, points in zip(self._matrices, tracked, strict=True)
            ]
        )

    @property
    def landmarks(self) -> FloatArray:
        """(T, 68, 2) the tracked points, in pixels of the crops."""
        return self._landmarks

    @property
    def pose(self) -> FloatArray:
        """(T, 3) yaw, pitch, roll of the head in the video, in degrees."""
        return self._pose

    @property
    def has_face(self) -> npt.NDArray[np.bool_]:
        """(T,) where the face was found."""
        return self._has_face

    def frames(self) -> Iterator[Frames]:
        """The crops, from the first frame."""
        decoded = video.iter_frames(self.path)
        for frame, matrix in zip(decoded, self._matrices, strict=True):
            yield faces.warp(frame, matrix)
