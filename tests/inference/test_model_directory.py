import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from atvg_jax.errors import InputError
from atvg_jax.inference import model_directory


@pytest.fixture(scope="module")
def original(model, tmp_path_factory):
    return model_directory.write(tmp_path_factory.mktemp("original") / "model", model)


@pytest.fixture
def written(original, tmp_path):
    return shutil.copytree(original, tmp_path / "model")


def edit(folder, change):
    file = folder / "model.json"
    description = json.loads(file.read_text())
    change(description)
    file.write_text(json.dumps(description))


def test_round_trip(model, written):
    read = model_directory.read(written)
    assert read.networks == model.networks
    assert read.training == model.training
    jax.tree.map(np.testing.assert_array_equal, dict(read.variables), dict(model.variables))
    points = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    np.testing.assert_array_equal(read.basis.decode(points), model.basis.decode(points))


def test_half_precision_halves_the_files_and_rounds_the_parameters(model, original, tmp_path):
    half = model_directory.write(tmp_path / "half", model, "float16")
    size, wanted = ((f / "vg_net.safetensors").stat().st_size for f in (half, original))
    assert size < 0.6 * wanted
    read = model_directory.read(half)
    for slot, variables in model.variables.items():
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a, b.astype(np.float16)),
            read.variables[slot]["params"],
            variables["params"],
        )
        jax.tree.map(
            np.testing.assert_array_equal,
            read.variables[slot].get("batch_stats", {}),
            variables.get("batch_stats", {}),
        )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(dict(read.variables))} == {"float32"}


def test_weights_beyond_half_precision_are_not_written(model, tmp_path):
    large = jax.tree.map(lambda leaf: leaf + 1e6, model.variables["vg_net"])
    changed = dataclasses.replace(model, variables={**model.variables, "vg_net": large})
    with pytest.raises(InputError, match="not finite"):
        model_directory.write(tmp_path / "half", changed, "float16")
    assert not list(tmp_path.iterdir())


def test_on_disk(written):
    assert sorted(file.name for file in written.iterdir()) == [
        "at_net.safetensors",
        "basis.npz",
        "model.json",
        "vg_net.safetensors",
    ]
    description = json.loads((written / "model.json").read_text())
    assert description["layout_version"] == 1
    assert description["vg_net"] == {"name": "vg_net", "settings": {"width": 1 / 16}}
    assert description["features"]["sample_rate"] == 16000
    names = load_file(written / "vg_net.safetensors")
    assert all(name.startswith(("params/", "batch_stats/")) for name in names)


def test_writing_again_replaces_and_leaves_nothing_else(model, written):
    (written / "model.json").write_text("old")
    model_directory.write(written, model)
    assert model_directory.read(written).training == {"note": "random"}
    assert [entry.name for entry in written.parent.iterdir()] == ["model"]


def test_other_folders_are_not_overwritten(model, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("words")
    with pytest.raises(InputError, match="not a model directory"):
        model_directory.write(tmp_path / "thesis", model)
    assert (tmp_path / "thesis" / "chapter").read_text() == "words"


def test_a_failed_write_leaves_nothing(model, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(model.basis), "save", full)
    with pytest.raises(InputError, match="No space left"):
        model_directory.write(tmp_path / "model", model)
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_are_not_written(model, tmp_path):
    swapped = {"at_net": model.variables["vg_net"], "vg_net": model.variables["at_net"]}
    with pytest.raises(InputError, match="missing"):
        model_directory.write(
            tmp_path / "m", model_directory.Model(model.networks, swapped, model.basis)
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(layout_version=2), "layout version 2"),
        (lambda d: d.pop("layout_version"), "no layout_version"),
        (lambda d: d.pop("at_net"), "what its at_net is"),
        (lambda d: d.update(at_net="at_net"), "what its at_net is"),
        (lambda d: d["at_net"].update(name="discriminator"), "what its at_net is"),
        (lambda d: d["vg_net"].update(settings=[]), "what its vg_net is"),
        (lambda d: d["vg_net"]["settings"].update(colour=1), "colour"),
        (lambda d: d["vg_net"]["settings"].update(width=1 / 8), "misshapen"),
        (lambda d: d["vg_net"]["settings"].update(width="wide"), "can be built with"),
        (lambda d: d["vg_net"]["settings"].update(width=float("inf")), "can be built with"),
        (lambda d: d["vg_net"]["settings"].update(recurrence=3), "can be built with"),
        (lambda d: d["features"].update(sample_rate=8000), "8000"),
        (lambda d: d.pop("features"), "features"),
    ],
)
def test_descriptions_that_do_not_hold(written, change, message):
    edit(written, change)
    with pytest.raises(InputError, match=message) as caught:
        model_directory.read(written)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\0\0", "[" * 100000])
def test_descriptions_that_are_none(written, text):
    (written / "model.json").write_text(text)
    with pytest.raises(InputError, match=r"model\.json"):
        model_directory.read(written)


@pytest.mark.parametrize("name", ["model.json", "basis.npz", "at_net.safetensors"])
def test_missing_files(written, name):
    (written / name).unlink()
    with pytest.raises(InputError, match=name):
        model_directory.read(written)


@pytest.mark.parametrize("name", ["vg_net.safetensors", "basis.npz"])
@pytest.mark.parametrize("keep", [0, 5, 1000])
def test_files_that_are_cut_off(written, name, keep):
    file = written / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=name):
        model_directory.read(written)


def test_arrays_are_named_in_the_error(written):
    file = written / "at_net.safetensors"
    arrays = load_file(file)
    first, second, third = sorted(arrays)[:3]
    arrays.pop(first)
    arrays[second] = np.zeros((2, 2), np.float32)
    arrays["params/nobody"] = np.zeros(3, np.float32)
    save_file(arrays, file)
    with pytest.raises(InputError) as caught:
        model_directory.read(written)
    message = str(caught.value)
    assert f"missing: {first}" in message
    assert "unknown: params/nobody" in message
    assert f"misshapen: {second} (2, 2), wanted" in message
    assert third not in message


def test_weights_that_are_not_numbers(written):
    file = written / "at_net.safetensors"
    arrays = load_file(file)
    name = sorted(arrays)[0]
    arrays[name] = np.full_like(arrays[name], np.nan)
    save_file(arrays, file)
    with pytest.raises(InputError, match=f"not finite float32 or float16: {name}"):
        model_directory.read(written)


def test_no_directory(tmp_path):
    with pytest.raises(InputError, match="there is no model directory"):
        model_directory.read(tmp_path / "nowhere")


def test_a_training_run_is_told_apart(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=r"atvg_jax\.export"):
        model_directory.read(tmp_path)


def test_flatten_is_undone_by_unflatten():
    tree = {"params": {"a": {"kernel": 1, "bias": 2}}, "batch_stats": {"b": 3}}
    flat = model_directory.flatten(tree)
    assert flat == {"params/a/kernel": 1, "params/a/bias": 2, "batch_stats/b": 3}
    assert model_directory.unflatten(flat) == tree
