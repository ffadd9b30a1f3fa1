"""Published checkpoints to a model directory and back, by the command line."""

import dataclasses
import json
import sys
import zlib

import flax.traverse_util
import numpy as np
import pytest

from atvg_jax import convert, models
from atvg_jax.errors import InputError
from atvg_jax.inference import model_directory, published, published_files, torch_files

BOOST = [1.0, 2.2, 2.4, 2.6, 2.8, 3.0]  # published with the checkpoints


def state_dict(name):
    """Every entry of a published network, cheap to make and no two alike."""
    shapes = flax.traverse_util.flatten_dict(models.abstract_variables(published.NETWORKS[name][0]))
    zeros = {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in shapes.items()}
    entries = published.to_state_dict(name, flax.traverse_util.unflatten_dict(zeros))
    made = {}
    for key, array in entries.items():
        start = zlib.crc32(key.encode()) % 1000
        if array.dtype == np.int64:
            made[key] = np.array(start)
        else:
            ramp = np.arange(start, start + array.size, dtype=np.float32)
            made[key] = (ramp * np.float32(1e-9)).reshape(array.shape)
    return made


@pytest.fixture
def small(monkeypatch):
    """Published networks of a sixteenth of their channels, which the code takes for theirs."""
    for name, network in models.NETWORKS.items():
        # A subclass whose default is narrow: the settings of a published network name no width.
        fields = {"__annotations__": {"width": float}, "width": 1 / 16}
        monkeypatch.setitem(models.NETWORKS, name, type(network.__name__, (network,), fields))
    model_directory._shapes.cache_clear()
    yield
    model_directory._shapes.cache_clear()


@pytest.fixture(scope="module")
def basis_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("basics")
    rng = np.random.default_rng(0)
    for name, shape in (
        ("U_lrw1", (136, 136)),
        ("mean_lrw1", (1, 136)),
        ("mean_shape_img", (68, 2)),
        ("mean_shape_norm", (1, 136)),
        ("S", (100, 136)),
    ):
        np.save(folder / f"{name}.npy", rng.standard_normal(shape))
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["convert", *arguments])
    convert.main()


def test_there_and_back_is_the_same_files(small, tmp_path, monkeypatch, capsys, basis_folder):
    names = {"at": "AT_single", "vg": "VG_net", "discriminator": "GL_Discriminator"}
    given = {flag: state_dict(name) for flag, name in names.items()}
    for flag, arrays in given.items():
        prefixed = {f"module.{key}": array for key, array in arrays.items()}
        torch_files.write(tmp_path / f"{flag}.pth", prefixed if flag != "vg" else arrays)
    model = tmp_path / "model"
    files = [f"--{flag}={tmp_path / flag}.pth" for flag in names]
    run(monkeypatch, *files, f"--basis={basis_folder}", f"--out={model}")
    assert "AT_single, VG_net, GL_Discriminator" in capsys.readouterr().out

    description = json.loads((model / "model.json").read_text())
    # As the published code ran: every frame from a zero state, the boost on.
    assert description["vg_net"] == {"name": "vg_net", "settings": {"recurrence": "none"}}
    assert description["at_net"] == {"name": "at_single", "settings": {}}
    read = model_directory.read(model)
    assert set(read.networks) == {"at_net", "vg_net"}
    np.testing.assert_allclose(read.basis.boost, BOOST)
    np.testing.assert_allclose(
        read.basis.mean, np.load(basis_folder / "mean_lrw1.npy")[0], rtol=1e-6
    )
    assert read.basis.normaliser.kind == "published"

    out = tmp_path / "torch"
    run(monkeypatch, "--to_torch", f"--model={model}", f"--out={out}")
    for flag, name in names.items():
        back = torch_files.read(out / f"{name}.pth")
        assert back.keys() == given[flag].keys()
        for key, array in given[flag].items():
            assert back[key].dtype == array.dtype
            np.testing.assert_array_equal(back[key], array, err_msg=key)


def test_files_in_each_others_place(small, tmp_path, basis_folder):
    torch_files.write(tmp_path / "single.pth", state_dict("AT_single"))
    files = {"vg_net": tmp_path / "single.pth"}
    with pytest.raises(InputError, match=r"single\.pth holds AT_single, not VG_net"):
        published_files.read(files, basis_folder)


def test_entries_that_are_wrong_are_named(small, tmp_path, basis_folder):
    arrays = state_dict("AT_single")
    arrays["surprise"] = arrays.pop("audio_eocder_fc.4.bias")
    arrays["audio_eocder.0.0.bias"] = np.zeros(3, np.float32)
    torch_files.write(tmp_path / "at.pth", arrays)
    with pytest.raises(InputError) as caught:
        published_files.read({"at_net": tmp_path / "at.pth"}, basis_folder)
    for part in (
        "at.pth: ",
        "missing audio_eocder_fc.4.bias",
        "unexpected surprise",
        "audio_eocder.0.0.bias has shape (3,) instead of (4,)",
    ):
        assert part in str(caught.value)


def test_what_the_published_definitions_are_not_does_not_go_back(tmp_path, model):
    with pytest.raises(InputError, match="width 1"):
        published_files.write(model, tmp_path / "torch")
    unblended = model_directory.NetworkConfig("vg_net", {"attention": False})
    other = dataclasses.replace(model, networks={"vg_net": unblended})
    with pytest.raises(InputError, match="blends by attention"):
        published_files.write(other, tmp_path / "torch")
    mean = model_directory.NetworkConfig("at_mean", {"members": 2})
    other = dataclasses.replace(model, networks={"at_net": mean})
    with pytest.raises(InputError, match="no published definition of at_mean"):
        published_files.write(other, tmp_path / "torch")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--at=a.pth"], "--vg and --basis must be given"),
        (["--to_torch"], "--model must be given"),
        (["--to_torch", "--model=m", "--vg=v.pth"], "--vg does not go with --to_torch"),
        (["--at=a", "--vg=v", "--basis=b", "--model=m"], "--model does not go without"),
    ],
)
def test_flags_that_do_not_go_together(monkeypatch, capsys, flags, message):
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, *flags, "--out=out")
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_files_load_in_the_published_definitions(tmp_path, reference):
    torch = pytest.importorskip("torch", reason="benchmarks/requirements.txt is not installed")
    from benchmarks import torch_networks

    layout = json.loads((reference / "layouts.json").read_text())["GL_Discriminator"]
    arrays = state_dict("GL_Discriminator")
    assert {key: list(array.shape) for key, array in arrays.items()} == layout
    torch_files.write(tmp_path / "judge.pth", arrays)
    loaded = torch.load(tmp_path / "judge.pth", weights_only=True)
    torch_networks.Discriminator().load_state_dict(loaded, strict=True)
