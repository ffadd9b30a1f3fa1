"""A small data set made of numbers, in which the mouth follows the sound, to test the trainer."""

from pathlib import Path

import numpy as np

from atvg_jax.data import schema, wire
from atvg_jax.features.images import encode_jpeg
from atvg_jax.features.landmarks import LandmarkBasis, bundled_face_shape

LENGTHS = (20, 29, 40, 75)


def example(
    name: str, frames: int, rng: np.random.Generator, speaker: str = "nobody"
) -> schema.Example:
    """A clip: the mouth opens with MFCC coefficient 1; pixel (0, 0) of a frame tells its number."""
    shape = np.asarray(bundled_face_shape().mean_shape, np.float32)
    t = np.arange(frames)
    opening = 0.5 + 0.5 * np.sin(t * rng.uniform(0.3, 0.9) + rng.uniform(0, 6))
    landmarks = np.tile(shape, (frames, 1, 1))
    landmarks[:, 54:60, 1] += 0.04 * opening[:, None]
    landmarks[:, 64:68, 1] += 0.04 * opening[:, None]
    landmarks += 0.001 * rng.standard_normal(landmarks.shape)
    mfcc = rng.standard_normal((4 * frames + schema.CONTEXT_ROWS, 13))
    rows = np.arange(len(mfcc)) / 4 - 3.5
    mfcc[:, 1] += 10 * np.interp(rows, t, opening)
    pictures = []
    for number in range(frames):
        picture = np.full((128, 128, 3), 60, np.uint8)
        picture[:16, :16] = 3 * number
        picture[80 : 84 + int(20 * opening[number]), 44:84] = 200
        pictures.append(encode_jpeg(picture))
    return schema.Example(
        frames=pictures,
        landmarks=landmarks.astype(np.float32),
        aligned_landmarks=(64 + 150 * landmarks).astype(np.float32),
        mfcc=mfcc.astype(np.float32),
        pose=np.zeros((frames, 3), np.float32),
        speaker=speaker,
        clip_id=name,
    )


def write(
    folder: Path,
    lengths: tuple[int, ...] = LENGTHS,
    shards: int = 2,
    seed: int = 0,
    speakers: str = "a",
) -> Path:
    """Writes a data set: train and validation clips of these lengths, and the basis.

    Clip number i is of speaker ``speakers[i]``, the letters being taken again from the first.
    """
    rng = np.random.default_rng(seed)
    version = schema.version_folder(folder)
    version.mkdir(parents=True)
    landmarks = []
    for split in ("train", "validation"):
        clips = [
            example(f"{split}-{i}", n, rng, speakers[i % len(speakers)])
            for i, n in enumerate(lengths)
        ]
        landmarks += [clip.landmarks for clip in clips]
        for shard in range(shards):
            records = [wire.frame_record(schema.serialize(clip)) for clip in clips[shard::shards]]
            path = version / schema.shard_name(split, shard, shards)
            path.write_bytes(b"".join(records))
    LandmarkBasis.fit(np.concatenate(landmarks)).save(folder / "basis.npz")
    return folder
