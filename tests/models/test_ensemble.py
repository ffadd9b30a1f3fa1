"""The mean of several AT-nets: that it is their mean, whole and in pieces."""

import jax
import numpy as np
import pytest

from atvg_jax import models
from atvg_jax.models import ATNet, ATNetMean, ensemble

WIDTH = 1 / 32


def _members(count):
    """Networks with weights and statistics that all differ, none of them zero."""
    network = ATNet(width=WIDTH)
    mfcc, example = np.zeros((1, 1, 28, 12), np.float32), np.zeros((1, 6), np.float32)
    rng = np.random.default_rng(3)

    def drawn(path, value):
        name = path[-1].key
        if name in ("var", "scale"):
            return rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        scale = 3 / np.sqrt(np.prod(value.shape[:-1])) if value.ndim > 1 else 0.3
        return rng.normal(0, scale, value.shape).astype(np.float32)

    empty = network.init(jax.random.key(0), example, mfcc)
    return [jax.tree_util.tree_map_with_path(drawn, empty) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_gives_the_mean_of_its_members_frame_by_frame_and_in_pieces(count):
    members = _members(count)
    variables = ensemble.of_members(members)
    rng = np.random.default_rng(4)
    mfcc = rng.normal(0, 10, (2, 9, 28, 12)).astype(np.float32)
    example = rng.normal(0, 1, (2, 6)).astype(np.float32)
    said = [np.asarray(ATNet(width=WIDTH).apply(member, example, mfcc)) for member in members]
    assert np.std(said, axis=(1, 2)).min() > 0.01  # they say something
    if count > 1:
        assert np.abs(said[0] - said[1]).max() > 0.1  # and not the same
    mean = ATNetMean(members=count, width=WIDTH)
    whole = mean.apply(variables, example, mfcc)
    np.testing.assert_allclose(whole, np.mean(said, axis=0), rtol=1e-4, atol=1e-5)
    first, carry = mean.apply(variables, example, mfcc[:, :4], method="steps")
    second, _ = mean.apply(variables, example, mfcc[:, 4:], carry, method="steps")
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, atol=1e-5)
    # A state is as an LSTM's of all members' units.
    assert {leaf.shape for leaf in jax.tree.leaves(carry)} == {(2, count * 8)}


def test_has_the_parameters_of_its_members_and_no_more():
    settings = {"members": 3, "width": WIDTH}
    shapes = jax.tree.map(lambda leaf: leaf.shape, models.abstract_variables("at_mean", settings))
    held = jax.tree.map(lambda leaf: leaf.shape, ensemble.of_members(_members(3)))
    assert shapes == held


def test_members_come_out_as_they_went_in():
    members = _members(2)
    out = ensemble.members_of(ensemble.of_members(members))
    assert len(out) == 2
    for one, other in zip(members, out, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    # A network by itself is its only member.
    assert list(ensemble.members_of(members[0])[0]) == list(members[0])
    assert len(ensemble.members_of(members[0])) == 1


@pytest.mark.parametrize("members", [0, 10**9])
def test_a_mean_of_none_or_of_too_many_is_refused(members):
    with pytest.raises(ValueError, match="1 to 64 networks"):
        models.abstract_variables("at_mean", {"members": members, "width": WIDTH})
