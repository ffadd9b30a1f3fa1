"""``python -m atvg_jax.convert``: published PyTorch checkpoints to a model directory, and back."""

import time
from pathlib import Path

from atvg_jax import command_line

FILES = {"at_net": "at", "vg_net": "vg", "discriminator": "discriminator"}


def parser() -> command_line.Parser:
    """The flags."""
    flags = command_line.Parser(
        "python -m atvg_jax.convert",
        "Makes a model directory of the published PyTorch checkpoints, and with --to_torch files "
        "of that kind of a model directory. PyTorch itself is not needed, and nothing in a file "
        "is executed.",
        "python -m atvg_jax.convert --at=atnet_lstm_18.pth --vg=generator_23.pth --basis=basics "
        "--out=runs/published\n"
        "  python -m atvg_jax.convert --to_torch --model=runs/published --out=runs/torch",
    )
    add = flags.add_argument
    add("--at", type=Path, metavar="FILE", help="AT-net or AT-single, a .pth file")
    add("--vg", type=Path, metavar="FILE", help="VG-net, a .pth file")
    add(
        "--discriminator",
        type=Path,
        metavar="FILE",
        help="the discriminator, a .pth file; kept for the way back",
    )
    add(
        "--basis",
        type=Path,
        metavar="DIR",
        help="folder of U_lrw1.npy, mean_lrw1.npy, mean_shape_img.npy, mean_shape_norm.npy, S.npy",
    )
    add("--to_torch", action="store_true", help="the way back, from --model")
    add("--model", type=Path, metavar="DIR", help="model directory to make PyTorch files of")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    return flags


def main() -> None:
    """Parses the flags, converts, says what was made."""
    started = time.monotonic()
    flags = parser()
    arguments = flags.parse_args()
    inward, outward = ("at", "vg", "basis"), ("model",)
    wanted = outward if arguments.to_torch else inward
    foreign = (*inward, "discriminator") if arguments.to_torch else outward
    if missing := [f"--{name}" for name in wanted if getattr(arguments, name) is None]:
        flags.error(f"{' and '.join(missing)} must be given")
    if extra := [f"--{name}" for name in foreign if getattr(arguments, name) is not None]:
        has = "does not go" if len(extra) == 1 else "do not go"
        flags.error(
            f"{' and '.join(extra)} {has} {'with' if arguments.to_torch else 'without'} --to_torch"
        )

    from atvg_jax.inference import model_directory, published_files

    if arguments.to_torch:
        model = model_directory.read(arguments.model, everything=True)
        files = published_files.write(model, arguments.out)
        made = ", ".join(file.name for file in files.values())
        size = sum(file.stat().st_size for file in files.values())
    else:
        given = {slot: getattr(arguments, flag) for slot, flag in FILES.items()}
        model = published_files.read(
            {slot: file for slot, file in given.items() if file is not None}, arguments.basis
        )
        model_directory.write(arguments.out, model)
        made = ", ".join(str(record["converted_from"]) for record in model.training.values())
        size = sum(file.stat().st_size for file in arguments.out.iterdir())
    print(
        f"wrote {arguments.out}: {made}, {size / 1e6:.1f} MB, in {time.monotonic() - started:.1f} s"
    )


if __name__ == "__main__":
    command_line.run(main)
