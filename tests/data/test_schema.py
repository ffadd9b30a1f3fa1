"""Writer and reader of examples agree, with each other and with TensorFlow Datasets."""

import contextlib
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from atvg_jax.data import schema, wire
from atvg_jax.errors import InputError


def jpeg(rng):
    file = io.BytesIO()
    picture = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(picture).resize((128, 128)).save(file, "JPEG")
    return file.getvalue()


def example(frames, clip_id="a/b.mp4", seed=0, **changes):
    rng = np.random.default_rng(seed)
    shapes = {
        "landmarks": (frames, 68, 2),
        "aligned_landmarks": (frames, 68, 2),
        "mfcc": (4 * frames + 24, 13),
        "pose": (frames, 3),
    }
    arrays = {name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    fields = {"speaker": "somebody", "clip_id": clip_id, "text": "été", **arrays, **changes}
    return schema.Example(frames=[jpeg(rng) for _ in range(frames)], **fields)


def assert_equal(read, written):
    assert read["frames"] == written.frames
    for name in schema.STRINGS:
        assert read[name] == getattr(written, name)
    for name in schema.ARRAYS:
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], getattr(written, name))


@pytest.mark.parametrize("frames", [1, 29, 75])
def test_round_trip(frames):
    written = example(frames)
    assert_equal(schema.deserialize(schema.serialize(written)), written)


def test_without_pictures_all_the_rest_is_read():
    written = example(29)
    read = schema.deserialize(schema.serialize(written), pictures=False)
    assert "frames" not in read
    assert_equal({**read, "frames": written.frames}, written)


def test_equal_examples_give_equal_bytes():
    assert schema.serialize(example(5)) == schema.serialize(example(5))
    assert schema.serialize(example(5)) != schema.serialize(example(5, seed=1))


@pytest.mark.parametrize(
    "changes",
    [
        {"mfcc": np.zeros((43, 13), np.float32)},
        {"landmarks": np.zeros((5, 136), np.float32)},
        {"pose": np.zeros((5, 3))},
        {"pose": np.full((5, 3), np.nan, np.float32)},
    ],
)
def test_an_example_that_is_not_as_defined_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        example(5, **changes)


def test_an_example_without_frames_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        example(0)


