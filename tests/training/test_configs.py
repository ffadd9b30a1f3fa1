"""Configs and the training command line: words, flags, and one line for a wrong one."""

import subprocess
import sys

import pytest

from atvg_jax import train
from atvg_jax.errors import InputError
from atvg_jax.features.landmarks import LandmarkBasis
from atvg_jax.training import experiment
from configs import at_net, vg_net
from tests import tiny_dataset

# Fixed for users by the interface: every network's config has them.
KEYS = {
    "data", "seed", "steps", "batch_size", "learning_rate", "compute_dtype", "log_every",
    "checkpoint_every", "eval_every", "keep",
}  # fmt: skip
CONFIGS = [at_net, vg_net]


@pytest.mark.parametrize("module", CONFIGS)
def test_the_base_is_the_published_training(module):
    config = module.get_config()
    assert set(config) >= KEYS
    assert config.learning_rate == 2e-4
    assert (config.adam_b1, config.adam_b2) == (0.5, 0.999)
    assert config.batch_size == {"at_net": 16, "vg_net": 10}[config.network]
    assert config.frames == 16
    assert config.model.width == 1
    assert config.compute_dtype == "float32"
    assert config.schedule == "constant"
    assert config.clip_norm == config.weight_decay == 0


@pytest.mark.parametrize("module", CONFIGS)
def test_words_change_the_base_and_unknown_ones_are_errors(module):
    assert module.get_config("compact").model.width == 0.25
    both = module.get_config("smoke,compact")
    assert both.model.width == module.get_config("smoke").model.width < 0.1
    with pytest.raises(InputError, match=r"'comapct'.*compact.*smoke"):
        module.get_config("comapct")
    with pytest.raises((AttributeError, KeyError)):
        module.get_config().no_such_key = 1


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("no_dynamic_loss", lambda c: not c.loss.dynamic),
        ("plain_discriminator", lambda c: c.loss.landmark == 0),
        ("no_recurrence", lambda c: c.model.recurrence == "none"),
    ],
)
def test_ablations(word, value):
    assert not value(vg_net.get_config("compact"))
    assert value(vg_net.get_config(f"compact,{word}"))


@pytest.mark.parametrize("module", CONFIGS)
def test_every_config_describes_an_experiment(module, tmp_path):
    basis = LandmarkBasis.load(tiny_dataset.write(tmp_path / "d", (20,), 1) / "basis.npz")
    plan = experiment.build(module.get_config(), basis)
    names = {"at_net": {"at_net"}, "vg_net": {"vg_net", "discriminator"}}
    assert set(plan.abstract().networks) == names[plan.network]
    assert float(plan.learning_rate(0)) == float(plan.learning_rate(10**6)) == pytest.approx(2e-4)


def test_schedules():
    config = at_net.get_config().unlock()
    config.steps, config.warmup_steps = 100, 10
    for schedule, middle in [("constant", 2e-4), ("linear", 1e-4), ("cosine", 1e-4)]:
        config.schedule = schedule
        rate = experiment.learning_rate(config)
        assert float(rate(0)) == 0
        assert float(rate(5)) == pytest.approx(1e-4)
        assert float(rate(10)) == pytest.approx(2e-4)
        assert float(rate(55)) == pytest.approx(middle)
    assert float(rate(100)) == pytest.approx(0, abs=1e-9)
    config.schedule = "staircase"
    with pytest.raises(InputError, match=r"staircase.*constant, linear, cosine"):
        experiment.learning_rate(config)


def test_the_command_line_sets_keys():
    config, workdir, distributed = train.parse(
        [
            "--config=configs/vg_net.py:compact",
            "--workdir=runs/vg",
            "--config.data=somewhere",
            "--config.steps=7",
            "--config.model.width=0.5",
            "--config.learning_rate=1e-3",
        ]
    )
    assert (config.network, config.data, config.steps) == ("vg_net", "somewhere", 7)
    assert (config.model.width, config.discriminator.width) == (0.5, 0.25)
    assert config.learning_rate == 1e-3
    assert str(workdir) == "runs/vg"
    assert not distributed
    command = ["--config=configs/at_net.py", "--workdir=x", "--config.data=y", "--distributed"]
    assert train.parse(command).distributed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/nope.py"], "no config file 'configs/nope.py'.*configs/at_net.py"),
        (["--config=configs/at_net.py:tiny"], "'tiny'.*compact"),
        (["--config=configs/at_net.py", "--config.stpes=3"], "no key 'stpes'.*steps"),
        (["--config=configs/at_net.py", "--config.steps=many"], "steps.*many"),
        (["--config=configs/at_net.py", "--wrokdir=x"], "wrokdir"),
        (["--config=configs/at_net.py", "x"], "'x'.*--help"),
        (["--workdir=x"], "--config is missing"),
        (["--config=configs/at_net.py"], "--workdir is missing"),
        (["--config=configs/at_net.py", "--workdir=x"], "--config.data is missing"),
    ],
)
def test_wrong_flags_are_one_clear_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        train.parse(arguments)
    assert "\n" not in str(caught.value)


def test_the_command_ends_with_2_and_one_line_or_shows_an_example(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "atvg_jax.train", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    config = "--config=configs/at_net.py:smoke"
    done = run(config, f"--workdir={tmp_path / 'w'}", f"--config.data={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr
    assert not (tmp_path / "w").exists()
    shown = run("--help")
    assert shown.returncode == 0
    assert "--config=configs/at_net.py:compact" in shown.stdout
