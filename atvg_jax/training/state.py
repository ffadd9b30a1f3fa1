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

    @property
    def variables(self) -> dict[str, Any]:
        """What ``model.apply`` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


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
    inputs = [jnp.zeros(shape, jnp.float32) for shape in INPUT_SHAPES[name]]
    # Compiled, since op by op initialisation of a large network takes many times as long.
    variables = jax.jit(model.init)(key, *inputs)
    params = variables["params"]
    return NetworkState(params, variables.get("batch_stats", {}), optimizer.init(params))


def init_at_state(
    model: nn.Module, optimizer: optax.GradientTransformation, rng: Array, name: str = "at_net"
) -> TrainState:
    """Fresh state for AT-net (or, by ``name``, AT-single; kept under ``at_net`` all the same)."""
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
