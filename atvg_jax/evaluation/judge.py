"""One clip judged: every system's frames against the real ones, a few frames at a time.

The real clip's first frame with a face is the portrait; it is what a still shows for ever, and it
is not scored. Two references stand beside every system, made from the real clip itself:
``ground truth``, the real frames, and ``static portrait``.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atvg_jax.evaluation import identity, metrics
from atvg_jax.evaluation.footage import Footage, Frames
from atvg_jax.evaluation.sharpness import grey
from atvg_jax.evaluation.similarity import WINDOW_RADIUS, Windowed, similarity
from atvg_jax.features import faces

FloatArray = npt.NDArray[np.float64]

GROUND_TRUTH = "ground truth"
STATIC_PORTRAIT = "static portrait"

CHUNK = 32  # frames in memory at once, of every system
IDENTITY_EVERY = 100
"""Frames (4 s) from one that identity is judged on to the next: the network takes as long for one
face as everything else does for ten frames, and a face does not become another within seconds."""

SMALLEST_ERROR = 1 / 12
"""Mean squared error below which frames of 8 bits cannot be told apart: that of rounding. A clip's
PSNR takes no frame for better than this (58.9 dB), so that equal frames do not make it infinite."""

FEWEST_FRAMES = 10

FEATURES_EVERY = 5
"""Frames from one whose features FID takes to the next: neighbours are all but the same."""


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        cpbd: sharpness.
        landmarks: landmarks found in the frames, and what is measured by them.
        identity: identity similarity.
        lpips: weights of ``backbones.lpips``; None: without.
        fid: weights of ``backbones.inception``; None: without.
        lse: weights of ``backbones.syncnet``; None: without.
    """

    cpbd: bool = True
    landmarks: bool = True
    identity: bool = True
    lpips: Path | None = None
    fid: Path | None = None
    lse: Path | None = None


@dataclass(frozen=True)
class Scores:
    """What one system got for one clip.

    Attributes:
        system: its name.
        clip_id: which clip.
        speaker: who it shows, "" where unknown.
        frames: how many were scored.
        values: by metric, the clip's value; NaN where it has none.
        by_lag: (2 L + 1,) correlation of the mouth's opening at each lag; None without landmarks.
        by_frame: by name, (frames,) values of single frames.
        features: (n, 2048) of one frame in ``FEATURES_EVERY``, for FID; None without.
    """

    system: str
    clip_id: str
    speaker: str
    frames: int
    values: dict[str, float]
    by_lag: FloatArray | None = None
    by_frame: dict[str, FloatArray] = field(default_factory=dict)
    features: FloatArray | None = None


def judge(
    clip_id: str,
    speaker: str,
    real: Footage,
    systems: Mapping[str, Footage],
    settings: Settings | None = None,
    mfcc: npt.ArrayLike | None = None,
) -> list[Scores]:
    """Scores a clip.

    Args:
        clip_id: its name in the report.
        speaker: who it shows, "" where unknown.
        real: the true clip.
        systems: by name, what each made of it; frame t of each belongs to the real frame t. The
            shorter of the two ends the comparison.
        settings: what to measure.
        mfcc: (rows, 13) of the real clip's sound, as ``features.audio.mfcc`` gives it; without it
            nothing is measured against the sound.

    Returns:
        Scores of the ground truth, the static portrait, and the systems.

    Raises:
        ValueError: fewer than ``FEWEST_FRAMES`` frames have a face in both clips.
    """
    settings = settings or Settings()
    portrait = int(np.argmax(real.has_face))
    first = portrait + 1
    judges = {}
    for name, footage in ((GROUND_TRUTH, real), (STATIC_PORTRAIT, None), *systems.items()):
        judges[name] = _SystemJudge(name, real, footage, first, settings)
    if settings.lse is not None and mfcc is not None:
        network = _syncnet(settings.lse)
        sound = network.sound(mfcc)  # once for all systems
        for one in judges.values():
            one.listen(network, sound)
    for start, chunk in _chunks({GROUND_TRUTH: real, **systems}):
        pictures = chunk[GROUND_TRUTH]
        chunk[STATIC_PORTRAIT] = pictures  # stands for as many stills
        if start <= portrait < start + len(pictures):
            still, points = pictures[portrait - start], real.landmarks[portrait]
            # Once for all systems: the network takes a while.
            own = identity.identity_descriptors(still, points) if settings.identity else None
            for one in judges.values():
                one.meet(still, own)
        seen = _Real(pictures, judges[GROUND_TRUTH].find(start, pictures))
        for name, one in judges.items():
            one.add(start, seen, chunk[name])
    return [one.scores(clip_id, speaker) for one in judges.values()]


