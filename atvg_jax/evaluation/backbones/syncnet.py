"""SyncNet: whether a mouth moves with the sound, by a network that has seen many that do.

Chung and Zisserman, "Out of time: automated lip sync in the wild", ACCV workshop 2016, as published
in ``syncnet_v2.model``. LSE-D and LSE-C are what Prajwal et al. (ACM Multimedia 2020) take from it.
"""

import os
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from atvg_jax.evaluation.backbones import layers

FloatArray = npt.NDArray[np.float64]

NETWORK = "SyncNet, syncnet_v2"
FRAMES = 5
"""Frames (200 ms) that one lip embedding is of, at 25 frames/s."""
ROWS_PER_FRAME = 4
ROWS = ROWS_PER_FRAME * FRAMES
"""Rows of MFCC that one sound embedding is of, at 100 rows/s."""
COEFFICIENTS = 13
INPUT_SIZE = 224  # pixels
EMBEDDING = 1024
LARGEST_OFFSET = 15
"""Frames (0.6 s) by which the sound is looked for before and after the lips' own."""

_EPSILON = 1e-5  # batch normalisation's
_DISTANCE_EPSILON = 1e-6  # added to every difference, as PyTorch's pairwise_distance does


class _Convolution(NamedTuple):
    """A convolution with bias, batch normalisation, ReLU, and perhaps a maximum.

    Attributes:
        number: of the convolution in its sequence; that of the normalisation is one more.
        shape: of the weight, as the file has it.
        stride: in both directions.
        padding: zeros on every side.
        pool: size, strides and padding of the maximum after it, or None.
    """

    number: int
    shape: tuple[int, ...]
    stride: int = 1
    padding: int = 0
    pool: tuple[int, layers.Pair, int] | None = None


