"""``python -m benchmarks.train_step``: the adversarial training step, here and in PyTorch eager.

Both take the published VG-net and discriminator in float32 from the same weights through the same
steps: the discriminator's update on real and made clips, then the generator's against the updated
discriminator, Adam for both. PyTorch runs the generator twice, once for each update, as the
released code does; this package runs it once. The ways take turns in one process.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import torch
from torch.nn import functional

from atvg_jax import allocator, command_line, compilation_cache, models
from atvg_jax.benchmarking import cases, measure, timing
from atvg_jax.inference.published import to_state_dict
from atvg_jax.training.state import NetworkState, TrainState
from atvg_jax.training.steps import make_vg_step
from benchmarks import torch_networks
from tests.reference_weights import random_variables

OURS, COMPARED = "atvg_jax", "PyTorch eager, generator twice"


def parser() -> command_line.Parser:
    """The flags."""
    flags = command_line.Parser(
        "python -m benchmarks.train_step",
        "Times VG-net's adversarial training step in this package and in PyTorch eager.",
        "python -m benchmarks.train_step --rounds=5",
    )
    flags.add_argument("--batch", type=int, default=2, metavar="B", help="clips")
    flags.add_argument("--frames", type=int, default=16, metavar="T", help="frames of each")
    flags.add_argument("--rounds", type=int, default=3, metavar="N", help="steps of each way")
    flags.add_argument(
        "--warm_up",
        type=int,
        default=4,
        metavar="N",
        help="steps of each way before those that count: the first ones ask the system for memory",
    )
    flags.add_argument("--threads", type=int, default=2, metavar="N", help="of PyTorch")
    flags.add_argument(
        "--keep_freed_memory",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="as python -m atvg_jax.train does; PyTorch, in the same process, gains from it too",
    )
    return flags


class OurStep:
    """This package's step, compiled, its state donated as in training."""

    def __init__(self, variables: dict[str, Any], batch: dict[str, np.ndarray]):
        optimizer = optax.adam(*cases.ADAM)
        networks = {
            name: NetworkState(v["params"], v["batch_stats"], optimizer.init(v["params"]))
            for name, v in variables.items()
        }
        self._state = jax.device_put(TrainState(np.zeros((), np.int32), networks))
        self._batch = jax.device_put(batch)
        self._key = jax.random.key(0, impl="rbg")
        step = make_vg_step(
            models.create("vg_net"), models.create("discriminator"), optimizer, optimizer
        )
        started = time.perf_counter()
        lowered = jax.jit(step, donate_argnums=0).lower(self._state, self._batch, self._key)
        self._compiled = lowered.compile()
        self.seconds_to_compile = time.perf_counter() - started

    def memory(self) -> float:
        """MiB that the compiled step holds at once: arguments, results, everything between."""
        return measure.held(self._compiled) / measure.MIB

    def __call__(self) -> dict[str, float]:
        """One step; returns its losses."""
        self._state, metrics = self._compiled(self._state, self._batch, self._key)
        return {name: float(value) for name, value in metrics.items()}


class TorchStep:
    """The published training step."""

    def __init__(self, variables: dict[str, Any], batch: dict[str, np.ndarray]):
        def build(cls: Callable[[], torch.nn.Module], name: str, ours: str) -> torch.nn.Module:
            network = cls()
            state = to_state_dict(name, variables[ours])
            state = {key: torch.tensor(array) for key, array in state.items()}
            network.load_state_dict(state, strict=False)
            return network.train()

        self._generator = build(torch_networks.VGNet, "VG_net", "vg_net")
        self._judge = build(torch_networks.Discriminator, "GL_Discriminator", "discriminator")
        rate, b1, b2 = cases.ADAM
        self._optimizers = [
            torch.optim.Adam(network.parameters(), rate, (b1, b2))
            for network in (self._generator, self._judge)
        ]
        pixels = [
            np.moveaxis(batch[name], -1, -3) / np.float32(127.5) - 1
            for name in ("example_image", "frames")
        ]
        self._image, self._real = (torch.tensor(x.astype(np.float32)) for x in pixels)
        self._landmarks = torch.tensor(batch["landmarks"])
        self._example = torch.tensor(batch["example_landmark"])
        self._mask = torch.ones(136)
        self._mask[97::2] = 100.0  # y of the 20 mouth points

    def __call__(self) -> dict[str, float]:
        """One step; returns its losses."""
        of_generator, of_judge = self._optimizers
        inputs = self._image, self._landmarks, self._example
        made = self._generator(*inputs)
        real_terms = self._judged(self._real, 1.0)
        made_terms = self._judged(made.frames.detach(), 0.0)
        judge_loss = sum((*real_terms, *made_terms))
        of_judge.zero_grad()
        judge_loss.backward()
        of_judge.step()
        made = self._generator(*inputs)
        weight = made.attention.detach() + 0.5
        pixel = ((made.frames - self._real).abs() * weight).mean()
        loss = 10 * pixel + sum(self._judged(made.frames, 1.0))
        of_generator.zero_grad()
        loss.backward()
        of_generator.step()
        return {"d_total": judge_loss.item(), "g_pixel": pixel.item(), "g_total": loss.item()}

    def _judged(self, frames: torch.Tensor, wanted: float) -> tuple[torch.Tensor, torch.Tensor]:
        score, seen = self._judge(frames, self._example)
        adversarial = functional.binary_cross_entropy(score, torch.full_like(score, wanted))
        return adversarial, functional.mse_loss(seen * self._mask, self._landmarks * self._mask)


def main() -> None:
    """Parses the flags, measures, prints the table."""
    started = time.monotonic()
    arguments = parser().parse_args()
    torch.set_num_threads(arguments.threads)
    compilation_cache.enable()
    if arguments.keep_freed_memory:
        allocator.keep_freed_memory()
    batch = cases.vg_batch(arguments.batch, arguments.frames)
    variables = {name: random_variables(name, {}) for name in ("vg_net", "discriminator")}
    ours = OurStep(variables, batch)
    print(f"compiled in {ours.seconds_to_compile:.1f} s (less where the cache has it)")
    first = ours()
    print(
        f"{OURS}: {ours.memory():.0f} MiB by XLA's account, process at most "
        f"{measure.peak_memory():.0f} MiB"
    )
    theirs = TorchStep(variables, batch)
    expected = theirs()
    print(f"with PyTorch's step in the same process {measure.peak_memory():.0f} MiB at most")
    print(
        "first step's losses (dropout differs): "
        + ", ".join(f"{name} {first[name]:.4g} and {value:.4g}" for name, value in expected.items())
    )
    ways = {OURS: ours, COMPARED: theirs}
    timing.alternate(ways, arguments.warm_up)
    timings = timing.alternate(ways, arguments.rounds)
    print(timing.table(timings, arguments.batch * arguments.frames, COMPARED))
    across = timing.ratio(timings, COMPARED, OURS)
    print(
        f"{OURS} to {COMPARED}: {across.median:.2f} times the frames a second "
        f"({across.low:.2f} to {across.high:.2f}); {arguments.rounds} steps of {arguments.batch} x "
        f"{arguments.frames} frames each way, in {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    command_line.run(main)
