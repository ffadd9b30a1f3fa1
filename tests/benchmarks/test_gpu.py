"""The GPU benchmark, where there is none: small sizes on the CPU."""

import json
import sys

import pytest

from atvg_jax import compilation_cache
from atvg_jax.errors import InputError
from benchmarks import gpu


def test_checks_and_measures_a_step(tmp_path, monkeypatch, capsys):
    # The other eight blocks would compile for longer and show nothing more.
    monkeypatch.setattr("atvg_jax.models.vg_net.RESIDUAL_BLOCKS", 1)
    monkeypatch.setenv(compilation_cache.ENVIRONMENT_VARIABLE, str(tmp_path / "compiled"))
    flags = ["--width=0.03125", "--batch=1", "--frames=1", "--rounds=1", "--matrix=64"]
    flags += ["--precision=float32", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["gpu", *flags])
    gpu.main()
    assert "all agree" in capsys.readouterr().out
    content = json.loads((tmp_path / "gpu.json").read_text())
    errors = content["agreement"]["float32"]["relative_errors"]
    assert errors.keys() >= {"g_total", "d_total", "vg_net gradient", "discriminator gradient"}
    assert max(errors.values()) < 1e-3
    (row,) = content["steps"]
    assert row["frames_per_second"] == pytest.approx(1 / row["seconds"]["median"])
    assert row["share_of_products"] > 0
    assert row["program_mib"] > 1


def test_distance_is_relative():
    assert gpu._distance({"a": [3.0, 4.0]}, {"a": [3.0, 4.0]}) == 0
    assert gpu._distance([3.0, 5.0], [3.0, 4.0]) == pytest.approx(1 / 5)


def test_wrong_sizes_are_one_clear_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu", "--out=x", "--batch=0"])
    with pytest.raises(InputError, match="at least 1"):
        gpu.main()