# A first maximum of the sound's branch is over one value, and left out.
_SOUND = (
    _Convolution(0, (64, 1, 3, 3), padding=1),
    _Convolution(4, (192, 64, 3, 3), padding=1, pool=(3, (1, 2), 0)),
    _Convolution(8, (384, 192, 3, 3), padding=1),
    _Convolution(11, (256, 384, 3, 3), padding=1),
    _Convolution(14, (256, 256, 3, 3), padding=1, pool=(3, (2, 2), 0)),
    _Convolution(18, (512, 256, 5, 4)),
)
_LIPS = (
    _Convolution(0, (96, 3, FRAMES, 7, 7), stride=2, pool=(3, (2, 2), 0)),
    _Convolution(4, (256, 96, 1, 5, 5), stride=2, padding=1, pool=(3, (2, 2), 1)),
    _Convolution(8, (256, 256, 1, 3, 3), padding=1),
    _Convolution(11, (256, 256, 1, 3, 3), padding=1),
    _Convolution(14, (256, 256, 1, 3, 3), padding=1, pool=(3, (2, 2), 0)),
    _Convolution(18, (512, 256, 1, 6, 6)),
)
_NORMALISATION = ("weight", "bias", "running_mean", "running_var")


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights."""
    wanted: dict[str, tuple[int, ...]] = {}
    for branch, convolutions in (("aud", _SOUND), ("lip", _LIPS)):
        for one in convolutions:
            outputs = one.shape[0]
            wanted[f"netcnn{branch}.{one.number}.weight"] = one.shape
            wanted[f"netcnn{branch}.{one.number}.bias"] = (outputs,)
            for part in _NORMALISATION:
                wanted[f"netcnn{branch}.{one.number + 1}.{part}"] = (outputs,)
        wanted[f"netfc{branch}.0.weight"] = (512, 512)
        wanted[f"netfc{branch}.0.bias"] = (512,)
        wanted |= {f"netfc{branch}.1.{part}": (512,) for part in _NORMALISATION}
        wanted[f"netfc{branch}.3.weight"] = (EMBEDDING, 512)
        wanted[f"netfc{branch}.3.bias"] = (EMBEDDING,)
    return wanted


class SyncNet:
    """Both branches, with weights from a file.

    Raises:
        InputError: the file is not this network's.
    """

    def __init__(self, path: str | os.PathLike[str]):
        import jax

        self._weights = layers.read_weights(path, shapes(), NETWORK)
        self._lips, self._sound = jax.jit(embed_lips), jax.jit(embed_sound)

    def lips(self, frames: npt.ArrayLike) -> FloatArray:
        """(1024,) of 5 frames (5, H, W, 3) uint8 RGB, which are brought to 224 x 224."""
        pictures = np.stack([_input(frame) for frame in np.asarray(frames)])
        return np.asarray(self._lips(self._weights, pictures[None])[0], np.float64)

    def sound(self, mfcc: npt.ArrayLike) -> FloatArray:
        """(n, 1024) of a clip's sound, one for every frame that 5 frames of sound begin with.

        Args:
            mfcc: (rows, 13) at 100 rows a second from the first frame on, the first coefficient the
                log energy, of sound at the scale of 16-bit numbers: ``features.audio.mfcc``.
        """
        rows = np.asarray(mfcc, np.float32)
        if rows.ndim != 2 or rows.shape[1] != COEFFICIENTS:
            raise ValueError(f"the MFCC of a clip are (rows, 13), not {rows.shape}")
        starts = range(0, len(rows) - ROWS + 1, ROWS_PER_FRAME)
        found = [
            self._sound(self._weights, rows[None, start : start + ROWS])[0] for start in starts
        ]
        return np.asarray(found, np.float64).reshape(-1, EMBEDDING)


def _input(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """(H, W, 3) uint8 RGB to (224, 224, 3) in 0 .. 255, blue first as OpenCV reads files."""
    size = (INPUT_SIZE, INPUT_SIZE)
    picture: Any = frame
    if picture.shape[:2] != size:
        picture = cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_LINEAR)
    return picture[..., ::-1].astype(np.float32)


def embed_lips(weights: layers.Weights, frames: Any) -> Any:
    """(N, 5, 224, 224, 3) to (N, 1024)."""
    import jax.numpy as jnp

    # Only the first convolution spans frames, and it spans all: colours and frames are channels.
    x = jnp.moveaxis(frames, (4, 1), (1, 2))  # (N, 3, 5, H, W)
    x = x.reshape(x.shape[0], -1, *x.shape[3:])
    return _branch(weights, "lip", _LIPS, x)


def embed_sound(weights: layers.Weights, mfcc: Any) -> Any:
    """(N, 20, 13) to (N, 1024)."""
    import jax.numpy as jnp

    return _branch(weights, "aud", _SOUND, jnp.swapaxes(mfcc, 1, 2)[:, None])


def _branch(
    weights: layers.Weights, branch: str, convolutions: tuple[_Convolution, ...], x: Any
) -> Any:
    import jax.numpy as jnp

    for one in convolutions:
        name = f"netcnn{branch}.{one.number}"
        weight = weights[f"{name}.weight"]
        flat = weight.reshape(len(weight), -1, *weight.shape[-2:])
        x = layers.convolve(x, flat, one.stride, (one.padding, one.padding))
        x = x + weights[f"{name}.bias"][:, None, None]
        x = _normalised(weights, f"netcnn{branch}.{one.number + 1}", x)
        if one.pool is not None:
            x = layers.max_pool(x, *one.pool)
    x = x.reshape(len(x), -1)
    name = f"netfc{branch}"
    x = x @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"]
    x = _normalised(weights, f"{name}.1", x)
    return jnp.asarray(x @ weights[f"{name}.3.weight"].T + weights[f"{name}.3.bias"])


def _normalised(weights: layers.Weights, name: str, x: Any) -> Any:
    """Batch normalisation of the second axis by the stored statistics, and ReLU."""
    import jax.numpy as jnp

    weight, bias, mean, variance = (
        weights[f"{name}.{part}"].reshape(-1, *[1] * (x.ndim - 2)) for part in _NORMALISATION
    )
    scale = weight / jnp.sqrt(variance + _EPSILON)
    return jnp.maximum(x * scale + (bias - mean * scale), 0)


def distances(lips: npt.ArrayLike, numbers: npt.ArrayLike, sound: npt.ArrayLike) -> FloatArray:
    """Mean distance of lips from the sound of -15 to 15 frames away.

    Args:
        lips: (n, 1024) lip embeddings.
        numbers: (n,) the frame that each begins with, below m.
        sound: (m, 1024) sound embeddings, of every frame from 0. Beyond either end there are zeros,
            as in the published evaluation.

    Returns:
        (31,) of sound that begins 15 frames before the lips, ..., 15 after.
    """
    own, heard = np.asarray(lips, np.float64), np.asarray(sound, np.float64)
    places = np.asarray(numbers, np.int64)
    padded = np.pad(heard, ((LARGEST_OFFSET, LARGEST_OFFSET), (0, 0)))
    found = [
        np.linalg.norm(own - padded[places + offset] + _DISTANCE_EPSILON, axis=-1).mean()
        for offset in range(2 * LARGEST_OFFSET + 1)
    ]
    return np.asarray(found)


class Follower:
    """Whether one clip's lips follow a sound; frames come chunk by chunk and are not kept."""

    def __init__(self, network: SyncNet, sound: FloatArray):
        """``sound`` is what ``network.sound`` gives of the clip's sound."""
        self._network, self._sound = network, sound
        self._recent: list[npt.NDArray[np.uint8]] = []
        self._looked_at: list[npt.NDArray[np.uint8]] = []
        self._numbers: list[int] = []
        self._embeddings: list[FloatArray] = []

    def add(self, number: int, frame: npt.NDArray[np.uint8] | None) -> None:
        """Takes in frame ``number`` (H, W, 3) uint8; None is one that is not to be judged."""
        if frame is None:
            self._recent = []
            return
        self._recent = [*self._recent[1 - FRAMES :], frame]
        first = number - FRAMES + 1
        if len(self._recent) < FRAMES or first >= len(self._sound):
            return
        self._numbers.append(first)
        same = self._looked_at and all(map(np.array_equal, self._recent, self._looked_at))
        if not same:  # a still is looked at once
            self._embeddings.append(self._network.lips(self._recent))
            self._looked_at = self._recent
        else:
            self._embeddings.append(self._embeddings[-1])

    def scores(self) -> dict[str, float]:
        """LSE-D, the smallest mean distance, and LSE-C, by how much the median is above it."""
        if not self._numbers:
            return {"lse_d": float("nan"), "lse_c": float("nan")}
        found = distances(self._embeddings, self._numbers, self._sound)
        return {"lse_d": float(found.min()), "lse_c": float(np.median(found) - found.min())}
