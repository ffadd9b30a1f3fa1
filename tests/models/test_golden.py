"""The networks against outputs of the published PyTorch definitions."""

import functools
import json

import jax
import numpy as np
import pytest

from atvg_jax.inference.published import from_state_dict
from atvg_jax.models import ATNet, ATNetSingle, Discriminator, VGNet
from tests.reference_weights import OPTIMISED, state_dict

TOLERANCE = 1e-4
jit = functools.partial(jax.jit, compiler_options=OPTIMISED)


@pytest.fixture(scope="module")
def variables(reference):
    layouts = json.loads((reference / "layouts.json").read_text())
    return lambda name: from_state_dict(name, state_dict(layouts[name]))


def _close(actual, expected):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=TOLERANCE)


def _nhwc(array):
    return np.moveaxis(array, -3, -1).astype(np.float32)


def test_at_net(reference, variables):
    golden = np.load(reference / "at_net.npz")
    output = jit(ATNet().apply)(variables("AT_net"), golden["example_landmark"], golden["mfcc"])
    _close(output, golden["landmarks"])


def test_at_net_in_pieces(reference, variables):
    golden = np.load(reference / "at_net.npz")
    weights, example, mfcc = variables("AT_net"), golden["example_landmark"], golden["mfcc"]
    steps = jit(lambda *inputs: ATNet().apply(weights, *inputs, method="steps"))
    first, carry = steps(example, mfcc[:, :5])
    second, _ = steps(example, mfcc[:, 5:], carry)
    _close(np.concatenate([first, second], axis=1), golden["landmarks"])


def test_at_single(reference, variables):
    golden = np.load(reference / "at_single.npz")
    output = jit(ATNetSingle().apply)(variables("AT_single"), golden["mfcc"])
    _close(output, golden["landmarks"])


@pytest.mark.parametrize(("recurrence", "file"), [("time", "recurrent"), ("none", "stateless")])
def test_vg_net(reference, variables, recurrence, file):
    golden = np.load(reference / f"vg_net_{file}.npz")
    inputs = _nhwc(golden["image"]), golden["landmarks"], golden["example_landmark"]
    output = jit(VGNet(recurrence=recurrence).apply)(variables("VG_net"), *inputs)
    for name in ("frames", "attention", "motion", "landmark_attention"):
        _close(getattr(output, name), _nhwc(golden[name]))


def test_discriminator(reference, variables):
    golden = np.load(reference / "discriminator.npz")
    score, landmarks = jit(Discriminator().apply)(
        variables("GL_Discriminator"), _nhwc(golden["frames"]), golden["example_landmark"]
    )
    _close(score, golden["score"])
    _close(landmarks, golden["landmarks"])
