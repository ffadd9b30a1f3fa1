"""Proof that artifacts compute what the model does, in a process that has not this package."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from atvg_jax import assets
from atvg_jax.errors import InputError
from atvg_jax.exporting import fresh_process
from atvg_jax.exporting.pieces import Piece
from atvg_jax.features import audio, faces, images, landmarks, lips, video
from atvg_jax.inference.model_directory import Model

TOLERANCE = 1e-4  # largest difference of any number, in float32
BATCH, FRAMES = 3, 4  # twice fresh_process.FEWER: one size of step to compile
_FIRST_FRAMES = (20, 40, 60)  # of the bundled speech, for each of the batch
_PEAK = 2.0  # pixels reach from -1 to 1
_SECONDS = 3600


class Parity(NamedTuple):
    """What the comparison found.

    Attributes:
        differences: largest absolute difference to the model by ``PIECE/NAME``.
        psnr: of the frames against the model's in float32, dB; None where they are the same.
        versions: of what the artifacts ran on.
    """

    differences: dict[str, float]
    psnr: float | None
    versions: dict[str, str]


def inputs(model: Model) -> dict[str, np.ndarray]:
    """Bundled portraits and speech: ``image``, ``shape`` and ``mfcc`` of BATCH and FRAMES."""
    facts = json.loads(assets.portrait_facts_path().read_text(encoding="utf-8"))
    crops, shapes = [], []
    for name in assets.PORTRAITS:
        image = images.read_image(assets.portrait_path(name))
        aligned = faces.align(image, np.asarray(facts[name]["landmarks"], np.float32))
        crops.append(aligned.crop)
        shapes.append(model.basis.normaliser.normalise(aligned.landmarks[None])[0])
    # A third person: the first one's shape on the mirrored second.
    crops.append(crops[1][:, ::-1])
    shapes.append(shapes[0])
    waveform = video.read_waveform(assets.speech_path(), audio.SAMPLE_RATE)
    windows = audio.windows(waveform, audio.SAMPLE_RATE)
    return {
        "image": np.stack(crops).astype(np.float32) / 127.5 - 1,
        "shape": np.stack(shapes).astype(np.float32),
        "mfcc": np.stack([windows[first : first + FRAMES] for first in _FIRST_FRAMES]),
    }


def expected(model: Model, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the networks themselves make of the inputs, in float32 on a CPU."""
    basis, variables = model.basis, model.variables
    at_net, vg_net = (model.networks[slot].create() for slot in ("at_net", "vg_net"))
    components = basis.encode(given["shape"])
    example = basis.decode(components)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        heard = () if model.networks["at_net"].name == "at_single" else (components,)
        spoken = jax.jit(at_net.apply)(variables["at_net"], *heard, given["mfcc"])
        values = lips.apart(basis.decode(np.asarray(spoken) * basis.boost), basis)
        seen = jax.jit(vg_net.apply)(variables["vg_net"], given["image"], values, example)
    made = {
        "landmarks": landmarks.from_model(values),
        "frames": np.asarray(seen.frames),
        "attention": np.asarray(seen.attention[..., 0]),
        "motion": np.asarray(seen.motion),
    }
    one, few = slice(0, 1), slice(0, fresh_process.FEWER)
    return {
        "portrait/components": components,
        "landmarks/landmarks": made["landmarks"],
        **{f"frames/{name}": made[name] for name in ("frames", "attention", "motion")},
        **{f"step/{name}": array for name, array in made.items()},
        **{f"fewer/{name}": array[one, few] for name, array in made.items()},
    }


def run(
    form: str, folder: Path, given: Mapping[str, np.ndarray], pieces: Mapping[str, Piece]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What the artifacts make of the inputs in a process of their own, and its versions.

    Raises:
        InputError: the process failed; its last line is the message.
    """
    states = {
        name: tensor.shape[1:]
        for name, tensor in pieces["step"].inputs.items()
        if name.endswith("_state")
    }
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "inputs.npz", Path(scratch) / "outputs.npz"
        arrays: dict[str, Any] = {**given, "states": json.dumps(states)}
        np.savez(source, **arrays)
        command = [sys.executable, "-I", fresh_process.__file__, form, folder.absolute()]
        done = subprocess.run(
            [str(part) for part in (*command, source, target)],
            cwd=scratch,
            env=_environment(form),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
            raise InputError(f"the {form} artifacts do not run: {last}")
        with np.load(target, allow_pickle=False) as file:
            made = {name: file[name] for name in file.files}
    return made, json.loads(str(made.pop("versions")))


def _environment(form: str) -> dict[str, str]:
    """Of the process: a CPU, and no XLA flags of this JAX's for another XLA, which dies of them."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if form != "stablehlo":
        environment.pop("XLA_FLAGS", None)
    return environment


def prove(
    model: Model, form: str, folder: Path, pieces: Mapping[str, Piece], precision: str
) -> Parity:
    """Runs artifacts in a fresh process and compares them with the model.

    Args:
        model: in memory.
        form: stablehlo, savedmodel or onnx.
        folder: that holds the artifacts.
        pieces: what they are.
        precision: of the artifacts; below float32 the differences are reported and not judged.

    Raises:
        InputError: the artifacts do not run, or differ by more than ``TOLERANCE``.
    """
    given = inputs(model)
    wanted = expected(model, given)
    made, versions = run(form, folder, given, pieces)
    differences = {name: _difference(made[name], array) for name, array in wanted.items()}
    if precision == "float32":
        beyond = [f"{name} by {off:.1e}" for name, off in differences.items() if off > TOLERANCE]
        if beyond:
            raise InputError(
                f"the {form} artifacts differ from the model by more than {TOLERANCE:g}: "
                + ", ".join(beyond)
            )
    error = float(np.mean((made["step/frames"] - wanted["step/frames"]) ** 2, dtype=np.float64))
    psnr = round(10 * math.log10(_PEAK**2 / error), 2) if error else None
    return Parity(differences, psnr, versions)


def _difference(made: np.ndarray, wanted: np.ndarray) -> float:
    if made.shape != wanted.shape or not np.isfinite(made).all():
        return float("inf")
    return float(np.abs(made - wanted).max())


def summary(parity: Parity) -> dict[str, Any]:
    """For the manifest and for people: difference by piece, PSNR of the frames."""
    by_piece: dict[str, float] = {}
    for name, difference in parity.differences.items():
        piece = name.partition("/")[0]
        by_piece[piece] = max(by_piece.get(piece, 0.0), difference)
    return {"largest_difference": by_piece, "frames_psnr_db": parity.psnr}
