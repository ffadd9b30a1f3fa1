"""Several AT-nets as one: that it gives their mean, and what is refused."""

import jax
import numpy as np
import pytest

from atvg_jax.models import ATNet, ensemble

WIDTH = 1 / 32


def _members(count, width=WIDTH):
    """Networks with weights and statistics that all differ, none of them zero."""
    network = ATNet(width=width)
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
    one = ensemble.as_one(members, WIDTH)
    rng = np.random.default_rng(4)
    mfcc = rng.normal(0, 10, (2, 9, 28, 12)).astype(np.float32)
    example = rng.normal(0, 1, (2, 6)).astype(np.float32)
    said = [np.asarray(ATNet(width=WIDTH).apply(member, example, mfcc)) for member in members]
    assert np.std(said, axis=(1, 2)).min() > 0.01  # they say something
    if count > 1:
        assert np.abs(said[0] - said[1]).max() > 0.1  # and not the same
    wide = ATNet(width=count * WIDTH)
    whole = wide.apply(one, example, mfcc)
    np.testing.assert_allclose(whole, np.mean(said, axis=0), rtol=1e-4, atol=1e-5)
    first, carry = wide.apply(one, example, mfcc[:, :4], method="steps")
    second, _ = wide.apply(one, example, mfcc[:, 4:], carry, method="steps")
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, atol=1e-5)


def test_members_must_be_alike_and_there():
    with pytest.raises(ValueError, match="at least one"):
        ensemble.as_one([], WIDTH)
    narrow, wide = _members(1)[0], _members(1, 2 * WIDTH)[0]
    with pytest.raises(ValueError, match="is not of the same shape"):
        ensemble.as_one([narrow, wide], WIDTH)
    with pytest.raises(ValueError, match="differ in what"):
        ensemble.as_one([narrow, {"params": narrow["params"]}], WIDTH)
    # 64 / 96 rounds to 1 channel, 3 * 64 / 96 to 2.
    with pytest.raises(ValueError, match="are none of width"):
        ensemble.as_one([narrow] * 3, 1 / 96)
    # Of all layers only those of 128 do not add up: 1.5 rounds to 2 channels, 3 to 3.
    with pytest.raises(ValueError, match="are none of width"):
        ensemble.as_one([narrow] * 2, 3 / 256)
