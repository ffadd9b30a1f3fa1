"""The mean of several AT-nets.

Networks trained on the same data from different seeds, or on different data, err in different ways,
and their mean errs less than any of them (Hansen and Salamon, "Neural network ensembles", 1990).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from atvg_jax.models import blocks
from atvg_jax.models.at_net import ATNet

Array = jax.Array
Variables = Mapping[str, Any]

MOST = 64  # more gain nothing, and a file that says so would be built for hours


class ATNetMean(nn.Module):
    """Several AT-nets, and the mean of what they say.

    Parameters are those of each under ``member_0``, ``member_1``, ...; see ``of_members``.

    Attributes:
        members: how many.
        width: of each.
        components: as ``ATNet``'s, and so are ``dropout_rate`` and ``dtype``.
    """

    members: int = 2
    width: float = 1.0
    components: int = 6
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Builds the members."""
        if not 1 <= self.members <= MOST:
            raise ValueError(f"a mean takes 1 to {MOST} networks, not {self.members}")
        self.member = [
            ATNet(self.width, self.components, self.dropout_rate, self.dtype)
            for _ in range(self.members)
        ]

    def __call__(self, example_landmark: Array, mfcc: Array, train: bool = False) -> Array:
        """As ``ATNet``: (B, 6), (B, T, 28, 12) -> (B, T, 6) float32 components."""
        return self.steps(example_landmark, mfcc, train=train)[0]

    def steps(
        self,
        example_landmark: Array,
        mfcc: Array,
        carry: blocks.LSTMCarry | None = None,
        train: bool = False,
    ) -> tuple[Array, blocks.LSTMCarry]:
        """As ``ATNet.steps``; a state of the carry holds one member's after another's."""
        said, after = [], []
        for index, member in enumerate(self.member):
            before = None if carry is None else _of_member(carry, index, self.members)
            components, state = member.steps(example_landmark, mfcc, before, train)
            said.append(components)
            after.append(state)
        whole = jax.tree.map(lambda *states: jnp.concatenate(states, axis=-1), *after)
        return sum(said[1:], said[0]) / self.members, whole


def _of_member(carry: blocks.LSTMCarry, index: int, members: int) -> blocks.LSTMCarry:
    def part(state: Array) -> Array:
        units = state.shape[-1] // members
        return state[..., index * units : (index + 1) * units]

    return jax.tree.map(part, carry)


def of_members(members: Sequence[Variables]) -> dict[str, Any]:
    """Variables of the ``ATNetMean`` of several AT-nets.

    Args:
        members: ``{"params": ..., "batch_stats": ...}`` of each.
    """
    collections = {name for member in members for name in member}
    return {
        name: {f"member_{index}": member[name] for index, member in enumerate(members)}
        for name in sorted(collections)
    }


def members_of(variables: Variables) -> list[dict[str, Any]]:
    """The other way round; a network that is no mean is its only member."""
    names = [f"member_{index}" for index in range(len(variables["params"]))]
    if names[0] not in variables["params"]:
        return [dict(variables)]
    return [{part: values[name] for part, values in variables.items()} for name in names]
