"""``python -m benchmarks.golden_gradients``: what float32 determines of the golden gradient norms.

The golden training step is run in PyTorch in several ways that differ in nothing but rounding, and
in float64. Each is compared with the golden norms and with float64.
"""

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from atvg_jax import command_line
from atvg_jax.whole_files import written_whole
from benchmarks import torch_networks
from tests.reference_weights import state_dict

TOLERANCE = 1e-3
LANDMARK_MASK = np.ones(136)
LANDMARK_MASK[97::2] = 100.0  # y of the 20 mouth points

VARIANTS: dict[str, dict[str, Any]] = {
    "float64": {"dtype": torch.float64},
    "float32": {},
    "float32, one thread": {"threads": 1},
    "float32, without oneDNN": {"mkldnn": False},
    "float32, channels last": {"channels_last": True},
    "float32, one time step at a time": {"each_frame": torch_networks.in_turn},
    "float32, judge of float64": {"judge": "float64"},
}


class Step(NamedTuple):
    """Norms of one step's gradients by published name, and the discriminator after its update."""

    generator: dict[str, float]
    discriminator: dict[str, float]
    judge: dict[str, torch.Tensor]


def parser() -> command_line.Parser:
    """The flags."""
    flags = command_line.Parser(
        "python -m benchmarks.golden_gradients",
        "Runs the golden training step in PyTorch in float64 and in several float32 ways, and "
        "counts the gradient norms that agree to 1e-3.",
        "python -m benchmarks.golden_gradients --reference=../shared/reference",
    )
    flags.add_argument("--reference", type=Path, required=True, metavar="DIR")
    flags.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="write the float64 norms of the generator's gradient against the discriminator as "
        "it is before its update, and do nothing else",
    )
    return flags


def golden_step(
    reference: Path,
    dtype: torch.dtype = torch.float32,
    threads: int = 2,
    mkldnn: bool = True,
    channels_last: bool = False,
    each_frame: torch_networks.EachFrame = torch_networks.folded,
    judge: dict[str, torch.Tensor] | None = None,
    judge_stands_still: bool = False,
) -> Step:
    """One discriminator step and the generator's gradient, from the golden weights and inputs.

    Args:
        reference: folder of the golden numbers.
        dtype: of everything.
        threads: for PyTorch.
        mkldnn: whether convolutions may use oneDNN.
        channels_last: memory layout of the convolutions.
        each_frame: time folded into the batch, or a step at a time.
        judge: the discriminator that the generator faces instead of the updated one.
        judge_stands_still: the generator faces the discriminator as it was before its update.
    """
    torch.set_num_threads(threads)
    torch.backends.mkldnn.enabled = mkldnn  # type: ignore[assignment]
    layouts = json.loads((reference / "layouts.json").read_text())

    def build(cls: Callable[..., torch.nn.Module], name: str) -> torch.nn.Module:
        model = cls(each_frame=each_frame)
        weights = {key: torch.tensor(array) for key, array in state_dict(layouts[name]).items()}
        model.load_state_dict(weights, strict=True)
        model = model.eval().to(dtype)
        return model.to(memory_format=torch.channels_last) if channels_last else model

    generator = build(torch_networks.VGNet, "VG_net")
    discriminator = build(torch_networks.Discriminator, "GL_Discriminator")
    inputs = np.load(reference / "train_step.npz", allow_pickle=False)
    image, real, landmarks, example = (
        torch.tensor(inputs[name].astype(np.float64)).to(dtype)
        for name in ("example_image", "target_frames", "target_landmarks", "example_landmark")
    )
    mask = torch.tensor(LANDMARK_MASK).to(dtype)

    def judged(frames: torch.Tensor, wanted: float) -> torch.Tensor:
        score, seen = discriminator(frames, example)
        adversarial = functional.binary_cross_entropy(score, torch.full_like(score, wanted))
        return adversarial + functional.mse_loss(seen * mask, landmarks * mask)

    made = generator(image, landmarks, example)
    (judged(real, 1.0) + judged(made.frames.detach(), 0.0)).backward()
    discriminator_norms = _norms(discriminator)
    if judge is not None:
        discriminator.load_state_dict(judge)
    elif not judge_stands_still:
        torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999)).step()
    weight = made.attention.detach() + 0.5
    pixel = ((made.frames - real).abs() * weight).mean()
    (10 * pixel + judged(made.frames, 1.0)).backward()
    after = {name: array.detach().clone() for name, array in discriminator.state_dict().items()}
    return Step(_norms(generator), discriminator_norms, after)


def _norms(model: torch.nn.Module) -> dict[str, float]:
    return {
        name: 0.0 if parameter.grad is None else parameter.grad.double().norm().item()
        for name, parameter in model.named_parameters()
    }


def agreement(norms: dict[str, float], expected: dict[str, float]) -> str:
    """How many norms are within the tolerance of the expected ones, and the worst error."""
    errors = [abs(norms[name] - value) / (value or 1) for name, value in expected.items()]
    return f"{sum(error < TOLERANCE for error in errors):3d}/{len(errors)} {max(errors):8.1e}"


def main() -> None:
    """Parses the flags, runs the variants, prints the table or writes the norms."""
    started = time.monotonic()
    arguments = parser().parse_args()
    if not (arguments.reference / "train_step.json").is_file():
        command_line.fail(f"{arguments.reference} holds no train_step.json")
    run = functools.partial(golden_step, arguments.reference)
    if arguments.write:
        norms = run(dtype=torch.float64, judge_stands_still=True).generator
        with written_whole(arguments.write) as path:
            path.write_text(json.dumps(norms, indent=0) + "\n")
        seconds = time.monotonic() - started
        print(f"wrote {arguments.write}: {len(norms)} norms in {seconds:.0f} s")
        return
    golden = json.loads((arguments.reference / "train_step.json").read_text())
    steps: dict[str, Step] = {}
    for name, settings in tqdm(VARIANTS.items(), desc="variants"):
        if "judge" in settings:
            exact = steps[settings["judge"]].judge
            settings = {"judge": {key: _single(array) for key, array in exact.items()}}
        steps[name] = run(**settings)
    print(f"norms within {TOLERANCE:g}, and the worst relative error, of")
    print(f"{'':34}{'the golden generator':24}{'float64 generator':24}the golden discriminator")
    for name, step in steps.items():
        print(
            f"{name:34}{agreement(step.generator, golden['generator_grad_norms']):24}"
            f"{agreement(step.generator, steps['float64'].generator):24}"
            f"{agreement(step.discriminator, golden['discriminator_grad_norms'])}"
        )
    print(f"compared {len(steps)} variants in {time.monotonic() - started:.0f} s")


def _single(array: torch.Tensor) -> torch.Tensor:
    return array.float() if array.is_floating_point() else array


if __name__ == "__main__":
    command_line.run(main)
