"""How soon a portrait speaks: start-up by part, latency of a live sound, memory over a long one.

``python -m benchmarks.live [--model=MODEL] [--seconds=20] [--minutes=0]``

- Start-up: what passes, in a process of its own whose compilation cache is warm, from the command
  to the first frame.
- Latency: the bundled speech arrives in pieces of 20 ms, as from a microphone. A frame's time is
  from the arrival of the last sample it can see to the moment it is yielded.
- Memory: of this process, minute by minute, over so many minutes of sound as fast as it goes.
"""

import itertools
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from atvg_jax import assets, compilation_cache
from atvg_jax.benchmarking.timing import spread
from atvg_jax.command_line import Parser, run
from atvg_jax.errors import InputError
from atvg_jax.features import audio, images, sound
from atvg_jax.inference.talking_face import BUNDLED_MODEL, TalkingFace
from benchmarks.data_prep_memory import FLAT

PIECE = 320
"""Samples that arrive at once: 20 ms."""

SEEN = (audio.WINDOW_ROWS - 1) * audio.STEP + audio.WIDTH - audio.PADDING
"""Samples from a frame's beginning that it sees: 2800, 175 ms."""

START_UP = """
import time; began = float({began!r}); marks = [("Python", time.time() - began)]
def mark(name): marks.append((name, time.time() - began))
import numpy, jax, flax; mark("import numpy, jax, flax")
from atvg_jax import compilation_cache
from atvg_jax.features import images, sound
from atvg_jax.inference.talking_face import TalkingFace; mark("import atvg_jax")
compilation_cache.enable()
face = TalkingFace.load({model!r}); mark("read the model")
picture = images.read_image({image!r}); mark("read the portrait")
aligned = face.align(picture); mark("import dlib, find the face")
waveform, rate = sound.read({speech!r}); mark("read the sound")
next(iter(face.moments(aligned, [waveform], rate, live=False)))
mark("read programs from the cache, make 32 frames")
for name, seconds in marks: print(f"{{seconds}} {{name}}")
"""


def start_up(model: Path) -> list[tuple[str, float]]:
    """Name and seconds of each part, to the first frames."""
    image, speech = str(assets.portrait_path()), str(assets.speech_path())
    for _ in range(2):  # the first fills the compilation cache
        code = START_UP.format(began=str(time.time()), model=str(model), image=image, speech=speech)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"start-up failed: {done.stderr.strip().splitlines()[-1]}")
    until = [line.split(" ", 1) for line in done.stdout.splitlines()]
    times = [0.0, *(float(seconds) for seconds, _ in until)]
    return [
        (name, b - a) for (_, name), (a, b) in zip(until, itertools.pairwise(times), strict=True)
    ]


def latencies(face: TalkingFace, aligned: object, speech: np.ndarray) -> list[float]:
    """Seconds from the last sample that a frame sees to that frame, of every frame."""
    arrived: list[float] = []  # of each piece

    def microphone() -> Iterator[np.ndarray]:
        began = time.perf_counter()
        for number in range(len(speech) // PIECE):
            time.sleep(max(0.0, began + number * PIECE / audio.SAMPLE_RATE - time.perf_counter()))
            arrived.append(time.perf_counter())
            yield speech[number * PIECE : (number + 1) * PIECE]

    delays = []
    for number, _ in enumerate(face.stream(aligned, microphone(), audio.SAMPLE_RATE)):
        last = number * audio.SAMPLES_PER_FRAME + SEEN - 1
        if last // PIECE < len(arrived):  # the last frames end with the sound, not with a window
            delays.append(time.perf_counter() - arrived[last // PIECE])
    return delays


def memory(face: TalkingFace, aligned: object, speech: np.ndarray, minutes: int) -> list[float]:
    """MiB in use after each minute of sound."""
    second = itertools.cycle(np.array_split(speech, len(speech) // audio.SAMPLE_RATE))
    chunks = itertools.islice(second, 60 * minutes)
    sizes = []
    frames = face.stream(aligned, chunks, audio.SAMPLE_RATE)
    for number, _ in enumerate(tqdm(frames, total=1500 * minutes, unit="frame"), 1):
        if number % 1500 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append(pages * resource.getpagesize() / 2**20)
    return sizes


def main() -> None:
    """Reads the flags and runs."""
    parser = Parser(
        "python -m benchmarks.live",
        "Start-up, latency and memory of a portrait that speaks while the sound arrives.",
        "python -m benchmarks.live --minutes=60",
    )
    parser.add_argument("--model", type=Path, default=BUNDLED_MODEL, help="default: the bundled")
    parser.add_argument("--seconds", type=int, default=20, help="of live sound (20)")
    parser.add_argument("--minutes", type=int, default=0, help="of sound to watch memory over (0)")
    flags = parser.parse_args()
    compilation_cache.enable()
    parts = start_up(flags.model)
    for name, seconds in parts:
        print(f"{seconds:6.2f} s  {name}")
    print(f"{sum(seconds for _, seconds in parts):6.2f} s  from the command to the first frames")
    face = TalkingFace.load(flags.model)
    aligned = face.align(images.read_image(assets.portrait_path()))
    waveform, rate = sound.read(assets.speech_path())
    speech = np.tile(audio.resample(waveform, rate), 1 + flags.seconds // 7)
    speech = speech[: flags.seconds * audio.SAMPLE_RATE]
    list(face.stream(aligned, [speech[: audio.SAMPLE_RATE]], audio.SAMPLE_RATE))  # compiles
    delays = [1000 * delay for delay in latencies(face, aligned, speech)]
    middle = spread(delays[1:])
    print(
        f"latency after the last sample: first frame {delays[0]:.0f} ms, then median "
        f"{middle.median:.0f} ms [{middle.low:.0f}-{middle.high:.0f}], most {max(delays[1:]):.0f}"
    )
    if flags.minutes:
        sizes = memory(face, aligned, speech, flags.minutes)
        halves = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
        first, second = (statistics.median(half) for half in halves)
        print(
            f"{flags.minutes} minutes of sound: {first:.0f} MiB in the first half, {second:.0f} "
            f"in the second, {'flat' if second < (1 + FLAT) * first else 'NOT flat'}"
        )


if __name__ == "__main__":
    run(main)
