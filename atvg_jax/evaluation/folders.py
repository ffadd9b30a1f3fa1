"""Two folders of videos, real and generated, matched by name and judged pair by pair."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atvg_jax.errors import InputError
from atvg_jax.evaluation import judge, side_by_side
from atvg_jax.evaluation.footage import AlignedVideo
from atvg_jax.evaluation.protocol import Problem
from atvg_jax.features import audio, video

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".flv", ".wmv")

TOLERATED_FRAMES = 3
"""Frames (120 ms) that a generated video may lack at its end: encoders and sound-driven systems
round a clip's length differently. What lacks more is short, and not scored."""


@dataclass(frozen=True)
class Pair:
    """Two videos of one name.

    Attributes:
        clip_id: the name: path within the folder, without ending.
        real: the true video.
        generated: a system's.
        system: its name in the report.
        settings: what to measure.
        video: file to show both in, or None.
    """

    clip_id: str
    real: Path
    generated: Path
    system: str
    settings: judge.Settings
    video: Path | None


def videos(folder: Path) -> dict[str, Path]:
    """The videos in a folder and those in it, by their path without ending.

    Raises:
        InputError: there is no such folder, no video in it, or two of one name.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", reason="missing")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise InputError(
                f"{found[name]} and {path} have one name; keep one of them in the folder"
            )
        found[name] = path
    if not found:
        raise InputError(
            f"{folder} has no videos ({', '.join(VIDEO_SUFFIXES)}) in it", reason="missing"
        )
    return found


def match(
    real: Mapping[str, Path], generated: Mapping[str, Path]
) -> tuple[list[str], list[Problem]]:
    """Names that both folders have, and a problem for every other."""
    both = [name for name in real if name in generated]
    problems = [
        Problem(name, "missing", f"{path} has no generated video of its name")
        for name, path in real.items()
        if name not in generated
    ]
    problems += [
        Problem(name, "unmatched", f"{path} has no real video of its name")
        for name, path in generated.items()
        if name not in real
    ]
    return both, problems


def judge_pair(pair: Pair) -> dict[str, list[judge.Scores]] | Problem:
    """Scores one pair of videos, as the table ``frames``, or says why that cannot be done."""
    try:
        real = AlignedVideo(pair.real)
        generated = AlignedVideo(pair.generated)
        wanted, there = len(real.has_face), len(generated.has_face)
        if there < wanted - TOLERATED_FRAMES:
            return Problem(
                pair.clip_id,
                "short",
                f"{pair.generated} has {there} frames at 25 frames/s where {pair.real} has "
                f"{wanted}; it was not scored",
            )
        mfcc = None
        if pair.settings.lse is not None:
            mfcc = audio.mfcc(video.read_waveform(pair.real))
        systems = {pair.system: generated}
        scores = judge.judge(pair.clip_id, "", real, systems, pair.settings, mfcc)
        if pair.video is not None:
            shown = {judge.GROUND_TRUTH: real.frames(), pair.system: generated.frames()}
            side_by_side.write(pair.video, shown, _sound(pair.real))
    except InputError as error:
        return Problem(pair.clip_id, error.reason, str(error))
    except ValueError as error:  # too few frames that show a face
        return Problem(pair.clip_id, "no_face", f"{pair.generated}: {error}")
    return {"frames": scores}


def _sound(path: Path) -> side_by_side.Sound | None:
    try:
        return side_by_side.Sound(video.read_waveform(path, side_by_side.SOUND_RATE))
    except InputError:  # a silent video can be looked at
        return None


def pairs(
    real: Path,
    generated: Path,
    settings: judge.Settings,
    videos_folder: Path | None,
    most_videos: int,
) -> tuple[list[Pair], list[Problem]]:
    """What to judge, and what there is nothing to judge of.

    Args:
        real: folder of the true videos.
        generated: folder of a system's, which gives the system its name.
        settings: what to measure.
        videos_folder: where videos that show both go; None for none.
        most_videos: how many of them.

    Raises:
        InputError: a folder has no videos, or no name is in both.
    """
    true, made = videos(real), videos(generated)
    names, problems = match(true, made)
    if not names:
        raise InputError(
            f"no video in {generated} has the name of one in {real}; they are matched by their "
            "path without ending",
            reason="missing",
        )
    system = generated.resolve().name
    if system in (judge.GROUND_TRUTH, judge.STATIC_PORTRAIT):
        system = f"{system} (generated)"
    todo = []
    for number, name in enumerate(names):
        shown = None
        if videos_folder is not None and number < most_videos:
            shown = videos_folder / side_by_side.file_name(name)
        todo.append(Pair(name, true[name], made[name], system, settings, shown))
    return todo, problems
