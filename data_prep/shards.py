"""Results of single clips to the data set that training reads."""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from atvg_jax.data import schema
from data_prep import results
from data_prep.corpora.clip import Clip
from data_prep.results import Record, Result

SHARD_BYTES = 128 * 2**20
"""Large enough that opening files does not count, small enough to spread over many readers."""

DESCRIPTION = "Talking faces at 25 frames/s: aligned frames, landmarks, pose and MFCC of speech."

Entry = tuple[Clip, Result, Record]


class Shard(NamedTuple):
    """One file of the data set and what goes into it, in order."""

    name: str
    entries: list[Entry]


def plan(clips: list[tuple[Clip, Result]]) -> dict[str, list[Shard]]:
    """Which example goes where: the same whatever order the clips were prepared in.

    Examples are put in the order of a hash of their names, so that neighbours have nothing to do
    with each other, and cut into as many shards of about ``SHARD_BYTES`` as they need.

    Returns:
        The shards of each split that has examples.
    """
    by_split: dict[str, list[Entry]] = {}
    for clip, result in clips:
        for record in result.records:
            by_split.setdefault(clip.split, []).append((clip, result, record))
    shards = {}
    for split in schema.SPLITS:
        entries = sorted(by_split.get(split, []), key=lambda entry: _order(entry[2].clip_id))
        if entries:
            size = sum(record.size for _, _, record in entries)
            count = min(-(-size // SHARD_BYTES), len(entries))
            bounds = [len(entries) * index // count for index in range(count + 1)]
            shards[split] = [
                Shard(schema.shard_name(split, index, count), entries[low:high])
                for index, (low, high) in enumerate(itertools.pairwise(bounds))
            ]
    return shards


def _order(name: str) -> bytes:
    """Where an example stands among the others."""
    return hashlib.sha256(name.encode()).digest()


def write(out: Path, shards: dict[str, list[Shard]]) -> Iterator[tuple[str, bytes]]:
    """Writes the data set; it gets its name when it is whole.

    Args:
        out: the data set's folder (``--out``).
        shards: of ``plan``.

    Yields:
        The split and bytes (a serialised example) of each example on its way, in order.
    """
    final = schema.version_folder(out)
    temporary = final.with_name(f".{final.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    sizes: dict[str, tuple[list[int], int]] = {}
    total = sum(len(shard.entries) for parts in shards.values() for shard in parts)
    with tqdm(total=total, desc="writing", unit="example") as progress:
        for split, parts in shards.items():
            size = 0
            for shard in parts:
                with open(temporary / shard.name, "wb") as file:
                    for _, result, record in shard.entries:
                        framed = results.read_record(result, record)
                        file.write(framed)
                        yield split, framed[12:-4]
                        size += len(framed) - 16
                        progress.update()
                    file.flush()
                    os.fsync(file.fileno())
            sizes[split] = [len(shard.entries) for shard in parts], size
    info = schema.dataset_info_json(sizes, DESCRIPTION)
    write_json(temporary / "features.json", schema.features_json())
    write_json(temporary / "dataset_info.json", info)
    # A folder cannot replace one that has files in it; a build killed between these two lines
    # leaves the new data set under its temporary name, and the next run puts it together again.
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)


def write_json(path: Path, content: object) -> None:
    """Writes JSON for people to read too; it gets its name when it is whole."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a small text file; it gets its name when it is whole."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
