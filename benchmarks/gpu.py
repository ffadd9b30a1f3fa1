"""``python -m benchmarks.gpu``: VG-net's training step on a GPU: is it right, how fast, how full?

Four things, each a table on the terminal and a part of ``gpu.json``:

- one step there against the same step on the CPU in float32: losses and both gradients;
- step time by batch in float32, TF32 and bfloat16, frames a second, memory by XLA's account;
- the share that this is of what large matrix products reach on the same chip, same precision;
- the share of a step spent waiting for data (with ``--data``, a prepared data set).

It needs no TensorFlow and no PyTorch, and runs on a CPU with small sizes too.
"""

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from atvg_jax import command_line, compilation_cache
from atvg_jax.benchmarking import cases, measure, timing
from atvg_jax.benchmarking.points import Point
from atvg_jax.data.pipeline import Augmentation, ClipWindows, Reading, TrainBatches, Windows
from atvg_jax.errors import InputError
from atvg_jax.training import parallel
from atvg_jax.whole_files import written_whole

Numbers = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Precision:
    """A way to compute, and how far from the CPU's float32 a step may be.

    Attributes:
        dtype: compute dtype of the networks.
        products: ``jax.default_matmul_precision`` of what is float32.
        tolerance: relative error of the losses and of the gradients' norms.
        direction: relative distance of the gradients themselves.
    """

    dtype: str
    products: str
    tolerance: float
    direction: float


# Bits of the significand: 24, 11, 8. Errors grow by some hundred through VG-net's 40 layers.
PRECISIONS = {
    "float32": Precision("float32", "float32", 2e-3, 1e-2),
    "tf32": Precision("float32", "tensorfloat32", 3e-2, 1e-1),
    "bfloat16": Precision("bfloat16", "tensorfloat32", 1e-1, 5e-1),
}
MATRIX = 8192  # side of the matrices whose product is the measure of what the chip can do
STEPS_A_ROUND = 5  # begun without waiting for the one before, as in training


def parser() -> command_line.Parser:
    """The flags."""
    flags = command_line.Parser(
        "python -m benchmarks.gpu",
        "Checks VG-net's training step on this machine's first device against the CPU, and "
        "measures it by batch and precision.",
        "python -m benchmarks.gpu --out=gpu --data=datasets/lrw",
    )
    add = flags.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder for gpu.json")
    add("--data", type=Path, metavar="DIR", help="prepared data set, to measure the input wait")
    add("--width", type=float, default=1.0, metavar="W", help="of both networks (1)")
    add("--batch", nargs="+", type=int, default=[1, 2, 4, 8, 16], metavar="B", help="1 2 4 8 16")
    add("--frames", type=int, default=16, metavar="T", help="of each clip (16)")
    add("--rounds", type=int, default=5, metavar="N", help=f"of {STEPS_A_ROUND} steps each (5)")
    add(
        "--precision",
        nargs="+",
        choices=tuple(PRECISIONS),
        default=tuple(PRECISIONS),
        metavar="NAME",
        help="of " + ", ".join(PRECISIONS),
    )
    add("--matrix", type=int, default=MATRIX, metavar="N", help=f"side of the product ({MATRIX})")
    return flags


def compare(point: Point, precision: Precision, exact: Numbers | None) -> tuple[Numbers, bool]:
    """One step's losses and gradients; with ``exact``, how far they are from those.

    Args:
        point: the step; its ``precision`` is a compute dtype.
        precision: how to compute and what to tolerate.
        exact: from the CPU, or None to get these.
    """
    device = jax.devices("cpu")[0] if exact is None else jax.devices()[0]
    # Gradients as the optimizer's state; the networks hardly move, so that rounding in the
    # discriminator's update is not multiplied by the landmark loss's 10,000.
    optimizer = optax.chain(optax.trace(decay=0.0), optax.scale(-1e-6))
    step, arguments = cases.vg_step(point, optimizer, frozen_statistics=True)
    arguments = jax.device_put(arguments, device)
    with jax.default_matmul_precision(precision.products):
        after, metrics = jax.jit(step)(*arguments)
    found = {
        "metrics": {name: float(value) for name, value in metrics.items()},
        "gradients": {
            name: jax.device_get(part.opt_state[0].trace) for name, part in after.networks.items()
        },
    }
    if exact is None:
        return found, True
    errors = {
        name: abs(found["metrics"][name] - value) / (abs(value) or 1)
        for name, value in exact["metrics"].items()
    }
    errors |= {
        f"{name} gradient": _distance(found["gradients"][name], gradient)
        for name, gradient in exact["gradients"].items()
    }
    allowed = {
        name: precision.direction if name.endswith(" gradient") else precision.tolerance
        for name in errors
    }
    return errors, all(errors[name] <= allowed[name] for name in errors)


