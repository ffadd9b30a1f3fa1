"""Worker processes survive, or are replaced after, whatever an item does to them."""

import ctypes
import os
import signal
import sys
import time

import pytest

from data_prep import workers

GIGABYTE = 2**30


def misbehave(item):
    """What an item asks for; at module level so that another process can find it."""
    what, _ = item
    if what == "hang":
        while True:
            time.sleep(1)
    if what == "hang in C":  # as a decoder that never comes back: Python's own lock is held
        ctypes.PyDLL(None).sleep(600)
    if what == "eat in C":  # as a decoder that believes a header
        malloc = ctypes.CDLL(None).malloc
        malloc.restype = ctypes.c_void_p
        if malloc(ctypes.c_size_t(64 * GIGABYTE)) is None:
            raise MemoryError
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "leave":
        os._exit(3)
    if what == "raise":
        raise KeyError("a mistake in the program")
    if what == "eat":
        _ = bytearray(64 * GIGABYTE)
    if what == "threads" and os.environ["OPENBLAS_NUM_THREADS"] != "1":
        os._exit(4)


def run(items, count=2, seconds=60.0):
    return dict(workers.run(misbehave, items, count, lambda _: seconds, 8 * GIGABYTE))


def test_all_items_are_done_whatever_the_number_of_processes():
    items = [("fine", number) for number in range(9)]
    for count in (1, 3):
        assert run(items, count) == dict.fromkeys(items)


def test_no_items():
    assert run([]) == {}


def test_a_process_that_dies_takes_only_its_own_item():
    items = [("fine", 0), ("crash", 1), ("fine", 2), ("leave", 3), ("threads", 4), ("fine", 5)]
    done = run(items)
    assert set(done) == set(items)
    assert {item: died.reason for item, died in done.items() if died} == {
        ("crash", 1): "crashed",
        ("leave", 3): "crashed",
    }
    assert "SIGSEGV" in done["crash", 1].message
    assert "exit code 3" in done["leave", 3].message


@pytest.mark.parametrize("how", ["hang", "hang in C"])
def test_what_hangs_is_ended(how):
    done = run([(how, 0), ("fine", 1)], count=1, seconds=0.5)
    assert done[how, 0].reason == "timeout"
    assert done["fine", 1] is None


def test_a_mistake_in_the_program_ends_the_run():
    with pytest.raises(KeyError, match="a mistake in the program"):
        run([("fine", 0), ("raise", 1)])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps processes to their memory")
@pytest.mark.parametrize("how", ["eat", "eat in C"])
def test_memory_is_limited(how):
    done = run([(how, 0), ("fine", 1)], count=1)
    assert done[how, 0].reason == "memory"
    assert done["fine", 1] is None


def test_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    run([("threads", 0)])
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ
