"""``python -m atvg_jax.synthesize``: a portrait and a sound to a video of it speaking."""

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from atvg_jax import command_line
from atvg_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from atvg_jax.features.faces import AlignedFace
    from atvg_jax.inference.talking_face import Moment, TalkingFace

VIDEO_SUFFIXES = (".mp4", ".m4v")
NUMBERS_SUFFIX = ".npy"
SOUND_RATE = 48000  # Hz, of the sound in the video


class Job(NamedTuple):
    """One video to make."""

    image: Path
    audio: Path
    landmarks: Path | None
    out: Path


class Portrait(NamedTuple):
    """A picture's face, and the picture itself where it is to be seen whole."""

    aligned: "AlignedFace"
    image: "np.ndarray | None"


def parser() -> command_line.Parser:
    """The flags."""
    flags = command_line.Parser(
        "python -m atvg_jax.synthesize",
        "Makes a portrait speak a sound: an mp4 of 128 x 128 pixels at 25 frames/s, as long as the "
        "sound. Give the same number of images and sounds to pair them in order, or one of "
        "either to use it with each of the other.",
        "python -m atvg_jax.synthesize --image=portrait.jpg --audio=speech.wav --out=talk.mp4",
    )
    add = flags.add_argument
    add("--image", action="extend", nargs="+", type=Path, required=True, metavar="FILE")
    add(
        "--audio",
        action="extend",
        nargs="+",
        type=Path,
        required=True,
        metavar="FILE",
        help="sound file, or a video whose sound to use",
    )
    add(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="video to write; with several, a folder, or a name with {image} and {audio} in it",
    )
    add("--model", type=Path, metavar="DIR", help="model directory (default: the bundled one)")
    add(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16 is faster on a CPU with AVX512-BF16 or AMX and on GPUs (default: float32)",
    )
    add(
        "--full_size",
        action="store_true",
        help="move the face within the whole portrait, at its own resolution",
    )
    add(
        "--visualise",
        action="store_true",
        help="show portrait, landmarks, attention and motion beside the frames",
    )
    add(
        "--landmarks",
        action="extend",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="68 points (.npy, .csv, .json; pixels) for a face that no detector finds, one file "
        "for each image",
    )
    add("--face", type=int, metavar="N", help="which of several faces, 0 the clearest (default)")
    add(
        "--landmarks_only",
        action="store_true",
        help="draw the moving landmarks instead of making frames; an --out ending in .npy gets "
        "the (T, 68, 2) numbers",
    )
    return flags


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """Pairs images with sounds and names the videos; ``InputError`` where that cannot be done."""
    images, sounds = arguments.image, arguments.audio
    if len(images) != len(sounds) and 1 not in (len(images), len(sounds)):
        raise InputError(
            f"{len(images)} images and {len(sounds)} sounds cannot be paired: give the same "
            "number of both, or one of either"
        )
    points = arguments.landmarks or [None] * len(images)
    if len(points) != len(images):
        raise InputError(f"{len(points)} landmark files for {len(images)} images: give one each")
    for file in itertools.chain(images, sounds, arguments.landmarks or []):
        if not file.is_file():
            raise InputError(f"there is no file {file}")
    count = max(len(images), len(sounds))
    pairs = list(
        zip(
            itertools.islice(itertools.cycle(zip(images, points, strict=True)), count),
            itertools.islice(itertools.cycle(sounds), count),
            strict=True,
        )
    )
    made = [
        Job(image, sound, file, output_name(arguments.out, image, sound, count))
        for (image, file), sound in pairs
    ]
    names = [job.out for job in made]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two of the videos would both be {name}: use {{image}} and {{audio}}")
        if name.resolve() in [file.resolve() for file in itertools.chain(images, sounds)]:
            raise InputError(f"--out would overwrite the input {name}")
        if name.is_dir():
            raise InputError(f"{name} is a folder, not a file to write")
    return made


def output_name(out: Path, image: Path, sound: Path, count: int) -> Path:
    """The file that one pair goes to, of ``count`` pairs in all."""
    text = str(out)
    if "{image}" in text or "{audio}" in text:
        named = Path(text.replace("{image}", image.stem).replace("{audio}", sound.stem))
        return _checked_suffix(named)
    if out.is_dir() or (not out.suffix and count > 1):
        return out / f"{image.stem}_{sound.stem}.mp4"
    if count > 1:
        raise InputError(
            f"{count} videos do not fit into the one file {out}: give a folder, or a name such as "
            f"{out.with_suffix('')}_{{image}}_{{audio}}{out.suffix}"
        )
    return _checked_suffix(out)