def _distance(tree: Any, exact: Any) -> float:
    """Norm of the difference over the norm."""
    pairs = list(zip(jax.tree.leaves(tree), jax.tree.leaves(exact), strict=True))
    difference = sum(np.square(np.float64(a) - b).sum() for a, b in pairs)
    return float(np.sqrt(difference / sum(np.square(np.float64(b)).sum() for _, b in pairs)))


def product_rate(name: str, side: int, rounds: int) -> float:
    """Operations a second of a large matrix product, the best of some rounds."""
    precision = PRECISIONS[name]
    dtype = jnp.dtype(precision.dtype)
    a, b = (jax.random.normal(jax.random.key(n), (side, side), dtype) for n in (0, 1))

    @jax.jit
    def products(a: jax.Array, b: jax.Array) -> jax.Array:
        for _ in range(STEPS_A_ROUND):
            a = (a @ b) * jnp.asarray(side**-0.5, dtype)
        return a

    with jax.default_matmul_precision(precision.products):
        jax.block_until_ready(products(a, b))
        timings = timing.alternate({name: lambda: jax.block_until_ready(products(a, b))}, rounds)
    return STEPS_A_ROUND * 2 * side**3 / min(timings[name].wall)


def step_time(point: Point, name: str, rounds: int) -> Numbers:
    """One batch's numbers: seconds of a step, frames a second, operations, memory."""
    function, arguments = cases.vg_step(point)
    state, batch, key = jax.device_put(arguments, jax.devices()[0])
    with jax.default_matmul_precision(PRECISIONS[name].products):
        lowered = jax.jit(function, donate_argnums=0).lower(state, batch, key)
        started = time.perf_counter()
        compiled = lowered.compile()
    compiling = time.perf_counter() - started

    def some() -> None:
        nonlocal state
        for _ in range(STEPS_A_ROUND):
            state, metrics = compiled(state, batch, key)
        jax.block_until_ready(metrics)

    some()
    seconds = timing.spread(
        [t / STEPS_A_ROUND for t in timing.alternate({"": some}, rounds)[""][0]]
    )
    operations = float((lowered.cost_analysis() or {}).get("flops", 0.0))
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "batch": point.batch,
        "seconds": seconds._asdict(),
        "frames_per_second": point.made / seconds.median,
        "operations_per_second": operations / seconds.median,
        "compile_seconds": compiling,
        "program_mib": measure.held(compiled) / measure.MIB,
        "peak_mib": stats.get("peak_bytes_in_use", 0) / measure.MIB or None,
    }


def input_wait(data: Path, point: Point, steps_taken: int) -> Numbers:
    """Share of the time that steps wait for a data set's batches, as a training run reads them."""
    windows = ClipWindows(str(data), "train", Windows("vg_net", point.frames))
    batches = TrainBatches(windows, point.batch, 0, Augmentation(flip=0.5), Reading(4, 4))
    devices = parallel.Devices(1)
    function, (state, _, key) = cases.vg_step(point, axis_name=parallel.AXIS)
    step, state = devices.train_step(function), devices.replicate(state)
    feed = devices.prefetch((batch, None) for batch in batches)
    state, metrics = step(state, next(feed)[0], key)
    jax.block_until_ready(metrics)
    waited, started = 0.0, time.perf_counter()
    for _ in range(steps_taken):
        before = time.perf_counter()
        batch, _ = next(feed)
        waited += time.perf_counter() - before
        state, metrics = step(state, batch, key)
        jax.block_until_ready(metrics)
    seconds = time.perf_counter() - started
    return {"batch": point.batch, "steps": steps_taken, "seconds": seconds, "waited": waited}


