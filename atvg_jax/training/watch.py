"""What a run shows while it goes: progress line, TensorBoard scalars, and stops on bad numbers."""

import math
import resource
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from atvg_jax.errors import InputError
from atvg_jax.training.parallel import first_device

# Steps are sent off before the ones before them are done, so that a device never waits for the next
# one; but few, since whoever asks the run to stop waits for all that were sent.
STEPS_IN_FLIGHT = 1


class Watch:
    """Collects metrics on the device and fetches them together when they are logged.

    Args:
        workdir: where the TensorBoard events go.
        start: steps done before.
        steps: steps in all.
        frames_per_step: video frames of a global batch.
        headline: metrics for the progress line.
        writes: whether this process writes anything (the first one does).
    """

    def __init__(
        self,
        workdir: Path,
        start: int,
        steps: int,
        frames_per_step: int,
        headline: tuple[str, ...],
        writes: bool = True,
    ):
        self._writer = SummaryWriter(logdir=str(workdir)) if writes else None
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=steps,
            initial=start,
            desc="training",
            unit="step",
            dynamic_ncols=terminal,
            # In a log file a line every 20 s is enough.
            mininterval=0.5 if terminal else 20,
            disable=not writes,
        )
        self._frames_per_step = frames_per_step
        self._headline = headline
        self._pending: list[tuple[int, Any]] = []
        self._waited = 0.0
        self._since = time.perf_counter()
        self._paused = 0.0

    def step(self, step: int, metrics: Any, waited: float) -> None:
        """Notes a step's metrics (replicated, on the devices) and its seconds of waiting."""
        self._pending.append((step, first_device(metrics)))
        if len(self._pending) > STEPS_IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - STEPS_IN_FLIGHT][1])
        self._waited += waited
        self._bar.update()

    def flush(self, learning_rate: float) -> dict[str, float]:
        """Fetches and logs the means since the last flush.

        Returns:
            those means, with ``frames_per_second``, ``step_seconds`` and ``data_wait`` (the share
            of the time that the step waited for its batch); empty if there was no step.

        Raises:
            InputError: a metric is not finite; names the step and the metric.
        """
        if not self._pending:
            return {}
        rows = [
            (step, {name: float(np.asarray(value)[0]) for name, value in metrics.items()})
            for step, metrics in jax.device_get(self._pending)
        ]
        elapsed = time.perf_counter() - self._since - self._paused
        for step, values in rows:
            bad = [
                f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)
            ]
            # A term comes before what it spoils: its gradient and everything after it.
            bad = [text for text in bad if "gradient_norm" not in text] or bad
            if bad:
                raise InputError(
                    f"training diverged at step {step}: {', '.join(bad)}; the last good checkpoint "
                    "is kept: continue from it with a lower config.learning_rate or with "
                    "config.clip_norm=1",
                    reason="diverged",
                )
        means = {name: float(np.mean([row[name] for _, row in rows])) for name in rows[0][1]}
        means["step_seconds"] = elapsed / len(rows)
        means["frames_per_second"] = self._frames_per_step * len(rows) / elapsed
        means["data_wait"] = min(1.0, self._waited / elapsed)
        means["learning_rate"] = learning_rate
        means["peak_memory_gb"] = peak_memory() / 1e9
        self.scalars("train", rows[-1][0], means)
        shown = {name: f"{means[name]:.4g}" for name in self._headline if name in means}
        shown["frames/s"] = f"{means['frames_per_second']:.0f}"
        shown["waiting"] = f"{100 * means['data_wait']:.0f}%"
        self._bar.set_postfix(shown, refresh=False)
        self._pending.clear()
        self._waited = self._paused = 0.0
        self._since = time.perf_counter()
        return means

    def paused(self, seconds: float) -> None:
        """Leaves time spent on evaluation and checkpoints out of the step time."""
        self._paused += seconds

    def scalars(self, group: str, step: int, values: dict[str, float]) -> None:
        """Writes scalars to TensorBoard under ``group/``."""
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def picture(self, name: str, step: int, picture: np.ndarray) -> None:
        """Writes an (H, W, 3) uint8 picture to TensorBoard."""
        if self._writer:
            self._writer.add_image(name, picture, step, dataformats="HWC")

    def say(self, line: str) -> None:
        """Prints a line above the progress bar."""
        if self._writer:
            tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Ends the progress line and the event file."""
        self._bar.close()
        if self._writer:
            self._writer.close()


def peak_memory() -> int:
    """Largest memory use so far in bytes: the first device's where it tells, else the process's."""
    stats = jax.local_devices()[0].memory_stats() or {}
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(stats.get("peak_bytes_in_use", 1024 * kilobytes))
