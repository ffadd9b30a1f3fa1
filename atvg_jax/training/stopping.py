"""Being asked to stop: SIGTERM, which a machine that is taken back sends some seconds before."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import jax


def _never() -> bool:
    return False


class StopRequest:
    """Whether the run was asked to stop.

    Attributes:
        at: ``at(step)``, to be asked at every step: whether to end after ``step`` steps.
        now: ``now()``, for work between two steps: whether to leave it undone. False where several
            processes train together, which cannot break off each by itself.
    """

    def __init__(self, at: Callable[[int], bool], now: Callable[[], bool] = _never):
        self.at, self.now = at, now


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Catches SIGTERM, so that the run can save and end well.

    Where several processes train together, JAX's coordinator catches it: it hears of a signal to
    any of them and names the step after which all of them stop.
    """
    came = threading.Event()
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        yield StopRequest(multihost_utils.reached_preemption_sync_point)
        return
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest(lambda step: False)  # only a main thread may catch signals
        return

    def note(_number: int, _frame: FrameType | None) -> None:
        came.set()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield StopRequest(lambda step: came.is_set(), came.is_set)
    finally:
        signal.signal(signal.SIGTERM, before)
