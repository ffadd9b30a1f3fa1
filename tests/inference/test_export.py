import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from atvg_jax import export
from atvg_jax.errors import InputError
from atvg_jax.inference import model_directory, run_checkpoints


def write_run(folder, model, name, steps=(2, 5), average=False):
    """A run folder as the trainer leaves it, written with Orbax alone."""
    variables = model.variables[name]
    folder.mkdir()
    config = {"model": dict(model.networks[name].settings), "seed": 0, "data": "/home/me/clips"}
    config["start_from"] = "/home/me/runs/ear"
    (folder / "config.json").write_text(json.dumps({"network": name, "config": config}))
    model.basis.save(folder / "basis.npz")
    handlers = {item: ocp.StandardCheckpointHandler() for item in ("state", "average")}
    with ocp.CheckpointManager(folder / "checkpoints", item_handlers=handlers) as manager:
        for step in steps:
            # Later steps hold larger weights, so that it shows which was read.
            weights = jax.tree.map(lambda leaf, step=step: leaf * np.float32(step), variables)
            network = {**weights, "opt_state": [{"mu": weights["params"]}, np.zeros(3)]}
            items = {"state": {"step": np.int32(step), "networks": {name: network}}}
            if average:
                items["average"] = jax.tree.map(lambda leaf: leaf * np.float32(0.5), variables)
            manager.save(
                step,
                args=ocp.args.Composite(
                    **{item: ocp.args.StandardSave(tree) for item, tree in items.items()}
                ),
            )
    return folder


@pytest.fixture(scope="module")
def original_runs(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "at", model, "at_net")
    write_run(folder / "vg", model, "vg_net", average=True)
    return folder


@pytest.fixture
def runs(original_runs, tmp_path):
    return shutil.copytree(original_runs, tmp_path / "runs")


def assert_same(found, wanted, factor):
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, b * np.float32(factor)), found, wanted
    )


def test_latest_step_and_averages(model, runs):
    joined = run_checkpoints.join(runs / "at", runs / "vg")
    assert_same(joined.variables["at_net"], model.variables["at_net"], 5)
    assert_same(joined.variables["vg_net"], model.variables["vg_net"], 0.5)
    record = joined.training
    assert (record["at_net"]["step"], record["at_net"]["averaged"]) == (5, False)
    assert (record["vg_net"]["step"], record["vg_net"]["averaged"]) == (5, True)
    assert "/home/me" not in json.dumps(record)
    assert record["at_net"]["config"]["start_from"] == "ear"


def test_several_runs_of_at_net_become_one_network_that_gives_their_mean(model, runs):
    shutil.copytree(runs / "at", runs / "other")
    shutil.rmtree(runs / "other" / "checkpoints" / "5")  # leaves step 2
    joined = run_checkpoints.join([runs / "at", runs / "other"], runs / "vg")
    settings = model.networks["at_net"].settings
    assert joined.networks["at_net"].name == "at_mean"
    assert joined.networks["at_net"].settings == {**settings, "members": 2}
    assert [one["step"] for one in joined.training["at_net"]["mean_of"]] == [5, 2]
    rng = np.random.default_rng(0)
    example = rng.normal(0, 1, (1, 6)).astype(np.float32)
    mfcc = rng.normal(0, 10, (1, 5, 28, 12)).astype(np.float32)
    network = model.networks["at_net"].create()
    said = [
        network.apply(
            jax.tree.map(lambda leaf, f=f: leaf * f, model.variables["at_net"]), example, mfcc
        )
        for f in (5, 2)
    ]
    made = joined.networks["at_net"].create().apply(joined.variables["at_net"], example, mfcc)
    np.testing.assert_allclose(made, np.mean(said, axis=0), rtol=1e-4, atol=1e-5)


def test_a_mean_takes_networks_that_are_alike(runs):
    shutil.copytree(runs / "at", runs / "other")
    content = json.loads((runs / "other" / "config.json").read_text())
    content["config"]["model"]["dropout_rate"] = 0.1
    (runs / "other" / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="a mean takes runs of at_net with the same settings"):
        run_checkpoints.join([runs / "at", runs / "other"], runs / "vg")


def test_the_best_checkpoint_on_request(model, runs):
    for name, network in (("at", "at_net"), ("vg", "vg_net")):
        for step, score in ((2, 0.25), (5, 0.5)):
            # As Orbax leaves the metrics of a save.
            folder = runs / name / "checkpoints" / str(step) / "metrics"
            folder.mkdir()
            (folder / "metrics").write_text(json.dumps({"error": score}))
        content = json.loads((runs / name / "config.json").read_text())
        (runs / name / "config.json").write_text(json.dumps(content | {"best_metric": "error"}))
        assert run_checkpoints.read_run(runs / name, network).record["step"] == 5
    joined = run_checkpoints.join(runs / "at", runs / "vg", best=True)
    assert_same(joined.variables["at_net"], model.variables["at_net"], 2)
    assert joined.training["vg_net"]["step"] == 2


