"""Command line: how fast data preparation is, part by part, beside what it cannot do without.

Decoding the pictures and one bare call of dlib's landmark predictor a frame are the limit; the
share of it that preparing whole clips reaches is the result. Everything counts in processor time of
one process with one thread, so that other work on the machine disturbs little, and all parts take
turns on every clip, so that what disturbs one disturbs all.
"""

import os

from data_prep.workers import THREAD_VARIABLES

if __name__ == "__main__":  # as for worker processes; read when NumPy and OpenCV are loaded
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))

import gc
import importlib.metadata
import itertools
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import dlib
import numpy as np
from tqdm import tqdm

from atvg_jax.command_line import Parser, run
from atvg_jax.errors import InputError
from atvg_jax.features import detection, faces, images, video
from atvg_jax.whole_files import written_whole
from data_prep.corpora import mouth_warp, synthetic
from data_prep.corpora.clip import Clip
from data_prep.corpora.layouts import is_video, walk
from data_prep.prepare import Prepared, PrepareSettings, prepare

FRAMES = 29
"""Of a clip of LRW."""

PARTS = ("decode", "sound", "detect", "predict", "track", "warp", "encode", "whole")
LIMIT = ("decode", "predict")
PACKAGES = ("dlib-bin", "av", "opencv-python-headless", "pillow", "numpy")


class Loaded(NamedTuple):
    """A clip, and what its parts are measured on."""

    clip: Clip
    frames: list[np.ndarray]
    box: dlib.rectangle  # of the face in the first frame
    matrix: np.ndarray  # (2, 3), frame -> crop
    crop: np.ndarray


def generate(folder: Path, count: int) -> list[Path]:
    """Makes clips like those of LRW: 29 frames of 256 x 256 pixels, a face that talks, sound."""
    paths = []
    for plan in itertools.islice(synthetic.plans(), count):
        path = folder / f"{plan.clip_id.replace('/', '_')}.mp4"
        spoken = synthetic.perform(plan)
        frames = mouth_warp.render(spoken.identity, spoken.mouth, spoken.head)
        sound = spoken.waveform[: FRAMES * spoken.sample_rate // 25]
        video.write_video(path, itertools.islice(frames, FRAMES), sound, spoken.sample_rate)
        paths.append(path)
    return paths


def find(source: Path, count: int) -> list[Path]:
    """Videos of a folder, from all over it."""
    paths = sorted(path for path in walk(source) if is_video(path))
    if not paths:
        raise InputError(f"{source} holds no videos")
    return [paths[i * len(paths) // count] for i in range(min(count, len(paths)))]


def load(path: Path) -> Loaded | None:
    """A clip with what its parts need; None where it is not prepared or gives no face at once."""
    clip = Clip(clip_id=path.name, video=path, speaker="somebody", split="train")
    if not isinstance(prepare(clip, PrepareSettings()), Prepared):
        return None
    frames = list(video.iter_frames(path, threads=1))
    found = faces.detect(frames[0])
    if not found:
        return None
    box = dlib.rectangle(*(round(side) for side in found[0].box))
    matrix = faces.crop_matrix(faces.predict_landmarks(frames[0], found[0].box))
    return Loaded(clip, frames, box, matrix, faces.warp(frames[0], matrix))


def parts(loaded: Loaded) -> dict[str, Callable[[], Any]]:
    """What to time, by name; each does its part of the work for every frame of a clip."""
    frames, path, settings = loaded.frames, loaded.clip.video, PrepareSettings()
    predictor = detection._predictor()

    def track() -> None:
        tracker = faces.FaceTracker()
        for frame in frames:
            tracker.track(frame)

    return {
        "decode": lambda: [None for _ in video.iter_frames(path, threads=1)],
        "sound": lambda: video.read_waveform(path),
        "detect": lambda: faces.detect(frames[0]),
        "predict": lambda: [predictor(frame, loaded.box) for frame in frames],
        "track": track,
        "warp": lambda: [faces.warp(frame, loaded.matrix) for frame in frames],
        "encode": lambda: [images.encode_jpeg(loaded.crop, settings.jpeg_quality) for _ in frames],
        "whole": lambda: prepare(loaded.clip, settings),
    }


def measure(clips: list[Loaded], rounds: int) -> dict[str, np.ndarray]:
    """Seconds a frame of every part: name -> (rounds, clips)."""
    seconds = {name: np.zeros((rounds, len(clips))) for name in PARTS}
    with tqdm(total=rounds * len(clips), unit="clip", desc="measuring") as progress:
        for turn, (number, loaded) in itertools.product(range(rounds), enumerate(clips)):
            for name, work in parts(loaded).items():
                gc.collect()
                begin = time.process_time()
                work()
                taken = time.process_time() - begin
                # Detection is measured on one frame: few need it.
                seconds[name][turn, number] = taken / (
                    1 if name == "detect" else len(loaded.frames)
                )
            progress.update()
    return seconds


def summarise(seconds: dict[str, np.ndarray]) -> dict[str, Any]:
    """Medians in frames a second, and the share of the limit, clip by clip and round by round."""
    limit = sum(seconds[name] for name in LIMIT)
    share = limit / seconds["whole"]
    low, high = np.percentile(share, [25, 75])
    rates = {name: float(1 / np.median(values)) for name, values in seconds.items()}
    rates["limit"] = float(1 / np.median(limit))
    return {
        "frames_per_second_per_core": {name: round(rate, 1) for name, rate in rates.items()},
        "share_of_limit": round(float(np.median(share)), 3),
        "share_of_limit_quartiles": [round(float(low), 3), round(float(high), 3)],
    }


def main() -> None:
    """Reads the flags, measures and prints a table."""
    parser = Parser(
        "python -m benchmarks.data_prep",
        "Measures data preparation: frames a second and core of each part and of the whole, and "
        "the share of decoding plus bare landmark prediction that the whole reaches.",
        "python -m benchmarks.data_prep --source=lrw/lipreading_mp4 --out=speed.json",
    )
    parser.add_argument("--source", type=Path, help="folder of videos (clips made for it)")
    parser.add_argument("--clips", type=int, default=6, help="how many videos (6)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (5)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    flags = parser.parse_args()
    for name in ("clips", "rounds"):
        if getattr(flags, name) < 1:
            parser.error(f"--{name} must be more than 0, not {getattr(flags, name)}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        if flags.source is None:
            paths = generate(Path(folder), flags.clips)
        else:
            paths = find(flags.source, flags.clips)
        clips = [loaded for path in paths if (loaded := load(path)) is not None]
        if not clips:
            raise InputError(f"none of {len(paths)} videos could be prepared")
        result = summarise(measure(clips, flags.rounds)) | {
            "clips": len(clips),
            "rounds": flags.rounds,
            "picture": [list(shape) for shape in {clip.frames[0].shape[:2] for clip in clips}],
            "source": "made for this" if flags.source is None else str(flags.source),
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        }
    for name, rate in result["frames_per_second_per_core"].items():
        print(f"{name:8s} {rate:9.1f} frames/s a core")
    low, high = result["share_of_limit_quartiles"]
    print(f"whole / limit (decode + predict): {result['share_of_limit']:.3f} ({low} to {high})")
    if flags.out is not None:
        with written_whole(flags.out) as temporary:
            temporary.write_text(json.dumps(result, indent=2) + "\n")
    where = "" if flags.out is None else f", see {flags.out}"
    taken = time.monotonic() - began
    print(f"measured {len(clips)} clips {flags.rounds} times in {taken:.0f} s{where}")


if __name__ == "__main__":
    run(main)
