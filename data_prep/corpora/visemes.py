"""What the mouth does while it speaks: phonemes with times to a track of mouth shapes.

Each sound has a target shape and a dominance: how strongly it insists on it. Between sounds the
targets are blended, weighted by dominance, over the time that lips need to move (co-articulation
in the manner of Cohen and Massaro, "Modeling coarticulation in synthetic visual speech", 1993).
Closures (p, b, m) and the lip between the teeth (f, v) are reached however short they are.
"""

import dataclasses
import math
import unicodedata

import numpy as np
from scipy.ndimage import gaussian_filter1d

from data_prep.corpora.speech import Phoneme, Utterance

FRAME_RATE = 25
_STEP = 0.005
"""Seconds between points of the fine track that frames are read from."""
_LIP_TIME = 0.035
"""Seconds, standard deviation: how fast lips and jaw go from one target to the next."""
_CLOSURE_TIME = 0.018
"""The same for a closure, which is quicker than any vowel."""


@dataclasses.dataclass(frozen=True)
class Target:
    """The mouth shape of a sound.

    Attributes:
        opening: 0 (lips touch) to 1 (as wide as in "father").
        width: -1 (narrow) to 1 (spread).
        rounding: 0 to 1, lips pushed forward.
        press: 0 to 1, lips pressed together.
        bite: 0 to 1, lower lip at the upper teeth.
        dominance: above 0; a vowel has 1.
    """

    opening: float
    width: float = 0.0
    rounding: float = 0.0
    press: float = 0.0
    bite: float = 0.0
    dominance: float = 1.0


REST = Target(0.0, dominance=0.8)

_TARGETS = {
    **dict.fromkeys("aɑɐ", Target(1.0)),
    "æ": Target(0.85, 0.35),
    **dict.fromkeys("ʌ", Target(0.7, 0.1)),
    **dict.fromkeys("ɛ", Target(0.62, 0.4)),
    **dict.fromkeys("e", Target(0.52, 0.5)),
    **dict.fromkeys("ɪ", Target(0.36, 0.45)),
    **dict.fromkeys("iɨ", Target(0.27, 0.75)),
    **dict.fromkeys("ɔɒ", Target(0.78, -0.35, 0.45)),
    "o": Target(0.52, -0.5, 0.7),
    "ʊ": Target(0.32, -0.5, 0.7),
    "u": Target(0.2, -0.8, 1.0),
    **dict.fromkeys("yʏ", Target(0.22, -0.7, 1.0)),
    **dict.fromkeys("øœ", Target(0.5, -0.45, 0.75)),
    **dict.fromkeys("əɚᵻ", Target(0.36, dominance=0.6)),
    **dict.fromkeys("ɜɝ", Target(0.4, -0.1, 0.2)),
    **dict.fromkeys("pbm", Target(0.0, 0.0, 0.0, press=1.0, dominance=2.0)),
    **dict.fromkeys("fvɱβ", Target(0.1, 0.1, 0.0, bite=1.0, dominance=1.6)),
    **dict.fromkeys("wʍ", Target(0.12, -0.85, 1.0, dominance=1.6)),
    **dict.fromkeys("ɹr", Target(0.25, -0.3, 0.4, dominance=0.7)),
    **dict.fromkeys("ʃʒɕʑ", Target(0.2, -0.4, 0.6, dominance=1.2)),
    **dict.fromkeys("szʦ", Target(0.14, 0.3, dominance=0.9)),
    **dict.fromkeys("θð", Target(0.22, 0.1, dominance=0.7)),
    **dict.fromkeys("tdnɾɲ", Target(0.2, 0.15, dominance=0.5)),
    **dict.fromkeys("lɫʎ", Target(0.3, 0.1, dominance=0.5)),
    **dict.fromkeys("kɡgŋxɣχʁhç", Target(0.3, dominance=0.3)),
    "j": Target(0.25, 0.5, dominance=0.6),
}
"""By the IPA symbol's base letter. Openings are in the order that phonetics gives: open vowels,
mid, close, continuants, closures."""


