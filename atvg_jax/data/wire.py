"""``tf.train.Example`` and TFRecord files without TensorFlow.

An Example is a protocol buffer, ``Example{1: Features{1: map<string, Feature>}}`` where a
``Feature`` is one of ``{1: BytesList{1: bytes...}}``, ``{2: FloatList{1: packed float32}}`` and
``{3: Int64List{1: packed varint}}`` (tensorflow/core/example/feature.proto and example.proto). A
TFRecord file is, for every record, its length (uint64), the masked CRC-32C of the length (uint32),
the record, the masked CRC-32C of the record (tensorflow/core/lib/io/record_writer.h), everything
little-endian.
"""

import mmap
import struct
from collections.abc import Container, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from atvg_jax.errors import InputError

Feature = list[bytes] | np.ndarray
"""What a feature may hold here: byte strings, or a flat float32 array."""

_LENGTH_DELIMITED = 2
_FIELD_1 = bytes([1 << 3 | _LENGTH_DELIMITED])
_FIELD_2 = bytes([2 << 3 | _LENGTH_DELIMITED])
_BYTES_LIST, _FLOAT_LIST = 1, 2


def _varint(value: int) -> bytes:
    """A number in base 128, the lowest digit first, all digits but the last with the high bit."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _delimited(tag: bytes, *parts: bytes) -> bytes:
    """One length-delimited field whose content is ``parts`` joined."""
    return b"".join((tag, _varint(sum(map(len, parts))), *parts))


def encode_example(features: dict[str, Feature]) -> bytes:
    """The bytes of a ``tf.train.Example``, features in the order of their names.

    Args:
        features: by name, a list of byte strings or a flat float32 array.
    """
    entries = []
    for name in sorted(features):
        value = features[name]
        if isinstance(value, np.ndarray):
            packed = np.ascontiguousarray(value, dtype="<f4").tobytes()
            feature = _delimited(_FIELD_2, _delimited(_FIELD_1, packed))
        else:
            feature = _delimited(_FIELD_1, *(_delimited(_FIELD_1, item) for item in value))
        entry = _delimited(_FIELD_1, name.encode()), _delimited(_FIELD_2, feature)
        entries.append(_delimited(_FIELD_1, *entry))
    return _delimited(_FIELD_1, *entries)


def read_varint(data: memoryview | mmap.mmap, at: int) -> tuple[int, int]:
    """The protobuf variable-length integer at byte ``at``, and the place after it.

    Raises:
        ValueError: it is longer than 64 bits.
        IndexError: the data end inside it.
    """
    value = shift = 0
    while True:
        digit = data[at]
        at += 1
        value |= (digit & 0x7F) << shift
        if digit < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The (number, content) of each field; all fields of an Example are length-delimited."""
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 != _LENGTH_DELIMITED:
            raise ValueError(f"unexpected wire type {tag & 7}")
        size, at = read_varint(data, at)
        if at + size > len(data):
            raise ValueError("it ends before its time")
        yield tag >> 3, data[at : at + size]
        at += size


def _one(data: memoryview, number: int) -> memoryview:
    """The content of the last field with a number, empty where there is none."""
    found = data[:0]
    for field, content in _fields(data):
        if field == number:
            found = content
    return found


def decode_example(record: bytes, without: Container[str] = ()) -> dict[str, Feature]:
    """The features of a ``tf.train.Example``: byte strings, or read-only float32 arrays.

    Args:
        record: the message.
        without: names of features to pass over unread.

    Raises:
        ValueError: ``record`` is no such message, or has a feature of integers (none here has).
        IndexError: it ends inside a number.
    """
    features: dict[str, Feature] = {}
    for _, entry in _fields(_one(memoryview(record), 1)):
        name = bytes(_one(entry, 1)).decode()
        if name in without:
            continue
        for kind, content in _fields(_one(entry, 2)):
            if kind == _BYTES_LIST:
                features[name] = [bytes(item) for _, item in _fields(content)]
            elif kind == _FLOAT_LIST:
                features[name] = np.frombuffer(_one(content, 1), dtype="<f4")
            else:
                raise ValueError(f"feature {name} is of kind {kind}")
    return features


_POLYNOMIAL = 0x82F63B78
"""CRC-32C (Castagnoli), bits reversed; RFC 3720, appendix B.4."""

_LANE = 512
"""Bytes that one lane of the vectorised checksum takes; any value gives the same sum."""


@cache
def _byte_table() -> np.ndarray:
    """(256,) uint32: what one more byte does to a checksum."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table.astype(np.uint32)


@cache
def _lane_tables() -> list[list[int]]:
    """4 x 256: what ``_LANE`` zero bytes do to a checksum, by each byte of it.

    A checksum is linear over bits, so the sum after a lane of zeros is the XOR over its four bytes.
    """
    table = _byte_table()
    sums = np.arange(256, dtype=np.uint32)[None] << np.array([[0], [8], [16], [24]], np.uint32)
    for _ in range(_LANE):
        sums = table[sums & 0xFF] ^ sums >> 8
    return sums.tolist()


def crc32c(data: bytes) -> int:
    """CRC-32C of ``data``.

    All lanes of ``_LANE`` bytes advance together, one byte a step, and are then chained: twenty
    times as fast as a byte at a time in Python. Zero bytes before the data leave a checksum that
    starts from zero as it is, so the first lane is filled up with them and takes the customary
    start (all ones) as a XOR with the first four bytes of data.
    """
    if len(data) < 4:
        table, total = _byte_table(), 0xFFFFFFFF
        for byte in data:
            total = int(table[(total ^ byte) & 0xFF]) ^ total >> 8
        return total ^ 0xFFFFFFFF
    lanes = np.zeros((-(-len(data) // _LANE), _LANE), np.uint8)
    flat = lanes.ravel()[lanes.size - len(data) :]
    flat[:] = np.frombuffer(data, np.uint8)
    flat[:4] ^= 0xFF
    table = _byte_table()
    sums = np.zeros(len(lanes), np.uint32)
    for column in np.ascontiguousarray(lanes.T):
        sums = table[(sums ^ column) & 0xFF] ^ sums >> 8
    t0, t1, t2, t3 = _lane_tables()
    total = 0
    for lane in sums.tolist():
        total = t0[total & 255] ^ t1[total >> 8 & 255] ^ t2[total >> 16 & 255] ^ t3[total >> 24]
        total ^= lane
    return total ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    """The checksum as TFRecord keeps it: rotated by 15 bits, plus a constant."""
    total = crc32c(data)
    return struct.pack("<I", ((total >> 15 | total << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame_record(record: bytes) -> bytes:
    """A record as it stands in a TFRecord file; files of these may be joined end to end."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _masked(length), record, _masked(record)))


def read_records(path: Path | str) -> Iterator[bytes]:
    """The records of a TFRecord file, checksums compared.

    Raises:
        InputError: the file is cut short or damaged.
    """
    with open(path, "rb") as file:
        while head := file.read(12):
            length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else 0
            record = file.read(length) if _masked(head[:8]) == head[8:] else b""
            if len(head) < 12 or len(record) < length or _masked(record) != file.read(4):
                raise InputError(f"{path} is damaged: build the data set again", "unreadable")
            yield record
