"""Five training steps of tiny networks, to be compared between numbers of devices and processes.

As a program, one of several processes: ``python -m tests.training.device_steps FOLDER NETWORK...``
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from atvg_jax import models
from atvg_jax.training import parallel
from atvg_jax.training.state import NetworkState, TrainState
from atvg_jax.training.steps import make_at_step, make_vg_step
from tests.reference_weights import random_variables

BATCH, FRAMES, STEPS = 4, 2, 5
WIDTH = 1 / 32


def recording(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same optimizer, whose state also keeps the last gradients."""

    def init(params: Any) -> Any:
        return optimizer.init(params), jax.tree.map(jnp.zeros_like, params)

    def update(gradients: Any, state: Any, params: Any = None) -> Any:
        updates, inner = optimizer.update(gradients, state[0], params)
        return updates, (inner, gradients)

    return optax.GradientTransformation(init, update)


def problem(network: str) -> tuple[Any, Any, list[dict[str, np.ndarray]]]:
    """Step, fresh state and global batches of ``at_net`` or ``vg_net``; the norms are frozen."""
    rng = np.random.default_rng(0)
    # Adam's first step is 2e-4 whatever a gradient's size, so that rounding which turns the sign of
    # one near 0 would show; these steps are as long as the gradients.
    optimizer = recording(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.01)))
    if network == "at_net":
        names = ["at_net"]
        components = np.linalg.qr(rng.standard_normal((136, 6)))[0].astype(np.float32)
        model = models.create("at_net", {"width": WIDTH})
        step = make_at_step(model, optimizer, jnp.zeros(136), components, parallel.AXIS, True)
    else:
        names = ["vg_net", "discriminator"]
        pair = (models.create(name, {"width": WIDTH}) for name in names)
        step = make_vg_step(*pair, optimizer, optimizer, parallel.AXIS, frozen_statistics=True)
    networks = {}
    for name in names:
        variables = random_variables(name, {"width": WIDTH})
        params, stats = variables["params"], variables.get("batch_stats", {})
        networks[name] = NetworkState(params, stats, jax.device_get(optimizer.init(params)))
    state = TrainState(jnp.zeros((), jnp.int32), networks)
    pixels = (BATCH, FRAMES, 128, 128, 3)
    batches = [
        {
            "landmarks": rng.standard_normal((BATCH, FRAMES, 136)).astype(np.float32),
            "example_landmark": rng.standard_normal((BATCH, 136)).astype(np.float32),
            **(
                {"mfcc": rng.standard_normal((BATCH, FRAMES, 28, 12)).astype(np.float32)}
                if network == "at_net"
                else {
                    "frames": rng.integers(0, 256, pixels, np.uint8),
                    "example_image": rng.integers(0, 256, (BATCH, 128, 128, 3), np.uint8),
                }
            ),
        }
        for _ in range(STEPS)
    ]
    return step, state, batches


def run(network: str, count: int = 0) -> dict[str, np.ndarray]:
    """The last gradients, how far parameters have moved, and the metrics, after the steps.

    Args:
        network: ``at_net`` or ``vg_net``.
        count: of this process's devices; 0 for all.
    """
    step, before, batches = problem(network)
    devices = parallel.Devices(count)
    local = devices.per_device(BATCH) * len(devices.local)
    block = slice(jax.process_index() * local, (jax.process_index() + 1) * local)
    stepped = devices.train_step(step)
    state = devices.replicate(before)
    for number, batch in enumerate(batches):
        mine = devices.shard({name: array[block] for name, array in batch.items()})
        state, metrics = stepped(state, mine, jax.random.fold_in(jax.random.key(0), number))
    after = devices.unreplicate(state)
    found: dict[str, Any] = {}
    for name, part in after.networks.items():
        start = before.networks[name]
        found[f"{name}/gradients"] = part.opt_state[1]
        found[f"{name}/moved"] = jax.tree.map(np.subtract, part.params, start.params)
    found["metrics"] = {name: np.asarray(value)[0] for name, value in metrics.items()}
    leaves = jax.tree_util.tree_flatten_with_path(found)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


if __name__ == "__main__":
    parallel.connect()
    for wanted in sys.argv[2:]:
        arrays = run(wanted)
        if parallel.first_process():
            np.savez(f"{sys.argv[1]}/{wanted}.npz", **arrays)
