"""The PyTorch networks that this project is measured against are the published ones."""

import json

import numpy as np
import pytest

from tests.reference_weights import state_dict

torch = pytest.importorskip("torch", reason="benchmarks/requirements.txt is not installed")

from benchmarks import torch_networks  # noqa: E402


def _loaded(cls, name, reference, **settings):
    layouts = json.loads((reference / "layouts.json").read_text())
    model = cls(**settings)
    weights = {key: torch.tensor(array) for key, array in state_dict(layouts[name]).items()}
    model.load_state_dict(weights, strict=True)
    return model.eval()


def _inputs(path, *names):
    arrays = np.load(path, allow_pickle=False)
    return arrays, [torch.tensor(arrays[name].astype(np.float32)) for name in names]


@torch.no_grad()
@pytest.mark.parametrize("each_frame", [torch_networks.folded, torch_networks.in_turn])
def test_vg_net_makes_the_golden_frames(reference, each_frame):
    model = _loaded(torch_networks.VGNet, "VG_net", reference, each_frame=each_frame)
    names = ("image", "landmarks", "example_landmark")
    arrays, inputs = _inputs(reference / "vg_net_recurrent.npz", *names)
    made = model(*inputs)
    np.testing.assert_allclose(made.frames, arrays["frames"], atol=1e-4)
    np.testing.assert_allclose(made.attention, arrays["attention"], atol=1e-4)


@torch.no_grad()
def test_discriminator_and_at_net_give_the_golden_numbers(reference):
    judge = _loaded(torch_networks.Discriminator, "GL_Discriminator", reference)
    arrays, inputs = _inputs(reference / "discriminator.npz", "frames", "example_landmark")
    score, landmarks = judge(*inputs)
    np.testing.assert_allclose(score, arrays["score"].reshape(-1), atol=1e-4)
    np.testing.assert_allclose(landmarks, arrays["landmarks"], atol=1e-4)
    listener = _loaded(torch_networks.ATNet, "AT_net", reference)
    arrays, inputs = _inputs(reference / "at_net.npz", "example_landmark", "mfcc")
    np.testing.assert_allclose(listener(*inputs), arrays["landmarks"], atol=1e-4)
