"""``python -m atvg_jax.export``: two training runs to one self-contained model directory."""

import dataclasses
import logging
import time
from pathlib import Path

from atvg_jax import command_line

FORMATS = ("checkpoint",)


def parser() -> command_line.Parser:
    """The flags."""
    flags = command_line.Parser(
        "python -m atvg_jax.export",
        "Joins a training run of AT-net and one of VG-net into a model directory, which synthesis "
        "needs nothing beside. Averaged weights are taken where the run keeps them.",
        "python -m atvg_jax.export --at=runs/at --vg=runs/vg --out=runs/model",
    )
    flags.add_argument(
        "--at", type=Path, required=True, metavar="RUN", help="folder of an AT-net run"
    )
    flags.add_argument(
        "--vg", type=Path, required=True, metavar="RUN", help="folder of a VG-net run"
    )
    flags.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="model directory to write"
    )
    flags.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="what to write")
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
    return flags


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def main() -> None:
    """Parses the flags, joins the runs, says what was made."""
    started = time.monotonic()
    arguments = parser().parse_args()
    # Orbax warns that a run that is only read is read-only.
    logging.getLogger("absl").setLevel(logging.ERROR)

    from atvg_jax.inference import model_directory, run_checkpoints

    model = run_checkpoints.join(arguments.at, arguments.vg, arguments.checkpoint == "best")
    if arguments.boost is not None:
        basis = model.basis.boosted(arguments.boost)
        model = dataclasses.replace(model, basis=basis)
    model_directory.write(arguments.out, model, arguments.weights)
    steps = ", ".join(f"{slot} at step {record['step']}" for slot, record in model.training.items())
    size = sum(file.stat().st_size for file in arguments.out.iterdir()) / 1e6
    print(f"wrote {arguments.out}: {steps}, {size:.1f} MB, in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    command_line.run(main)
