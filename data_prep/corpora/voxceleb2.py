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

from atvg_jax.errors import InputError
from data_prep.corpora.clip import Clip
from data_prep.corpora.layouts import files, folders, wrong_corpus
from data_prep.corpora.splits import split_by_speaker

METADATA = "vox2_meta.csv"
SETS = ("dev", "test")
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
    splits = _splits(source, people)
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
                        split=splits[person],
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


def _splits(source: Path, people: set[tuple[Path, str]]) -> dict[str, str]:
    """The split of each person."""
    named = {person for _, person in people}
    sets = {}
    if len({root for root, _ in people}) > 1:
        sets = {person: root.name for root, person in sorted(people)}  # in both: held out
    sets |= _read_metadata(source)
    if not sets:
        return split_by_speaker(named)
    test = {person for person in named if sets.get(person) == "test"}
    return split_by_speaker(named - test, test=False) | dict.fromkeys(test, "test")


def _read_metadata(source: Path) -> dict[str, str]:
    """``{person: set}`` of the metadata file in or above the source; empty where there is none."""
    path = next((p / METADATA for p in (source, source.parent) if (p / METADATA).is_file()), None)
    if path is None:
        return {}
    try:
        head, *lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} is no text with a line a person: {error}") from error
    # Columns are set apart by commas, and padded with blanks or tabs.
    names = [name.strip().lower() for name in head.split(",")]
    try:
        person, kind = names.index("voxceleb2 id"), names.index("set")
    except ValueError:
        raise InputError(
            f"{path} has the columns {', '.join(names)}: VoxCeleb2 ID and Set are needed; "
            "get it again, or take it away to hold people out by a hash of their names"
        ) from None
    sets = {}
    for number, line in enumerate(lines, start=2):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip():
            continue
        if len(cells) != len(names) or cells[kind] not in SETS:
            raise InputError(f"{path}, line {number}: {line.strip()!r} has no set dev or test")
        sets[cells[person]] = cells[kind]
    return sets
