"""Steps that keep less between their passes are the same steps."""

import chex
import jax
import numpy as np
import optax
import pytest

from atvg_jax.benchmarking import cases
from atvg_jax.errors import InputError
from atvg_jax.models import create
from atvg_jax.training import steps
from atvg_jax.training.memory import Memory

# Gradients as the optimizer's state, so that they can be compared.
OPTIMIZER = optax.chain(optax.trace(decay=0.0), optax.scale(-1e-6))
SMALL = {"width": 1 / 32}


def _state(*names):
    return cases.train_state(SMALL, *names, optimizer=OPTIMIZER)[0]


def _gradients(state):
    return {name: part.opt_state[0].trace for name, part in state.networks.items()}


def _same(made, expected, tolerance=1e-4):
    made, expected = map(jax.device_get, (made, expected))
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    chex.assert_trees_all_close(made, expected, rtol=tolerance, atol=tolerance * largest)


def _at_step(memory, frozen=True):
    rng = np.random.default_rng(0)
    components = np.linalg.qr(rng.standard_normal((136, 6)))[0].astype(np.float32)
    step = steps.make_at_step(
        create("at_net", SMALL),
        OPTIMIZER,
        np.zeros(136, np.float32),
        components,
        frozen_statistics=frozen,
        memory=memory,
    )
    return jax.jit(step)


def test_at_step_in_parts_is_the_step():
    state, batch, key = _state("at_net"), cases.at_batch(4, 2), jax.random.key(0)
    expected, metrics = _at_step(None)(state, batch, key)
    made, made_metrics = _at_step(Memory(remat=True, accumulate=2))(state, batch, key)
    _same(_gradients(made), _gradients(expected))
    _same(made_metrics, metrics)


def test_parts_normalise_by_themselves_as_devices_do():
    state, batch, key = _state("at_net"), cases.at_batch(4, 2), jax.random.key(0)
    made, _ = _at_step(Memory(accumulate=2), frozen=False)(state, batch, key)
    whole = _at_step(None, frozen=False)
    halves = [
        whole(state, {name: x[part] for name, x in batch.items()}, key)[0]
        for part in (slice(0, 2), slice(2, 4))
    ]
    for of in (lambda s: s.networks["at_net"].batch_stats, _gradients):
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *map(of, halves))
        _same(of(made), mean)


def test_adversarial_step_in_parts_is_the_step(monkeypatch):
    # The other eight blocks would compile for longer and show nothing more.
    monkeypatch.setattr("atvg_jax.models.vg_net.RESIDUAL_BLOCKS", 1)
    state, key = _state("vg_net", "discriminator"), jax.random.key(0)
    batch = cases.vg_batch(2, 1)
    networks = [create(name, SMALL) for name in ("vg_net", "discriminator")]

    def run(memory):
        step = steps.make_vg_step(
            *networks, OPTIMIZER, OPTIMIZER, frozen_statistics=True, memory=memory
        )
        return jax.jit(step)(state, batch, key)

    (expected, metrics), (made, made_metrics) = run(None), run(Memory(remat=True, accumulate=2))
    _same(made_metrics, metrics)
    for name, gradients in _gradients(expected).items():
        _same(_gradients(made)[name], gradients)


def test_half_precision_trains_parameters_and_statistics_in_float32(monkeypatch):
    monkeypatch.setattr("atvg_jax.models.vg_net.RESIDUAL_BLOCKS", 1)
    state, half = _state("vg_net", "discriminator"), {**SMALL, "dtype": "bfloat16"}
    networks = [create(name, half) for name in ("vg_net", "discriminator")]
    step = jax.jit(steps.make_vg_step(*networks, OPTIMIZER, OPTIMIZER))
    after, metrics = step(state, cases.vg_batch(2, 1), jax.random.key(0))
    assert all(np.isfinite(value) for value in metrics.values())
    for name, part in after.networks.items():
        before = state.networks[name]
        for now, then in ((part.params, before.params), (part.batch_stats, before.batch_stats)):
            assert {leaf.dtype for leaf in jax.tree.leaves(now)} == {np.dtype(np.float32)}
            pairs = zip(jax.tree.leaves(now), jax.tree.leaves(then), strict=True)
            assert np.mean([bool((a != b).any()) for a, b in pairs]) > 0.8


def test_remat_keeps_less_for_the_backward_pass(monkeypatch):
    monkeypatch.setattr("atvg_jax.models.vg_net.RESIDUAL_BLOCKS", 1)
    part = _state("vg_net").networks["vg_net"]
    batch = cases.vg_batch(1, 2)
    inputs = [batch[name] for name in ("example_image", "landmarks", "example_landmark")]

    def kept(memory):
        def forward(params):
            image = steps.to_float(inputs[0])
            return steps._apply(
                create("vg_net", SMALL),
                params,
                part.batch_stats,
                image,
                *inputs[1:],
                train=True,
                dropout=jax.random.key(0),
                memory=memory,
            )

        pull_back = jax.eval_shape(lambda p: jax.vjp(forward, p, has_aux=True)[1], part.params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull_back))

    assert kept(Memory(remat=True)) < 0.6 * kept(None)


def test_parts_that_cannot_be_are_an_error_with_the_numbers():
    Memory(accumulate=2).check(4)
    with pytest.raises(InputError, match=r"accumulate=3 .* the 4 example"):
        Memory(accumulate=3).check(4)
    with pytest.raises(InputError, match="accumulate=0"):
        Memory(accumulate=0).check(4)
