"""Pictures that show how a frame came about: landmarks, attention and motion beside it."""

import functools

import numpy as np
from PIL import Image, ImageDraw

from atvg_jax.features import drawing

PANEL_SIZE = 256
CAPTION_HEIGHT = 20
INK = (235, 235, 235)
LINES = (120, 200, 255)
MOUTH = (255, 140, 110)
# Dark to bright through blue, magenta and yellow: attention from 0 to 1.
HEAT = np.array([(8, 8, 24), (64, 24, 120), (190, 55, 90), (250, 150, 40), (252, 250, 190)], float)


@functools.cache
def _heat_table() -> np.ndarray:
    positions = np.linspace(0, 1, len(HEAT))
    levels = np.linspace(0, 1, 256)
    channels = [np.interp(levels, positions, HEAT[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def draw_landmarks(landmarks: np.ndarray, size: int = PANEL_SIZE) -> np.ndarray:
    """Draws normalised landmarks as strokes.

    Args:
        landmarks: ``(68, 2)`` normalised, x to the right and y down.
        size: side of the picture in pixels.

    Returns:
        ``(size, size, 3)`` uint8.
    """
    return drawing.draw([(landmarks, drawing.FACE, LINES), (landmarks, drawing.LIPS, MOUTH)], size)


def attention_picture(attention: np.ndarray) -> np.ndarray:
    """Colours an attention map.

    Args:
        attention: ``(H, W)`` in [0, 1].

    Returns:
        ``(H, W, 3)`` uint8, dark where the portrait is kept, bright where it moves.
    """
    levels = np.clip(np.asarray(attention) * 255 + 0.5, 0, 255).astype(np.uint8)
    return _heat_table()[levels]


@functools.cache
def _captions(names: tuple[str, ...]) -> np.ndarray:
    strip = Image.new("RGB", (PANEL_SIZE * len(names), CAPTION_HEIGHT), drawing.BACKGROUND)
    pen = ImageDraw.Draw(strip)
    for position, name in enumerate(names):
        pen.text(((position + 0.5) * PANEL_SIZE, 4), name, fill=INK, anchor="ma")
    return np.asarray(strip)


def panels(
    portrait: np.ndarray,
    frame: np.ndarray,
    attention: np.ndarray,
    motion: np.ndarray,
    landmarks: np.ndarray,
) -> np.ndarray:
    """One picture of all that belongs to a frame, with captions.

    Args:
        portrait: ``(128, 128, 3)`` uint8, the aligned crop.
        frame: ``(128, 128, 3)`` uint8, what was made.
        attention: ``(128, 128)`` in [0, 1].
        motion: ``(128, 128, 3)`` uint8.
        landmarks: ``(68, 2)`` normalised.

    Returns:
        ``(276, 1280, 3)`` uint8: portrait, landmarks, attention, motion, frame.
    """
    row = [
        _panel(portrait),
        draw_landmarks(landmarks),
        _panel(attention_picture(attention)),
        _panel(motion),
        _panel(frame),
    ]
    names = ("portrait", "landmarks", "attention", "motion", "frame")
    return np.concatenate([np.concatenate(row, axis=1), _captions(names)], axis=0)


def _panel(picture: np.ndarray) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(image.resize((PANEL_SIZE, PANEL_SIZE), Image.Resampling.BICUBIC))
