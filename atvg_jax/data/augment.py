"""Random changes to training examples that keep what they say true.

Settings (all off by default; a config's ``augment``):

- ``flip``: probability of mirroring the face. Pictures are mirrored, landmarks too, with left and
  right points exchanged.
- ``colour``: largest relative change of brightness, contrast and saturation, one draw a clip.
- ``channel``: standard deviation of a constant added to each cepstral coefficient of a clip. A
  microphone, a room or an equaliser multiplies the spectrum, which in the cepstrum is a constant.
- ``noise``: standard deviation of noise drawn anew for every coefficient of every row.
- ``between``: probability that AT-net hears and answers for moments between the pictures, a
  quarter, half or three quarters of a frame later. Sound has four rows a frame, so that a clip
  holds four times as many windows as it has frames; the landmarks between two are interpolated.
- ``gain``: largest change of loudness in decibels, one draw a clip. A gain multiplies the whole
  spectrum, which adds the same number to all 26 log filter energies, and so moves coefficient 0
  alone. The published windows leave it out: AT-net sees coefficients 1..12, which no gain changes.
  It is for networks that do look at loudness; ``channel`` is what AT-net needs.

Coefficients 1..12 of speech have standard deviations of about 10 to 25, so 1 is a small change.
"""

import dataclasses

import numpy as np

from atvg_jax.features.audio import ROWS_PER_FRAME
from atvg_jax.features.face_shape import mirrored

# Log energy of a row of zeros is below it (log of the smallest float64 step, -36).
SILENCE = -36.0
# ITU-R BT.601 weights of red, green and blue in brightness.
_LUMA = np.asarray([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How much to change training examples; see the module's text. All zero changes nothing."""

    flip: float = 0.0
    colour: float = 0.0
    channel: float = 0.0
    noise: float = 0.0
    gain: float = 0.0
    between: float = 0.0


def augment_landmarks(
    landmarks: np.ndarray, settings: Augmentation, rng: np.random.Generator
) -> tuple[np.ndarray, bool]:
    """Mirrors normalised landmarks (..., 68, 2) with the set probability.

    Returns:
        the landmarks, and whether they (and so the pictures) are to be mirrored.
    """
    if settings.flip and rng.random() < settings.flip:
        return mirrored(landmarks).astype(landmarks.dtype), True
    return landmarks, False


def rows_later(settings: Augmentation, rng: np.random.Generator) -> int:
    """How many MFCC rows after its frames a window lies: 0, or with the set probability 1 to 3."""
    if settings.between and rng.random() < settings.between:
        return int(rng.integers(1, ROWS_PER_FRAME))
    return 0


def interpolated(landmarks: np.ndarray, rows: int) -> np.ndarray:
    """Landmarks so many MFCC rows after each frame but the last: (T + 1, 68, 2) to (T, 68, 2)."""
    share = rows / ROWS_PER_FRAME
    return (1 - share) * landmarks[:-1] + share * landmarks[1:]


def augment_frames(
    frames: np.ndarray, flip: bool, settings: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """Mirrors and recolours (T, H, W, 3) uint8 frames of one clip, all in the same way."""
    if flip:
        frames = frames[:, :, ::-1]
    if not settings.colour:
        return frames
    brightness, contrast, saturation = 1 + settings.colour * rng.uniform(-1, 1, 3)
    # All three are affine in the colours, so one 3 x 3 matrix and one offset do.
    matrix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * _LUMA[:, None]
    matrix *= contrast * brightness
    middle = frames.mean(dtype=np.float32)
    offset = middle * (1 - contrast) * brightness
    changed = frames.astype(np.float32) @ matrix.astype(np.float32) + np.float32(offset)
    return np.clip(changed + 0.5, 0, 255).astype(np.uint8)


def augment_mfcc(rows: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Changes (R, 13) MFCC rows of one clip: ``gain`` column 0 (energy), the others the rest."""
    if not settings.channel and not settings.noise and not settings.gain:
        return rows
    rows = rows.copy()
    if settings.gain:
        decibels = settings.gain * rng.uniform(-1, 1)
        # Louder silence is silence: rows without any energy stay.
        rows[:, 0] += np.where(rows[:, 0] > SILENCE, decibels * np.log(10) / 10, 0)
    coefficients = rows.shape[1] - 1
    rows[:, 1:] += settings.channel * rng.standard_normal(coefficients).astype(np.float32)
    rows[:, 1:] += settings.noise * rng.standard_normal((len(rows), coefficients), np.float32)
    return rows
