"""A profile of some steps, for TensorBoard's profiler or Perfetto."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

FOLDER = "profile"
_WARM_UP = 10  # steps before, where there are so many


@contextlib.contextmanager
def profiler(
    workdir: Path, start: int, end: int, steps: int
) -> Iterator[Callable[[int, Any], None]]:
    """Records ``steps`` steps under WORKDIR/profile, after ten that warm up.

    Args:
        workdir: the run's folder.
        start: steps done before this call.
        end: steps in all; a short run records its last ones. The first step, which compiles, is
            never recorded.
        steps: how many to record; 0 for none.

    Yields:
        ``tick(step, state)``, to be called after every step with what it has made.
    """
    first, running = max(start + 1, min(start + _WARM_UP, end - steps)), False

    def tick(step: int, state: Any) -> None:
        nonlocal running
        if steps and step == first < end:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(workdir / FOLDER))
            running = True
        elif running and step == first + steps:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            running = False

    try:
        yield tick
    finally:
        if running:
            jax.profiler.stop_trace()
