"""Data parallelism over all local devices, and over processes: ``jax.pmap`` lives here alone.

Every device holds the whole state and a block of the batch; step functions average gradients and
batch statistics over the axis ``AXIS``. A batch that does not divide is refused before anything is
compiled.
"""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from atvg_jax.errors import InputError

AXIS = "devices"
# What launch/local_processes.sh sets. The first name is JAX's own.
ADDRESS, COUNT, NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def connect() -> None:
    """Joins the processes that train together; before anything asks JAX for its devices.

    Which they are the environment tells: SLURM's, a Cloud TPU's, or the three variables above
    (coordinator as HOST:PORT, how many processes, which of them this is).

    Raises:
        InputError: the environment does not tell, or the others do not come.
    """
    try:
        if ADDRESS in os.environ and COUNT in os.environ:
            jax.distributed.initialize(
                os.environ[ADDRESS], int(os.environ[COUNT]), int(os.environ.get(NUMBER, ""))
            )
        else:
            jax.distributed.initialize()
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"--distributed: these processes cannot find each other ({error}): start them with one "
            f"of the scripts in launch/, or set {ADDRESS}, {COUNT} and {NUMBER}"
        ) from error


def first_process() -> bool:
    """Whether this process is the one that writes and speaks for all that train together."""
    return jax.process_index() == 0


class Devices:
    """The devices that a run uses.

    Args:
        count: how many local devices; 0 for all.

    Raises:
        InputError: there are fewer.
    """

    def __init__(self, count: int = 0):
        local = jax.local_devices()
        if count > len(local) or count < 0:
            raise InputError(
                f"config.devices={count}, but this machine has {len(local)} "
                f"{local[0].platform} device(s); 0 takes all of them"
            )
        if count and jax.process_count() > 1:
            raise InputError("config.devices must be 0 when several processes train together")
        self.local = local[:count] if count else local
        self._everywhere = self.local if jax.process_count() == 1 else jax.devices()
        self.total = len(self._everywhere)
        # Of this process's devices: what pmap takes and gives has the local devices first.
        self._split = NamedSharding(Mesh(np.asarray(self.local), (AXIS,)), PartitionSpec(AXIS))

    def per_device(self, batch_size: int) -> int:
        """Examples of a global batch on one device; ``InputError`` unless it is a whole number."""
        if batch_size < 1 or batch_size % self.total:
            lower = batch_size // self.total * self.total
            wanted = " or ".join(str(n) for n in (lower, lower + self.total) if n > 0)
            raise InputError(
                f"config.batch_size={batch_size} does not divide evenly over {self.total} devices; "
                f"use {wanted}, or fewer devices with config.devices"
            )
        return batch_size // self.total

    def replicate(self, tree: Any) -> Any:
        """Puts every array on every local device: (...) -> (devices, ...)."""

        def put(leaf: Any) -> jax.Array:
            leaf = np.asarray(leaf)
            copies = np.broadcast_to(leaf, (len(self.local), *leaf.shape))
            return jax.device_put(copies, self._split)

        return jax.tree.map(put, tree)

    def unreplicate(self, tree: Any) -> Any:
        """The first device's copy of every array, as NumPy: (devices, ...) -> (...)."""
        first = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, tree)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[0], jax.device_get(first))

    def shard(self, batch: Any) -> Any:
        """Cuts this process's batch over its devices: (B, ...) -> (devices, B / devices, ...).

        Raises:
            InputError: an array's B does not divide by the number of devices.
        """

        def put(leaf: Any) -> jax.Array:
            if leaf.shape[0] % len(self.local):
                raise InputError(
                    f"a batch of {leaf.shape[0]} does not divide evenly over {len(self.local)} "
                    "devices"
                )
            blocks = leaf.reshape(len(self.local), -1, *leaf.shape[1:])
            return jax.device_put(blocks, self._split)

        return jax.tree.map(put, batch)

    def gather(self, tree: Any) -> Any:
        """The inverse of ``shard``, as NumPy: (devices, B / devices, ...) -> (B, ...)."""
        return jax.tree.map(lambda leaf: np.concatenate(list(np.asarray(leaf))), tree)

    def sum_over_processes(self, sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adds up what each process counted; every process calls it and gets the same."""
        if jax.process_count() == 1:
            return sums
        from jax.experimental import multihost_utils

        gathered = multihost_utils.process_allgather(sums)
        return {name: np.asarray(values).sum(axis=0) for name, values in gathered.items()}

    def train_step(self, step: Callable) -> "ParallelStep":
        """``step(state, batch, rng) -> (state, metrics)`` on all devices; the state is donated.

        ``state`` and ``batch`` come from ``replicate`` and ``shard``, ``rng`` is one key for all,
        into which each device folds its own number. ``step`` averages over ``AXIS`` itself, metrics
        too.
        """

        def on_device(state: Any, batch: Any, rng: jax.Array) -> tuple[Any, Any]:
            return step(state, batch, jax.random.fold_in(rng, jax.lax.axis_index(AXIS)))

        return ParallelStep(on_device, self._everywhere, in_axes=(0, 0, None), donate=(0,))

    def eval_step(self, evaluate: Callable) -> "ParallelStep":
        """``evaluate(state, batch) -> pytree of (B, ...) arrays`` on all devices."""
        return ParallelStep(evaluate, self._everywhere, in_axes=(0, 0), donate=())

    def prefetch(self, batches: Iterable[tuple[Any, Any]], size: int = 2) -> Iterator[tuple]:
        """Keeps ``size`` batches on the devices ahead of their use.

        Args:
            batches: (batch, tag) pairs; the tag travels along untouched.
            size: batches on the devices, at least 1.
        """
        queue: collections.deque = collections.deque()
        iterator = iter(batches)
        for batch, tag in iterator:
            queue.append((self.shard(batch), tag))
            if len(queue) >= size:
                yield queue.popleft()
        while queue:
            yield queue.popleft()


class ParallelStep:
    """A function mapped over devices that compiles once.

    Attributes:
        traces: how often it was traced so far.
    """

    def __init__(self, function: Callable, devices: list, in_axes: tuple, donate: tuple[int, ...]):
        self.traces = 0

        def counted(*args: Any) -> Any:
            self.traces += 1  # runs while tracing, not while running
            return function(*args)

        self._mapped = jax.pmap(
            counted, axis_name=AXIS, in_axes=in_axes, donate_argnums=donate, devices=devices
        )

    def __call__(self, *args: Any) -> Any:
        """Runs the function; ``RuntimeError`` if it had to be traced again."""
        before = self.traces
        result = self._mapped(*args)
        if before and self.traces > before:
            # A second compilation of minutes, silently, is a bug of the loop and not of the user.
            raise RuntimeError("a training step was compiled twice: shapes or placement changed")
        return result


def first_device(metrics: Any) -> Any:
    """The first device's values of averaged metrics, still on the device: no waiting."""
    return jax.tree.map(lambda leaf: leaf.addressable_shards[0].data, metrics)
