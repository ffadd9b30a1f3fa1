"""The paper's figures from a model: makes the clips and hands them to whoever draws."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tqdm

from atvg_jax import assets
from atvg_jax.errors import InputError
from atvg_jax.evaluation import figures
from atvg_jax.features import audio, images, video
from atvg_jax.features.faces import AlignedFace
from atvg_jax.inference.landmark_file import read_landmarks
from atvg_jax.inference.talking_face import TalkingFace
from atvg_jax.inference.visualise import attention_picture, draw_landmarks

PANEL = 128


def aligned(face: TalkingFace, image: Path, landmarks: Path | None) -> AlignedFace:
    """A portrait from its file.

    Raises:
        InputError: it has no face, or cannot be read; the message names the file.
    """
    points = None if landmarks is None else read_landmarks(landmarks)
    try:
        return face.align(images.read_image(image), points)
    except InputError as error:
        if str(image) in str(error):
            raise
        raise InputError(f"{image}: {error}", error.reason) from error


def sound(path: Path | None) -> np.ndarray:
    """(N,) float32 at 16 kHz of a file, or of the bundled speech."""
    return video.read_waveform(path or assets.speech_path())


def figure_2(
    out: Path,
    model: Path | None,
    image: Path | None,
    audio_file: Path | None,
    landmarks: Path | None,
    columns: int,
) -> int:
    """Sound, landmarks, attention, motion and frames of one clip; returns its frames."""
    face = TalkingFace.load(model)
    portrait = aligned(face, image or assets.portrait_path(), landmarks)
    waveform = sound(audio_file)
    clip = face.synthesize(portrait, waveform, audio.SAMPLE_RATE)
    numbers = figures.spread_out(len(clip.frames), columns)
    rows = {
        "landmarks": [draw_landmarks(clip.landmarks[n], PANEL) for n in numbers],
        "attention": [attention_picture(clip.attention[n]) for n in numbers],
        "motion": [clip.motion[n] for n in numbers],
        "frames": [clip.frames[n] for n in numbers],
    }
    figures.how_frames_come_about(out, waveform, audio.SAMPLE_RATE, rows, numbers)
    return len(clip.frames)


def figure_6(
    out: Path,
    model: Path | None,
    image_files: Sequence[Path],
    audio_file: Path | None,
    landmarks: Sequence[Path],
    columns: int,
) -> int:
    """One sentence said by many faces; returns the frames made in all."""
    if landmarks and len(landmarks) != len(image_files):
        raise InputError(
            f"{len(landmarks)} landmark files for {len(image_files)} images: give one each"
        )
    files = list(image_files) or [assets.portrait_path(name) for name in assets.PORTRAITS]
    points: list[Path | None] = list(landmarks) or [None] * len(files)
    face = TalkingFace.load(model)
    # All of them first: a portrait without a face should not cost the others' frames.
    portraits = [aligned(face, file, own) for file, own in zip(files, points, strict=True)]
    waveform = sound(audio_file)
    numbers = figures.spread_out(audio.frame_count(len(waveform)), columns)
    people = {}
    for file, portrait in zip(files, tqdm.tqdm(portraits, unit="face", delay=1), strict=True):
        moments = face.moments(portrait, [waveform], audio.SAMPLE_RATE, live=False)
        wanted = set(numbers)
        frames = [m.frame for n, m in enumerate(moments) if n in wanted and m.frame is not None]
        people[file.stem] = (portrait.crop, frames)
    figures.one_sentence(out, waveform, audio.SAMPLE_RATE, people, numbers)
    return len(people) * audio.frame_count(len(waveform))
