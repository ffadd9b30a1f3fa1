"""Data parallelism: any number of devices takes the same step, and mistakes are told early."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from atvg_jax import models
from atvg_jax.errors import InputError
from atvg_jax.training.parallel import AXIS, Devices
from atvg_jax.training.state import init_at_state
from atvg_jax.training.steps import make_at_step


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


@pytest.fixture(scope="module")
def at_problem():
    model = models.create("at_net", {"width": 1 / 32})
    optimizer = optax.sgd(0.1)  # parameters then differ by exactly the gradients
    rng = np.random.default_rng(0)
    components = np.linalg.qr(rng.standard_normal((136, 6)))[0].astype(np.float32)
    batches = [
        {
            "mfcc": rng.standard_normal((4, 3, 28, 12)).astype(np.float32),
            "landmarks": rng.standard_normal((4, 3, 136)).astype(np.float32),
            "example_landmark": rng.standard_normal((4, 136)).astype(np.float32),
        }
        for _ in range(2)
    ]
    state = jax.device_get(init_at_state(model, optimizer, jax.random.key(0)))
    mean = jnp.zeros(136)
    step = make_at_step(model, optimizer, mean, components, AXIS, frozen_statistics=True)
    return step, state, batches


def test_any_number_of_devices_takes_the_same_steps(at_problem):
    step, state, batches = at_problem
    ends, losses = [], []
    for count in (1, 2, 4):
        devices = Devices(count)
        run = devices.train_step(step)
        there = devices.replicate(state)
        for n, batch in enumerate(batches):
            key = jax.random.fold_in(jax.random.key(0), n)
            there, metrics = run(there, devices.shard(batch), key)
        ends.append(devices.unreplicate(there))
        losses.append(float(metrics["loss"][0]))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), ends[0], state)
    assert max(jax.tree.leaves(moved.networks["at_net"].params)) > 1e-4
    for other in ends[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ends[0], other
        )
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
