"""What each clip gave, kept on disk until the data set is put together.

One file a clip, written under a temporary name and moved: it is there whole or not at all, so a
build may be killed at any moment. Its name is a digest of everything that its contents depend on
(the clip, the sizes and times of its files, the settings), so whatever changes is made again and
nothing else is. In it are the examples as they will stand in the data set's TFRecord files, then
one line of JSON that says what there is, then that line's length (8 bytes, little-endian).
"""

import dataclasses
import hashlib
import json
import os
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atvg_jax.data import schema, wire
from atvg_jax.errors import InputError
from data_prep.corpora.clip import Clip
from data_prep.prepare import PrepareSettings, Reject, examples, nothing, refusal


@dataclasses.dataclass(frozen=True)
class Record:
    """One example inside a result file.

    Attributes:
        clip_id: the example's.
        frames: how many.
        offset: of its TFRecord framing in the file.
        size: bytes, with the framing.
    """

    clip_id: str
    frames: int
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class Result:
    """What a clip gave.

    Attributes:
        path: the result file.
        records: the examples in it.
        dropped: frames that are in none of them, by reason.
        reject: why there are none; None if there are.
    """

    path: Path
    records: tuple[Record, ...]
    dropped: dict[str, int]
    reject: Reject | None


def key(clip: Clip, settings: dict[str, Any]) -> str:
    """The digest of what the result of a clip depends on.

    Args:
        clip: the clip.
        settings: ``PrepareSettings.summary``.
    """
    facts = {
        name: value
        for name, value in dataclasses.asdict(clip).items()
        if name not in ("video", "audio", "boxes", "split")
    }
    for name, path in (("video", clip.video), ("audio", clip.audio), ("boxes", clip.boxes)):
        try:
            status = os.stat(path) if path else None
            facts[name] = [status.st_size, status.st_mtime_ns] if status else None
        except OSError:
            facts[name] = "missing"
    text = json.dumps([facts, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def path_of(folder: Path, name: str) -> Path:
    """Where the result with a key is kept: in one of 256 folders, for file systems' sake."""
    return folder / name[:2] / name[2:]


def make(clip: Clip, settings: PrepareSettings, path: Path) -> None:
    """Prepares one clip and writes its result; never raises for a bad clip.

    Examples go to disk one by one, so that an hour of video takes no more memory than a minute.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    records: list[Record] = []
    dropped: Counter[str] = Counter()
    reject = None
    try:
        with open(temporary, "wb") as file:
            made = examples(clip, settings, dropped)
            while True:
                # Only what the clip does is its own fault; a full disk, below, is not.
                try:
                    example = next(made, None)
                except Exception as error:
                    reject = refusal(clip, error)
                    break
                if example is None:
                    reject = None if records else nothing(clip, dropped)
                    break
                framed = wire.frame_record(schema.serialize(example))
                frames, offset = len(example.frames), file.tell()
                records.append(Record(example.clip_id, frames, offset, len(framed)))
                file.write(framed)
            _finish(file, records, dropped, reject)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def make_reject(path: Path, reject: Reject) -> None:
    """Writes the result of a clip that could not be worked on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(temporary, "wb") as file:
        _finish(file, [], Counter(), reject)
    os.replace(temporary, path)


def _finish(file: Any, records: list[Record], dropped: Counter[str], reject: Reject | None) -> None:
    """The summary that ends a result file; a reject's has no examples, whatever was made before."""
    if reject is not None:
        records = []
        file.seek(0)
        file.truncate()
    summary = {
        "records": [dataclasses.astuple(record) for record in records],
        "dropped": dict(sorted(dropped.items())),
        "reject": None if reject is None else dataclasses.astuple(reject),
    }
    line = json.dumps(summary).encode() + b"\n"
    file.write(line + struct.pack("<Q", len(line)))


def read(path: Path) -> Result | None:
    """The result that a file holds; None where there is none or it is damaged."""
    try:
        with open(path, "rb") as file:
            file.seek(-8, os.SEEK_END)
            length = struct.unpack("<Q", file.read(8))[0]
            file.seek(-8 - length, os.SEEK_END)
            summary = json.loads(file.read(length))
        return Result(
            path,
            tuple(Record(*record) for record in summary["records"]),
            summary["dropped"],
            None if summary["reject"] is None else Reject(*summary["reject"]),
        )
    except (OSError, ValueError, TypeError, KeyError, struct.error):
        return None


def read_record(result: Result, record: Record) -> bytes:
    """The framed bytes of one example, checksums compared.

    Raises:
        InputError: the file is damaged. It is removed, so that the next run makes it again.
    """
    with open(result.path, "rb") as file:
        file.seek(record.offset)
        framed = file.read(record.size)
    if len(framed) != record.size or wire.frame_record(framed[12:-4]) != framed:
        result.path.unlink(missing_ok=True)
        raise InputError(f"{result.path} was damaged and is removed: run the same command again")
    return framed


def sweep(folder: Path, wanted: set[str]) -> Iterator[Path]:
    """Files in the folder of results that are no result of ``wanted`` (keys)."""
    for part in sorted(folder.glob("??")):
        for path in sorted(part.iterdir()):
            if part.name + path.name not in wanted:
                yield path