def test_a_run_without_held_out_scores_has_no_best(runs):
    with pytest.raises(InputError, match="was judged"):
        run_checkpoints.join(runs / "at", runs / "vg", best=True)


def test_unfinished_checkpoints_are_passed_over(model, runs):
    folder = runs / "at" / "checkpoints"
    # As Orbax leaves a save that was killed.
    shutil.copytree(folder / "5", folder / "9.orbax-checkpoint-tmp")
    joined = run_checkpoints.join(runs / "at", runs / "vg")
    assert joined.training["at_net"]["step"] == 5
    assert (folder / "9.orbax-checkpoint-tmp").is_dir(), "the run is not ours to tidy"


def test_command_line(runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "model"
    flags = ["--at", str(runs / "at"), f"--vg={runs / 'vg'}", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", ["export", *flags])
    export.main()
    said = capsys.readouterr().out
    assert said.startswith(f"wrote {out}: at_net at step 5, vg_net at step 5")
    assert model_directory.read(out).training["vg_net"]["averaged"]


def test_command_line_with_several_runs_of_at_net(runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "model"
    at = f"--at={runs / 'at'}"
    monkeypatch.setattr(sys, "argv", ["export", at, at, f"--vg={runs / 'vg'}", f"--out={out}"])
    export.main()
    assert "at_net at step 5 and 5, vg_net at step 5" in capsys.readouterr().out
    assert len(model_directory.read(out).training["at_net"]["mean_of"]) == 2


@pytest.fixture
def exported(runs, tmp_path, monkeypatch):
    """The model directory that the command line makes of both runs with more flags, read back."""

    def run(*more):
        flags = [f"--at={runs / 'at'}", f"--vg={runs / 'vg'}", f"--out={tmp_path / 'model'}"]
        monkeypatch.setattr(sys, "argv", ["export", *flags, *more])
        export.main()
        return model_directory.read(tmp_path / "model")

    return run


def test_boost_is_in_the_model(exported):
    def boost(text):
        return exported("--weights=float16", f"--boost={text}").basis.boost.tolist()

    assert boost("1.5") == [1.5] * 6
    assert boost("1,2,3,4,5,6") == [1, 2, 3, 4, 5, 6]
    for wrong in ("1,2", "0", "nan"):
        with pytest.raises(InputError, match="a boost is"):
            boost(wrong)


def test_gain_is_in_the_model_and_in_its_record(exported):
    plain, moved = exported(), exported("--vg_gain=1.5")
    before, after = (
        one.variables["vg_net"]["params"]["landmark_fc"]["dense"]["kernel"]
        for one in (plain, moved)
    )
    np.testing.assert_allclose(after, 1.5 * before, rtol=1e-6)
    assert moved.training["vg_net"]["gain"] == 1.5
    assert "gain" not in plain.training["vg_net"]
    for wrong in ("0", "nan"):
        with pytest.raises(InputError, match="--vg_gain: a gain is above 0"):
            exported(f"--vg_gain={wrong}")


def swap(runs):
    (runs / "at").rename(runs / "other")
    (runs / "vg").rename(runs / "at")
    (runs / "other").rename(runs / "vg")


def other_basis(runs):
    file = runs / "vg" / "basis.npz"
    with np.load(file) as arrays:
        changed = dict(arrays)
    changed["mean"] = changed["mean"] + 1
    np.savez(file, **changed)


def other_network(runs):
    file = runs / "at" / "config.json"
    content = json.loads(file.read_text())
    content["config"]["model"]["width"] = 1 / 8
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap, "swapped"),
        (other_basis, "bases of the two runs differ"),
        (other_network, "misshapen: .*wanted"),
        (lambda runs: shutil.rmtree(runs / "vg" / "checkpoints"), "train it first"),
        (lambda runs: shutil.rmtree(runs / "at"), "not a training run"),
        (lambda runs: (runs / "at" / "basis.npz").unlink(), r"no basis\.npz"),
        (lambda runs: (runs / "at" / "basis.npz").write_bytes(b"PK\3\4"), r"basis\.npz"),
        (lambda runs: (runs / "at" / "config.json").write_text("{"), "JSON"),
        (lambda runs: (runs / "at" / "config.json").write_text("[]"), "no config"),
        (
            lambda runs: [shutil.rmtree(runs / "at/checkpoints" / step) for step in ("2", "5")],
            "no complete checkpoint",
        ),
        (
            lambda runs: shutil.rmtree(runs / "at" / "checkpoints" / "5" / "state"),
            "cannot be read",
        ),
    ],
)
def test_runs_that_cannot_be_joined(runs, damage, message):
    damage(runs)
    with pytest.raises(InputError, match=message) as caught:
        run_checkpoints.join(runs / "at", runs / "vg")
    assert "\n" not in str(caught.value)


def test_export_does_without_the_training_code():
    code = """
import sys
from atvg_jax import export
from atvg_jax.inference import run_checkpoints, model_directory
loaded = {name for name in sys.modules if name.startswith("atvg_jax.training")}
assert not loaded, loaded
assert not {"tensorflow", "dlib", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
