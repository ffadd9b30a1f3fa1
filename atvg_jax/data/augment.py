"""Random changes to training examples that keep what they say true.

Settings (all off by default; a config's ``augment``):

- ``flip``: probability of mirroring the face. Pictures are mirrored, landmarks too, with left and
  right points exchanged.
- ``colour``: largest relative change of brightness, contrast and saturation, one draw a clip.
- ``channel``: standard deviation of a constant added to each cepstral coefficient of a clip. A
  microphone, a room or an equaliser multiplies the spectrum, which in the cepstrum is a constant.
- ``noise``: standard deviation of noise drawn anew for every coefficient of every row.

There is no gain: a gain multiplies the whole spectrum, adds the same number to all 26 log filter
energies, and so moves cepstral coefficient 0 alone, which the windows leave out (rows 1..12 see no
gain at all, whatever its size). ``channel`` is the change of recording that these features do see.
Coefficients 1..12 of speech have standard deviations of about 10 to 25, so 1 is a small change.
"""

import dataclasses

import numpy as np

from atvg_jax.features.face_shape import mirrored

# ITU-R BT.601 weights of red, green and blue in brightness.
_LUMA = np.asarray([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How much to change training examples; see the module's text. All zero changes nothing."""

    flip: float = 0.0
    colour: float = 0.0
    channel: float = 0.0
    noise: float = 0.0


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
    """Adds a constant and noise to (R, 13) MFCC rows of one clip; energy (column 0) stays."""
    if not settings.channel and not settings.noise:
        return rows
    rows = rows.copy()
    coefficients = rows.shape[1] - 1
    rows[:, 1:] += settings.channel * rng.standard_normal(coefficients).astype(np.float32)
    rows[:, 1:] += settings.noise * rng.standard_normal((len(rows), coefficients), np.float32)
    return rows
