"""Makes face_shape.npz, what this project's landmark normalisation knows of faces, from footage.

The bundled file was made by this command from the training people of GRID and of interviews
and speeches from the web, at most four clips a person and 250 frames a clip.
"""

import csv
import itertools
import time
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from atvg_jax import command_line
from atvg_jax.errors import InputError
from atvg_jax.features import face_shape, faces, video

_CLIPS_A_PERSON = 4
_FRAMES_A_CLIP = 250
_FEWEST_FRAMES = 20


def tracked_landmarks(path: Path, frames: int = _FRAMES_A_CLIP) -> np.ndarray:
    """(T, 68, 2) landmarks of the frames of a video, those without a face left out."""
    tracker = faces.FaceTracker()
    found = (tracker.track(frame) for frame in itertools.islice(video.iter_frames(path), frames))
    return np.array([landmarks for landmarks in found if landmarks is not None])


def training_clips(table: Path) -> list[Path]:
    """Paths of the clips whose split is ``train``, a few of each person.

    Args:
        table: csv file with columns path (beside the file), speaker and split.
    """
    if not table.is_file():
        raise InputError(f"{table}: no such file; give a csv file with path, speaker and split")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"path", "speaker", "split"} <= rows[0].keys():
        raise InputError(f"{table}: needs a header with path, speaker and split, and clips")
    taken: Counter[str] = Counter()
    paths = []
    for row in rows:
        if row["split"] == "train" and taken[row["speaker"]] < _CLIPS_A_PERSON:
            taken[row["speaker"]] += 1
            paths.append(table.parent / row["path"])
    return paths


def main() -> None:
    """Reads flags, fits and saves."""
    parser = command_line.Parser(
        "python -m atvg_jax.features.fit_face_shape",
        __doc__ or "",
        "python -m atvg_jax.features.fit_face_shape --clips=clips.csv --out=face_shape.npz",
    )
    parser.add_argument("--clips", type=Path, required=True, help="csv: path, speaker, split")
    parser.add_argument("--out", type=Path, required=True, help="npz file to write")
    flags = parser.parse_args()
    start = time.monotonic()
    clips = []
    for path in tqdm(training_clips(flags.clips), unit="clip"):
        landmarks = tracked_landmarks(path)
        if len(landmarks) >= _FEWEST_FRAMES:
            clips.append(landmarks)
    shape = face_shape.fit_face_shape(clips)
    face_shape.save(shape, flags.out)
    seconds = time.monotonic() - start
    print(f"{flags.out}: face shape from {len(clips)} clips in {seconds:.0f} s")


if __name__ == "__main__":
    command_line.run(main)
