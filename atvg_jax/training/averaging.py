"""Running averages of a network's variables, which make steadier pictures than the last step's."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from atvg_jax.training.state import TrainState


@flax.struct.dataclass
class RunState:
    """What a run carries from step to step.

    Attributes:
        train: the networks and their optimizers.
        average: ``{"params": ..., "batch_stats": ...}`` of the network that synthesis uses, or {}.
    """

    train: TrainState
    average: Any


def variables(state: TrainState, network: str) -> dict[str, Any]:
    """A network's variables as ``module.apply`` takes them."""
    part = state.networks[network]
    return {"params": part.params, "batch_stats": part.batch_stats}


def with_variables(state: TrainState, network: str, values: dict[str, Any]) -> TrainState:
    """The same with other variables of some of a network's modules; its optimizer stays as it is.

    Args:
        state: with all of the network's variables.
        network: its name.
        values: ``{"params": {module: ...}, "batch_stats": {module: ...}}``.
    """
    old = variables(state, network)
    both = {name: {**old[name], **values.get(name, {})} for name in old}
    part = dataclasses.replace(state.networks[network], **both)
    return dataclasses.replace(state, networks={**state.networks, network: part})


def averaged_step(step: Callable, network: str, decay: float) -> Callable:
    """``step`` on a ``RunState``; the average follows the variables after every step.

    Early on the average forgets faster, min(decay, (1 + n) / (10 + n)) after n steps (as
    ``tf.train.ExponentialMovingAverage`` has it), so that the start does not linger in it.

    Args:
        step: ``step(TrainState, batch, rng) -> (TrainState, metrics)``.
        network: whose variables are averaged.
        decay: in [0, 1); 0 keeps no average.
    """

    def run(state: RunState, batch: Any, rng: jax.Array) -> tuple[RunState, Any]:
        train, metrics = step(state.train, batch, rng)
        average = state.average
        if decay:
            done = state.train.step.astype(jnp.float32)
            share = jnp.minimum(decay, (1 + done) / (10 + done))
            average = jax.tree.map(
                lambda old, new: share * old + (1 - share) * new,
                average,
                variables(train, network),
            )
        return RunState(train, average), metrics

    return run


def to_evaluate(state: RunState, network: str) -> TrainState:
    """The state with the averages, where there are any, in the place of the network's variables."""
    if not jax.tree.leaves(state.average):
        return state.train
    part = dataclasses.replace(state.train.networks[network], **state.average)
    return dataclasses.replace(state.train, networks={**state.train.networks, network: part})
