"""The pickle programs in PyTorch's files, followed by hand and written by hand.

``pickletools.genops`` lists a program's instructions and runs none of them. The few that describe
dictionaries of tensors are followed here; a program that asks for anything else is refused.

Reference: the opcodes of ``pickle``; ``torch/_utils.py``.
"""

import io
import pickletools
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import ml_dtypes
import numpy as np

DTYPES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_REBUILDS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
_KNOWN = {
    ("collections", "OrderedDict"),
    *(("torch._utils", name) for name in _REBUILDS),
    *(("torch", name) for name in DTYPES),
}
_MOST_AXES = 8


class RefusedError(ValueError):
    """The file asks for something that arrays do not need."""


class Global(NamedTuple):
    """A name that the program mentions; what it stands for is never looked up."""

    module: str
    name: str


class Storage(NamedTuple):
    """Where a tensor's numbers are.

    Attributes:
        key: of the storage within the file.
        dtype: of its elements, little-endian or big-endian as in the file.
        size: number of elements.
    """

    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """A view of a storage; offset, shape and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def follow(stream: io.BytesIO, storage: Callable[[Any], Storage] | None = None) -> Any:
    """Follows one pickle program by hand, up to its STOP.

    Args:
        stream: read up to the end of the program.
        storage: what to make of a reference to a storage.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def to_mark() -> list[Any]:
        place = marks.pop()
        items = stack[place:]
        del stack[place:]
        return items

    for opcode, value, _ in pickletools.genops(stream):
        name, argument = opcode.name, cast(Any, value)
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(argument)] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(argument)])
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(to_mark()))
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else to_mark()
            _list(stack[-1]).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else to_mark()
            keys = [key if isinstance(key, int) else text(key) for key in items[::2]]
            _dict(stack[-1]).update(zip(keys, items[1::2], strict=True))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                argument = f"{text(stack.pop(-2))} {text(stack.pop())}"
            module, _, attribute = argument.partition(" ")
            if (module, attribute) not in _KNOWN:
                raise RefusedError(f"it asks for {module}.{attribute}, which tensors do not need")
            stack.append(Global(module, attribute))
        elif name == "BINPERSID" and storage is not None:
            stack.append(storage(stack.pop()))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_made(stack.pop(), arguments))
        elif name == "BUILD":
            # An OrderedDict of parameters carries notes of PyTorch's own (_metadata).
            stack.pop()
            _dict(stack[-1])
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise RefusedError(f"its pickle uses {name}, which tensors do not need")
    raise ValueError("its pickle has no end")


_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING",
    "STRING",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _made(function: Any, arguments: Any) -> Any:
    """What one of the known functions makes: a dictionary, or the description of a tensor."""
    name = function.name if isinstance(function, Global) else ""
    if name == "OrderedDict" and arguments == ():
        return {}
    if name == "_rebuild_parameter" and isinstance(arguments[0], Tensor):
        return arguments[0]
    if name in _REBUILDS and isinstance(arguments[0], Storage):
        storage, offset, shape, strides = arguments[:4]
        if len(shape) != len(strides) or len(shape) > _MOST_AXES:
            raise ValueError(f"a tensor of {len(shape)} axes and {len(strides)} strides")
        shape, strides = (tuple(natural(n) for n in numbers) for numbers in (shape, strides))
        return Tensor(storage, natural(offset), shape, strides)
    raise RefusedError("it calls something that makes no tensor")


def natural(value: Any) -> int:
    """Checks a number of elements."""
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError("a size or place that is no number of elements")
    return value


def text(value: Any) -> str:
    """Checks a name."""
    if not isinstance(value, str):
        raise ValueError(f"a name that is no text but {type(value).__name__}")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("it appends to what is no list")
    return value


def _dict(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise ValueError("it sets items of what is no dictionary")
    return value


def program_of(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The pickle program of a state dict whose arrays are storages "0", "1" ... in this order.

    Raises:
        ValueError: for an array of a type that PyTorch has no name for.
    """
    elements = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    ordered_dict = _OP["GLOBAL"] + b"collections\nOrderedDict\n"
    ordered_dict += _OP["EMPTY_TUPLE"] + _OP["REDUCE"]
    program = [_OP["PROTO"], b"\2", ordered_dict, _OP["MARK"]]
    for key, (name, value) in enumerate(arrays.items()):
        array = np.asarray(value)
        if array.dtype not in elements:
            raise ValueError(f"PyTorch has no {array.dtype}, the type of {name}")
        strides: list[int] = []
        step = 1
        for size in reversed(array.shape):
            strides.insert(0, step)
            step *= size
        program += [
            _unicode(name),
            _OP["GLOBAL"] + b"torch._utils\n_rebuild_tensor_v2\n" + _OP["MARK"],
            _OP["MARK"] + _unicode("storage"),
            _OP["GLOBAL"] + b"torch\n" + elements[array.dtype].encode() + b"\n",
            _unicode(str(key)) + _unicode("cpu") + _integer(array.size) + _OP["TUPLE"],
            _OP["BINPERSID"] + _integer(0) + _integers(array.shape) + _integers(strides),
            _OP["NEWFALSE"] + ordered_dict + _OP["TUPLE"] + _OP["REDUCE"],
        ]
    return b"".join([*program, _OP["SETITEMS"], _OP["STOP"]])


_OP = {opcode.name: opcode.code.encode("latin-1") for opcode in pickletools.opcodes}


def _unicode(text: str) -> bytes:
    encoded = text.encode()
    return _OP["BINUNICODE"] + struct.pack("<I", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    return _OP["BININT"] + struct.pack("<i", value)


def _integers(values: Sequence[int]) -> bytes:
    return _OP["MARK"] + b"".join(_integer(value) for value in values) + _OP["TUPLE"]
