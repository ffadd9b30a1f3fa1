"""One clip to the examples of the data set: pure, picklable, nothing shared between clips.

The same code runs in this machine's worker processes and on a cluster; it imports no TensorFlow.
"""

import dataclasses
import functools
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from atvg_jax.data.schema import CONTEXT_ROWS, Example
from atvg_jax.errors import InputError
from atvg_jax.features import audio, faces, images, video
from atvg_jax.features.landmarks import LandmarkNormaliser
from data_prep import face_boxes, tracking
from data_prep.corpora.clip import Clip

REVISION = 4
"""Raise it when a change here or in ``atvg_jax.features`` gives clips other examples; results of
before are then made again."""

SILENCE = 1e-4
"""Loudest sample below which a sound track holds nothing: -80 dB, four steps of 16-bit sound."""

LOUDEST = 100.0
"""Times full scale: a sample above it, or one that is no number, comes of damaged bytes."""

LEAST_MOTION = 0.1
"""Share of neighbouring frames that differ, below which a stretch is a still picture, or a few of
them one after the other, and not somebody who talks."""

SOUND_MAY_END_EARLY = 5
"""Frames. Encoders leave sound a little shorter than the picture; more is sound that ends."""


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """What the examples depend on beside the clip.

    Attributes:
        shortest: frames below which a stretch of a face is dropped. A training sample takes 16 and
            an example frame before them.
        longest: frames above which it is cut into several examples.
        jpeg_quality: of the frames, 1 to 100.
        max_yaw: degrees away from the camera (median over a stretch) from which dlib's points of
            the far side are guesses.
        max_jitter: crop pixels, see ``jitter``.
        normaliser: of landmarks; that of the basis in use, or this project's own.
    """

    shortest: int = 24
    longest: int = 250
    jpeg_quality: int = 95
    max_yaw: float = 45.0
    max_jitter: float = 2.0
    normaliser: LandmarkNormaliser = dataclasses.field(default_factory=LandmarkNormaliser.default)

    def __post_init__(self):
        if not 1 <= self.shortest <= self.longest:
            raise InputError(f"stretches of {self.shortest} to {self.longest} frames are none")
        if not 1 <= self.jpeg_quality <= 100:
            raise InputError(f"JPEG quality is 1 to 100, not {self.jpeg_quality}")

    def summary(self) -> dict[str, Any]:
        """Everything that examples depend on beside the clip, for reports and comparisons."""
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "normaliser"
        }
        digest = hashlib.sha256()
        for name, array in sorted(self.normaliser.arrays.items()):
            digest.update(name.encode() + np.ascontiguousarray(array, dtype="<f8").tobytes())
        return values | {
            "normaliser": self.normaliser.kind,
            "normaliser_digest": digest.hexdigest(),
            "revision": REVISION,
        }


