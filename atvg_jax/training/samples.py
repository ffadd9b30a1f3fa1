"""Pictures of how a network does on held-out clips, to be looked at while it trains."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from atvg_jax.features import drawing, images, landmarks, video

FOLDER = "samples"
CLIPS_SHOWN = 4
FRAMES_SHOWN = 2  # of each clip, in VG-net's picture
MOUTHS_SHOWN = 8  # of each clip, in AT-net's picture
LOOPS = 3  # a window lasts 0.64 s; the sample video shows it a few times
FRAME_RATE = 25

_SIZE = 128
_CAPTION = 16
_INK = (235, 235, 235)
_TRUE = (90, 210, 130)
_MADE = (255, 120, 90)
# The mouth of a normalised face is about 0.13 wide.
_MOUTH_ZOOM = 6.0
Arrays = Mapping[str, np.ndarray]


def write(workdir: Path, step: int, network: str, batch: Arrays, outputs: Arrays) -> Path:
    """Writes ``samples/STEP.png``, and for VG-net ``samples/STEP.mp4``.

    Args:
        workdir: the run's folder.
        step: steps done.
        network: ``at_net`` or ``vg_net``.
        batch: held-out windows (B, ...) as the network takes them.
        outputs: what the evaluation step gives for them.

    Returns:
        the picture's path.
    """
    folder = workdir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step}.png"
    if network == "at_net":
        images.save_png(path, at_picture(batch["landmarks"], outputs["landmarks"]))
        return path
    images.save_png(path, vg_picture(batch, outputs))
    clips = range(min(CLIPS_SHOWN, len(batch["frames"])))
    frames = batch["frames"].shape[1]
    shown = [
        _with_captions(np.concatenate([_vg_row(batch, outputs, clip, t) for clip in clips]))
        for t in range(frames)
    ]
    video.write_video(folder / f"{step}.mp4", shown * LOOPS, frame_rate=FRAME_RATE)
    return path


def vg_picture(batch: Arrays, outputs: Arrays) -> np.ndarray:
    """Rows of portrait, target, frame, attention, motion and landmarks: (H, W, 3) uint8."""
    clips = range(min(CLIPS_SHOWN, len(batch["frames"])))
    last = batch["frames"].shape[1] - 1
    times = np.linspace(0, last, FRAMES_SHOWN + 2).round().astype(int)[1:-1]
    rows = [_vg_row(batch, outputs, clip, t) for clip in clips for t in times]
    return _with_captions(np.concatenate(rows))


_CAPTIONS = ("portrait", "target", "frame", "attention", "motion", "landmarks")


def _vg_row(batch: Arrays, outputs: Arrays, clip: int, t: int) -> np.ndarray:
    attention = np.clip(outputs["attention"][clip, t] * 255 + 0.5, 0, 255).astype(np.uint8)
    cells = [
        batch["example_image"][clip],
        batch["frames"][clip, t],
        pixels(outputs["frames"][clip, t]),
        np.broadcast_to(attention, (*attention.shape[:2], 3)),
        pixels(outputs["motion"][clip, t]),
        _face(batch["landmarks"][clip, t]),
    ]
    return np.concatenate(cells, axis=1)


def _with_captions(picture: np.ndarray) -> np.ndarray:
    strip = Image.new("RGB", (picture.shape[1], _CAPTION), drawing.BACKGROUND)
    pen = ImageDraw.Draw(strip)
    for column, caption in enumerate(_CAPTIONS):
        pen.text((column * _SIZE + 4, 2), caption, fill=_INK)
    return np.concatenate([np.asarray(strip), picture])


def at_picture(target: np.ndarray, made: np.ndarray) -> np.ndarray:
    """True and predicted mouths over time, and the mouth's opening, a row a clip.

    Args:
        target: (B, T, 136) in model units.
        made: (B, T, 136), predicted.

    Returns:
        (H, W, 3) uint8.
    """
    frames = target.shape[1]
    times = np.linspace(0, frames - 1, min(MOUTHS_SHOWN, frames)).round().astype(int)
    rows = []
    for clip in range(min(CLIPS_SHOWN, len(target))):
        mouths = [
            _mouths(landmarks.from_model(target[clip, t]), landmarks.from_model(made[clip, t]))
            for t in times
        ]
        openings = [
            landmarks.mouth_opening(landmarks.from_model(points[clip])) for points in (target, made)
        ]
        rows.append(np.concatenate([*mouths, _curves(openings)], axis=1))
    picture = np.concatenate(rows)
    strip = Image.new("RGB", (picture.shape[1], _CAPTION), drawing.BACKGROUND)
    pen = ImageDraw.Draw(strip)
    for column, t in enumerate(times):
        pen.text((column * _SIZE + 4, 2), f"{t / FRAME_RATE:.2f} s", fill=_INK)
    left = len(times) * _SIZE
    pen.text((left + 4, 2), "opening: true", fill=_TRUE)
    pen.text((left + 100, 2), "predicted", fill=_MADE)
    return np.concatenate([np.asarray(strip), picture])


def _face(shape: np.ndarray) -> np.ndarray:
    """Draws a face (136,) in model units."""
    lines = drawing.FACE + drawing.LIPS
    return drawing.draw([(landmarks.from_model(shape), lines, _TRUE)], _SIZE)


def _mouths(target: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Draws two mouths of normalised faces (68, 2), the first in the middle."""
    lips = [(target, drawing.LIPS, _TRUE), (made, drawing.LIPS, _MADE)]
    return drawing.draw(lips, _SIZE, _MOUTH_ZOOM, centre=target[landmarks.MOUTH].mean(axis=0))


def _curves(openings: list[np.ndarray]) -> np.ndarray:
    """Plots true and predicted mouth opening (T,) over time: (128, 256, 3)."""
    width, height = 2 * _SIZE, _SIZE
    picture = Image.new("RGB", (2 * width, 2 * height), drawing.BACKGROUND)
    pen = ImageDraw.Draw(picture)
    top = max(0.3, float(np.nanmax(np.concatenate(openings))))  # a wide open mouth is about 0.4
    for opening, colour in zip(openings, (_TRUE, _MADE), strict=True):
        x = np.linspace(8, 2 * width - 8, len(opening))
        y = 2 * height - 12 - np.clip(np.nan_to_num(opening) / top, 0, 1) * (2 * height - 24)
        pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=colour, width=4)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def pixels(frame: np.ndarray) -> np.ndarray:
    """Of frames (..., H, W, 3), [-1, 1] -> uint8; what is not a number is grey."""
    return np.clip(np.nan_to_num(frame.astype(np.float32)) * 127.5 + 128, 0, 255).astype(np.uint8)
