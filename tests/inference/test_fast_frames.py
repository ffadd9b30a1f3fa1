"""The rearranged VG-net against the network as it is defined."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atvg_jax.inference import fast_frames, frame_maker, half_frames
from atvg_jax.inference.published import from_state_dict
from atvg_jax.models import create
from atvg_jax.models.convolutions import SIDE
from tests.reference_weights import OPTIMISED, random_variables, state_dict

FRAMES = 8


def _inputs():
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (128, 128, 3)).astype(np.float32)
    landmarks = rng.standard_normal((FRAMES, 136)).astype(np.float32)
    return image, landmarks, rng.standard_normal(136).astype(np.float32)


def _made(frames, variables, *calls):
    """Frames, attention and motion from calls with so many landmarks each."""
    image, landmarks, example = _inputs()
    weights = frames.prepare(variables)
    portrait = jax.jit(frames.portrait)(weights, image, example)
    carry, parts, start = frames.start(weights), [], 0
    make = jax.jit(frames.frames)
    for count in calls:
        made, carry = make(weights, portrait, landmarks[start : start + count], carry)
        parts.append(made)
        start += count
    return fast_frames.Made(*map(np.concatenate, zip(*parts, strict=True)))


@functools.cache
def _defined(**settings):
    variables = random_variables("vg_net", settings)
    return _made(frame_maker.PlainFrames(create("vg_net", settings)), variables, FRAMES)


# 8 frames in a call go through Winograd, fewer do not.
@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        ({"width": 1 / 32}, (8,)),
        ({"width": 1 / 32}, (1, 4, 3)),
        ({"width": 1 / 32, "recurrence": "none", "attention": False}, (8,)),
    ],
)
def test_frames_are_those_of_the_definition(settings, calls):
    variables = random_variables("vg_net", settings)
    made = _made(fast_frames.FastFrames(create("vg_net", settings)), variables, *calls)
    for name, expected in _defined(**settings)._asdict().items():
        np.testing.assert_allclose(getattr(made, name), expected, atol=1e-4, err_msg=name)


def test_full_size_frames_are_the_golden_ones(reference, monkeypatch):
    layouts = json.loads((reference / "layouts.json").read_text())
    variables = from_state_dict("VG_net", state_dict(layouts["VG_net"]))
    golden = np.load(reference / "vg_net_recurrent.npz", allow_pickle=False)
    monkeypatch.setattr(fast_frames, "WINOGRAD_FRAMES", 4)
    frames = fast_frames.FastFrames(create("vg_net"))
    weights = jax.device_put(frames.prepare(variables))
    image = np.moveaxis(golden["image"][0], 0, -1).astype(np.float32)
    portrait = jax.jit(frames.portrait)(weights, image, golden["example_landmark"][0])
    made, _ = jax.jit(frames.frames, compiler_options=OPTIMISED)(
        weights, portrait, golden["landmarks"][0], frames.start(weights)
    )
    error = np.moveaxis(np.asarray(made.frames), -1, 1) - golden["frames"][0]
    # Winograd's rounding, through 23 layers of random weights that amplify it.
    assert np.abs(error).max() < 5e-4
    assert 10 * np.log10(4 / np.square(error).mean()) > 90


def test_wide_heads_and_half_precision_parameters():
    settings = {"width": 1 / 32}
    variables = random_variables("vg_net", settings)
    halves = jax.tree.map(lambda x: x.astype(np.float16), variables)
    weights = fast_frames.prepare(halves)
    kernel, _ = weights["heads"]
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(weights))
    assert kernel.shape == (7, 3, SIDE, SIDE * 4)
    wide = fast_frames.prepare(random_variables("vg_net", {"width": 17 / 32}))
    assert wide["heads"][0].shape == (7, 7, 17, 4)


def test_products_of_bfloat16_are_close_and_the_same_in_any_calls():
    # Wide enough that recurrence, residual blocks and two transposed convolutions are halved.
    settings = {"width": 1 / 4}
    network, variables = create("vg_net", settings), random_variables("vg_net", settings)
    exact = _made(fast_frames.FastFrames(network), variables, FRAMES)
    halved = half_frames.HalfFrames(network)
    weights = halved.prepare(variables)
    for halves in (weights["residual_0_1"]["winograd"], weights["hidden"][0][0]):
        assert halves.dtype == jnp.bfloat16
    whole, parts = (_made(halved, variables, *calls) for calls in ((FRAMES,), (1, 4, 3)))
    error = np.square(whole.frames - exact.frames).mean()
    assert 40 < 10 * np.log10(4 / error) < 60, "at least 40 dB, and not float32's 80"
    # Sums differ in their order, which turns factors' last bits; through 18 layers that is as much
    # as rounding itself.
    assert 10 * np.log10(4 / np.square(whole.frames - parts.frames).mean()) > 40
