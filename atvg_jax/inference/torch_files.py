"""PyTorch's files of tensors, read and written without PyTorch and without unpickling.

``torch.save`` writes a pickle program that says where each array lies, and the arrays' bytes: since
PyTorch 1.6 (2020) in a zip archive, before in one stream. Unpickling runs whatever functions the
program names; ``torch_programs`` reads it instead.

Reference: ``torch/serialization.py``.
"""

import io
import math
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atvg_jax.errors import InputError
from atvg_jax.inference.torch_programs import (
    DTYPES,
    Global,
    RefusedError,
    Storage,
    Tensor,
    follow,
    natural,
    program_of,
    text,
)
from atvg_jax.whole_files import written_whole

# What the stream of PyTorch 0.2 .. 1.5 begins with: a pickled number, then the version of the form.
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_STREAM_VERSION = 1001
_ZIP_START = b"PK\3\4"
# A program of names and sizes; that of the largest published network is 0.1 MB.
_LARGEST_PROGRAM = 16_000_000
_ADVICE = "give a file of torch.save(network.state_dict())"


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a state dict that ``torch.save`` wrote, in either of its forms.

    Args:
        path: a file of a dictionary of tensors, or of one that holds such under ``state_dict``.

    Returns:
        Array by name, in the file's order and types (bfloat16 becomes float32).

    Raises:
        InputError: ``unreadable`` if it is not such a file, is damaged, or asks for anything else
            than tensors, in which case that is named and nothing was done.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}", reason="unreadable"
        ) from error
    try:
        if content.startswith(_ZIP_START):
            tree, storages = _read_archive(content)
        else:
            tree, storages = _read_stream(content)
        return _arrays(tree, storages)
    except RefusedError as error:
        raise InputError(f"{path} is refused: {error}; {_ADVICE}", reason="unreadable") from error
    except (
        ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError,
        EOFError, MemoryError, struct.error, zipfile.BadZipFile, RuntimeError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path} is not a whole PyTorch file ({reason}); {_ADVICE}", reason="unreadable"
        ) from error


def write(path: str | os.PathLike[str], state_dict: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict as ``torch.save`` of PyTorch 1.6 and later does, whole or not at all.

    ``torch.load(path, weights_only=True)`` reads it as an ``OrderedDict`` of CPU tensors.

    Args:
        path: of the file; folders are made.
        state_dict: float or integer arrays by name.

    Raises:
        InputError: the file cannot be written.
        ValueError: for an array of a type that PyTorch has no name for.
    """
    program = program_of(state_dict)
    with written_whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:

        def member(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)  # no date: same bytes

        member("data.pkl", program)
        member("byteorder", b"little")
        for key, value in enumerate(state_dict.values()):
            array = np.asarray(value)
            member(f"data/{key}", array.astype(array.dtype.newbyteorder("<")).tobytes())
        member("version", b"3\n")


def _read_archive(content: bytes) -> tuple[Any, Mapping[str, np.ndarray]]:
    """The form of PyTorch 1.6 and later: NAME/data.pkl, NAME/data/KEY and a few notes."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: info for info in archive.infolist()}

        def member(name: str, largest: int) -> bytes:
            info = members[name]
            # torch.save packs nothing, so nothing here grows as it is read.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > largest:
                raise ValueError(f"{name} is packed or larger than it should be")
            return archive.read(info)

        programs = [name for name in members if name.endswith("/data.pkl")]
        if len(programs) != 1:
            raise ValueError("it is a zip archive without one data.pkl")
        root = programs[0].removesuffix("data.pkl")
        order = "<"
        if f"{root}byteorder" in members and member(f"{root}byteorder", 16) == b"big":
            order = ">"
        wanted: dict[str, Storage] = {}
        program = io.BytesIO(member(programs[0], _LARGEST_PROGRAM))
        tree = follow(program, _storage_reader(wanted, order))
        if sum(s.size * s.dtype.itemsize for s in wanted.values()) > len(content):
            raise ValueError("its arrays are larger than the file")
        storages = {}
        for key, storage in wanted.items():
            size = storage.size * storage.dtype.itemsize
            name = f"{root}data/{key}"
            if name not in members or members[name].file_size < size:
                raise ValueError(f"{name} is missing or cut off")
            data = member(name, len(content))
            storages[key] = np.frombuffer(data, storage.dtype, storage.size)
    return tree, storages


def _read_stream(content: bytes) -> tuple[Any, Mapping[str, np.ndarray]]:
    """The older form: four programs and a list of keys, then the storages in that order."""
    stream = io.BytesIO(content)
    if follow(stream) != _MAGIC_NUMBER:
        raise ValueError("it does not begin as one")
    if (version := follow(stream)) != _STREAM_VERSION:
        raise ValueError(f"its form is {version}, this program reads {_STREAM_VERSION}")
    follow(stream)  # notes of the machine that wrote it; numbers are little-endian on any
    wanted: dict[str, Storage] = {}
    tree = follow(stream, _storage_reader(wanted, "<"))
    storages = {}
    for key in follow(stream):
        storage = wanted[key]
        (count,) = struct.unpack("<q", stream.read(8))
        start, size = stream.tell(), storage.size * storage.dtype.itemsize
        if count != storage.size or start + size > len(content):
            raise ValueError(f"storage {key} is cut off")
        storages[key] = np.frombuffer(content, storage.dtype, storage.size, start)
        stream.seek(start + size)
    return tree, storages


def _storage_reader(wanted: dict[str, Storage], order: str) -> Callable[[Any], Storage]:
    """Understands a program's references to storages and notes them in ``wanted``."""

    def reader(reference: Any) -> Storage:
        kind, element, key, _device, count = reference[:5]
        if kind != "storage" or not isinstance(element, Global) or element.name not in DTYPES:
            raise ValueError("a reference to something other than a storage")
        if len(reference) > 5 and reference[5] is not None:
            raise ValueError("a storage that is a view of another")
        dtype = np.dtype(DTYPES[element.name]).newbyteorder(order)
        storage = Storage(text(key), dtype, natural(count))
        if wanted.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key} is of two kinds")
        return storage

    return reader


def _arrays(tree: Any, storages: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    if not isinstance(tree, dict) or not tree:
        raise ValueError("it holds no dictionary of tensors")
    arrays = {}
    for name, tensor in tree.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"entry {text(name)} is no tensor")
        arrays[name] = _array(name, tensor, storages[tensor.storage.key])
    return arrays


def _array(name: str, tensor: Tensor, storage: np.ndarray) -> np.ndarray:
    """A view of the storage's elements, checked to lie within it."""
    offset, shape, strides = tensor.offset, tensor.shape, tensor.strides
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    # More elements than there are (a stride of 0) would be a small file that fills the memory.
    if count and (last >= storage.size or count > storage.size):
        raise ValueError(f"{name} reaches beyond its storage")
    size = storage.dtype.itemsize
    first = storage[offset:] if count else storage[:0]
    view = np.lib.stride_tricks.as_strided(
        first, shape, [step * size for step in strides], writeable=False
    )
    if view.dtype.kind == "V" or view.dtype.name == "bfloat16":
        return view.astype(np.float32)
    return view.astype(view.dtype.newbyteorder("="), copy=False)