def _chunks(clips: Mapping[str, Footage]) -> Iterator[tuple[int, dict[str, Frames]]]:
    """The first frame's number and (n, 128, 128, 3) of every clip, until the real one ends."""
    streams = {name: clip.frames() for name, clip in clips.items()}
    for start in itertools.count(step=CHUNK):
        chunk = {}
        for name, stream in streams.items():
            frames = list(itertools.islice(stream, CHUNK))
            chunk[name] = np.stack(frames) if frames else np.zeros((0, 1, 1, 3), np.uint8)
        if not len(chunk[GROUND_TRUTH]):
            return
        yield start, chunk


class _Real:
    """A chunk of the real clip, and what every comparison with it needs, computed once.

    Attributes:
        pictures: (n, 128, 128, 3) uint8.
        landmarks: (n, 68, 2) found in them, or None.
        windows: of each frame.
        grey: (n, 128, 128) uint8.
    """

    def __init__(self, pictures: Frames, landmarks: FloatArray | None):
        self.pictures, self.landmarks = pictures, landmarks
        self.windows = [Windowed(picture) for picture in pictures]
        self.grey = grey(pictures)


class _SystemJudge:
    """Keeps what one system's frames scored; the frames themselves go."""

    def __init__(
        self, name: str, real: Footage, footage: Footage | None, first: int, settings: Settings
    ):
        """``footage`` is None for the portrait, which has the real clip's length."""
        self._name, self._settings, self._first = name, settings, first
        self._places = (footage or real).landmarks
        count = min(len(real.has_face), len((footage or real).has_face))
        self._scored = real.has_face[:count] & (footage or real).has_face[:count]
        self._scored[:first] = False
        self._real_places = real.landmarks
        self._real_pose = real.pose
        self._series: dict[str, list[Any]] = {}
        self._landmarks: list[FloatArray] = []
        self._real_landmarks: list[FloatArray] = []
        self._portrait: Frames | None = None
        self._portrait_windows: Windowed | None = None
        self._descriptor: FloatArray | None = None
        self._last: Frames | None = None  # of the chunk before
        self._features: list[FloatArray] = []
        self._lips: Any = None  # a Follower
        self._done = 0
        # One box for all frames: a box that follows the chin would let the mouth move everything.
        seen = self._places[first - 1 : count][(footage or real).has_face[first - 1 : count]]
        self._box = faces.landmark_box(np.median(seen if len(seen) else self._places, axis=0))
        self._still: FloatArray | None = None  # (68, 2) the portrait's own

    def meet(self, portrait: Frames, descriptor: FloatArray | None) -> None:
        """Learns what the portrait is, and whose; before any frame that is scored."""
        self._portrait, self._descriptor = portrait, descriptor
        if self._name != STATIC_PORTRAIT:
            return
        self._portrait_windows = Windowed(portrait)
        if self._settings.landmarks:
            self._still = faces.predict_landmarks(portrait, self._box).astype(np.float64)

    def listen(self, network: Any, sound: FloatArray) -> None:
        """Learns what SyncNet makes of the real clip's sound; before any frame."""
        from atvg_jax.evaluation.backbones.syncnet import Follower

        self._lips = Follower(network, sound)

    def find(self, start: int, pictures: Frames) -> FloatArray | None:
        """(n, 68, 2) the landmarks in these frames, which start at ``start``."""
        if not self._settings.landmarks or not len(pictures):
            return None
        found = [
            faces.predict_landmarks(picture, self._box)
            if self._wanted(start + number)
            else self._places[min(start + number, len(self._places) - 1)]
            for number, picture in enumerate(pictures)
        ]
        return np.stack(found).astype(np.float64)

    def _wanted(self, number: int) -> bool:
        return number < len(self._scored) and bool(self._scored[number])

    def add(self, start: int, seen: _Real, shown: Frames) -> None:
        """Scores the frames of a chunk that starts at ``start``."""
        count = min(len(shown), len(seen.pictures), len(self._scored) - start)
        if count <= 0:
            return
        real, still = seen.pictures[:count], self._name == STATIC_PORTRAIT
        if still:
            # Before the portrait there is nothing to score.
            portrait = self._portrait if self._portrait is not None else real[0]
            shown = np.broadcast_to(portrait, real.shape)
        shown = shown[:count]
        self._done = start + count
        self._compare(start, seen, shown)
        if self._settings.lpips is not None:
            self._keep("lpips", _lpips(self._settings.lpips)(real, shown))
        if self._settings.fid is not None:
            numbers = range(start, start + count)
            taken = [n % FEATURES_EVERY == 0 and self._wanted(n) for n in numbers]
            self._features.append(_inception(self._settings.fid)(shown[taken]))
        if self._lips is not None:
            for number, frame in enumerate(shown, start):
                self._lips.add(number, frame if self._wanted(number) else None)
        self._keep("jitter", np.zeros(count) if still else self._jitter(start, shown))
        if self._settings.cpbd:
            values = metrics.cpbd(shown[:1] if still else shown)
            self._keep("cpbd", np.broadcast_to(values, count))
        if self._settings.identity:
            self._keep("identity_similarity", self._identity(start, shown))
        if seen.landmarks is not None:
            self._real_landmarks.append(seen.landmarks[:count])
            self._landmarks.append(self._points(start, shown, seen.landmarks[:count]))

    def _compare(self, start: int, seen: _Real, shown: Frames) -> None:
        """Scores frames against the real ones, whose landmarks tell where the mouth is."""
        count = len(shown)
        real, places = seen.pictures[:count], self._real_places[start : start + count]
        error, mouth = np.zeros(count), np.zeros(count)
        similar = [dict.fromkeys(WINDOW_RADIUS, 1.0)] * count
        legacy = np.full(count, metrics.LEGACY_EQUAL)
        if self._name != GROUND_TRUTH:
            error = metrics.mean_squared_error(real, shown)
            mouth = metrics.mouth_squared_error(real, shown, places)
            similar = [
                similarity(one, self._portrait_windows or Windowed(picture))
                for one, picture in zip(seen.windows, shown, strict=False)
            ]
            # A still's grey is computed once.
            own = grey(shown[:1] if self._name == STATIC_PORTRAIT else shown)
            legacy = metrics.legacy_psnr_of_grey(seen.grey[:count], own)
        for name, squares in (("psnr", error), ("psnr_mouth", mouth)):
            squares = np.maximum(squares, SMALLEST_ERROR)
            self._keep(name, 10 * np.log10(metrics.PEAK**2 / squares))
        for window in WINDOW_RADIUS:
            self._keep(f"ssim_{window}", [values[window] for values in similar])
        self._keep("legacy_psnr", legacy)

    def _keep(self, name: str, values: npt.ArrayLike) -> None:
        self._series.setdefault(name, []).append(np.asarray(values, np.float64))

    def _points(self, start: int, shown: Frames, found: FloatArray) -> FloatArray:
        if self._name == GROUND_TRUTH:
            return found
        if self._name == STATIC_PORTRAIT and self._still is not None:
            return np.broadcast_to(self._still, found.shape)
        own = self.find(start, shown)
        assert own is not None  # there are landmarks and frames
        return own

    def _jitter(self, start: int, shown: Frames) -> FloatArray:
        """(n,) change of each frame from the one before; NaN for the very first."""
        before = shown[:1] if self._last is None else self._last
        pictures = np.concatenate([before, shown])
        numbers = np.maximum(np.arange(start - 1, start + len(shown)), 0)
        values = metrics.jitter(pictures, self._places[numbers])
        # The frame before must be the clip's own too: neither the portrait nor without a face.
        for number in range(start, start + len(shown)):
            if number <= self._first or not self._wanted(number - 1):
                values[number - start] = np.nan
        self._last = shown[-1:].copy()
        return values

    def _identity(self, start: int, shown: Frames) -> FloatArray:
        """(n,) similarity to the portrait of the frames that are looked at, NaN for the others."""
        values = np.full(len(shown), np.nan)
        length = len(self._scored) - self._first
        offset = min(IDENTITY_EVERY, length) // 2
        for number in range(len(shown)):
            place = start + number - self._first
            if place < 0 or place % IDENTITY_EVERY != offset or not self._wanted(start + number):
                continue
            if self._name == STATIC_PORTRAIT:
                values[number] = 1.0
                continue
            assert self._descriptor is not None  # the portrait comes before what is scored
            own = identity.identity_descriptors(shown[number], self._places[start + number])
            values[number] = identity.cosine(self._descriptor, own)
        return values

    def scores(self, clip_id: str, speaker: str) -> Scores:
        """The clip's scores.

        Raises:
            ValueError: too few frames.
        """
        scored = self._scored[: self._done]
        if np.count_nonzero(scored) < FEWEST_FRAMES:
            raise ValueError(
                f"{np.count_nonzero(scored)} frames with a face in both clips; "
                f"it takes {FEWEST_FRAMES}"
            )
        series = {name: np.concatenate(parts)[scored] for name, parts in self._series.items()}
        by_lag = None
        values = {name: _mean(value) for name, value in series.items()}
        if self._landmarks:
            real = np.concatenate(self._real_landmarks)[scored]
            own = np.concatenate(self._landmarks)[scored]
            series["landmark_distance_mouth"] = metrics.landmark_distance(real, own, "mouth")
            series["landmark_distance_face"] = metrics.landmark_distance(real, own, "face")
            series["legacy_landmark_distance"] = metrics.legacy_landmark_distance(real, own)
            values |= {name: _mean(series[name]) for name in list(series)[-3:]}
            agreement = metrics.mouth_agreement(
                metrics.mouth_opening(real), metrics.mouth_opening(own)
            )
            by_lag = agreement.by_lag
            values["mouth_correlation"] = agreement.correlation
            values["mouth_lag"] = agreement.lag
            values["mouth_spread_ratio"] = agreement.spread_ratio
        if self._lips is not None:
            values |= self._lips.scores()
        numbers = np.flatnonzero(scored)
        series["frame"] = numbers.astype(np.float64)
        series |= self._distance_from_portrait(numbers)
        features = np.concatenate(self._features) if self._features else None
        return Scores(self._name, clip_id, speaker, len(numbers), values, by_lag, series, features)

    def _distance_from_portrait(self, numbers: npt.NDArray[np.int64]) -> dict[str, FloatArray]:
        """How far the real frames are from the portrait: what the system had to bridge."""
        portrait = self._first - 1
        places, pose = self._real_places, self._real_pose
        moved = np.linalg.norm(places[numbers] - places[portrait], axis=-1).mean(axis=-1)
        # Yaw and pitch: the crop is upright, whatever the roll.
        turned = np.linalg.norm(pose[numbers, :2] - pose[portrait, :2], axis=-1)
        return {"landmarks_moved": moved, "head_turned": turned}


@cache
def _lpips(path: Path) -> Any:
    from atvg_jax.evaluation.backbones.lpips import Lpips

    return Lpips(path)


@cache
def _inception(path: Path) -> Any:
    from atvg_jax.evaluation.backbones.inception import Inception

    return Inception(path)


@cache
def _syncnet(path: Path) -> Any:
    from atvg_jax.evaluation.backbones.syncnet import SyncNet

    return SyncNet(path)


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
