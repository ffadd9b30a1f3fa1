"""Published state dicts in and out."""

import json

import numpy as np
import pytest

from atvg_jax.errors import InputError
from atvg_jax.inference.published import NETWORKS, from_state_dict, to_state_dict
from atvg_jax.models import abstract_variables
from tests.reference_weights import state_dict

NAMES = ("AT_net", "AT_single", "VG_net", "GL_Discriminator")


@pytest.fixture(scope="module")
def layouts(reference):
    return json.loads((reference / "layouts.json").read_text())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_there_and_back_is_the_same_dictionary(layouts, name, prefix):
    theirs = state_dict(layouts[name], seed=3)
    back = to_state_dict(name, from_state_dict(name, {prefix + k: v for k, v in theirs.items()}))
    assert back.keys() == theirs.keys()
    for key, array in theirs.items():
        assert back[key].dtype == array.dtype
        np.testing.assert_array_equal(back[key], array, err_msg=key)


def _zeros(name):
    """A state dict of the right names and shapes, from variables alone."""
    variables = abstract_variables(NETWORKS[name][0])
    flat = {}

    def fill(tree, out):
        for key, value in tree.items():
            out[key] = fill(value, {}) if isinstance(value, dict) else np.zeros(value.shape, "f4")
        return out

    return to_state_dict(name, fill(variables, flat))


def test_variables_trained_here_have_every_published_name(layouts):
    for name in NAMES:
        made = _zeros(name)
        assert {key: list(array.shape) for key, array in made.items()} == layouts[name]


def test_wrong_entries_are_all_named():
    theirs = _zeros("AT_net")
    theirs["lstm.weight_ih_l1"] = np.zeros((3, 4), np.float32)
    theirs["surprise"] = np.zeros(2, np.float32)
    del theirs["lstm_fc.0.bias"]
    with pytest.raises(InputError) as error:
        from_state_dict("AT_net", theirs)
    for part in ("missing lstm_fc.0.bias", "unexpected surprise", "lstm.weight_ih_l1", "(3, 4)"):
        assert part in str(error.value)


def test_another_network_is_refused():
    with pytest.raises(InputError, match="VG_net"):
        from_state_dict("VG_net", _zeros("AT_single"))
    with pytest.raises(InputError, match="GAN"):
        from_state_dict("GAN", {})
    with pytest.raises(InputError, match="landmark_encoder_1"):
        to_state_dict("AT_net", from_state_dict("AT_single", _zeros("AT_single")))
