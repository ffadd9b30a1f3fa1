"""VoxCeleb2: ``{dev,test}/mp4/idNNNNN/VIDEO/00001.mp4`` and ``{dev,test}/aac/.../00001.m4a``.

Chung, Nagrani and Zisserman, "VoxCeleb2: Deep Speaker Recognition", Interspeech 2018. 224 x 224 at
25 frames/s, the sound beside the video.

``vox2_meta.csv`` says who is in which set: people of ``test`` are this project's test split, of
``dev`` its train split, but for a tenth, by a hash of the name, who are its validation split.
Without that file the folders ``dev`` and ``test`` say the same where both are there; where not,
people are held out by the hash alone.
"""

from collections.abc import Iterator
from pathlib import Path

from data_prep.corpora.clip import Clip
from data_prep.corpora.layouts import files, folders, wrong_corpus
from data_prep.corpora.voxceleb_people import SETS, splits

METADATA = "vox2_meta.csv"
VIDEOS, SOUNDS = "mp4", ("aac", "m4a", "wav")
"""Folders in a set; sound that somebody has converted is as good."""
SOUND_SUFFIXES = (".m4a", ".aac", ".wav", ".flac")


def clips(source: Path) -> Iterator[Clip]:
    """The clips of VoxCeleb2, by set, person, video and number.

    A clip whose sound file is missing is described all the same: its preparation says so.

    Args:
        source: the folder that holds ``dev`` and ``test`` (or one of them), or one set's own folder
            with ``mp4`` and ``aac`` in it.

    Raises:
        InputError: it is neither, or ``vox2_meta.csv`` is not what it should be.
    """
    source = Path(source)
    roots = [source / name for name in SETS if (source / name / VIDEOS).is_dir()]
    roots = roots or [source]
    people = {(root, person) for root in roots for person in folders(root / VIDEOS)}
    split = splits(source, METADATA, people)
    found = False
    for root in roots:
        sound = next((root / name for name in SOUNDS if (root / name).is_dir()), None)
        for person in folders(root / VIDEOS):
            for video in folders(root / VIDEOS / person):
                part = root / VIDEOS / person / video
                beside = {} if sound is None else _sounds(sound / person / video)
                for name in files(part):
                    if not name.endswith(".mp4"):
                        continue
                    found = True
                    stem = name.removesuffix(".mp4")
                    missing = f"{stem}{SOUND_SUFFIXES[0]}"
                    yield Clip(
                        clip_id=(part / name).relative_to(source).as_posix(),
                        video=part / name,
                        speaker=person,
                        split=split[person],
                        # With no folder of sounds at all, somebody has put them into the videos.
                        audio=sound and sound / person / video / beside.get(stem, missing),
                    )
    if not found:
        wanted = "dev/mp4/id00012/VIDEO/00001.mp4 in it (also test, and aac for the sound)"
        raise wrong_corpus(source, "voxceleb2", "VoxCeleb2", wanted)


def _sounds(folder: Path) -> dict[str, str]:
    """The sound file of each number."""
    found: dict[str, str] = {}
    for suffix in reversed(SOUND_SUFFIXES):
        found |= {n.removesuffix(suffix): n for n in files(folder) if n.endswith(suffix)}
    return found
