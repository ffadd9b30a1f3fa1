"""One portrait and a sound to a talking face: whole, or while the sound arrives."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from atvg_jax import compilation_cache
from atvg_jax.errors import InputError
from atvg_jax.features import audio, faces, video
from atvg_jax.inference import engine, landmark_file, model_directory, sound_stream

BUNDLED_MODEL = Path(__file__).resolve().parents[1] / "pretrained" / "compact"
POINTS = 68


class Moment(NamedTuple):
    """All that was made for one frame (1/25 s).

    Attributes:
        frame: (128, 128, 3) uint8 RGB, or ``None`` with ``landmarks_only``, as the next two.
        attention: (128, 128) float32 in [0, 1]: how much of the pixel is motion, not portrait.
        motion: (128, 128, 3) uint8 RGB: what is blended in.
        landmarks: (68, 2) float32, normalised: centred, of unit Frobenius norm on average, without
            the portrait's identity and pose; x to the right, y down.
    """

    frame: np.ndarray | None
    attention: np.ndarray | None
    motion: np.ndarray | None
    landmarks: np.ndarray


@dataclasses.dataclass(frozen=True)
class Clip:
    """A talking face of T frames at 25 frames a second, with its sound.

    Attributes:
        frames: (T, 128, 128, 3) uint8 RGB.
        attention: (T, 128, 128) float32 in [0, 1].
        motion: (T, 128, 128, 3) uint8 RGB.
        landmarks: (T, 68, 2) float32, normalised (see ``Moment``).
        waveform: (N,) float32 in [-1, 1], the sound.
        sample_rate: of the waveform, in Hz.
    """

    frames: np.ndarray
    attention: np.ndarray
    motion: np.ndarray
    landmarks: np.ndarray
    waveform: np.ndarray
    sample_rate: float

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes an mp4 of H.264 and AAC, as long as the sound to a frame.

        Args:
            path: the file; under this name it is complete or absent.

        Raises:
            InputError: the file cannot be written.
        """
        video.write_video(path, self.frames, self.waveform, round(self.sample_rate))
        return Path(path)


