"""Layers against SciPy, XLA's own form, or a calculation by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from atvg_jax.models import blocks, convolutions, winograd
from atvg_jax.models.blocks import LSTMLayer, TransposedConv, scaled
from atvg_jax.models.convolutions import (
    as_products,
    at_once,
    conv_side_by_side,
    side_by_side,
    transposed_conv_at_once,
    transposed_conv_by_products,
    wide_conv,
)
from atvg_jax.models.cpu_gradients import in_parts
from atvg_jax.models.mmrnn import (
    MMRNN,
    dilated_conv,
    dilated_conv_gradient,
    gru_update,
    tapped_conv,
    tapped_conv_gradient,
)


def _transposed(x, kernel):
    """The same layer as one dilated convolution: the definition, with zeros multiplied."""
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],
        (1, 1),
        ((1, 2), (1, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


@pytest.fixture(scope="module")
def transposed_inputs():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 5, 4, 3)).astype(np.float32)
    return x, rng.standard_normal((3, 3, 3, 6)).astype(np.float32)


def test_transposed_conv_is_the_dilated_convolution(transposed_inputs):
    x, kernel = transposed_inputs
    made = TransposedConv(6).apply({"params": {"kernel": kernel}}, x)
    assert made.shape == (2, 10, 8, 6)
    np.testing.assert_allclose(made, _transposed(x, kernel), atol=1e-5)


def test_transposed_conv_has_the_gradient_of_the_dilated_convolution(transposed_inputs):
    x, kernel = transposed_inputs
    layer = TransposedConv(6)

    def ours(x, kernel):
        return jnp.sum(jnp.sin(layer.apply({"params": {"kernel": kernel}}, x)))

    def theirs(x, kernel):
        return jnp.sum(jnp.sin(_transposed(x, kernel)))

    for made, expected in zip(
        jax.grad(ours, (0, 1))(x, kernel), jax.grad(theirs, (0, 1))(x, kernel), strict=True
    ):
        np.testing.assert_allclose(made, expected, atol=1e-4)


def test_transposed_conv_has_the_gradients_of_its_definition(transposed_inputs):
    x, kernel = transposed_inputs
    gradient = np.random.default_rng(1).standard_normal((2, 10, 8, 6)).astype(np.float32)
    _, pull = jax.vjp(convolutions.transposed_conv, x, kernel)
    _, expected_pull = jax.vjp(convolutions._interleaved, x, kernel)
    for made, expected in zip(pull(gradient), expected_pull(gradient), strict=True):
        np.testing.assert_allclose(made, expected, atol=1e-4)


@pytest.mark.parametrize(("conv", "stride"), [("same_conv", 1), ("strided_conv", 2)])
@pytest.mark.parametrize("shape", [(3, 8, 12, 5), (2, 64, 64, 2), (1, 7, 5, 3), (16, 28, 12, 1)])
def test_conv_and_its_gradients_are_those_of_pytorch(shape, conv, stride):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape).astype(np.float32)
    kernel = rng.standard_normal((3, 3, shape[-1], 4)).astype(np.float32)
    made, pull = jax.vjp(getattr(convolutions, conv), x, kernel)
    gradient = rng.standard_normal(made.shape).astype(np.float32)
    inputs = [
        torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True),
        torch.tensor(kernel.transpose(3, 2, 0, 1).copy(), requires_grad=True),
    ]
    expected = torch.nn.functional.conv2d(*inputs, stride=stride, padding=1)
    np.testing.assert_allclose(made, expected.detach().numpy().transpose(0, 2, 3, 1), atol=1e-4)
    expected.backward(torch.tensor(np.moveaxis(gradient, -1, 1).copy()))
    to_x, to_kernel = pull(gradient)
    np.testing.assert_allclose(to_x, inputs[0].grad.numpy().transpose(0, 2, 3, 1), atol=1e-4)
    np.testing.assert_allclose(to_kernel, inputs[1].grad.numpy().transpose(2, 3, 1, 0), atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 26, 5, 3), (3, 28, 12, 1)])
def test_same_conv_has_the_gradients_of_its_definition(shape):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(shape).astype(np.float32)
    kernel = rng.standard_normal((3, 3, shape[-1], 6)).astype(np.float32)
    made, pull = jax.vjp(convolutions.same_conv, x, kernel)
    expected, expected_pull = jax.vjp(winograd.direct, x, kernel)
    np.testing.assert_allclose(made, expected, atol=1e-5)
    gradient = rng.standard_normal(made.shape).astype(np.float32)
    for ours, theirs in zip(pull(gradient), expected_pull(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def test_transposed_convolution_in_other_forms_is_the_same(transposed_inputs):
    x, kernel = transposed_inputs
    made = transposed_conv_at_once(x, at_once(kernel))
    np.testing.assert_allclose(made, _transposed(x, kernel), atol=1e-4)
    made = transposed_conv_by_products(x, as_products(kernel))
    np.testing.assert_allclose(made, _transposed(x, kernel), atol=1e-4)


def test_side_by_side_is_the_same_convolution():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 9, 16, 3)).astype(np.float32)
    kernel = rng.standard_normal((7, 7, 3, 2)).astype(np.float32)

    def ours(x, kernel):
        return conv_side_by_side(x, side_by_side(kernel))

    np.testing.assert_allclose(ours(x, kernel), _same_padded(x, kernel), atol=1e-4)
    both = ours, _same_padded
    gradients = [jax.grad(lambda *a, f=f: jnp.sin(f(*a)).sum(), (0, 1)) for f in both]
    for made, expected in zip(*(gradient(x, kernel) for gradient in gradients), strict=True):
        np.testing.assert_allclose(made, expected, atol=1e-3)


def _same_padded(x, kernel):
    form = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=form)


@pytest.mark.parametrize("examples", [8, 3])  # whole parts, and what does not divide
def test_convolutions_in_parts_are_the_whole_ones(examples):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((examples, 6, 5, 3)).astype(np.float32)
    kernel = rng.standard_normal((7, 7, 3, 4)).astype(np.float32)
    expected, expected_pull = jax.vjp(_same_padded, x, kernel)
    np.testing.assert_allclose(in_parts(_same_padded)(x, kernel), expected, atol=1e-4)
    made, pull = jax.vjp(wide_conv, x, kernel)
    np.testing.assert_allclose(made, expected, atol=1e-4)
    gradient = rng.standard_normal(made.shape).astype(np.float32)
    for ours, theirs in zip(pull(gradient), expected_pull(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_lstm_layer_follows_the_equations():
    rng = np.random.default_rng(1)
    hidden, size = 3, 4
    params = {
        "input_kernel": rng.standard_normal((size, 4 * hidden)),
        "hidden_kernel": rng.standard_normal((hidden, 4 * hidden)),
        "input_bias": rng.standard_normal(4 * hidden),
        "hidden_bias": rng.standard_normal(4 * hidden),
    }
    x = rng.standard_normal((2, 5, size))
    h, c = rng.standard_normal((2, 2, hidden))
    carry = (jnp.asarray(h, jnp.float32), jnp.asarray(c, jnp.float32))
    as_float32 = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    made, after = LSTMLayer(hidden).apply({"params": as_float32}, jnp.asarray(x, "f4"), carry)
    for t in range(x.shape[1]):
        gates = x[:, t] @ params["input_kernel"] + params["input_bias"]
        gates = gates + h @ params["hidden_kernel"] + params["hidden_bias"]
        i, f, g, o = np.split(gates, 4, axis=-1)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(made[:, t], h, atol=1e-5)
    np.testing.assert_allclose(after[0], h, atol=1e-5)
    np.testing.assert_allclose(after[1], c, atol=1e-5)


def test_dilated_conv_is_the_dilated_convolution():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 8, 7, 3)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 3, 5)).astype(np.float32)
    bias = rng.standard_normal(5).astype(np.float32)
    expected = lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        ((2, 2), (2, 2)),
        rhs_dilation=(2, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(dilated_conv(x, kernel, bias), expected + bias, atol=1e-5)
    taps = [list(row) for row in jnp.asarray(kernel)]
    np.testing.assert_allclose(tapped_conv(x, taps), expected, atol=1e-5)


def test_both_gradients_of_the_dilated_convolution_are_its_transpose():
    rng = np.random.default_rng(3)
    kernel = rng.standard_normal((3, 3, 4, 5)).astype(np.float32)
    gradient = rng.standard_normal((2, 6, 8, 5)).astype(np.float32)
    x = jax.ShapeDtypeStruct((2, 6, 8, 4), jnp.float32)
    linear = functools.partial(dilated_conv, kernel=jnp.asarray(kernel), bias=jnp.zeros(5))
    (expected,) = jax.linear_transpose(linear, x)(gradient)
    made = dilated_conv_gradient(jnp.asarray(gradient), kernel.reshape(-1, 5).T)
    np.testing.assert_allclose(made, expected, atol=1e-4)
    turned = [[tap.T for tap in row] for row in kernel]
    made = tapped_conv_gradient(jnp.asarray(gradient), turned)
    np.testing.assert_allclose(made, expected, atol=1e-4)


@pytest.fixture(scope="module")
def mmrnn():
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 8, 4))
    return x, MMRNN(5).init(jax.random.key(1), x)


def test_mmrnn_in_pieces_is_mmrnn_whole(mmrnn):
    x, variables = mmrnn
    whole, last = MMRNN(5).apply(variables, x)
    first, carry = MMRNN(5).apply(variables, x[:, :2])
    second, after = MMRNN(5).apply(variables, x[:, 2:], carry)
    np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, atol=1e-6)
    np.testing.assert_allclose(after, last, atol=1e-6)


def test_mmrnn_without_recurrence_is_its_first_step_for_every_frame(mmrnn):
    x, variables = mmrnn
    alone = [MMRNN(5).apply(variables, x[:, t : t + 1])[0] for t in range(x.shape[1])]
    stateless, _ = MMRNN(5, recurrence="none").apply(variables, x)
    np.testing.assert_allclose(stateless, jnp.concatenate(alone, 1), atol=1e-6)


def test_mmrnn_refuses_another_recurrence(mmrnn):
    with pytest.raises(ValueError, match="batch"):
        MMRNN(5, recurrence="batch").apply(mmrnn[1], mmrnn[0])


def test_scaled_keeps_at_least_one_channel():
    assert [scaled(64, 1.0), scaled(64, 0.25), scaled(64, 1 / 1000)] == [64, 16, 1]


@pytest.mark.parametrize(("rate", "kept"), [(0.5, 0.5), (0.4, 154 / 256)])
def test_dropout_keeps_its_share_and_the_mean(rate, kept):
    x = np.ones((50, 41, 31), np.float32)

    def dropped(seed):
        layer = blocks.Dropout(rate)
        return np.asarray(layer.apply({}, x, True, rngs={"dropout": jax.random.key(seed)}))

    made = dropped(0)
    # Five standard deviations of a share of 63,550 draws.
    assert abs((made > 0).mean() - kept) < 5 * (kept * (1 - kept) / x.size) ** 0.5
    np.testing.assert_allclose(np.unique(made), [0, 1 / kept], rtol=1e-6)
    # Neighbours are drawn apart, though four share a word.
    for axis in range(3):
        pairs = (
            np.take(made, range(1, x.shape[axis]), axis),
            np.take(made, range(x.shape[axis] - 1), axis),
        )
        assert abs(np.corrcoef(*(pair.ravel() for pair in pairs))[0, 1]) < 0.025
    assert (dropped(1) != made).any()
    np.testing.assert_array_equal(blocks.Dropout(rate).apply({}, x), x)


def test_a_dropout_rate_of_one_is_refused():
    with pytest.raises(ValueError, match="below 1, not 1"):
        blocks.Dropout(1.0).apply({}, np.ones(3, np.float32))


def test_a_dropout_rate_close_to_one_keeps_a_256th():
    x = np.ones(100_000, np.float32)
    made = blocks.Dropout(0.999).apply({}, x, True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(np.unique(made), [0, 256], rtol=1e-6)


def test_the_recurrence_has_the_gradients_of_a_loop_over_frames():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 5, 4, 6, 3)).astype(np.float32)
    before = rng.standard_normal((2, 4, 6, 7)).astype(np.float32)
    layer = MMRNN(7)
    params = layer.init(jax.random.key(0), x)["params"]
    weights = rng.standard_normal((2, 5, 4, 6, 7)).astype(np.float32)

    def by_layer(params, x, before):
        states, after = layer.apply({"params": params}, x, before)
        return (states * weights).sum() + jnp.sin(after).sum()

    def by_loop(params, x, before):
        hidden, total = before, 0.0
        for frame in range(x.shape[1]):
            seen = dilated_conv(x[:, frame], params["input_kernel"], params["input_bias"])
            kept = dilated_conv(hidden, params["hidden_kernel"], params["hidden_bias"])
            hidden = gru_update(seen, kept, hidden)
            total += (hidden * weights[:, frame]).sum()
        return total + jnp.sin(hidden).sum()

    made, expected = (jax.grad(f, (0, 1, 2))(params, x, before) for f in (by_layer, by_loop))
    for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