@dataclasses.dataclass(frozen=True)
class Reject:
    """A clip, or a stretch of one, that is not in the data set, and why."""

    clip_id: str
    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a clip gave.

    Attributes:
        examples: at least one.
        dropped: frames of the clip that are in none of them, by reason.
    """

    examples: list[Example]
    dropped: dict[str, int]


def prepare(clip: Clip, settings: PrepareSettings) -> Prepared | Reject:
    """Makes examples of one clip, or says why there are none. Never raises for a bad clip."""
    dropped: Counter[str] = Counter()
    try:
        made = list(examples(clip, settings, dropped))
    except Exception as error:
        return refusal(clip, error)
    return Prepared(made, dict(dropped)) if made else nothing(clip, dropped)


def refusal(clip: Clip, error: Exception) -> Reject:
    """The reject of a clip that could not be prepared.

    Whatever a library makes of a file that nobody thought of must not end the build, so every
    error has a reason: that of the ``InputError``, ``memory``, or ``error``.
    """
    if isinstance(error, InputError):
        return Reject(clip.clip_id, error.reason, str(error))
    if isinstance(error, MemoryError):
        return Reject(clip.clip_id, "memory", f"{clip.video}: it takes more memory than allowed")
    text = " ".join(str(error).split())
    return Reject(clip.clip_id, "error", f"{clip.video}: {type(error).__name__}: {text}")


def nothing(clip: Clip, dropped: Counter[str]) -> Reject:
    """The reject of a clip that gave no example, by what most of its frames were dropped for."""
    if not dropped:
        return Reject(clip.clip_id, "no_face", f"{clip.video}: no face was found in any frame")
    reason, _ = dropped.most_common(1)[0]
    counts = ", ".join(f"{name} {count}" for name, count in sorted(dropped.items()))
    return Reject(clip.clip_id, reason, f"{clip.video}: no usable stretch (frames: {counts})")


def examples(clip: Clip, settings: PrepareSettings, dropped: Counter[str]) -> Iterator[Example]:
    """The examples of one clip, one after the other, in memory that does not grow with it.

    Args:
        clip: the clip.
        settings: how.
        dropped: gets the number of frames that are in no example, by reason.

    Yields:
        Examples; where a clip gives several, or not from its start, the id tells the first frame.

    Raises:
        InputError: the clip cannot be read to its end, or has no sound.
    """
    boxes = None if clip.boxes is None else face_boxes.read(clip.boxes)
    begin = 0 if boxes is None else boxes.start
    waveform = sound(clip, begin)
    # Sound that is early began before the picture did; frames without theirs are passed over.
    first = math.ceil(max(0.0, -clip.audio_offset) * audio.FRAME_RATE)
    end = audio.frame_count(len(waveform)) + SOUND_MAY_END_EARLY
    if boxes is None:
        follow = tracking.any_face
    else:
        end = min(end, len(boxes.boxes))
        follow = functools.partial(face_boxes.LedTracker, boxes)
    # One thread: there are as many processes as cores, and what comes of a damaged picture must
    # not depend on how many decode.
    pictures = itertools.islice(video.iter_frames(clip.video, start=begin, threads=1), end)
    picture = next(pictures, None)
    if picture is None:
        message = f"{clip.video}: it ends before frame {begin}, the clip's first"
        raise InputError(message, reason="too_short")
    frames = itertools.chain([picture], pictures)
    for stretch in tracking.stretches(frames, settings.shortest, settings.longest, first, follow):
        if isinstance(stretch, int):
            dropped["too_short"] += stretch
            continue
        made = _example(clip, settings, stretch, waveform)
        if isinstance(made, str):
            dropped[made] += len(stretch.regions)
        else:
            yield made


def sound(clip: Clip, begin: int) -> npt.NDArray[np.float32]:
    """(N,) float32 at 16 kHz in step with the picture: sample 0 belongs to the clip's first frame.

    Args:
        clip: the clip.
        begin: which frame of the video that is.

    Raises:
        InputError: there is none, or it is silent throughout.
    """
    if clip.audio is not None and not clip.audio.is_file():
        raise InputError(f"{clip.video}: its sound {clip.audio} is missing", reason="no_audio")
    waveform = video.read_waveform(clip.audio or clip.video)
    if not (np.abs(waveform) <= LOUDEST).all():
        raise InputError(f"{clip.audio or clip.video}: its sound is damaged", reason="unreadable")
    if clip.audio is None:
        waveform = waveform[begin * audio.SAMPLES_PER_FRAME :]
    late = round(clip.audio_offset * audio.SAMPLE_RATE)
    waveform = waveform[late:] if late >= 0 else np.pad(waveform, (-late, 0))
    if not len(waveform) or np.abs(waveform).max() < SILENCE:
        raise InputError(f"{clip.audio or clip.video}: its sound is silence", reason="no_audio")
    return waveform


def _example(
    clip: Clip,
    settings: PrepareSettings,
    stretch: tracking.Stretch,
    waveform: npt.NDArray[np.float32],
) -> Example | str:
    """The example of one stretch, or why it is none."""
    start, count = stretch.start, len(stretch.regions)
    # The predictor finds the same points in the same picture.
    moves = np.any(np.diff(stretch.landmarks, axis=0), axis=(1, 2))
    if count > 1 and moves.mean() < LEAST_MOTION:
        return "still"
    pose = faces.head_pose(stretch.landmarks)  # of the frame: the crop has been turned upright
    if np.median(np.abs(pose[:, 0])) > settings.max_yaw:
        return "pose"
    matrices = faces.smooth_alignment(stretch.landmarks)
    # The predictor's points, moved. Predicted again in the small crop they would be twice as far
    # from what it says of many views of the frame.
    aligned = faces.apply(matrices, stretch.landmarks).astype(np.float32)
    if jitter(aligned) > settings.max_jitter:
        return "jitter"
    crops = tracking.crops(stretch.regions, matrices)
    normalised = settings.normaliser.normalise(aligned)
    words = clip.words_within(start / audio.FRAME_RATE, (start + count) / audio.FRAME_RATE)
    return Example(
        frames=[images.encode_jpeg(crop, settings.jpeg_quality) for crop in crops],
        landmarks=np.asarray(normalised, dtype=np.float32),
        aligned_landmarks=aligned,
        mfcc=mfcc_rows(waveform, start, count),
        pose=pose,
        speaker=clip.speaker,
        clip_id=clip.clip_id if start == 0 else f"{clip.clip_id}@{start}",
        text=" ".join(word.text for word in words) if clip.words else clip.text,
    )


def jitter(landmarks: npt.ArrayLike) -> float:
    """How much aligned points shake: pixels, 0 for points at rest or in steady motion.

    The median over frames of the mean length of the second difference of nose and eyes (points 27
    to 47), which speech does not move.

    Args:
        landmarks: (T, 68, 2) pixels of the crops.
    """
    points = np.asarray(landmarks, dtype=np.float64)[:, 27:48]
    if len(points) < 3:
        return 0.0
    return float(np.median(np.linalg.norm(np.diff(points, n=2, axis=0), axis=-1).mean(axis=-1)))


def mfcc_rows(waveform: npt.NDArray[np.float32], start: int, count: int) -> npt.NDArray[np.float32]:
    """The MFCC rows of frames ``start .. start + count`` of a clip.

    The same rows as those of the whole clip, so that a stretch hears what was said just before it;
    silence stands where the clip has no sound.

    Args:
        waveform: (N,) float32 at 16 kHz of the whole clip.
        start: first frame.
        count: frames T.

    Returns:
        (4 T + 24, 13) float32.
    """
    # One row (10 ms) more in front, because pre-emphasis looks one sample back.
    step = audio.SAMPLES_PER_FRAME // audio.ROWS_PER_FRAME
    silence = CONTEXT_ROWS // 2 * step
    low = start * audio.SAMPLES_PER_FRAME - silence - step
    rows = 4 * count + CONTEXT_ROWS
    high = low + (rows + 3) * step
    padded = np.pad(
        waveform[max(low, 0) : max(high, 0)],
        (max(0, -low), max(0, high - max(len(waveform), max(low, 0)))),
    )
    return audio.mfcc(padded, audio.SAMPLE_RATE)[1 : 1 + rows]