def _checked_suffix(out: Path) -> Path:
    if out.suffix.lower() not in (*VIDEO_SUFFIXES, NUMBERS_SUFFIX):
        raise InputError(f"--out={out} should end in .mp4")
    return out


def synthesize(
    face: "TalkingFace", job: Job, portrait: Portrait, arguments: argparse.Namespace
) -> int:
    """Makes one video; returns its number of frames."""
    import tqdm

    from atvg_jax.features import audio, video

    waveform = video.read_waveform(job.audio)
    moments = face.moments(
        portrait.aligned,
        [waveform],
        audio.SAMPLE_RATE,
        live=False,
        landmarks_only=arguments.landmarks_only,
    )
    frames = audio.frame_count(waveform.size)
    try:
        job.out.parent.mkdir(parents=True, exist_ok=True)
        with tqdm.tqdm(moments, total=frames, unit="frame", desc=job.out.name, delay=1) as bar:
            if job.out.suffix.lower() == NUMBERS_SUFFIX:
                save_landmarks(job.out, bar)
            else:
                # The networks hear 16 kHz; people hear more.
                sound = video.read_waveform(job.audio, SOUND_RATE)
                shown = pictures(bar, portrait, arguments)
                video.write_video(job.out, shown, sound, SOUND_RATE)
    except OSError as error:
        raise InputError(f"cannot write {job.out}: {error.strerror or error}") from error
    return frames


def pictures(
    moments: Iterator["Moment"], portrait: Portrait, arguments: argparse.Namespace
) -> Iterator["np.ndarray"]:
    """The pictures of the video that the flags ask for."""
    from atvg_jax.inference import compose, visualise

    whole = None
    if portrait.image is not None:
        whole = compose.WholePortrait(portrait.image, portrait.aligned.matrix)
    for moment in moments:
        if moment.frame is None or moment.attention is None or moment.motion is None:
            yield visualise.draw_landmarks(moment.landmarks)
        elif whole is not None:
            yield whole.frame(moment.attention, moment.motion)
        elif arguments.visualise:
            crop = portrait.aligned.crop
            yield visualise.panels(
                crop, moment.frame, moment.attention, moment.motion, moment.landmarks
            )
        else:
            yield moment.frame


def save_landmarks(path: Path, moments: Iterator["Moment"]) -> None:
    """Writes (T, 68, 2) float32 normalised landmarks; complete or not at all."""
    import os
    import tempfile

    import numpy as np

    shapes = np.stack([moment.landmarks for moment in moments])
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, shapes, allow_pickle=False)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main() -> None:
    """Parses the flags, makes the videos, says what was made."""
    started = time.monotonic()
    arguments = parser().parse_args()
    if arguments.landmarks and arguments.face is not None:
        raise InputError("--landmarks says where the face is; leave --face out")
    if (arguments.face or 0) < 0:
        raise InputError(f"--face={arguments.face}: faces are counted from 0")
    kinds = [kind for kind in ("landmarks_only", "full_size", "visualise") if vars(arguments)[kind]]
    if len(kinds) > 1:
        raise InputError(f"--{kinds[0]} and --{kinds[1]} are different videos; leave one out")
    todo = jobs(arguments)
    if not arguments.landmarks_only and todo[0].out.suffix.lower() == NUMBERS_SUFFIX:
        raise InputError(f"--out={todo[0].out}: .npy is for --landmarks_only")

    from atvg_jax.features import images
    from atvg_jax.inference.landmark_file import read_landmarks
    from atvg_jax.inference.talking_face import TalkingFace

    face = TalkingFace.load(arguments.model, arguments.precision)
    portraits: dict[tuple[Path, Path | None], Portrait] = {}
    for job in todo:
        key = job.image, job.landmarks
        if key in portraits:
            continue
        points = None if job.landmarks is None else read_landmarks(job.landmarks)
        image = images.read_image(job.image)
        try:
            aligned = face.align(image, points, arguments.face or 0)
        except InputError as error:
            # The aligner sees pixels and does not know their name.
            raise InputError(f"{job.image}: {error}", error.reason) from error
        portraits[key] = Portrait(aligned, image if arguments.full_size else None)
    frames = sum(
        synthesize(face, job, portraits[job.image, job.landmarks], arguments) for job in todo
    )
    what = str(todo[0].out) if len(todo) == 1 else f"{len(todo)} videos in {todo[0].out.parent}"
    print(
        f"wrote {what}: {frames} frames, {frames / 25:.2f} s, in {time.monotonic() - started:.1f} s"
    )


if __name__ == "__main__":
    command_line.run(main)