@dataclasses.dataclass(frozen=True)
class MouthTrack:
    """Mouth shapes, one a video frame: arrays (T,) float32 in the ranges of ``Target``."""

    opening: np.ndarray
    width: np.ndarray
    rounding: np.ndarray
    press: np.ndarray
    bite: np.ndarray

    def __len__(self):
        return len(self.opening)


def targets(phoneme: Phoneme) -> list[Target]:
    """The shapes a sound goes through: one, two for a diphthong or affricate, rest in a pause."""
    letters = unicodedata.normalize("NFD", phoneme.symbol)
    found = [_TARGETS[letter] for letter in letters if letter in _TARGETS]
    if not found:
        return [REST]
    stressed = any(mark in phoneme.symbol for mark in "ˈ")
    emphasis = 1.12 if stressed else 0.92
    return [
        dataclasses.replace(target, opening=min(1.1, target.opening * emphasis))
        for target in found[:2]
    ]


def _loudness(utterance: Utterance, points: int) -> np.ndarray:
    """Loudness (points,) in [0, 1] on the fine grid: root mean square over about 50 ms."""
    energy = utterance.waveform.astype(np.float64) ** 2
    times = (np.arange(points + 1) * _STEP * utterance.sample_rate).astype(int)
    total = np.concatenate([[0.0], np.cumsum(energy)])
    at = np.clip(times, 0, len(energy))
    power = np.diff(total[at]) / np.maximum(1, np.diff(times))
    level = np.sqrt(gaussian_filter1d(power, 0.025 / _STEP))
    return np.clip(level / max(1e-6, float(np.percentile(level, 90))), 0.0, 1.0)


def mouth_track(utterance: Utterance, frames: int, expressiveness: float = 1.0) -> MouthTrack:
    """Mouth shapes for every video frame of an utterance.

    A frame stands for the 40 ms it is shown, so its shape is that at the middle of them.

    Args:
        utterance: what is said; it begins with the first frame.
        frames: T; the mouth rests after the end of the utterance.
        expressiveness: a person's factor on the opening, about 0.7 to 1.2.
    """
    points = math.ceil(frames / FRAME_RATE / _STEP) + 1
    shape = np.zeros((points, 3))  # opening, width, rounding
    dominance = np.full(points, REST.dominance)
    closures = np.zeros((points, 2))  # press, bite
    for phoneme in utterance.phonemes:
        parts = targets(phoneme)
        edges = np.linspace(phoneme.start, phoneme.end, len(parts) + 1) / _STEP
        for target, start, end in zip(parts, edges[:-1], edges[1:], strict=True):
            span = slice(round(start), max(round(start) + 1, round(end)))
            shape[span] = target.opening, target.width, target.rounding
            dominance[span] = target.dominance
            closures[span] = target.press, target.bite
    sigma = _LIP_TIME / _STEP
    weight = gaussian_filter1d(dominance, sigma, mode="nearest")
    smooth = gaussian_filter1d(shape * dominance[:, None], sigma, axis=0, mode="nearest")
    smooth /= weight[:, None]
    held = gaussian_filter1d(closures, _CLOSURE_TIME / _STEP, axis=0, mode="nearest")
    held = np.clip(held * 1.3, 0.0, 1.0)  # so that one of 40 ms is complete
    # Louder is wider open; a closure needs no loudness, so it comes after.
    opening = smooth[:, 0] * (0.55 + 0.45 * _loudness(utterance, points)) * expressiveness
    opening *= (1 - held[:, 0]) * (1 - 0.75 * held[:, 1])
    middle = ((np.arange(frames) + 0.5) / FRAME_RATE / _STEP).astype(int)
    columns = (opening, smooth[:, 1], smooth[:, 2], held[:, 0], held[:, 1])
    return MouthTrack(*(column[middle].astype(np.float32) for column in columns))
