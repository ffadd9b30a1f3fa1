"""Videos that show several systems' frames of one clip at once."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from atvg_jax.features import video

Frames = npt.NDArray[np.uint8]

PANEL_SIZE = 192  # pixels of one face
CAPTION_HEIGHT = 20
SOUND_RATE = 48000
_BACKGROUND, _INK = (16, 16, 20), (235, 235, 235)


class Sound(NamedTuple):
    """What is heard: (N,) float32 in [-1, 1] at ``SOUND_RATE``."""

    waveform: npt.NDArray[np.float32]


def file_name(clip_id: str) -> str:
    """A file name for a clip: its id, with an underscore for what file systems mind."""
    return re.sub(r"[^A-Za-z0-9.@+-]+", "_", clip_id) + ".mp4"


def write(path: Path, clips: Mapping[str, Iterable[Frames]], sound: Sound | None = None) -> None:
    """Writes an mp4 of clips beside each other, each under its name, as long as the first.

    Args:
        path: of the video.
        clips: by name, (128, 128, 3) uint8 frames at 25 frames/s. One that ends earlier stays on
            its last frame.
        sound: of the video.
    """
    waveform = None if sound is None else sound.waveform
    video.write_video(path, _pictures(clips), waveform, SOUND_RATE, comment="made with atvg_jax")


def _pictures(clips: Mapping[str, Iterable[Frames]]) -> Iterator[Frames]:
    captions = _captions(list(clips))
    streams = [iter(clip) for clip in clips.values()]
    last: list[Frames] = []
    while True:
        frames = [next(stream, None) for stream in streams]
        if frames[0] is None:
            return
        black = np.zeros_like(frames[0])
        last = last or [black] * len(streams)
        last = [old if new is None else new for old, new in zip(last, frames, strict=True)]
        row = np.concatenate([_panel(frame) for frame in last], axis=1)
        yield np.concatenate([row, captions], axis=0)


def _panel(frame: Frames) -> Frames:
    picture = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(picture.resize((PANEL_SIZE, PANEL_SIZE), Image.Resampling.BICUBIC))


def _captions(names: list[str]) -> Frames:
    strip = Image.new("RGB", (PANEL_SIZE * len(names), CAPTION_HEIGHT), _BACKGROUND)
    pen = ImageDraw.Draw(strip)
    for position, name in enumerate(names):
        pen.text(((position + 0.5) * PANEL_SIZE, 4), name, fill=_INK, anchor="ma")
    return np.asarray(strip)
