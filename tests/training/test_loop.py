"""Whole runs: they learn, resume bit for bit, stop well, and leave the promised files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from atvg_jax import compilation_cache
from atvg_jax.errors import InputError
from atvg_jax.inference.run_checkpoints import read_run
from atvg_jax.training import loop
from atvg_jax.training.checkpoints import Checkpoints
from atvg_jax.training.watch import Watch
from configs import at_net
from tests import tiny_dataset


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """All runs of this file share what they compile, and none writes to the user's cache."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.experimental.compilation_cache.compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    jax.experimental.compilation_cache.compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset.write(tmp_path_factory.mktemp("loop") / "data")


def config(data, **changes) -> ConfigDict:
    settings = at_net.get_config("smoke").unlock()
    settings.update({"data": str(data), "steps": 4, "eval_every": 0, "checkpoint_every": 0})
    settings.update({"frames": 4, "log_every": 2, **changes})
    return settings.lock()


def saved(workdir, step):
    """The arrays of a checkpoint by name, and the data position."""
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest == step
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
            checkpoints._manager.item_metadata(step)["state"].tree,
            is_leaf=lambda leaf: hasattr(leaf, "shape"),
        )
        state, _, position = checkpoints.restore(target, {})
    return jax.tree.map(np.asarray, state), position


@pytest.fixture(scope="module")
def whole_run(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, loop.train_and_evaluate(config(data, profile_steps=1), workdir)


def test_a_run_leaves_the_promised_files(whole_run):
    workdir, result = whole_run
    assert (result.step, result.preempted) == (4, False)
    assert {"loss", "mouth_error", "static_mouth_error"} <= set(result.metrics)
    assert all(np.isfinite(value) for value in result.metrics.values())
    assert (workdir / "checkpoints" / "4" / "state").is_dir()
    assert (workdir / "checkpoints" / "4" / "average").is_dir()
    assert (workdir / "samples" / "4.png").stat().st_size > 1000
    assert list(workdir.glob("events.out.tfevents.*"))
    assert (workdir / "basis.npz").is_file()
    assert [path.stat().st_size > 1000 for path in workdir.glob("profile/**/*.xplane.pb")] == [True]
    written = json.loads((workdir / "config.json").read_text())
    assert written["network"] == "at_net"
    assert written["config"]["model"] == {"width": 1 / 32, "dropout_rate": 0.0}
    assert written["config"]["steps"] == 4


def test_two_halves_equal_the_whole_bit_for_bit(whole_run, data, tmp_path):
    loop.train_and_evaluate(config(data, steps=2), tmp_path)
    loop.train_and_evaluate(config(data, steps=4), tmp_path)
    (expected, position), (state, resumed_position) = saved(whole_run[0], 4), saved(tmp_path, 4)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert resumed_position == position
    assert position["windows_seen"] == 4 * 4
    # Nothing is left to do: the same command again changes nothing.
    assert loop.train_and_evaluate(config(data, steps=4), tmp_path).step == 4


def test_fewer_and_more_devices_go_on_with_a_run_of_four(whole_run, data, tmp_path):
    for steps, devices in ((2, 4), (3, 2), (4, 4)):
        settings = config(data, steps=steps, devices=devices, eval_split="")
        assert loop.train_and_evaluate(settings, tmp_path).step == steps
    assert saved(tmp_path, 4)[1]["windows_seen"] == 16


def test_a_run_starts_with_the_averaged_weights_of_another(whole_run, data, tmp_path):
    # A step so small that float32 does not see it, and no average but the weights themselves.
    changes = {"steps": 1, "learning_rate": 1e-12, "ema_decay": 0.0}
    # As a run leaves it that was killed while it saved for the first time.
    (tmp_path / "checkpoints" / "1.orbax-checkpoint-tmp-0").mkdir(parents=True)
    loop.train_and_evaluate(config(data, start_from=str(whole_run[0]), **changes), tmp_path)
    theirs = read_run(whole_run[0], "at_net").variables["params"]
    ours = read_run(tmp_path, "at_net").variables["params"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), ours, theirs)
    # What it came to itself counts from then on, whatever has become of the other run.
    settings = config(data, start_from=str(tmp_path / "deleted"), **{**changes, "steps": 2})
    assert loop.train_and_evaluate(settings, tmp_path).step == 2


def test_a_run_starts_with_the_audio_encoder_of_a_framewise_one(whole_run, data, tmp_path):
    changes = {"eval_split": "", "steps": 2}
    framewise = config(data, **changes, architecture="at_framewise", frames=1, example="mean")
    loop.train_and_evaluate(framewise, tmp_path / "framewise")
    with Checkpoints(tmp_path / "framewise") as checkpoints:
        average = checkpoints._manager.restore(2)["average"]
    # A step so small that float32 does not see it, and no average but the weights themselves.
    changes |= {"steps": 1, "learning_rate": 1e-12, "ema_decay": 0.0}
    runs = {}
    for name, source in (("from", str(tmp_path / "framewise")), ("scratch", "")):
        settings = config(data, start_from=source, **changes)
        loop.train_and_evaluate(settings, tmp_path / name)
        runs[name] = read_run(tmp_path / name, "at_net").variables["params"]

    def assert_same(one, other):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), one, other)

    assert_same(runs["from"]["audio_encoder"], average["params"]["audio_encoder"])
    # All else is as a run from scratch has it.
    for params in runs.values():
        params.pop("audio_encoder")
    assert_same(runs["from"], runs["scratch"])


