"""Several AT-nets side by side as one that gives their mean.

Networks trained on the same data from different seeds err in different ways, and their mean errs
less than any of them. k of them of width w are, without any approximation, one AT-net of width k w
whose weights between one member's channels and another's are zero, and whose last layer adds up
what the members say, each divided by k. So whatever runs, exports or measures an AT-net does so to
several. (It multiplies the zeros too; AT-net is a few per cent of the work for a frame.)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from atvg_jax.models import blocks

Variables = Mapping[str, Any]
FloatArray = npt.NDArray[np.float32]

_GATES = 4  # of an LSTM, one after the other in the last axis of its kernels
_POOLED = 12 * 2  # places of the audio encoder's last map, before its channels when it is flattened
_CHANNELS = (64, 128, 256, 512, 2048)  # that AT-net's layers have at width 1
_LANDMARK, _AUDIO = 512, 256  # features of a frame at width 1, in this order the LSTM's input


def as_one(members: Sequence[Variables], width: float) -> dict[str, Any]:
    """Variables of the one AT-net that gives the mean of several.

    Args:
        members: ``{"params": ..., "batch_stats": ...}`` of each, of ``ATNet`` of the same width.
        width: theirs; that of the result is ``len(members) * width``.

    Returns:
        Variables of the wider network, NumPy float32.

    Raises:
        ValueError: there is none, they differ in shape, or the widths' channels do not add up
            because they were rounded.
    """
    count = len(members)
    if count < 1:
        raise ValueError("a mean takes at least one network")
    for channels in _CHANNELS:
        if blocks.scaled(channels, count * width) != count * blocks.scaled(channels, width):
            raise ValueError(f"{count} networks of width {width} are none of width {count * width}")
    return _joined(members, (), width)


def _joined(parts: Sequence[Any], path: tuple[str, ...], width: float) -> Any:
    """The same part of every member as one."""
    if isinstance(parts[0], Mapping):
        if any(not isinstance(p, Mapping) or p.keys() != parts[0].keys() for p in parts):
            raise ValueError(f"the networks differ in what {'/'.join(path) or 'they'} have")
        return {
            name: _joined([part[name] for part in parts], (*path, name), width) for name in parts[0]
        }
    arrays = [np.asarray(part, np.float32) for part in parts]
    if any(array.shape != arrays[0].shape for array in arrays):
        raise ValueError(f"{'/'.join(path)} is not of the same shape in all networks")
    if "output" in path:
        arrays = [array / np.float32(len(arrays)) for array in arrays]
    return _placed(arrays, _segments(path, arrays[0].shape, width))


def _segments(
    path: tuple[str, ...], shape: tuple[int, ...], width: float
) -> list[list[int] | None]:
    """How each of an array's last two axes (a vector's only one) falls into parts.

    A part holds one member's channels after another's; None: an axis that all members share.
    """
    features: list[int] | None = [shape[-1]]
    if "output" in path:
        features = None
    elif "lstm" in path:
        features = [shape[-1] // _GATES] * _GATES
    if len(shape) == 1:
        return [features]
    inputs: list[int] | None = [shape[-2]]
    if path[-3:-1] == ("conv_1", "conv") or path[-3] == "landmark_encoder_1":
        inputs = None  # sound and landmarks themselves
    elif path[-3] == "fc_1":
        inputs = [shape[-2] // _POOLED] * _POOLED
    elif path[-2:] == ("layer_0", "input_kernel"):
        inputs = [blocks.scaled(_LANDMARK, width), blocks.scaled(_AUDIO, width)]
    return [inputs, features]


def _placed(arrays: Sequence[FloatArray], segments: Sequence[list[int] | None]) -> FloatArray:
    """Arrays at their members' places of a larger one, added up where places are shared."""
    count, axes = len(arrays), len(segments)
    shape = arrays[0].shape
    small = shape[len(shape) - axes :]
    large = [n if part is None else count * n for n, part in zip(small, segments, strict=True)]
    result = np.zeros((*shape[: len(shape) - axes], *large), np.float32)
    for member, array in enumerate(arrays):
        places: list[Any] = [
            np.arange(n) if part is None else _places(part, member, count)
            for n, part in zip(small, segments, strict=True)
        ]
        where: tuple[Any, ...] = (..., *np.ix_(*places))
        result[where] += array
    return result


def _places(parts: list[int], member: int, count: int) -> npt.NDArray[np.int64]:
    """Where a member's channels go: within each part after those of the members before it."""
    starts = count * (np.cumsum(parts) - parts) + member * np.asarray(parts)
    return np.concatenate([start + np.arange(n) for start, n in zip(starts, parts, strict=True)])
