"""What a training step keeps in memory between its forward and its backward pass."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from atvg_jax.errors import InputError

Array = jax.Array
Forward = Callable[..., tuple[Any, Any]]

# Convolutions and products take the time and are kept; what follows from them element by element
# (norms, activations, dropout, blends) takes the memory and is made again.
KEPT = ("conv_general_dilated", "dot_general", "custom_vjp_call")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Two ways to fit a larger batch or network.

    Attributes:
        remat: make again in the backward pass what costs little time to make.
        accumulate: run a device's examples in so many parts, one after the other, and add up their
            gradients. Each part's forward pass is run again for its backward pass. Batch norm
            normalises a part by itself, as on so many devices, and running statistics are the
            mean of the parts'.
    """

    remat: bool = False
    accumulate: int = 1

    def check(self, examples: int) -> None:
        """Raises ``InputError`` unless so many examples of a device can be parted."""
        if self.accumulate < 1 or examples % self.accumulate:
            raise InputError(
                f"config.accumulate={self.accumulate} does not divide the {examples} example(s) "
                "that each device has of config.batch_size"
            )

    def applied(self, forward: Forward) -> Forward:
        """The same function, keeping less.

        Args:
            forward: ``forward(params, stats, key, *inputs) -> (output, stats)``; every array of
                inputs and output has the examples on its first axis; ``key`` may be None.
        """
        if self.remat:
            forward = jax.checkpoint(forward, policy=_is_kept)
        return self._in_parts(forward) if self.accumulate > 1 else forward

    def _in_parts(self, forward: Forward) -> Forward:
        count = self.accumulate
        again = jax.checkpoint(forward)

        def parted(params: Any, stats: Any, key: Array | None, *inputs: Array) -> tuple[Any, Any]:
            def part(own: tuple[Array | None, tuple[Array, ...]]) -> tuple[Any, Any]:
                return again(params, stats, own[0], *own[1])

            keys = None if key is None else jax.random.split(key, count)
            split = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), inputs)
            output, stats_after = lax.map(part, (keys, split))
            output = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), output)
            return output, jax.tree.map(lambda x: jnp.mean(x, axis=0), stats_after)

        return parted


def _is_kept(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in KEPT