def test_damaged_records_give_one_error_only():
    record = schema.serialize(example(2))
    rng = np.random.default_rng(1)
    damaged = [record[: len(record) // 2], b"", b"text", record[1:], rng.bytes(1000)]
    for _ in range(200):
        # Where a flip hits the content and not the structure, the record is still an example.
        changed = bytearray(record)
        changed[rng.integers(len(record))] ^= 1 << rng.integers(8)
        damaged.append(bytes(changed))
    refused = 0
    for item in damaged:
        with contextlib.suppress(InputError):
            schema.deserialize(item)
            continue
        refused += 1
    assert refused >= 5


@pytest.mark.parametrize(
    ("data", "checksum"),
    # RFC 3720, B.4, and the check value of the CRC catalogues.
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_checksum(data, checksum):
    assert wire.crc32c(data) == checksum


def test_checksum_of_any_length_against_another_implementation():
    crc32c = pytest.importorskip("tensorboardX.crc32c").crc32c
    rng = np.random.default_rng(0)
    for size in [*range(9), 511, 512, 513, 515, 516, 1024, 5000]:
        data = rng.bytes(size)
        assert wire.crc32c(data) == crc32c(data)


def test_a_damaged_file_is_found(tmp_path):
    path = tmp_path / "file"
    whole = b"".join(map(wire.frame_record, [b"one", b"two" * 100]))
    path.write_bytes(whole)
    assert list(wire.read_records(path)) == [b"one", b"two" * 100]
    flipped = bytearray(whole)
    flipped[-10] ^= 1
    for damaged in (whole[:-1], whole[:20], bytes(flipped), b"\xff" * 40):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            list(wire.read_records(path))


def write_data_set(folder, examples):
    """A data set with a train split of two shards, as preparation lays it out."""
    version = schema.version_folder(folder)
    version.mkdir(parents=True)
    size = 0
    shards = [examples[:2], examples[2:]]
    for index, part in enumerate(shards):
        records = [schema.serialize(item) for item in part]
        size += sum(map(len, records))
        path = version / schema.shard_name("train", index, 2)
        path.write_bytes(b"".join(map(wire.frame_record, records)))
    info = schema.dataset_info_json({"train": ([len(s) for s in shards], size)}, "Talking faces.")
    (version / "features.json").write_text(json.dumps(schema.features_json()))
    (version / "dataset_info.json").write_text(json.dumps(info))
    return version


def test_data_files(tmp_path):
    version = write_data_set(tmp_path, [example(2), example(3), example(4)])
    assert [p.name[-14:] for p in schema.data_files(tmp_path, "train")] == [
        "00000-of-00002",
        "00001-of-00002",
    ]
    with pytest.raises(InputError, match="atvg_clips-test"):
        schema.data_files(tmp_path, "test")
    with pytest.raises(InputError, match="none of the splits"):
        schema.data_files(tmp_path, "dev")
    next(version.glob("*-00000-of-*")).unlink()
    with pytest.raises(InputError, match="1 of 2"):
        schema.data_files(tmp_path, "train")


READ_WITHOUT_TENSORFLOW = """
import sys
from grain.experimental import TFRecordIterDataset
from atvg_jax.data import schema
lengths = [
    len(schema.deserialize(record)["frames"])
    for path in schema.data_files(sys.argv[1], "train")
    for record in TFRecordIterDataset(str(path))
]
heavy = {"tensorflow", "tensorflow_datasets"} & set(sys.modules)
print(lengths, heavy or "light")
"""

READ_WITH_TENSORFLOW_DATASETS = """
import json, pathlib, shutil, sys, tempfile
import numpy as np
import tensorflow_datasets as tfds
from atvg_jax.data import schema

folder = pathlib.Path(sys.argv[1])
builder = tfds.builder_from_directory(str(folder))
expected = tfds.features.FeaturesDict({
    "frames": tfds.features.Sequence(
        tfds.features.Image(shape=(128, 128, 3), encoding_format="jpeg")),
    "landmarks": tfds.features.Tensor(shape=(None, 68, 2), dtype=np.float32),
    "aligned_landmarks": tfds.features.Tensor(shape=(None, 68, 2), dtype=np.float32),
    "mfcc": tfds.features.Tensor(shape=(None, 13), dtype=np.float32),
    "pose": tfds.features.Tensor(shape=(None, 3), dtype=np.float32),
    "speaker": tfds.features.Text(),
    "clip_id": tfds.features.Text(),
    "text": tfds.features.Text(),
})
with tempfile.TemporaryDirectory() as other:
    for path in schema.data_files(sys.argv[2], "train"):
        shutil.copy(path, other)
    split = builder.info.splits["train"]
    template = tfds.core.ShardedFileTemplate(
        dataset_name=schema.NAME, data_dir=other, split="train", filetype_suffix="tfrecord")
    info = tfds.core.SplitInfo(name="train", shard_lengths=split.shard_lengths,
                               num_bytes=split.num_bytes, filename_template=template)
    tfds.folder_dataset.write_metadata(
        data_dir=other, features=expected, split_infos=[info], version=schema.VERSION,
        description="Talking faces.", check_data=False)
    for name in ("features.json", "dataset_info.json"):
        theirs, ours = (json.loads((pathlib.Path(f) / name).read_text()) for f in (other, folder))
        assert theirs == ours, name
shapes = [
    (e["frames"].shape, e["mfcc"].shape, e["text"].decode(), e["clip_id"].decode())
    for e in tfds.as_numpy(builder.as_dataset(split="train"))
]
print(json.dumps(sorted(shapes)))
"""


def run_python(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip().splitlines()[-1]


def test_grain_reads_it_without_tensorflow(tmp_path):
    write_data_set(tmp_path, [example(2), example(3), example(4)])
    assert run_python(READ_WITHOUT_TENSORFLOW, tmp_path) == "[2, 3, 4] light"


def test_tensorflow_datasets_reads_it(tmp_path):
    pytest.importorskip("tensorflow_datasets.version")
    folder = write_data_set(tmp_path, [example(i + 2, clip_id=f"clip{i}") for i in range(3)])
    read = json.loads(run_python(READ_WITH_TENSORFLOW_DATASETS, folder, tmp_path))
    assert read == [
        [[i + 2, 128, 128, 3], [4 * (i + 2) + 24, 13], "été", f"clip{i}"] for i in range(3)
    ]
