"""Short videos of a face, made here: an astronaut's photograph that is moved about."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

from atvg_jax.features import video

FACE = (222, 118)
"""Column and row between the eyes and the mouth in the photograph."""

CHIRP = (120.0, 1800.0)
"""Hz; a sound that is different at every moment, so that a shift of it can be told."""


def sound(seconds, rate=16000):
    """A rising tone, louder and softer four times a second, as syllables are."""
    time = np.arange(round(seconds * rate)) / rate
    low, high = CHIRP
    phase = 2 * np.pi * (low * time + (high - low) * time**2 / 2 / max(seconds, 1))
    return (0.3 * np.sin(phase) * (0.6 + 0.4 * np.sin(8 * np.pi * time))).astype(np.float32)


def head(count, size=192, zoom=1.0, sway=3.0, mirror=False, still=False):
    """Frames (size, size, 3) of the photograph's face, swaying by some pixels."""
    picture = Image.fromarray(skimage.data.astronaut())
    centre = FACE
    if mirror:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        centre = (picture.width - 1 - FACE[0], FACE[1])
    scale = 210 / size / zoom  # pixels of the photograph a pixel of the frame
    for number in range(count):
        phase = 0.0 if still else number
        x = centre[0] + sway * np.sin(phase / 9) - scale * size / 2
        y = centre[1] + sway * np.cos(phase / 13) - scale * size / 2
        matrix = (scale, 0, x, 0, scale, y)
        moved = picture.transform(
            (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
        )
        yield np.asarray(moved)


def talk(path, frames=30, waveform=None, **head_settings):
    """Writes a video of the face with a sound as long as it; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if waveform is None:
        waveform = sound(frames / 25)
    video.write_video(path, head(frames, **head_settings), waveform, 16000)
    return path


@pytest.fixture(scope="session")
def talking(tmp_path_factory):
    """One video of 30 frames with sound."""
    return talk(tmp_path_factory.mktemp("video") / "talking.mp4")


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """A folder of four people with a video each, one with two, and a file that is no video."""
    folder = tmp_path_factory.mktemp("people")
    for number, name in enumerate(("ada", "ben", "cleo", "dan")):
        talk(folder / name / "one.mp4", frames=26 + number, zoom=1 + 0.1 * number)
    talk(folder / "ada" / "two.mp4", frames=27, mirror=True)
    (folder / "gus").mkdir()
    (folder / "gus" / "broken.mp4").write_text("this is no video")
    return folder
