"""How a network does on clips that it is not trained on."""

from collections.abc import Callable
from typing import Any

import numpy as np

from atvg_jax.data.pipeline import Batch, ClipWindows, Reading, held_out_batches
from atvg_jax.training.parallel import Devices
from atvg_jax.training.state import TrainState


class Validation:
    """A held-out split, judged on all devices.

    Args:
        devices: where to run.
        evaluate: ``evaluate(state, batch) -> (metrics (B,), outputs)``, not yet compiled.
        source: the split.
        batch_size: global.
        limit: at most so many windows; 0 for all.
        reading: threads and processes.
        judge: ``judge(batch, frames) -> metrics (B,)`` of made frames, where there is more to be
            measured than the devices can; or None.
    """

    def __init__(
        self,
        devices: Devices,
        evaluate: Any,
        source: ClipWindows,
        batch_size: int,
        limit: int,
        reading: Reading,
        judge: Callable[[Batch, np.ndarray], dict[str, np.ndarray]] | None = None,
    ):
        self._devices, self._source, self._batch_size = devices, source, batch_size
        self._limit, self._reading = limit, reading
        self._judge = judge
        self._evaluate = devices.eval_step(evaluate)
        self._sample_batch: Batch | None = None

    def metrics(
        self, state: TrainState, stop: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """Mean of every metric over the split's windows; None where ``stop()`` told it to end.

        Args:
            state: replicated.
            stop: asked before every batch.
        """
        sums: dict[str, np.ndarray] = {}
        batches = held_out_batches(self._source, self._batch_size, self._limit, self._reading)
        for batch, (window, count) in self._devices.prefetch((b, (b, n)) for b, n in batches):
            if stop():
                return None
            measured, outputs = self._evaluate(state, batch)
            values = self._devices.gather(measured)
            if self._judge:
                values |= self._judge(window, self._devices.gather(outputs["frames"]))
            for name, value in values.items():
                added = np.asarray([value[:count].sum(dtype=np.float64), count])
                sums[name] = sums.get(name, 0) + added
        totals = self._devices.sum_over_processes(sums)
        return {name: float(total / count) for name, (total, count) in totals.items()}

    def samples(self, state: TrainState) -> tuple[Batch, dict[str, np.ndarray]]:
        """A batch of windows spread over the split, and what the network makes of them."""
        if self._sample_batch is None:
            numbers = np.linspace(0, len(self._source) - 1, self._batch_size).round().astype(int)
            windows = [self._source.fixed(int(number)) for number in numbers]
            self._sample_batch = {
                name: np.stack([window[name] for window in windows]) for name in windows[0]
            }
        local = self._batch_size // self._reading.processes
        batch = {name: array[:local] for name, array in self._sample_batch.items()}
        outputs = self._evaluate(state, self._devices.shard(batch))[1]
        return batch, self._devices.gather(outputs)
