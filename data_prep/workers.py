"""Processes that work on one item after another and may die of one without ending the build.

``multiprocessing.Pool`` and ``concurrent.futures`` wait for ever, or give up altogether, when a
process is killed; a video can hang or crash the library that decodes it. Here each process sets an
alarm that ends it when an item takes too long, and a process that has died is replaced.
"""

import contextlib
import gc
import multiprocessing
import os
import resource
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, NamedTuple, TypeVar

Item = TypeVar("Item")

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)
"""Read by OpenCV and BLAS libraries when they are loaded. One thread a process: there are as many
processes as cores already, and sums come out the same on every machine."""


class Died(NamedTuple):
    """What ended the work on an item: ``timeout``, ``memory`` or ``crashed``, and how."""

    reason: str
    message: str


class _Worker(NamedTuple, Generic[Item]):
    """One process and what it is doing."""

    process: BaseProcess
    connection: Connection
    item: list[Item]  # at most one


def run(
    task: Callable[[Item], Any],
    items: Iterable[Item],
    count: int,
    seconds: Callable[[Item], float],
    memory: int,
) -> Iterator[tuple[Item, Died | None]]:
    """Works on all items in ``count`` processes of their own.

    Args:
        task: what to do with an item; picklable, and of a module that can be imported. What it
            raises, but for a lack of memory, ends the run.
        items: picklable.
        count: processes.
        seconds: how long an item may take, on the clock.
        memory: bytes that a process may have.

    Yields:
        Each item when it is done, in no particular order, with what its process died of.
    """
    waiting = iter(items)
    workers: list[_Worker[Item]] = []
    try:
        with _single_threaded():
            while True:
                while len(workers) < count and (item := next(waiting, None)) is not None:
                    worker = _start(task, memory)
                    _give(worker, item, seconds)
                    workers.append(worker)
                if not workers:
                    return
                ready = wait([worker.connection for worker in workers])
                for worker in [w for w in workers if w.connection in ready]:
                    item = worker.item.pop()
                    died = _outcome(worker)
                    yield item, died
                    if died is not None:
                        _stop(worker)
                        workers.remove(worker)
                    elif (item := next(waiting, None)) is not None:
                        _give(worker, item, seconds)
                    else:
                        _stop(worker)
                        workers.remove(worker)
    finally:
        for worker in workers:
            worker.process.terminate()
            _stop(worker)


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Has processes that start in it load BLAS with one thread."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_STARTING = threading.Lock()


@contextlib.contextmanager
def _no_program() -> Iterator[None]:
    """Keeps a process that starts in it from loading the program that starts it.

    It would for the sake of tasks that stand in it, and none does; inside of a Beam worker that
    program is Apache Beam, which takes seconds to load.
    """
    with _STARTING:
        program = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = program


def _start(task: Callable[[Item], Any], memory: int) -> _Worker[Item]:
    """A new process, which has loaded what it needs."""
    # Processes are copies of one that has loaded what most of them need and does nothing else, so
    # that a new one takes milliseconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_prep.prepare"])
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, task, memory), daemon=True)
    with _no_program():
        process.start()
    theirs.close()
    try:
        ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(
            f"a worker process ended at once (exit code {process.exitcode}); what it said is above"
        ) from None
    return _Worker(process, ours, [])


def _give(worker: _Worker[Item], item: Item, seconds: Callable[[Item], float]) -> None:
    """Hands an item to a process that has none."""
    worker.item.append(item)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # seen when it is waited for
        worker.connection.send((item, seconds(item)))


def _outcome(worker: _Worker[Item]) -> Died | None:
    """What a process that has something to say says: done, dead, or an error in the program."""
    try:
        error = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        code = worker.process.exitcode
        if code == -signal.SIGALRM:
            return Died("timeout", "it took longer than a clip may")
        name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        return Died("crashed", f"the process that worked on it ended with {name}")
    if isinstance(error, MemoryError):
        return Died("memory", "it takes more memory than a clip may")
    if error is not None:
        raise error
    return None


def _stop(worker: _Worker[Item]) -> None:
    """Ends a process and waits for its end."""
    worker.connection.close()
    worker.process.join(timeout=5)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.process.close()


def _work(connection: Connection, task: Callable[[Item], Any], memory: int) -> None:
    """The life of a process: items until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    # The default action ends the process wherever it is, in C code too, even if the parent is gone.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    connection.send(None)
    while True:
        try:
            item, seconds = connection.recv()
        except EOFError:
            return
        error = None
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            task(item)
        except Exception as raised:
            error = raised
        # Decoders that sit in reference cycles keep their threads and buffers until this is done.
        gc.collect()
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            connection.send(error)
        except BrokenPipeError:
            return
