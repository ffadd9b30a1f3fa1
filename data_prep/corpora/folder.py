"""Any folder of videos, with lists (``clips.csv``) of what is in it or without.

Without a list, every video in the tree is taken. Its speaker is the top folder that it lies in, or
its own name where it lies in none, and people are held out by a hash of their name.

With a list anywhere in the tree, exactly what the lists name is taken. Columns, of which only the
first is needed and others are left alone:

- ``path``: the video, relative to the list;
- ``speaker``: who it is; the same name wherever the same person is;
- ``split``: ``train``, ``validation`` (or ``val``) or ``test``;
- ``audio_offset``: seconds that the sound is late (negative: early);
- ``text``: what is said.

A video may be in several lists, one in its own folder and one further up: each cell is taken from
the nearest list that has it filled in. An empty cell everywhere means what it means without a list.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from atvg_jax.errors import InputError
from data_prep.corpora.clip import Clip
from data_prep.corpora.layouts import VIDEO_SUFFIXES, contents, is_video, walk
from data_prep.corpora.splits import split_by_speaker

LIST = "clips.csv"
COLUMNS = ("path", "speaker", "split", "audio_offset", "text")
SPLIT_NAMES = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def clips(source: Path) -> Iterator[Clip]:
    """The clips of a folder, in the order of their paths.

    Args:
        source: the folder.

    Raises:
        InputError: there is no such folder or no video in it; or a list has no ``path`` column, or
            names a missing file, a file outside of the folder, an unknown split or an offset that
            is no number of seconds.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source} is not a folder: give the folder that holds the videos")
    videos, lists = _walk(source)
    if lists:
        rows: dict[str, dict[str, str]] = {}
        # Nearer lists come later, so that their cells win.
        for found in sorted(lists, key=lambda found: (len(found.parts), found)):
            _read_list(source, found, rows)
        wanted = f"its lists ({', '.join(map(str, lists))}) name no video"
    else:
        rows = {video: {} for video in videos}
        wanted = f"looked for {' '.join(sorted(VIDEO_SUFFIXES))} or a {LIST} in it and below"
    if not rows:
        raise InputError(f"{source} holds no videos: {wanted}, found {contents(source)}")

    speakers = {path: row.get("speaker") or _default_speaker(path) for path, row in rows.items()}
    # A person whose split some row tells keeps it in rows that do not.
    told: dict[str, str] = {}
    for path in sorted(rows):
        if rows[path].get("split"):
            told.setdefault(speakers[path], rows[path]["split"])
    hashed = split_by_speaker(set(speakers.values()) - set(told))
    for path in sorted(rows):
        row = rows[path]
        speaker = speakers[path]
        yield Clip(
            clip_id=_printable(path),
            video=source / path,
            speaker=_printable(speaker),
            split=row.get("split") or told.get(speaker) or hashed[speaker],
            audio_offset=float(row.get("audio_offset") or 0),
            text=_printable(row.get("text", "")),
        )


def _walk(source: Path) -> tuple[list[str], list[Path]]:
    """Videos below a folder, as forward-slash paths inside it, and lists; hidden ones left out."""
    videos: list[str] = []
    lists: list[Path] = []
    for path in walk(source):
        if path.name == LIST:
            lists.append(path)
        elif is_video(path):
            videos.append(path.relative_to(source).as_posix())
    return videos, lists


def _printable(name: str) -> str:
    """A name with what no terminal or UTF-8 text can hold written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _default_speaker(path: str) -> str:
    """The top folder of a path, or the file's name where it is in none."""
    parts = PurePosixPath(path).parts
    return parts[0] if len(parts) > 1 else PurePosixPath(path).stem


def _read_list(source: Path, path: Path, rows: dict[str, dict[str, str]]) -> None:
    """Adds the rows of one list to ``rows``, by the video's path inside ``source``."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            names = [str(name).strip().lower() for name in reader.fieldnames or []]
            if "path" not in names:
                raise InputError(
                    f"{path} has no column path in its first line: it may have {', '.join(COLUMNS)}"
                )
            reader.fieldnames = names
            table = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no comma-separated text in UTF-8: {error}") from error
    seen: set[str] = set()
    for line, cells in table:
        row = {name: (cells.get(name) or "").strip() for name in COLUMNS}
        where = f"{path}, line {line}"
        video = _inside(source, path.parent, row.pop("path"), where)
        if video in seen:
            raise InputError(f"{where}: {video} is listed twice: keep one of the lines")
        seen.add(video)
        _check_cells(row, where)
        filled = {name: value for name, value in row.items() if value}
        rows[video] = rows.get(video, {}) | filled


def _inside(source: Path, folder: Path, name: str, where: str) -> str:
    """The path inside ``source`` of a file that a list names.

    Only the spelling is looked at and links are left alone, because a folder of links to videos
    elsewhere is a common way to put a corpus together.
    """
    if not name:
        raise InputError(f"{where}: the path is empty")
    path = Path(os.path.normpath(folder / name))
    if os.path.isabs(name) or not path.is_relative_to(os.path.normpath(folder)):
        raise InputError(f"{where}: {name} is outside of {folder}: list it by a path inside of it")
    if not path.is_file():
        raise InputError(f"{where}: {name} is not there: correct the path or take the line out")
    return path.relative_to(os.path.normpath(source)).as_posix()


def _check_cells(row: dict[str, str], where: str) -> None:
    """Puts the customary name of the split; both cells that can be wrong are refused by line."""
    if row["split"]:
        split = SPLIT_NAMES.get(row["split"].lower())
        if split is None:
            raise InputError(
                f"{where}: split {row['split']!r} is unknown: write train, validation or test"
            )
        row["split"] = split
    try:
        float(row["audio_offset"] or 0)
    except ValueError:
        raise InputError(
            f"{where}: audio_offset {row['audio_offset']!r} is no number of seconds"
        ) from None
