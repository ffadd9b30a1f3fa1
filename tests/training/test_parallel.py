"""Data parallelism: arrays on devices, one compilation, and mistakes that are told early."""

import jax
import numpy as np
import pytest

from atvg_jax.errors import InputError
from atvg_jax.training import parallel
from atvg_jax.training.parallel import AXIS, Devices


def test_arrays_go_to_the_devices_and_back():
    devices = Devices(4)
    tree = {"a": np.arange(6.0).reshape(2, 3), "b": np.int32(7)}
    back = devices.unreplicate(devices.replicate(tree))
    np.testing.assert_array_equal(back["a"], tree["a"])
    assert back["b"] == 7
    assert back["b"].dtype == np.int32
    batch = {"x": np.arange(24.0).reshape(8, 3)}
    sharded = devices.shard(batch)
    assert sharded["x"].shape == (4, 2, 3)
    assert len(sharded["x"].sharding.device_set) == 4
    np.testing.assert_array_equal(devices.gather(sharded)["x"], batch["x"])


def test_uneven_batches_and_missing_devices_are_errors_with_the_numbers():
    with pytest.raises(InputError, match=r"batch_size=6 .* 4 devices; use 4 or 8"):
        Devices(4).per_device(6)
    with pytest.raises(InputError, match=r"batch_size=2 .* 4 devices; use 4,"):
        Devices(4).per_device(2)
    assert Devices(4).per_device(8) == 2
    with pytest.raises(InputError, match=r"devices=64, but this machine has 4 cpu"):
        Devices(64)
    with pytest.raises(InputError, match=r"batch of 6 .* 4 devices"):
        Devices(4).shard({"x": np.zeros((6, 2))})


def test_processes_are_found_by_the_environment_or_the_user_is_told(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: asked.append(given))
    for name, value in zip(
        (parallel.ADDRESS, parallel.COUNT, parallel.NUMBER), ("host:1234", "8", "3"), strict=True
    ):
        monkeypatch.setenv(name, value)
    parallel.connect()
    monkeypatch.delenv(parallel.ADDRESS)  # SLURM and Cloud TPUs tell JAX by themselves
    parallel.connect()
    assert asked == [("host:1234", 8, 3), ()]

    def alone(*_):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", alone)
    with pytest.raises(InputError, match=r"--distributed: .*launch/.*JAX_NUM_PROCESSES"):
        parallel.connect()


def test_prefetch_keeps_order_and_tags():
    devices = Devices(2)
    batches = [({"x": np.full((2,), n)}, n) for n in range(5)]
    for size in (1, 2, 10):
        seen = list(devices.prefetch(batches, size))
        assert [tag for _, tag in seen] == list(range(5))
        assert [int(batch["x"][0, 0]) for batch, _ in seen] == list(range(5))


def test_a_step_is_traced_once_and_a_second_trace_is_an_error():
    devices = Devices(2)

    def step(state, batch, rng):
        total = jax.lax.pmean(batch["x"].sum(), AXIS)
        return state + total, {"total": total, "draw": jax.random.uniform(rng)}

    run = devices.train_step(step)
    state = devices.replicate(np.float32(0))
    root = jax.random.key(0)
    draws = []
    for n in range(4):
        batch = devices.shard({"x": np.ones((4, 3), np.float32)})
        state, metrics = run(state, batch, jax.random.fold_in(root, n))
        draws += np.asarray(metrics["draw"]).tolist()
    assert run.traces == 1
    assert float(devices.unreplicate(state)) == 4 * 6
    assert len(set(draws)) == 8, "every device and step draws its own numbers"
    with pytest.raises(RuntimeError, match="twice"):
        run(state, devices.shard({"x": np.ones((2, 3), np.float32)}), root)