def _exhausted(error: Exception) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower()


def measured_by_batch(
    arguments: argparse.Namespace, name: str, say: Callable[[str], None]
) -> list[Numbers]:
    """Step times of one precision, batch by batch until one does not fit."""
    found = []
    for batch in sorted(arguments.batch):
        point = _point(arguments, batch, name)
        try:
            numbers = step_time(point, name, arguments.rounds)
        except jax.errors.JaxRuntimeError as error:
            if not _exhausted(error):
                raise
            say(f"{name:>9} {batch:6d}  does not fit into memory")
            break
        numbers["precision"] = name
        found.append(numbers)
        seconds = numbers["seconds"]
        say(
            f"{name:>9} {batch:6d} {1e3 * seconds['median']:10.1f} ms "
            f"[{1e3 * seconds['low']:.1f}-{1e3 * seconds['high']:.1f}] "
            f"{numbers['frames_per_second']:9.1f} frames/s {numbers['program_mib']:8.0f} MiB, "
            f"compiled in {numbers['compile_seconds']:.0f} s"
        )
    return found


def _point(arguments: argparse.Namespace, batch: int, name: str) -> Point:
    dtype = PRECISIONS[name].dtype
    return Point("vg_step", arguments.width, batch, arguments.frames, dtype)


def main() -> None:
    """Parses the flags, checks, measures, writes gpu.json."""
    started = time.monotonic()
    arguments = parser().parse_args()
    if min(*arguments.batch, arguments.frames, arguments.rounds, arguments.matrix) < 1:
        raise InputError("--batch, --frames, --rounds and --matrix must be at least 1")
    compilation_cache.enable()
    content: Numbers = {"environment": measure.environment(), "agreement": {}, "steps": []}
    device = content["environment"]["device"]
    say = functools.partial(tqdm.write)
    say(f"{device}, jax {content['environment']['versions']['jax']}")
    smallest = min(arguments.batch)
    exact, _ = compare(_point(arguments, smallest, "float32"), PRECISIONS["float32"], None)
    good = True
    for name in tqdm(arguments.precision, desc="precisions", leave=False):
        errors, agrees = compare(_point(arguments, smallest, name), PRECISIONS[name], exact)
        good &= agrees
        worst = max(errors, key=errors.__getitem__)
        gradients = ", ".join(f"{k} {v:.1e}" for k, v in errors.items() if k.endswith(" gradient"))
        say(
            f"{name:>9} against the CPU's float32: {'agrees' if agrees else 'DOES NOT AGREE'}; "
            f"{gradients}; worst {worst} {errors[worst]:.1e}"
        )
        content["agreement"][name] = {"agrees": agrees, "relative_errors": errors}
        peak = product_rate(name, arguments.matrix, arguments.rounds)
        say(f"{name:>9} products of {arguments.matrix}: {peak / 1e12:.2f} TFLOP/s")
        rows = measured_by_batch(arguments, name, say)
        for row in rows:
            row["share_of_products"] = row["operations_per_second"] / peak
        if rows:
            best = max(rows, key=lambda row: row["share_of_products"])
            share = 100 * best["share_of_products"]
            say(f"{name:>9} at best {share:.1f} % of that rate, with batch {best['batch']}")
        content["steps"] += rows
    if arguments.data and content["steps"]:
        last = content["steps"][-1]
        point = _point(arguments, last["batch"], last["precision"])
        wait = content["input"] = input_wait(arguments.data, point, 4 * arguments.rounds)
        share = 100 * wait["waited"] / wait["seconds"]
        say(f"waiting for data: {share:.1f} % of {wait['steps']} steps of batch {wait['batch']}")
    with written_whole(arguments.out / "gpu.json") as path:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(
        f"wrote {arguments.out / 'gpu.json'}: {len(content['steps'])} sizes on {device}, "
        f"{'all agree' if good else 'NOT ALL AGREE'}, in {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    command_line.run(main)