class TalkingFace:
    """A model ready to make faces talk.

    Load it once and use it for any number of portraits and sounds; the networks are compiled at the
    first use of each call size and kept in the persistent compilation cache.
    """

    def __init__(self, model: model_directory.Model, precision: str = "float32"):
        """Takes a model in memory; ``load`` reads one from disk."""
        compilation_cache.enable()
        self._engine = engine.Engine(model, precision)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, precision: str = "float32"
    ) -> "TalkingFace":
        """Reads a model directory.

        Args:
            path: a model directory; ``None`` for the model that comes with the package.
            precision: ``bfloat16`` rounds the factors of VG-net's large products to 16 bits: faster
                on a CPU with AVX512-BF16 or AMX and on GPUs, slower on other CPUs. Frames differ
                from those of ``float32`` by less than an eye sees (46 dB at the published size),
                and by as much between ``stream`` and ``synthesize``.

        Raises:
            InputError: no such model, or not a usable one; another precision.
        """
        if path is None:
            path = BUNDLED_MODEL
            if not (path / model_directory.DESCRIPTION_FILE).is_file():
                raise InputError(
                    "no model comes with this version: train one (python -m atvg_jax.train), join "
                    "the runs with python -m atvg_jax.export and give its directory"
                )
        return cls(model_directory.read(path), precision)

    def align(
        self, image: np.ndarray, landmarks: np.ndarray | None = None, face: int = 0
    ) -> faces.AlignedFace:
        """Finds the face of a portrait and aligns it, as ``synthesize`` and ``stream`` do.

        Args:
            image: (H, W, 3) uint8 RGB.
            landmarks: (68, 2) pixels of ``image`` in iBUG order; then no face is searched.
            face: which of several faces, the best first.

        Returns:
            The 128 x 128 crop with its landmarks and where it came from.

        Raises:
            InputError: no face is found, or not an image, or not landmarks of it.
        """
        image = np.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"an image is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}", reason="image"
            )
        if landmarks is not None:
            landmarks = np.asarray(landmarks, np.float32)
            if landmarks.shape != (POINTS, 2) or not np.isfinite(landmarks).all():
                raise InputError(
                    f"landmarks are {POINTS} finite points, not of shape {landmarks.shape}"
                )
            landmark_file.check_inside(landmarks, image, "landmarks")
        return faces.align(image, landmarks=landmarks, face=face)

    def synthesize(
        self,
        image: np.ndarray | faces.AlignedFace,
        waveform: np.ndarray,
        sample_rate: float,
        landmarks: np.ndarray | None = None,
        face: int = 0,
    ) -> Clip:
        """Makes a portrait speak a sound.

        The clip lies in memory, 9 MB a second; ``moments`` makes any length piece by piece.

        Args:
            image: (H, W, 3) uint8 RGB, or a face from ``align``.
            waveform: (N,) float in [-1, 1] or integer PCM; (N, channels) is mixed down.
            sample_rate: of the waveform, in Hz.
            landmarks: (68, 2) pixels of ``image``, for a face that no detector finds.
            face: which of several faces, the best first.

        Returns:
            T = ceil(N / sample_rate * 25) frames with attention, motion and landmarks.

        Raises:
            InputError: no face, no sound, or something that is neither.
        """
        mono = sound_stream.as_mono(np.asarray(waveform))
        if not mono.size:
            raise InputError("the sound is empty", reason="no_audio")
        moments = list(self.moments(image, [mono], sample_rate, landmarks, face, live=False))
        return Clip(
            np.stack([moment.frame for moment in moments if moment.frame is not None]),
            np.stack([moment.attention for moment in moments if moment.attention is not None]),
            np.stack([moment.motion for moment in moments if moment.motion is not None]),
            np.stack([moment.landmarks for moment in moments]),
            mono,
            sample_rate,
        )

    def stream(
        self,
        image: np.ndarray | faces.AlignedFace,
        chunks: Iterable[np.ndarray],
        sample_rate: float,
        landmarks: np.ndarray | None = None,
        face: int = 0,
    ) -> Iterator[np.ndarray]:
        """Makes a portrait speak while the sound arrives, in constant memory.

        The frames are those of ``synthesize`` whatever the chunks. A frame needs the sound up to
        175 ms after its beginning (and, at other rates than 16 kHz, what the resampler holds back);
        it is yielded as soon as that has arrived, and the last ones when the chunks end.

        Args:
            image: (H, W, 3) uint8 RGB, or a face from ``align``.
            chunks: waveforms of any length, as for ``synthesize``.
            sample_rate: of the chunks, in Hz.
            landmarks: as for ``synthesize``.
            face: as for ``synthesize``.

        Returns:
            Iterator of (128, 128, 3) uint8 frames, 25 for each second of sound.

        Raises:
            InputError: at once for the portrait and the sample rate; on the way for a chunk.
        """
        moments = self.moments(image, chunks, sample_rate, landmarks, face)
        return (moment.frame for moment in moments if moment.frame is not None)

    def moments(
        self,
        image: np.ndarray | faces.AlignedFace,
        chunks: Iterable[np.ndarray],
        sample_rate: float,
        landmarks: np.ndarray | None = None,
        face: int = 0,
        *,
        live: bool = True,
        landmarks_only: bool = False,
    ) -> Iterator[Moment]:
        """``stream``, with everything that was made for each frame.

        Args:
            image: as for ``stream``, as the next four.
            chunks: waveforms.
            sample_rate: in Hz.
            landmarks: (68, 2) pixels, or ``None``.
            face: which one.
            live: yield frames as early as can be. Without, they are made up to 64 at a time,
                which is faster for a sound that is there already.
            landmarks_only: leave VG-net out.

        Returns:
            Iterator of moments.

        Raises:
            InputError: as ``stream``.
        """
        sound = sound_stream.WindowStream(sample_rate)
        aligned = image if isinstance(image, faces.AlignedFace) else None
        if aligned is None:
            aligned = self.align(np.asarray(image), landmarks, face)
        portrait = self._portrait(aligned, landmarks_only)
        return self._generate(portrait, sound, chunks, engine.LIVE if live else self._engine.whole)

    def programs(self, aligned: faces.AlignedFace) -> list[Any]:
        """What ``synthesize`` runs for each piece of a clip: ``jax.stages.Lowered``, not run.

        Args:
            aligned: a face from ``align``.
        """
        return self._engine.programs(self._portrait(aligned, False), self._engine.whole[0])

    def _portrait(self, aligned: faces.AlignedFace, landmarks_only: bool) -> engine.Portrait:
        normaliser = self._engine.basis.normaliser
        shape = np.asarray(normaliser.normalise(aligned.landmarks[None]))[0]
        return self._engine.portrait(aligned.crop, shape, landmarks_only)

    def _generate(
        self,
        portrait: engine.Portrait,
        sound: sound_stream.WindowStream,
        chunks: Iterable[np.ndarray],
        sizes: tuple[int, ...],
    ) -> Iterator[Moment]:
        """Runs the engine over windows as they complete, in calls of the given sizes."""
        carry = self._engine.start(portrait)
        waiting = np.zeros((0, audio.WINDOW_ROWS, audio.WINDOW_COEFFICIENTS), np.float32)

        def take(count: int, size: int) -> Iterator[Moment]:
            nonlocal carry, waiting
            # Only the very last call is padded, so what padding does to the state is never seen.
            piece = np.pad(waiting[:count], ((0, size - count), (0, 0), (0, 0)))
            waiting = waiting[count:]
            pieces, carry = self._engine.run(portrait, piece, carry)
            for index in range(count):
                yield Moment(
                    _at(pieces.frames, index),
                    _at(pieces.attention, index),
                    _at(pieces.motion, index),
                    pieces.landmarks[index],
                )

        for chunk in chunks:
            for windows in sound.push(chunk):
                waiting = np.concatenate([waiting, windows])
                while len(waiting) >= sizes[0]:
                    yield from take(sizes[0], sizes[0])
            while len(waiting) >= sizes[-1]:
                size = engine.call_size(len(waiting), sizes)
                yield from take(size, size)
        waiting = np.concatenate([waiting, sound.finish()])
        while len(waiting):
            size = engine.call_size(len(waiting), sizes)
            yield from take(min(size, len(waiting)), size)


def _at(array: np.ndarray | None, index: int) -> np.ndarray | None:
    return None if array is None else array[index]
