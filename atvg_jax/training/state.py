"""What training changes: one pytree, the same shape for both networks."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from atvg_jax.models import INPUT_SHAPES

Array = jax.Array


@flax.struct.dataclass
class NetworkState:
    """One network under training.

    Attributes:
        params: float32 parameters.
        batch_stats: running batch-norm statistics, empty where there are none.
        opt_state: of its optimizer.
    """

    params: Any
    batch_stats: Any
    opt_state: optax.OptState


@flax.struct.dataclass
class TrainState:
    """Everything a checkpoint holds of the networks.

    Attributes:
        step: int32 scalar, steps done.
        networks: by name: ``at_net``, or ``vg_net`` and ``discriminator``.
    """

    step: Array
    networks: dict[str, NetworkState]


def init_network(
    name: str, model: nn.Module, optimizer: optax.GradientTransformation, key: Array
) -> NetworkState:
    """Draws a network's initial variables.

    Args:
        name: key of ``atvg_jax.models.INPUT_SHAPES``.
        model: built by ``atvg_jax.models.create``.
        optimizer: its optimizer.
        key: of this network alone.
    """
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in INPUT_SHAPES[name]]
    # Compiled, so that the forward pass of init is never run. A program of a hundred random draws
    # that runs once is not worth optimising: without it the CPU compiles in a quarter of the time.
    options: dict[str, str | bool] | None = None
    if jax.default_backend() == "cpu":
        options = {"xla_backend_optimization_level": "0"}
    init = jax.jit(model.init).lower(key, *inputs).compile(compiler_options=options)
    variables = init(key, *[jnp.zeros(x.shape, x.dtype) for x in inputs])
    params = variables["params"]
    return NetworkState(params, variables.get("batch_stats", {}), optimizer.init(params))


def init_at_state(
    model: nn.Module, optimizer: optax.GradientTransformation, rng: Array, name: str = "at_net"
) -> TrainState:
    """Fresh state for AT-net (or, by ``name``, a kin of it; kept under ``at_net`` all the same)."""
    network = init_network(name, model, optimizer, rng)
    return TrainState(jnp.zeros((), jnp.int32), {"at_net": network})


def init_vg_state(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer_g: optax.GradientTransformation,
    optimizer_d: optax.GradientTransformation,
    rng: Array,
) -> TrainState:
    """Fresh state for VG-net and its discriminator, each with its own key and optimizer."""
    generator_key, discriminator_key = jax.random.split(rng)
    networks = {
        "vg_net": init_network("vg_net", generator, optimizer_g, generator_key),
        "discriminator": init_network(
            "discriminator", discriminator, optimizer_d, discriminator_key
        ),
    }
    return TrainState(jnp.zeros((), jnp.int32), networks)
