"""TFRecord shards as a list: any clip by its number, without TensorFlow, reading nothing else.

A TFRecord file is a row of ``length (8 bytes, little-endian), CRC of length (4), data, CRC of data
(4)``, so its records can be listed by hopping from length to length. Random access is what makes
the rest of the reader simple: the shuffle is over the whole data set, processes share it without
any overlap, and the position in an epoch is one number.
"""

import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from atvg_jax.data import schema
from atvg_jax.data.wire import read_varint
from atvg_jax.errors import InputError

_HEADER_BYTES = 12  # length and its CRC
_FOOTER_BYTES = 4  # CRC of the data
_INDEX_THREADS = 8  # hopping waits for the disk, not for the processor
_VALUES_PER_POSE = 3  # pose is (T, 3) in schema.py: the shortest field that tells T


class ClipRecords:
    """The serialised clips of some TFRecord shards, as a sequence of bytes.

    Opening it walks over the shards once without reading the pictures, to learn where each clip is
    and how many frames it has. Files are opened when first read, once in each process.

    Attributes:
        frames: (N,) int64, frames of each clip.

    Raises:
        InputError: a shard cannot be read or is cut off.
    """

    def __init__(self, paths: Sequence[Path | str]):
        self._paths = [str(path) for path in paths]
        with ThreadPoolExecutor(_INDEX_THREADS) as threads:
            tables = list(threads.map(_index, self._paths))
        # (N, 4): shard, first byte, bytes, frames.
        self._table = np.concatenate(
            [np.zeros((0, 4), np.int64)]
            + [
                np.concatenate([np.full((len(table), 1), shard), table], axis=1)
                for shard, table in enumerate(tables)
            ]
        )
        self.frames = self._table[:, 3]
        self._files: dict[int, int] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, clip: int) -> bytes:
        shard, start, size, _ = (int(value) for value in self._table[clip])
        data = os.pread(self._file(shard), size, start)
        if len(data) != size:
            raise InputError(
                f"{self._paths[shard]} became shorter while it was read; do not rebuild a data set "
                "that a run is reading",
                reason="unreadable",
            )
        return data

    def example(self, clip: int, pictures: bool = True) -> dict:
        """Clip number ``clip`` as ``schema.deserialize`` gives it, the pictures still JPEG bytes.

        Args:
            clip: its number.
            pictures: False leaves the pictures out, which makes it several times as fast.

        Raises:
            InputError: the record is damaged; the message names the shard and the record.
        """
        data = self[clip]
        try:
            return schema.deserialize(data, pictures)
        except InputError as error:  # knows what is wrong, but not where
            shard, start, _, _ = (int(value) for value in self._table[clip])
            raise InputError(
                f"{self._paths[shard]}, byte {start - _HEADER_BYTES}: {error}", reason=error.reason
            ) from error

    def _file(self, shard: int) -> int:
        with self._lock:
            if shard not in self._files:
                self._files[shard] = os.open(self._paths[shard], os.O_RDONLY)
            return self._files[shard]

    def __getstate__(self) -> dict:
        """Without open files and lock: a worker process opens its own."""
        return {**self.__dict__, "_files": {}, "_lock": None}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # Bound early: at the very end of a program modules are emptied before this is called.
        for file in self.__dict__.get("_files", {}).values():
            close(file)


def _index(path: str) -> np.ndarray:
    """(N, 3) int64 of one shard: first byte, bytes and frames of every record."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return np.zeros((0, 3), np.int64)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return np.asarray(list(_records(data, size, path)), np.int64).reshape(-1, 3)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", reason="unreadable") from error


def _records(data: mmap.mmap, size: int, path: str) -> Iterator[tuple[int, int, int]]:
    position = 0
    while position < size:
        start = position + _HEADER_BYTES
        length = struct.unpack_from("<Q", data, position)[0] if start <= size else size
        if start + length + _FOOTER_BYTES > size:
            raise InputError(
                f"{path} is cut off in the middle of a record; copy or build it again",
                reason="unreadable",
            )
        frames = _frames(data, start, start + length)
        if frames is None:
            frames = len(schema.deserialize(data[start : start + length])["frames"])
        yield start, length, frames
        position = start + length + _FOOTER_BYTES


def _frames(data: mmap.mmap, start: int, end: int) -> int | None:
    """Frames of a serialised ``tf.train.Example``, from the size of its ``pose``; None if unclear.

    Hops over the message (Example.features = 1 > feature = 1 > key = 1, value = 2 > float_list = 2
    > value = 1 packed) instead of parsing it, so that a 100 kB record costs one or two pages.
    """
    try:
        for _, features_start, features_end in _fields(data, start, end, 1):
            for _, entry_start, entry_end in _fields(data, features_start, features_end, 1):
                parts = {number: (a, b) for number, a, b in _fields(data, entry_start, entry_end)}
                if data[slice(*parts[1])] != b"pose":
                    continue
                ((_, list_start, list_end),) = _fields(data, *parts[2], 2)
                floats = [b - a for _, a, b in _fields(data, list_start, list_end, 1)]
                frames, rest = divmod(sum(floats), 4 * _VALUES_PER_POSE)
                return frames if floats and rest == 0 else None
    except (KeyError, ValueError, IndexError):
        return None
    return None


def _fields(
    data: mmap.mmap, start: int, end: int, wanted: int | None = None
) -> Iterator[tuple[int, int, int]]:
    """(number, first byte, end) of the length-delimited and 32-bit fields in data[start:end]."""
    while start < end:
        tag, start = read_varint(data, start)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 2:
            length, start = read_varint(data, start)
        elif wire_type == 5:
            length = 4
        else:
            raise ValueError(f"wire type {wire_type} has no place in an example")
        if wanted is None or number == wanted:
            yield number, start, start + length
        start += length
