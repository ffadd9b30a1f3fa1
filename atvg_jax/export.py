"""``python -m atvg_jax.export``: two training runs to a model directory, and that to artifacts."""

import argparse
import dataclasses
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atvg_jax import command_line
from atvg_jax.errors import InputError

if TYPE_CHECKING:  # jax and the networks are only imported where they are needed
    from atvg_jax.inference import model_directory

FORMATS = ("checkpoint", "stablehlo", "savedmodel", "onnx")
PRECISIONS = ("float32", "bfloat16", "float16", "int8")


def parser() -> command_line.Parser:
    """The flags."""
    flags = command_line.Parser(
        "python -m atvg_jax.export",
        "Joins a training run of AT-net and one of VG-net into a model directory, which synthesis "
        "needs nothing beside. Averaged weights are taken where the run keeps them. With another "
        "format, makes artifacts of a model directory that run without this package, and runs "
        "them where it is not to show that they compute the same.",
        "python -m atvg_jax.export --at=runs/at --vg=runs/vg --out=runs/model\n"
        "  python -m atvg_jax.export --model=runs/model --format=onnx --out=runs/onnx",
    )
    flags.add_argument(
        "--at",
        type=Path,
        action="append",
        metavar="RUN",
        help="folder of an AT-net run; given several times, the mean of what they say is taken",
    )
    flags.add_argument("--vg", type=Path, metavar="RUN", help="folder of a VG-net run")
    flags.add_argument(
        "--model", type=Path, metavar="DIR", help="model directory to make artifacts of"
    )
    flags.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    flags.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help="what to write (checkpoint)"
    )
    flags.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="of artifacts: bfloat16 in all three formats, float16 and int8 weights in onnx "
        "(float32)",
    )
    flags.add_argument(
        "--checkpoint",
        choices=("latest", "best"),
        default="latest",
        help="of each run, the latest or the one that did best on held-out clips (latest)",
    )
    flags.add_argument(
        "--weights",
        choices=("float32", "float16"),
        default="float32",
        help="type of the parameters in the files; float16 halves them (float32)",
    )
    flags.add_argument(
        "--boost",
        type=_numbers,
        metavar="X[,X...]",
        help="what synthesis multiplies AT-net's six components by, one number or six; a network "
        "trained on little data moves too little (the basis's own)",
    )
    flags.add_argument(
        "--vg_gain",
        type=float,
        metavar="X",
        help="how much further VG-net moves a face than it learned to, as a factor; one trained on "
        "little data moves it too little (1)",
    )
    return flags


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def main() -> None:
    """Parses the flags, joins the runs or makes artifacts, says what was made."""
    started = time.monotonic()
    flags = parser()
    arguments = flags.parse_args()
    artifacts = arguments.format != FORMATS[0]
    wanted = ("model",) if artifacts else ("at", "vg")
    if missing := [f"--{name}" for name in wanted if getattr(arguments, name) is None]:
        flags.error(f"--format={arguments.format} takes {' and '.join(missing)}")
    ignored = ("at", "vg", "boost", "vg_gain") if artifacts else ("model",)
    if extra := [f"--{name}" for name in ignored if getattr(arguments, name) is not None]:
        flags.error(f"--format={arguments.format} does not take {' or '.join(extra)}")
    made = _make_artifacts(arguments) if artifacts else _join(arguments)
    print(f"wrote {arguments.out}: {made}, in {time.monotonic() - started:.1f} s")


def _join(arguments: argparse.Namespace) -> str:
    """Two runs to a model directory; says what it is."""
    # Orbax warns that a run that is only read is read-only.
    logging.getLogger("absl").setLevel(logging.ERROR)

    from atvg_jax.inference import model_directory, run_checkpoints

    model = run_checkpoints.join(arguments.at, arguments.vg, arguments.checkpoint == "best")
    if arguments.boost is not None:
        basis = model.basis.boosted(arguments.boost)
        model = dataclasses.replace(model, basis=basis)
    if arguments.vg_gain is not None:
        model = _with_gain(model, arguments.vg_gain)
    model_directory.write(arguments.out, model, arguments.weights)
    steps = ", ".join(f"{slot} at step {_steps(record)}" for slot, record in model.training.items())
    size = sum(file.stat().st_size for file in arguments.out.iterdir()) / 1e6
    return f"{steps}, {size:.1f} MB"


def _with_gain(model: "model_directory.Model", gain: float) -> "model_directory.Model":
    """The model with VG-net's movements multiplied; its record says by how much."""
    from atvg_jax.models.gain import with_landmark_gain

    vg_net = model.variables["vg_net"]
    try:
        params = with_landmark_gain(vg_net["params"], model.basis.mean, gain)
    except ValueError as error:
        raise InputError(f"--vg_gain: {error}") from error
    return dataclasses.replace(
        model,
        variables={**model.variables, "vg_net": {**vg_net, "params": params}},
        training={**model.training, "vg_net": {**model.training["vg_net"], "gain": gain}},
    )


def _steps(record: Mapping[str, Any]) -> str:
    """The step that a network's weights are of, or the steps of those whose mean it is."""
    return " and ".join(str(one["step"]) for one in record.get("mean_of", [record]))


def _make_artifacts(arguments: argparse.Namespace) -> str:
    """A model directory to artifacts; prints the figures of the proof and says what was made."""
    from atvg_jax.exporting import artifacts
    from atvg_jax.inference import model_directory

    model = model_directory.read(arguments.model)
    manifest = artifacts.write(model, arguments.format, arguments.out, arguments.precision)
    proof = manifest["parity"]
    for piece, difference in proof["largest_difference"].items():
        name = "one portrait and fewer frames" if piece == "fewer" else piece
        print(f"{name}: differs from the model by {difference:.1e} at most")
    size = sum(file["bytes"] for file in manifest["files"].values()) / 1e6
    psnr = proof["frames_psnr_db"]
    likeness = "the model's frames" if psnr is None else f"frames at {psnr} dB of the model's"
    return f"{arguments.format} in {arguments.precision}, {likeness}, {size:.1f} MB"


if __name__ == "__main__":
    command_line.run(main)
