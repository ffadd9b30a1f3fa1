"""VoxCeleb1: boxes of faces in videos that the user has.

Nagrani, Chung and Zisserman, "VoxCeleb: a large-scale speaker identification dataset", Interspeech
2017. The corpus is ``{wav,txt}/PERSON/VIDEO/00001.{wav,txt}`` (in ``dev`` and ``test``, or both
together): sound, and in which frames of which video the speaker's face is where. The videos are not
part of it. They may lie anywhere in the source, named by the eleven characters of ``VIDEO`` as
download programs do: ``VIDEO.mp4``, ``Title [VIDEO].webm`` or ``Title-VIDEO.mkv``.

``vox1_meta.csv`` says who is in which set, as for VoxCeleb2.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from atvg_jax.errors import InputError
from data_prep.corpora.clip import Clip
from data_prep.corpora.layouts import files, folders, is_video, walk, wrong_corpus
from data_prep.corpora.voxceleb_people import SETS, splits

METADATA = "vox1_meta.csv"
BOXES, SOUNDS = "txt", "wav"
ID_LENGTH = 11
"""Characters of a video's name."""


def clips(source: Path) -> Iterator[Clip]:
    """The clips of VoxCeleb1 whose videos are there, by set, person, video and number.

    How many of the corpus's videos are there is said on standard error: most of its users have a
    part of them.

    Args:
        source: the folder that holds ``txt``, or ``dev`` and ``test`` with ``txt`` in them.

    Raises:
        InputError: it is not, or none of the videos is there.
    """
    source = Path(source)
    roots = [source / name for name in SETS if (source / name / BOXES).is_dir()]
    roots = roots or [source]
    wanted = [
        (root, person, video)
        for root in roots
        for person in folders(root / BOXES)
        for video in folders(root / BOXES / person)
    ]
    if not wanted:
        looked_for = "txt/id10001/VIDEO/00001.txt (or dev/txt and test/txt) in it"
        raise wrong_corpus(source, "voxceleb1", "VoxCeleb1", looked_for)
    names = {video for *_, video in wanted}
    found = _find_videos(source, names)
    if not found:
        raise InputError(
            f"{source}: none of the {len(names)} videos of the corpus is there: put those that you "
            f"have into {source / 'video'}, named such as {min(names)}.mp4"
        )
    if len(found) < len(names):
        print(
            f"{len(found)} of the corpus's {len(names)} videos are there; clips of others are left "
            "out",
            file=sys.stderr,
        )
    split = splits(source, METADATA, {(root, person) for root, person, _ in wanted})
    for root, person, video in wanted:
        if video not in found:
            continue
        part = root / BOXES / person / video
        sounds = root / SOUNDS / person / video
        heard = set(files(sounds))
        for name in files(part):
            if not name.endswith(".txt"):
                continue
            sound = name.removesuffix(".txt") + ".wav"
            yield Clip(
                clip_id=(part / name).relative_to(source).as_posix(),
                video=found[video],
                speaker=person,
                split=split[person],
                audio=sounds / sound if sound in heard else None,
                boxes=part / name,
            )


def _find_videos(source: Path, names: set[str]) -> dict[str, Path]:
    """Where the videos are that are there."""
    # The corpus's own folders hold a million small files, and none of them is a video.
    own = {
        root / name for root in (source, *(source / s for s in SETS)) for name in (BOXES, SOUNDS)
    }
    found: dict[str, Path] = {}
    for path in walk(source, leave_out=own):
        name = path.stem.removesuffix("]")[-ID_LENGTH:]
        if name in names and is_video(path) and _is_named(path.stem, name):
            found.setdefault(name, path)
    return found


def _is_named(stem: str, name: str) -> bool:
    """Whether a file's name is a video's, alone or after a title."""
    return stem == name or stem.endswith((f"[{name}]", f"-{name}"))
