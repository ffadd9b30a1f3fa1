"""What corpora look like on disk, so that a wrong folder gets an answer that helps."""

import itertools
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from atvg_jax.errors import InputError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"}
    | {".ogv", ".ts", ".vob", ".webm", ".wmv"}
)

_SIGNS = {
    "lrw": ("lipreading_mp4/*/*/*_?????.mp4", "*/train/*_?????.mp4", "*/val/*_?????.mp4"),
    "voxceleb2": ("*/mp4/id*/*/*.mp4", "mp4/id*/*/*.mp4", "*/mp4/id*/*/*.mp4"),
    "voxceleb1": ("txt/*/*/*.txt", "*/txt/*/*/*.txt"),
    "grid": ("s[0-9]*/*.mpg", "s[0-9]*/video/*.mpg", "s[0-9]*/video/*/*.mpg", "*/s[0-9]*/*.mpg"),
}
"""Paths of which every tree of a corpus has one, and hardly any other tree does."""

_SHOWN = 5
"""Entries of a folder that an error names."""


_TRIED = 20
"""Folders in a folder that are looked at for a corpus."""


def wrong_corpus(source: Path, corpus: str, name: str, wanted: str) -> InputError:
    """The error for a folder that is not the corpus that it should be.

    Args:
        source: the folder.
        corpus: a key of ``corpora.CORPORA``.
        name: what the corpus is called.
        wanted: the paths that were looked for.
    """
    if not source.is_dir():
        return InputError(f"{source} is not a folder: give the one that holds {name}")
    found = contents(source) + _hint(source, corpus)
    return InputError(f"{source} is not {name}: looked for {wanted}, found {found}")


def _hint(source: Path, corpus: str) -> str:
    """What a folder, or one of those in it, looks like instead; "" if nothing."""
    for place in (source, *(source / name for name in folders(source)[:_TRIED])):
        for other, signs in _SIGNS.items():
            known = any(next(place.glob(sign), None) for sign in signs)
            if known and (place != source or other != corpus):
                return f"; {'it' if place == source else place} looks like --corpus={other}"
    return "; it looks like --corpus=folder" if _has_video(source) else ""


def contents(source: Path) -> str:
    """The first things in a folder, in words."""
    with os.scandir(source) as entries:
        names = sorted(
            entry.name + ("/" if entry.is_dir() else "")
            for entry in entries
            if not entry.name.startswith(".")
        )
    if not names:
        return "nothing in it"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def folders(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted, hidden ones left out; none where it is absent."""
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def files(root: Path) -> list[str]:
    """Names of the files in a folder, sorted, hidden ones left out; none where it is absent."""
    if not root.is_dir():
        return []
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_file() and not e.name.startswith("."))


def walk(source: Path, leave_out: Collection[Path] = ()) -> Iterator[Path]:
    """The files of a tree, folder by folder, sorted; hidden files and folders are left out.

    Links are followed, because a folder of links is a common way to put a corpus together; a folder
    that was seen already is not entered again, so that links cannot go round in circles.

    Args:
        source: the tree.
        leave_out: folders that are not looked into.
    """
    seen: set[tuple[int, int]] = set()
    for folder, inside, names in os.walk(source, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            inside.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inside[:] = sorted(
            name
            for name in inside
            if not name.startswith(".") and Path(folder, name) not in leave_out
        )
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder, name)


def is_video(path: Path) -> bool:
    """Whether a file is called what videos are called."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _has_video(source: Path) -> bool:
    """Whether there is a video among the first files of a tree."""
    return any(map(is_video, itertools.islice(walk(source), 1000)))
