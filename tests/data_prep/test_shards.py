"""Into how many shards, and what is added up on the way into them."""

from pathlib import Path

import numpy as np
import pytest

from data_prep import results, shards
from data_prep.basis import Moments, merged
from data_prep.corpora.clip import Clip


class TestShards:
    def plan(self, count, size, monkeypatch):
        monkeypatch.setattr(shards, "SHARD_BYTES", 1000)
        monkeypatch.setattr(shards, "MANY_SHARDS", 8)
        monkeypatch.setattr(shards, "LARGEST_SHARD_BYTES", 4000)
        made = []
        for number in range(count):
            record = results.Record(f"train {number}", 30, 0, size)
            made.append(
                (
                    Clip(f"train {number}", Path("x"), "a", "train"),
                    results.Result(Path("x"), (record,), {}, None),
                )
            )
        return shards.plan(made)

    def test_as_many_as_the_data_needs(self, monkeypatch):
        assert [len(shard.entries) for shard in self.plan(9, 100, monkeypatch)] == [9]
        assert [len(shard.entries) for shard in self.plan(29, 100, monkeypatch)] == [9, 10, 10]
        assert [len(shard.entries) for shard in self.plan(2, 5000, monkeypatch)] == [1, 1]

    def test_of_much_data_shards_grow_before_they_become_more(self, monkeypatch):
        assert [len(self.plan(count, 100, monkeypatch)) for count in (80, 160, 320)] == [8, 8, 8]
        assert len(self.plan(640, 100, monkeypatch)) == 16

    def test_names(self, monkeypatch):
        names = [shard.name for shard in self.plan(29, 100, monkeypatch)]
        assert names[2] == "atvg_clips-train.tfrecord-00002-of-00003"

    def test_order_has_nothing_to_do_with_names(self, monkeypatch):
        (shard,) = self.plan(9, 10, monkeypatch)
        order = [record.clip_id for _, _, record in shard.entries]
        assert order != sorted(order)
        assert sorted(order) == [f"train {number}" for number in range(9)]


class TestBasis:
    def parts(self):
        """Landmarks of three examples, flat in more than one direction."""
        rng = np.random.default_rng(0)
        mixing = rng.normal(size=(9, 136))
        return [
            (rng.normal(size=(n, 9)) * np.arange(9, 0, -1) @ mixing + 0.01 * rng.normal(size=136))
            .reshape(n, 68, 2)
            .astype(np.float32)
            for n in (30, 1, 200)
        ]

    def sums(self, parts):
        moments = Moments()
        for part in parts:
            moments.add(part)
        return moments

    def test_is_what_a_singular_value_decomposition_gives(self):
        parts = self.parts()
        basis = self.sums(parts).fit()
        flat = np.concatenate(parts).reshape(-1, 136).astype(float) * 5
        centred = flat - flat.mean(axis=0)
        _, values, vectors = np.linalg.svd(centred, full_matrices=False)
        np.testing.assert_allclose(basis.mean, flat.mean(axis=0), atol=1e-5)
        shares = values**2 / np.sum(values**2)
        np.testing.assert_allclose(basis.explained_variance, shares[:6], atol=1e-5)
        signs = np.sign(np.sum(vectors[:6].T * basis.components, axis=0))
        np.testing.assert_allclose(basis.components, signs * vectors[:6].T, atol=1e-4)

    def test_sums_of_shards_are_the_sums_of_all(self):
        parts = self.parts()
        whole, shards_of_it = self.sums(parts), merged(self.sums([part]) for part in parts)
        for name, array in whole.arrays().items():
            np.testing.assert_allclose(shards_of_it.arrays()[name], array, rtol=1e-12, atol=1e-9)

    def test_no_data(self):
        with pytest.raises(ValueError, match="two shapes"):
            Moments().fit()
