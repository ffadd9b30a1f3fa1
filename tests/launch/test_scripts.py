"""Launch scripts against stand-ins for the programs of a cluster."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"


@pytest.fixture
def stand_in(tmp_path):
    """Puts a program of that name first on the path; it writes its arguments to NAME.log."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(name, then=""):
        path = folder / name
        log = tmp_path / f"{name}.log"
        path.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$*" >>{log}\n{then}\n')
        path.chmod(0o755)
        return log

    return make


def start(script, tmp_path, *arguments, **variables):
    environment = {**os.environ, **variables, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    command = ["bash", str(LAUNCH / script), *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def status(running):
    running.communicate(timeout=60)
    return running.returncode


@pytest.mark.parametrize("script", ["gpus.sh", "slurm.sh", "tpu_pod.sh"])
def test_too_few_arguments_get_one_line(script, tmp_path):
    running = start(script, tmp_path, "CONFIG", SLURM_SUBMIT_DIR=str(tmp_path))
    _, errors = running.communicate()
    assert running.returncode == 2
    assert errors.startswith("usage: ")
    assert errors.count("\n") == 1


def test_without_a_gpu_the_user_is_told_what_to_install(stand_in, tmp_path):
    stand_in("python", f'exec {sys.executable} "$@"')
    running = start("gpus.sh", tmp_path, "CONFIG", "RUN", "DATA", JAX_PLATFORMS="cpu")
    _, errors = running.communicate()
    assert running.returncode == 2
    assert "jax[cuda13]" in errors


@pytest.mark.parametrize(("how", "expected"), [("at", 0), ("stopped on request at", 2)])
def test_nothing_comes_after_a_training_that_was_asked_to_stop(how, expected, stand_in, tmp_path):
    given = stand_in("python", f'echo "at_net {how} step 7 in runs/at/checkpoints"')
    then = tmp_path / "then"
    script = f"source {LAUNCH}/environment.sh; run_training --config=c --workdir=w; touch {then}"
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert given.read_text() == "-m atvg_jax.train --config=c --workdir=w\n"
    assert (done.returncode, then.exists()) == (expected, expected == 0)
    assert f"at_net {how} step 7" in done.stdout


def test_a_slurm_job_whose_time_is_over_saves_and_queues_again(stand_in, tmp_path):
    ran = stand_in("srun", "trap 'exit 0' TERM\nwhile :; do sleep 0.05; done")
    queued = stand_in("scontrol")
    variables = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "42"}
    running = start("slurm.sh", tmp_path, "CONFIG", "RUN", "DATA", "--config.steps=9", **variables)
    deadline = time.monotonic() + 60
    while not ran.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)  # to the stand-in's trap
    running.send_signal(signal.SIGTERM)
    assert status(running) == 0
    asked = ran.read_text()
    assert (
        "--distributed --config=CONFIG --workdir=RUN --config.data=DATA --config.steps=9" in asked
    )
    assert queued.read_text() == "requeue 42\n"


def test_a_slurm_job_that_fails_does_not_queue_again(stand_in, tmp_path):
    stand_in("srun", "exit 2")
    queued = stand_in("scontrol")
    variables = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_ID": "42"}
    assert status(start("slurm.sh", tmp_path, "CONFIG", "RUN", "DATA", **variables)) == 2
    assert not queued.exists()


def test_every_host_of_a_tpu_slice_runs_the_same_command(stand_in, tmp_path):
    asked = stand_in("gcloud")
    stand_in("git")
    flags = ["CONFIG", "/mnt/run", "/mnt/my data", "--config.steps=9"]
    assert status(start("tpu_pod.sh", tmp_path, *flags, TPU="slice", ZONE="zone")) == 0
    *_, last = asked.read_text().splitlines()
    assert "tpus tpu-vm ssh slice --zone=zone --worker=all" in last
    words = shlex.split(last.partition("--command=")[2])
    assert words[words.index("--distributed") + 1 :] == [
        "--config=CONFIG", "--workdir=/mnt/run", "--config.data=/mnt/my data", "--config.steps=9",
    ]  # fmt: skip
