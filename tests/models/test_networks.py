"""Sizes, shapes and settings of the networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atvg_jax.errors import InputError
from atvg_jax.models import COMPACT_WIDTH, VGNet, abstract_variables, create, vg_net
from tests.reference_weights import random_variables


def _parameters(name, **settings):
    return sum(x.size for x in jax.tree.leaves(abstract_variables(name, settings)["params"]))


# Totals over the published layouts (all entries that are trained); the released discriminator has
# 594,568 more in a decoder that nothing uses.
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("at_net", 30_071_750),
        ("at_single", 27_833_862),
        ("vg_net", 58_355_781),
        ("discriminator", 21_491_473 - 594_568),
    ],
)
def test_published_parameter_counts(name, count):
    assert _parameters(name) == count


def test_compact_at_net_is_small():
    assert _parameters("at_net", width=COMPACT_WIDTH) < 3_000_000


def _multiply_adds(width):
    """Counted by XLA on the unoptimised program; two operations each."""
    variables = abstract_variables("vg_net", {"width": width})
    shapes = [(1, 128, 128, 3), (1, 1, 136), (1, 136)]
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    cost = jax.jit(VGNet(width=width).apply).lower(variables, *inputs).cost_analysis()
    return cost["flops"] / 2


def test_compact_vg_net_has_a_sixteenth_of_the_multiply_adds(monkeypatch):
    # The network's own, without the zeros that the fast form of its narrow heads multiplies by.
    monkeypatch.setattr(vg_net, "NARROW", 0)
    ratio = _multiply_adds(1.0) / _multiply_adds(COMPACT_WIDTH)
    assert 13 < ratio < 17


@pytest.fixture(scope="module")
def tiny_vg_net():
    settings = {"width": 1 / 16}
    rng = np.random.default_rng(0)
    image = np.tanh(rng.standard_normal((2, 128, 128, 3))).astype(np.float32)
    landmarks = rng.standard_normal((2, 5, 136)).astype(np.float32)
    example = rng.standard_normal((2, 136)).astype(np.float32)
    model, variables = create("vg_net", settings), random_variables("vg_net", settings)
    return model, variables, (image, landmarks, example)


def test_vg_net_in_pieces_is_vg_net_whole(tiny_vg_net):
    model, variables, (image, landmarks, example) = tiny_vg_net
    frames_from = jax.jit(lambda *inputs: model.apply(variables, *inputs, method="frames_from"))
    whole = jax.jit(model.apply)(variables, image, landmarks, example)
    portrait = model.apply(variables, image, example, method="encode_portrait")
    first, carry = frames_from(portrait, landmarks[:, :2])
    second, _ = frames_from(portrait, landmarks[:, 2:], carry)
    for pieces, expected in zip(zip(first, second, strict=True), whole, strict=True):
        np.testing.assert_allclose(jnp.concatenate(pieces, 1), expected, atol=1e-4)


def test_vg_net_frame_is_the_blend_of_portrait_and_motion(tiny_vg_net):
    model, variables, inputs = tiny_vg_net
    made = jax.jit(model.apply)(variables, *inputs)
    assert made.frames.shape == (2, 5, 128, 128, 3)
    assert made.attention.shape == (2, 5, 128, 128, 1)
    assert made.landmark_attention.shape == (2, 5, 32, 32, 1)
    blend = made.attention * made.motion + (1 - made.attention) * inputs[0][:, None]
    np.testing.assert_allclose(made.frames, blend, atol=1e-6)
    assert 0 <= made.attention.min() <= made.attention.max() <= 1
    assert -1 <= made.motion.min() <= made.motion.max() <= 1


def test_vg_net_without_attention_shows_the_motion_map(tiny_vg_net):
    _, variables, inputs = tiny_vg_net
    model = create("vg_net", {"width": 1 / 16, "attention": False})
    made = jax.jit(model.apply)(variables, *inputs)
    np.testing.assert_array_equal(made.frames, made.motion)
    assert bool((made.attention == 1).all())


def test_vg_net_computes_in_bfloat16_and_answers_in_float32(tiny_vg_net):
    model, variables, inputs = tiny_vg_net
    half = create("vg_net", {"width": 1 / 16, "dtype": "bfloat16"})
    made = jax.jit(half.apply)(variables, *inputs)
    assert {x.dtype for x in made} == {jnp.dtype("float32")}
    single = jax.jit(model.apply)(variables, *inputs)
    # bfloat16 keeps 8 bits: 1/256 a rounding, of which many add up on the way to a frame.
    assert 0 < jnp.sqrt(jnp.mean(jnp.square(made.frames - single.frames))) < 0.02


@pytest.mark.parametrize("wrong", [(2, 64, 64, 3), (3, 128, 128, 3)])
def test_vg_net_names_a_wrong_shape(tiny_vg_net, wrong):
    model, variables, (_, landmarks, example) = tiny_vg_net
    with pytest.raises(ValueError, match=r"\(2, 5, 136\)"):
        model.apply(variables, jnp.zeros(wrong), landmarks, example)


def test_discriminator_takes_any_number_of_frames():
    settings = {"width": 1 / 32}
    model, variables = (
        create("discriminator", settings),
        random_variables("discriminator", settings),
    )
    example = np.ones((2, 136), np.float32)
    for count in (1, 7):
        frames = np.zeros((2, count, 128, 128, 3), np.float32)
        score, landmarks = jax.jit(model.apply)(variables, frames, example)
        assert score.shape == (2,)
        assert landmarks.shape == (2, count, 136)
        assert bool(jnp.all((score > 0) & (score < 1)))
        # tanh bounds how far the landmarks can be from the example.
        assert jnp.abs(landmarks - 1).max() < 1


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("gan", {}, "gan"),
        ("vg_net", {"widht": 0.5}, "widht"),
        ("vg_net", {"dtype": "float8"}, "float8"),
    ],
)
def test_create_names_what_it_does_not_know(name, settings, named):
    with pytest.raises(InputError, match=named):
        create(name, settings)


def test_framewise_network_says_nothing_at_first_and_then_from_single_windows():
    settings = {"width": 1 / 32}
    model = create("at_framewise", settings)
    rng = np.random.default_rng(0)
    mfcc = jnp.asarray(10 * rng.standard_normal((2, 3, 28, 12)), jnp.float32)
    example = jnp.asarray(rng.standard_normal((2, 6)), jnp.float32)
    # A face that stays as the example has it, exactly.
    fresh = model.apply(model.init(jax.random.key(0), example, mfcc), example, mfcc)
    np.testing.assert_array_equal(fresh, np.repeat(example[:, None], 3, axis=1))
    # What it says of a frame depends on that frame's window and on nothing else.
    variables = random_variables("at_framewise", settings)
    whole = np.asarray(model.apply(variables, example, mfcc))
    assert np.abs(whole - whole[:, :1]).max() > 1e-3
    alone = model.apply(variables, example, mfcc[:, 1:2])
    np.testing.assert_allclose(alone[:, 0], whole[:, 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["at_net", "at_single", "at_framewise"])
def test_dropout_of_the_speech_networks_is_for_training_alone(name):
    settings = {"width": 1 / 32, "dropout_rate": 0.5}
    variables = random_variables(name, settings)
    model = create(name, settings)
    rng = np.random.default_rng(0)
    mfcc = jnp.asarray(rng.standard_normal((2, 3, 28, 12)), jnp.float32)
    inputs = (mfcc,) if name == "at_single" else (jnp.zeros((2, 6)), mfcc)
    plain = create(name, {"width": 1 / 32}).apply(variables, *inputs)
    np.testing.assert_array_equal(model.apply(variables, *inputs), plain)

    def trained(seed):
        output = model.apply(
            variables,
            *inputs,
            train=True,
            rngs={"dropout": jax.random.key(seed)},
            mutable=["batch_stats"],
        )
        return np.asarray(output[0])

    assert np.abs(trained(0) - trained(1)).max() > 1e-6
    np.testing.assert_array_equal(trained(2), trained(2))
