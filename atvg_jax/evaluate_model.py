"""A model on a prepared split: what it makes of every clip, handed to the judge.

Each clip's first frame is the portrait. Three systems are scored: VG-net on AT-net's landmarks,
which is the model as it is used; VG-net on the true landmarks, which is VG-net alone; and, as
landmarks, AT-net alone, with ridge regression beside it if a data set to fit it on is given.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tqdm

from atvg_jax.data import schema
from atvg_jax.data.records import ClipRecords
from atvg_jax.evaluation import baseline, judge, side_by_side
from atvg_jax.evaluation.footage import Crops
from atvg_jax.evaluation.landmark_scores import judge_landmarks
from atvg_jax.evaluation.protocol import Problem
from atvg_jax.features import audio, images
from atvg_jax.features.landmarks import LandmarkBasis, from_model
from atvg_jax.inference.prepared import PreparedFace

FloatArray = npt.NDArray[np.float32]

MODEL, TRUE_LANDMARKS = "AT-net + VG-net", "VG-net, true landmarks"
AT_NET, RIDGE, IN_BASIS = "AT-net", "ridge regression", "truth in the basis"


@dataclass(frozen=True)
class Task:
    """A clip to judge, with everything in it.

    Attributes:
        clip_id: its id.
        speaker: who it shows.
        real: the true frames.
        systems: by name.
        settings: what to measure.
        video: file to show all in, or None.
        landmark_scores: of the landmarks; they cost nothing and are there already.
        mfcc: (4 T - 1, 13) of the sound, from the first frame on.
    """

    clip_id: str
    speaker: str
    real: Crops
    systems: dict[str, Crops]
    settings: judge.Settings
    video: Path | None
    landmark_scores: list[judge.Scores]
    mfcc: FloatArray | None = None


def judge_task(task: Task) -> dict[str, list[judge.Scores]] | Problem:
    """Scores a clip by table and writes its video, or says why that cannot be done."""
    try:
        scores = judge.judge(
            task.clip_id, task.speaker, task.real, task.systems, task.settings, task.mfcc
        )
    except ValueError as error:  # too few frames
        return Problem(task.clip_id, "short", f"{task.clip_id}: {error}")
    if task.video is not None:
        shown = {judge.GROUND_TRUTH: task.real.frames()}
        shown |= {name: clip.frames() for name, clip in task.systems.items()}
        side_by_side.write(task.video, shown)
    return {"frames": scores, "landmarks": task.landmark_scores}


def tasks(
    face: PreparedFace,
    records: ClipRecords,
    settings: judge.Settings,
    ridge: baseline.Ridge | None,
    videos_folder: Path | None,
    most_videos: int,
    count: int,
) -> Iterator[Task]:
    """Makes the first clips of a split, one after the other.

    Args:
        face: the model.
        records: the split.
        settings: what to measure.
        ridge: the baseline, or None.
        videos_folder: where videos that show all systems go; None for none.
        most_videos: how many of them, spread over the clips.
        count: of clips.
    """
    numbers = np.linspace(0, count - 1, min(most_videos, count))
    shown = {int(number) for number in numbers.round()}
    for number in range(count):
        example = records.example(number)
        video = None
        if videos_folder is not None and number in shown:
            video = videos_folder / side_by_side.file_name(example["clip_id"])
        yield task(face, example, settings, ridge, video)


def task(
    face: PreparedFace,
    example: dict[str, Any],
    settings: judge.Settings,
    ridge: baseline.Ridge | None = None,
    video: Path | None = None,
) -> Task:
    """What the model makes of one example, as ``schema.deserialize`` gives it."""
    pictures = np.stack([images.decode_jpeg(frame) for frame in example["frames"]])
    aligned = example["aligned_landmarks"]
    pose = np.asarray(example["pose"], np.float64)

    def crops(frames: Any) -> Crops:
        return Crops(np.asarray(frames), np.asarray(aligned, np.float64), pose)

    windows = np.asarray(audio.windows_from_mfcc(example["mfcc"]))
    spoken = face.from_sound(pictures[0], aligned[0], windows)
    true = example["landmarks"]
    given = face.from_landmarks(pictures[0], true[0], true)
    as_landmarks = {AT_NET: spoken.landmarks}
    if ridge is not None:
        predicted = ridge.predict(windows).astype(np.float32)
        as_landmarks[RIDGE] = from_model(face.basis.decode(predicted))
    as_landmarks[IN_BASIS] = from_model(face.basis.decode(face.basis.encode(true)))
    clip_id, speaker = example["clip_id"], example["speaker"]
    return Task(
        clip_id,
        speaker,
        crops(pictures),
        {MODEL: crops(spoken.frames), TRUE_LANDMARKS: crops(given.frames)},
        settings,
        video,
        judge_landmarks(clip_id, speaker, true, as_landmarks),
        # Without the silence around it; the sound of T frames by itself has so many rows.
        np.asarray(example["mfcc"])[schema.CONTEXT_ROWS // 2 :][: 4 * len(true) - 1],
    )


def fit_ridge(data_dir: Path, basis: LandmarkBasis) -> baseline.Ridge:
    """The baseline, fitted on a data set's train split; the penalty from its validation split.

    Raises:
        InputError: one of the two is missing.
    """

    def clips(split: str) -> Iterator[baseline.Clip]:
        records = ClipRecords(schema.data_files(data_dir, split))
        for number in tqdm.trange(len(records), desc=f"ridge: {split}", unit="clip", delay=1):
            example = records.example(number)
            yield audio.windows_from_mfcc(example["mfcc"]), basis.encode(example["landmarks"])

    return baseline.fit(clips("train"), clips("validation"))
