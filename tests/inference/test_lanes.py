"""Frames made on several cores at once, against one program's."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from atvg_jax.inference import frame_maker, lanes
from atvg_jax.inference.fast_frames import FastFrames
from atvg_jax.inference.half_frames import HalfFrames
from atvg_jax.models import create
from tests.reference_weights import random_variables

SETTINGS = {"width": 1 / 32}
FRAMES = 24


@pytest.fixture(params=[2])
def with_lanes(monkeypatch, request):
    """Those of two cores, or of so many as a test asks for, whatever the machine has."""
    monkeypatch.setattr(lanes, "cores", lambda: request.param)
    for made in (lanes.devices, frame_maker._pool):
        made.cache_clear()
    if not lanes.devices():
        pytest.skip("this jaxlib makes no second client for the CPU")
    yield
    for made in (lanes.devices, frame_maker._pool):
        made.cache_clear()


def _maker(use_lanes, form=FastFrames):
    variables = random_variables("vg_net", SETTINGS)
    return frame_maker.FrameMaker(form(create("vg_net", SETTINGS)), variables, use_lanes)


def _made(maker, *calls):
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (128, 128, 3)).astype(np.float32)
    landmarks = rng.standard_normal((FRAMES, 136)).astype(np.float32)
    features = maker.portrait(image, rng.standard_normal(136).astype(np.float32))
    carry, parts, start = maker.start(), [], 0
    for count in calls:
        shown, carry = maker.make(features, landmarks[start : start + count], carry)
        parts.append(shown)
        start += count
    return frame_maker.Shown(*map(np.concatenate, zip(*parts, strict=True)))


def _assert_same(made, expected):
    for name, array in expected._asdict().items():
        assert getattr(made, name).dtype == array.dtype
        tolerance = 1 if array.dtype == np.uint8 else 1e-4
        difference = np.abs(getattr(made, name).astype(np.float64) - array)
        assert difference.max() <= tolerance, name


# Calls of 24 are three chunks, of 16 two, of 8 one; of 4 and 12 they are one program on all cores.
@pytest.mark.parametrize("calls", [(24,), (16, 8), (8, 4, 12)])
def test_frames_are_those_of_one_program(with_lanes, calls):
    maker = _maker(True)
    assert maker.has_lanes
    _assert_same(_made(maker, *calls), _made(_maker(False), FRAMES))


def test_products_of_bfloat16_too(with_lanes):
    made = _made(_maker(True, HalfFrames), 24)
    expected = _made(_maker(False, HalfFrames), 24)
    difference = made.frames.astype(float) - expected.frames
    assert np.square(difference).mean() < 255**2 / 10**4  # 40 dB
    assert np.square(made.frames.astype(float) - _made(_maker(True), 24).frames).mean() > 0


@pytest.mark.parametrize(
    ("with_lanes", "count", "threads"), [(3, 3, 1), (9, 4, 2)], indirect=["with_lanes"]
)
def test_many_cores_share_few_lanes_and_make_the_same_frames(with_lanes, count, threads):
    maker = _maker(True)
    assert (len(lanes.devices()), lanes.threads()) == (count, threads)
    _assert_same(_made(maker, FRAMES), _made(_maker(False), FRAMES))


def test_without_compilation_there_are_no_lanes_but_the_same_frames(with_lanes):
    maker = _maker(True)
    expected = _made(maker, 8)
    with jax.disable_jit():
        _assert_same(_made(maker, 8), expected)


def test_several_callers_at_once_get_their_own_frames(with_lanes):
    maker = _maker(True)
    expected = _made(maker, 16, 8)
    with ThreadPoolExecutor(3) as callers:
        for made in callers.map(lambda _: _made(maker, 16, 8), range(3)):
            _assert_same(made, expected)


def test_what_fails_on_a_lane_is_raised_and_the_next_call_works(with_lanes, monkeypatch):
    maker = _maker(True)
    expected = _made(maker, 16)
    calls = itertools.count()

    def failing(*inputs):
        if next(calls) == 1:
            raise MemoryError("no room")
        return refine(*inputs)

    refine = maker._refine
    monkeypatch.setattr(maker, "_refine", failing)
    with pytest.raises(MemoryError, match="no room"):
        _made(maker, 16)
    _assert_same(_made(maker, 16), expected)


def test_lanes_share_the_weights_memory(with_lanes):
    array = jax.device_put(np.ones((64, 64), np.float32))
    for seen in lanes.on_each([array]):
        assert seen[0].unsafe_buffer_pointer() == array.unsafe_buffer_pointer()


def test_one_core_has_no_lanes(monkeypatch):
    monkeypatch.setenv(lanes.THREADS_VARIABLE, "1")
    lanes.devices.cache_clear()
    try:
        assert lanes.devices() == ()
        assert not _maker(True).has_lanes
    finally:
        lanes.devices.cache_clear()


@pytest.mark.parametrize(
    ("count", "size"),
    [(8, 8), (16, 8), (24, 8), (32, 16), (40, 8), (64, 16), (4, None), (12, None), (1, None)],
)
def test_chunks_divide_a_call_in_two_at_least_where_they_can(count, size):
    assert frame_maker.chunk_size(count) == size


def test_more_urgent_tasks_come_first_and_each_is_done_once():
    tasks = lanes.Tasks(5)
    done = []
    for urgency, name in [(1, "c"), (0, "a"), (1, "d"), (0, "b")]:
        tasks.add(urgency, lambda _, name=name: done.append(name))

    def last(lane):
        done.append(lane)

    tasks.add(2, last)
    tasks.work(7)
    assert done == ["a", "b", "c", "d", 7]


def test_tasks_that_tasks_add_are_done_by_whoever_is_free():
    tasks = lanes.Tasks(3)
    both = threading.Barrier(2, timeout=30)  # broken, and so raised, if one lane did both
    tasks.add(0, lambda _: [tasks.add(1, lambda _: both.wait()) for _ in range(2)])
    with ThreadPoolExecutor(2) as workers:
        for worker in [workers.submit(tasks.work, lane) for lane in range(2)]:
            worker.result()


def test_a_failed_task_lets_the_others_go():
    tasks = lanes.Tasks(2)

    def fails(_):
        raise ValueError("broken")

    with ThreadPoolExecutor(1) as workers:
        waiting = workers.submit(tasks.work, 1)
        tasks.add(0, fails)
        try:
            tasks.work(0)
        except ValueError:
            waiting.result(timeout=30)
        else:
            with pytest.raises(ValueError, match="broken"):
                waiting.result(timeout=30)
