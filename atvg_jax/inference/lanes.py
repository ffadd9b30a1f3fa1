"""Cores that each run programs of their own: clients of XLA for the CPU with one thread each.

JAX's own client shares every product between all cores. VG-net's are too small for that: the 36
products of 64 x 512 with 512 x 512 of one Winograd layer take two cores together as long as one
core alone (XLA copies the weights into blocks for each thread). So what does not depend on each
other runs side by side instead, a program a core; a few cores to a program where there are many.
"""

import functools
import heapq
import itertools
import os
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

# The recurrence of VG-net is made by one lane, a quarter of all work: more lanes would wait for it.
MOST = 4
# How many threads a client of XLA for the CPU starts, read when it is made.
THREADS_VARIABLE = "PJRT_NPROC"

Task = Callable[[int], object]


def cores() -> int:
    """Cores that this process may use."""
    asked = os.environ.get(THREADS_VARIABLE, "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """Threads of each lane: one, or an equal share of more than ``MOST`` cores."""
    return max(1, cores() // MOST)


@functools.cache
def devices() -> tuple[jax.Device, ...]:
    """A device for each core, at most ``MOST``, which then share the cores.

    Returns:
        The devices; none on one core, where JAX's own client is such a device, where JAX runs on
        something else than the CPU, and with a version of jaxlib that makes no second client. They
        are none of ``jax.devices()``.
    """
    count = min(cores(), MOST)
    if count < 2 or jax.default_backend() != "cpu":
        return ()
    before = os.environ.get(THREADS_VARIABLE)
    os.environ[THREADS_VARIABLE] = str(threads())
    try:
        # Not part of JAX's public interface; without it there are no lanes, and all else works.
        from jaxlib import xla_client

        made: list[Any] = [xla_client.make_cpu_client(asynchronous=False) for _ in range(count)]
        return tuple(client.local_devices()[0] for client in made)
    except (ImportError, AttributeError, TypeError, RuntimeError):
        return ()
    finally:
        if before is None:
            del os.environ[THREADS_VARIABLE]
        else:
            os.environ[THREADS_VARIABLE] = before


def on_each(tree: Any) -> list[Any]:
    """Arrays on JAX's own CPU device, seen by every lane: the same memory, not copies of it."""
    views = jax.tree.map(np.asarray, tree)
    return [jax.device_put(views, device, may_alias=True) for device in devices()]


class Tasks:
    """Tasks that any lane takes, the most urgent first, added while others run."""

    def __init__(self, count: int):
        """Takes how many tasks there will be in all."""
        self._left = count
        self._ready: list[tuple[int, int, Task]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()

    def add(self, urgency: int, task: Task) -> None:
        """Gives a task to whoever is free; of the same urgency the first added comes first.

        Args:
            urgency: less is sooner.
            task: called with the number of the lane that took it.
        """
        with self._changed:
            heapq.heappush(self._ready, (urgency, next(self._order), task))
            self._changed.notify()

    def work(self, lane: int) -> None:
        """Takes tasks until all are done, or until one fails, here or elsewhere."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._left <= 0)
                if self._left <= 0:
                    return
                _, _, task = heapq.heappop(self._ready)
            try:
                task(lane)
            except BaseException:
                self.stop()
                raise
            with self._changed:
                self._left -= 1
                if self._left <= 0:
                    self._changed.notify_all()

    def stop(self) -> None:
        """Lets every lane go after the task at hand."""
        with self._changed:
            self._left = 0
            self._changed.notify_all()
