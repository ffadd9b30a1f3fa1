"""How fast clips are judged, and in how much memory.

    python -m benchmarks.evaluation [--clips=8] [--frames=250] [--workers=2]

First each metric by itself, on one core. Then clips of one portrait with noise are scored against
each other as ``python -m atvg_jax.evaluate`` scores a model's: with everything but CPBD and
landmark detection, without identity too, and with everything on. Then a process judges many clips,
and one long video is scored against itself, and a video four times as long, to see whether memory
grows.
"""

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from atvg_jax import assets, command_line
from atvg_jax.evaluate_model import Task, judge_task
from atvg_jax.evaluation import folders, identity, judge, metrics, similarity
from atvg_jax.evaluation.footage import Crops
from atvg_jax.evaluation.protocol import in_processes
from atvg_jax.features import faces, images, video

QUICK = judge.Settings(cpbd=False, landmarks=False)
PIXELS = judge.Settings(cpbd=False, landmarks=False, identity=False)
ALONE = 64  # frames that a metric is timed on by itself


def noisy(crop: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(count, 128, 128, 3) uint8 frames that all differ."""
    noise = np.random.default_rng(seed).integers(-8, 9, (count, *crop.shape), dtype=np.int16)
    return np.clip(crop + noise, 0, 255).astype(np.uint8)


def tasks(face: faces.AlignedFace, clips: int, frames: int, settings: judge.Settings) -> list[Task]:
    """Clips to judge, each with one system."""
    points = np.tile(face.landmarks.astype(np.float64), (frames, 1, 1))
    pose = np.zeros((frames, 3))
    made = []
    for number in range(clips):
        real, system = (
            Crops(noisy(face.crop, frames, 2 * number + k), points, pose) for k in (0, 1)
        )
        made.append(Task(f"clip {number}", "", real, {"system": system}, settings, None, []))
    return made


def single_metrics(face: faces.AlignedFace) -> dict[str, float]:
    """CPU milliseconds of one frame, by metric, each called by itself."""
    real, made = (noisy(face.crop, ALONE, seed) for seed in (0, 1))
    points = np.tile(face.landmarks.astype(np.float64), (ALONE, 1, 1))
    box = faces.landmark_box(face.landmarks)
    one, other = similarity.Windowed(real[0]), similarity.Windowed(made[0])
    calls: dict[str, Callable[[], object]] = {
        "PSNR": lambda: metrics.psnr(real, made),
        "PSNR mouth": lambda: metrics.mouth_psnr(real, made, points),
        "SSIM, Gaussian": lambda: metrics.ssim(real, made, "gaussian"),
        "SSIM, uniform": lambda: metrics.ssim(real, made, "uniform"),
        "SSIM, what one side takes, both windows": lambda: [
            similarity.Windowed(frame) for frame in made
        ],
        "SSIM, what a pair takes beside, both windows": lambda: [
            similarity.similarity(one, other) for _ in made
        ],
        "legacy PSNR": lambda: metrics.legacy_psnr(real, made),
        "jitter": lambda: metrics.jitter(made, points),
        "CPBD": lambda: metrics.cpbd(made),
        "landmark detection": lambda: [faces.predict_landmarks(frame, box) for frame in made],
        "identity, of one face": lambda: [
            identity.identity_descriptors(made[0], points[0]) for _ in range(ALONE // 16)
        ],
    }
    found = {}
    for name, call in calls.items():
        call()
        before = time.process_time()
        call()
        count = ALONE // 16 if name.startswith("identity") else ALONE
        found[name] = 1000 * (time.process_time() - before) / count
    return found


def measure(todo: list[Task], workers: int) -> tuple[float, float]:
    """Frames a second of all processes, and CPU seconds of one frame, without their start."""
    results = in_processes(_timed, todo, workers)
    for _ in range(workers):  # the first of each process: it also imports and loads
        next(results)
    started = time.monotonic()
    cpu = list(results)
    seconds = time.monotonic() - started
    frames = len(cpu) * len(todo[0].real.pictures)
    return frames / seconds, sum(cpu) / frames


def _timed(task: Task) -> float:
    before = time.process_time()
    judge_task(task)
    return time.process_time() - before


def many_clips(face: faces.AlignedFace, frames: int) -> tuple[float, float]:
    """Peak memory of one process after 3 clips and after 12, in MiB."""
    peaks = list(in_processes(_peak_of_task, tasks(face, 24, frames, QUICK), 2))
    return peaks[5], peaks[-1]  # two processes take turns


def _peak_of_task(task: Task) -> float:
    judge_task(task)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def long_video(folder: Path, picture: np.ndarray, frames: int) -> float:
    """Peak memory of a process that judges a video of so many frames, in MiB."""
    path = folder / f"{frames}.mp4"
    moved = (np.roll(picture, n % 7 - 3, axis=1) for n in range(frames))
    video.write_video(path, moved)
    pair = folders.Pair("long", path, path, "itself", QUICK, None)
    return next(in_processes(_peak, [pair, pair], 2))


def _peak(pair: folders.Pair) -> float:
    folders.judge_pair(pair)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measures and prints."""
    flags = command_line.Parser(
        "python -m benchmarks.evaluation", __doc__ or "", "python -m benchmarks.evaluation"
    )
    flags.add_argument("--clips", type=int, default=8, metavar="N", help="clips to judge")
    flags.add_argument("--frames", type=int, default=250, metavar="N", help="frames of each")
    flags.add_argument("--workers", type=int, default=2, metavar="N", help="processes")
    arguments = flags.parse_args()
    started = time.monotonic()
    picture = images.read_image(assets.portrait_path())
    face = faces.align(picture)
    for name, milliseconds in single_metrics(face).items():
        print(f"{name}: {milliseconds:.2f} ms of one core")
    for name, settings in (
        ("without CPBD and landmark detection", QUICK),
        ("without those and identity", PIXELS),
        ("with everything", judge.Settings()),
    ):
        todo = tasks(face, arguments.clips, arguments.frames, settings)
        rate, cpu = measure(todo, arguments.workers)
        print(
            f"{name}: {rate:.0f} frames/s of a system in {arguments.workers} processes, ground "
            f"truth and static portrait scored beside each; {1000 * cpu:.1f} ms of one core a frame"
        )
    few, many = many_clips(face, arguments.frames)
    print(f"a process that judges clips: {few:.0f} MiB at most after 3, {many:.0f} after 12")
    with tempfile.TemporaryDirectory() as folder:
        for frames in (250, 1000):
            peak = long_video(Path(folder), picture, frames)
            print(f"a video of {frames} frames against itself: {peak:.0f} MiB at most")
    print(f"measured in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    command_line.run(main)
