"""The one definition of an example, for whoever writes data sets and whoever reads them.

An example is one stretch of one talking face at 25 frames/s. On disk it is a ``tf.train.Example``
as TensorFlow Datasets lays it out, so ``tfds.builder_from_directory`` reads a data set; this module
writes and reads the same bytes itself (``atvg_jax.data.wire``), because importing TensorFlow costs
seconds and hundreds of megabytes in every process that does.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from atvg_jax.data import wire
from atvg_jax.errors import InputError

NAME = "atvg_clips"
VERSION = "1.0.0"
SPLITS = ("train", "validation", "test")
FRAME_SIZE = 128
CONTEXT_ROWS = 24
"""MFCC rows beyond four a frame: a window is 28 rows, the frame's own four and 12 on each side."""

ARRAYS: dict[str, tuple[int, ...]] = {
    "landmarks": (68, 2),
    "aligned_landmarks": (68, 2),
    "mfcc": (13,),
    "pose": (3,),
}
"""float32 arrays of an example, with their shape after the first (time) axis."""

STRINGS = ("speaker", "clip_id", "text")


@dataclasses.dataclass(frozen=True)
class Example:
    """One stretch of one talking face, T frames at 25 frames/s.

    Attributes:
        frames: T JPEG files of 128 x 128, the aligned face.
        landmarks: (T, 68, 2) float32, normalised: the mean shape is centred and has Frobenius norm
            1; identity and pose are gone.
        aligned_landmarks: (T, 68, 2) float32, pixels (x, y) of the frames.
        mfcc: (4 T + 24, 13) float32 at 100 rows/s; frame t sees rows ``4t .. 4t + 28``.
        pose: (T, 3) float32, yaw, pitch and roll in degrees.
        speaker: who it is.
        clip_id: unique in the data set.
        text: what is said, "" where unknown.
    """

    frames: list[bytes]
    landmarks: np.ndarray
    aligned_landmarks: np.ndarray
    mfcc: np.ndarray
    pose: np.ndarray
    speaker: str
    clip_id: str
    text: str = ""

    def __post_init__(self):
        frames = len(self.frames)
        if not frames:
            raise ValueError(f"{self.clip_id}: an example needs at least one frame")
        for name, shape in ARRAYS.items():
            array = getattr(self, name)
            rows = 4 * frames + CONTEXT_ROWS if name == "mfcc" else frames
            if array.shape != (rows, *shape) or array.dtype != np.float32:
                raise ValueError(
                    f"{self.clip_id}: {name} is {array.dtype} {array.shape}, "
                    f"not float32 {(rows, *shape)} for {frames} frames"
                )
            if not np.isfinite(array).all():
                raise ValueError(f"{self.clip_id}: {name} is not finite")


def serialize(example: Example) -> bytes:
    """An example as the bytes of a ``tf.train.Example``; equal examples give equal bytes."""
    features: dict[str, wire.Feature] = {"frames": list(example.frames)}
    for name in ARRAYS:
        features[name] = getattr(example, name).ravel()
    for name in STRINGS:
        features[name] = [getattr(example, name).encode()]
    return wire.encode_example(features)


def deserialize(record: bytes, pictures: bool = True) -> dict[str, Any]:
    """An example back from its bytes.

    The frames are left as JPEG files: a training sample takes a few of them, and decoding is what
    costs.

    Args:
        record: what ``serialize`` or TensorFlow Datasets wrote.
        pictures: False leaves ``frames`` out, whose list takes longer to read than all the rest.

    Returns:
        A dictionary with the names, shapes and types of ``Example``; the arrays are read-only.

    Raises:
        InputError: the bytes are no example of this schema.
    """
    try:
        features = wire.decode_example(record, without=() if pictures else ("frames",))
        example: dict[str, Any] = {"frames": features["frames"]} if pictures else {}
        frames = len(features["frames"]) if pictures else len(features["pose"]) // 3
        for name, shape in ARRAYS.items():
            rows = 4 * frames + CONTEXT_ROWS if name == "mfcc" else frames
            array = features[name]
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{name} holds no numbers")
            example[name] = array.reshape(rows, *shape)
        for name in STRINGS:
            (value,) = features[name]
            example[name] = value.decode()
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise InputError(
            f"a record of the data set is no {NAME} {VERSION} example ({error}): build it again",
            reason="unreadable",
        ) from error
    return example


def features_json() -> dict[str, Any]:
    """``features.json``: the same definition for TensorFlow Datasets."""

    def shape(*sizes: int) -> dict[str, Any]:
        return {"dimensions": [str(size) for size in sizes]}

    def feature(module: str, kind: str, **content: Any) -> dict[str, Any]:
        return {"pythonClassName": f"tensorflow_datasets.core.features.{module}.{kind}", **content}

    jpeg = {"dtype": "uint8", "encodingFormat": "jpeg", "shape": shape(FRAME_SIZE, FRAME_SIZE, 3)}
    image = feature("image_feature", "Image", image=jpeg)
    frames = feature("sequence_feature", "Sequence", sequence={"feature": image, "length": "-1"})
    arrays = {
        name: feature(
            "tensor_feature",
            "Tensor",
            tensor={"dtype": "float32", "encoding": "none", "shape": shape(-1, *sizes)},
        )
        for name, sizes in ARRAYS.items()
    }
    strings = {name: feature("text_feature", "Text", text={}) for name in STRINGS}
    named = {"frames": frames, **arrays, **strings}
    return feature("features_dict", "FeaturesDict", featuresDict={"features": named})


def dataset_info_json(splits: dict[str, tuple[list[int], int]], description: str) -> dict[str, Any]:
    """``dataset_info.json``: which shards there are, for TensorFlow Datasets.

    Args:
        splits: for each split that there is, the examples in each of its shards and its bytes.
        description: what the data set is.
    """
    return {
        "description": description,
        "fileFormat": "tfrecord",
        "name": NAME,
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(size),
                "shardLengths": [str(length) for length in lengths],
            }
            for split, (lengths, size) in splits.items()
        ],
        "version": VERSION,
    }


def version_folder(data_dir: Path | str) -> Path:
    """The folder inside a data set that holds its shards and ``features.json``."""
    return Path(data_dir) / NAME / VERSION


def shard_name(split: str, index: int, count: int) -> str:
    """The file name of shard ``index`` of ``count``, as TensorFlow Datasets calls it."""
    return f"{NAME}-{split}.tfrecord-{index:05d}-of-{count:05d}"


def data_files(data_dir: Path | str, split: str) -> list[Path]:
    """The shards of one split, in order.

    Args:
        data_dir: a data set, the ``--out`` of its preparation.
        split: ``train``, ``validation`` or ``test``.

    Raises:
        InputError: there are none, or some of them are missing.
    """
    folder = version_folder(data_dir)
    if split not in SPLITS:
        raise InputError(f"{split!r} is none of the splits {', '.join(SPLITS)}")
    found = sorted(folder.glob(f"{NAME}-{split}.tfrecord-?????-of-?????"))
    if not found:
        wanted = folder / f"{NAME}-{split}.tfrecord-*"
        raise InputError(
            f"{data_dir} has no {split} data (looked for {wanted}): "
            "make it with python -m data_prep.build --out",
            reason="missing",
        )
    count = int(found[0].name[-5:])
    if [path.name for path in found] != [shard_name(split, i, count) for i in range(count)]:
        raise InputError(
            f"{folder}: {len(found)} of {count} {split} shards are there: build the data set again",
            reason="missing",
        )
    return found