@pytest.mark.parametrize(
    ("other", "changes", "message"),
    [
        ("none", {}, "no training run"),
        ("whole", {"model": {"width": 1 / 16, "dropout_rate": 0.0}}, "another network"),
        ("broken", {}, "describes no run"),
    ],
)
def test_what_a_run_cannot_start_from_is_refused_before_anything_is_made(
    other, changes, message, whole_run, data, tmp_path
):
    folder = whole_run[0] if other == "whole" else tmp_path / other
    if other == "broken":
        folder.mkdir()
        (folder / "config.json").write_text('{"config": {"network": "at_net"}}')
        shutil.copyfile(whole_run[0] / "basis.npz", folder / "basis.npz")
    with pytest.raises(InputError, match=message):
        loop.train_and_evaluate(config(data, start_from=str(folder), **changes), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


KILLED = """
import json, sys
from atvg_jax.training import loop
loop.train_and_evaluate(json.loads(sys.argv[1]), sys.argv[2])
"""


def test_killed_while_it_saves_it_goes_on_as_if_nothing_had_been(whole_run, data, tmp_path):
    changes = {"checkpoint_every": 1, "eval_split": ""}
    settings = config(data, steps=10**6, **changes).to_dict()
    compiled = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    workdir = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, json.dumps(settings), str(workdir)]
    running = subprocess.Popen(
        command, env={**os.environ, **compiled}, stderr=subprocess.PIPE, text=True
    )
    checkpoints = workdir / "checkpoints"
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and running.poll() is None:
            names = os.listdir(checkpoints) if checkpoints.is_dir() else []
            if any(name.isdigit() for name in names) and any("tmp" in name for name in names):
                break
            time.sleep(0.002)
    finally:
        running.kill()
        _, errors = running.communicate()
    assert running.returncode == -signal.SIGKILL, errors[-1000:]
    assert any("tmp" in name for name in os.listdir(checkpoints)), "a save was cut off"
    with Checkpoints(workdir) as found:
        steps = found.latest + 2
    loop.train_and_evaluate(config(data, steps=steps, **changes), workdir)
    loop.train_and_evaluate(config(data, steps=steps, eval_split=""), tmp_path / "whole")
    state, position = saved(workdir, steps)
    expected, expected_position = saved(tmp_path / "whole", steps)
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert position == expected_position


def test_a_preempted_run_saves_and_ends_well(data, tmp_path, monkeypatch):
    note = Watch.step

    def note_and_signal(self, step, metrics, waited):
        note(self, step, metrics, waited)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Watch, "step", note_and_signal)
    before = signal.getsignal(signal.SIGTERM)
    result = loop.train_and_evaluate(config(data, steps=50), tmp_path)
    assert (result.step, result.preempted) == (3, True)
    assert saved(tmp_path, 3)[1]["windows_seen"] == 12
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_one(data, tmp_path):
    settings = config(data, steps=2, eval_split="test")
    loop.train_and_evaluate(settings, tmp_path)
    settings = config(data, steps=9, eval_split="test", learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(InputError, match=r"diverged (at|by) step [3-9].*(loss|gradient|params)"):
        loop.train_and_evaluate(settings, tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest < 9
        state, _ = saved(tmp_path, checkpoints.latest)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_a_run_does_not_go_on_as_something_else(whole_run, data, tmp_path):
    workdir = whole_run[0]
    wider = config(data, steps=6, model=ConfigDict({"width": 1 / 16}))
    with pytest.raises(InputError, match=r"another network.*kernel"):
        loop.train_and_evaluate(wider, workdir)
    with pytest.raises(InputError, match="run of at_net, not of at_single"):
        loop.train_and_evaluate(config(data, architecture="at_single"), workdir)
    other = tiny_dataset.write(tmp_path / "other", seed=5)
    with pytest.raises(InputError, match="another landmark basis"):
        loop.train_and_evaluate(config(other), workdir)


def test_an_uneven_batch_is_refused_before_anything_is_made(data, tmp_path):
    with pytest.raises(InputError, match=r"batch_size=6 .* 4 devices"):
        loop.train_and_evaluate(config(data, batch_size=6), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_mouth_is_learned_from_the_sound(data, tmp_path):
    changes = {"steps": 80, "batch_size": 8, "learning_rate": 5e-3, "ema_decay": 0.9}
    changes |= {"frames": 8, "log_every": 40}
    result = loop.train_and_evaluate(config(data, **changes, devices=1), tmp_path)
    # Without sound nothing beats holding the mouth still; here the sound tells its opening.
    assert result.metrics["opening_error"] < 0.75 * result.metrics["static_opening_error"]


def test_vg_net_by_command(data, tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "-m", "atvg_jax.train", "--config=configs/vg_net.py:smoke"]
    command += [f"--workdir={workdir}", f"--config.data={data}", "--config.steps=2"]
    command += ["--config.eval_windows=2", "--config.batch_size=2"]
    # Compiling unoptimised takes half the time; two devices.
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    environment[compilation_cache.ENVIRONMENT_VARIABLE] = "off"
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-1000:]
    assert f"vg_net at step 2 in {workdir}" in done.stdout
    for told in ("psnr", "static_psnr", "ssim", "landmark_distance", "static_landmark_distance"):
        assert f" {told} " in done.stdout
    for told in ("frames/s", "waiting", "2/2"):
        assert told in done.stderr
    assert (workdir / "checkpoints" / "2" / "state").is_dir()
    assert (workdir / "samples" / "2.png").stat().st_size > 1000
    assert (workdir / "samples" / "2.mp4").stat().st_size > 1000
    assert json.loads((workdir / "config.json").read_text())["network"] == "vg_net"
