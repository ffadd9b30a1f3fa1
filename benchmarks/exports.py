"""Artifacts beside ``synthesize``, in one run: python -m benchmarks.exports --model=DIR --onnx=DIR

Everything is measured in turn, round after round, so that what else the machine does falls on all
alike; figures are medians. One portrait, 16 frames in a call, as ``synthesize`` makes them.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from atvg_jax import command_line
from atvg_jax.benchmarking import timing
from atvg_jax.exporting import fresh_process, parity, pieces
from atvg_jax.inference import engine, model_directory

FRAMES = engine.WHOLE[-1]
FORMS = ("onnx", "stablehlo", "savedmodel")


def parser() -> command_line.Parser:
    """The flags."""
    flags = command_line.Parser(
        "python -m benchmarks.exports",
        "Times the pieces of exported models beside synthesize's own, on this machine's CPU.",
        "python -m benchmarks.exports --model=runs/model --onnx=runs/onnx --stablehlo=runs/hlo",
    )
    flags.add_argument("--model", type=Path, required=True, metavar="DIR")
    for form in FORMS:
        flags.add_argument(f"--{form}", type=Path, metavar="DIR", help=f"the model as {form}")
    flags.add_argument("--rounds", type=int, default=7)
    return flags


def own_calls(model: model_directory.Model, given: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """What ``synthesize`` runs."""
    own = engine.Engine(model)
    crop = np.round((given["image"][0] + 1) * 127.5).astype(np.uint8)
    windows = given["mfcc"][0]
    portrait = own.portrait(crop, given["shape"][0])
    silent = own.portrait(crop, given["shape"][0], landmarks_only=True)
    return {
        "portrait": lambda: jax.block_until_ready(own.portrait(crop, given["shape"][0])),
        "landmarks": lambda: own.run(silent, windows, own.start(silent)),
        "step": lambda: own.run(portrait, windows, own.start(portrait)),
    }


def artifact_calls(
    form: str, folder: Path, model: model_directory.Model, given: dict[str, Any]
) -> dict[str, Callable[[], Any]]:
    """A call of every piece of one format, results brought to NumPy."""
    call, _ = fresh_process.runner(form, folder)

    def run(name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        return {key: np.asarray(value) for key, value in call(name, inputs).items()}

    image = given["image"][:1]
    portrait_inputs = {"image": image, "landmarks": given["shape"][:1]}
    features = run("portrait", portrait_inputs)
    components = features.pop("components")
    heard = {"components": components, "mfcc": given["mfcc"][:1]}
    seen = {"image": image, **features}
    shapes = run("landmarks", heard)
    sizes = pieces.sized(pieces.pieces(model)["step"].inputs, 1, FRAMES)
    state = {
        name: np.zeros(size, np.float32) for name, size in sizes.items() if name.endswith("_state")
    }
    return {
        "portrait": lambda: run("portrait", portrait_inputs),
        "landmarks": lambda: run("landmarks", heard),
        "frames": lambda: run("frames", {**seen, **shapes}),
        "step": lambda: run("step", {**heard, **seen, **state}),
    }


def main() -> None:
    """Measures and prints a table."""
    arguments = parser().parse_args()
    model = model_directory.read(arguments.model)
    given = parity.inputs(model)
    given["mfcc"] = np.tile(given["mfcc"], (1, FRAMES // parity.FRAMES, 1, 1))
    calls = {"synthesize": own_calls(model, given)}
    for form in FORMS:
        if folder := getattr(arguments, form):
            calls[form] = artifact_calls(form, folder, model, given)
    taken: dict[tuple[str, str], list[float]] = {}
    for turn in tqdm(range(arguments.rounds + 1), desc="rounds"):
        for form, functions in calls.items():
            for name, function in functions.items():
                seconds, _ = timing.once(function)
                if turn:  # the first round compiles
                    taken.setdefault((form, name), []).append(seconds)
    print("| | portrait, ms | landmarks, ms a frame | frames, ms a frame | step, ms a frame |")
    print("|---|---|---|---|---|")
    for form in calls:
        cells = []
        for name in pieces.PIECES:
            if (form, name) not in taken:
                cells.append("")
                continue
            seconds = statistics.median(taken[form, name])
            # Three digits of whatever it is: a tiny network takes microseconds a frame.
            cells.append(f"{1e3 * seconds / (1 if name == 'portrait' else FRAMES):.3g}")
        print(f"| {form} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    command_line.run(main)
