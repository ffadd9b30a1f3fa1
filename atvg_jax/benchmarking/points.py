"""What there is to measure, and the points of a grid: one at the middle, others off it by one."""

from collections.abc import Sequence
from typing import NamedTuple

NETWORKS = ("at_net", "vg_net", "discriminator")
STEPS = ("at_step", "vg_step")
SYNTHESIS = "synthesis"
TASKS = (*NETWORKS, *STEPS, SYNTHESIS)


class Point(NamedTuple):
    """What is measured, at which size.

    Attributes:
        task: one of ``TASKS``.
        width: of the networks; 1 as published.
        batch: examples in one call; synthesis has one portrait.
        frames: of each.
        precision: compute dtype, a name of ``models.DTYPES``.
    """

    task: str
    width: float
    batch: int
    frames: int
    precision: str

    @property
    def made(self) -> int:
        """Frames that one call makes or learns from."""
        return self.batch * self.frames


def around(
    task: str,
    width: float,
    batches: Sequence[int],
    frames: Sequence[int],
    precisions: Sequence[str],
) -> list[Point]:
    """A task's points: the first of each list together, then each of the others in its turn.

    Synthesis has one portrait, and on a CPU it computes in float32 whatever its networks were
    trained in, so only its frames vary.
    """
    if task == SYNTHESIS:
        batches, precisions = (1,), ("float32",)
    middle = Point(task, width, batches[0], frames[0], precisions[0])
    return [
        middle,
        *(middle._replace(batch=value) for value in batches[1:]),
        *(middle._replace(frames=value) for value in frames[1:]),
        *(middle._replace(precision=value) for value in precisions[1:]),
    ]
