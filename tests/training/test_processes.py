"""Devices and processes: however many there are, a step is the same step, and a run one run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from atvg_jax import compilation_cache
from atvg_jax.training import loop
from atvg_jax.training.checkpoints import Checkpoints
from atvg_jax.training.parallel import Devices
from configs import at_net
from tests import tiny_dataset
from tests.training import device_steps

SCRIPT = Path(__file__).parents[2] / "launch" / "local_processes.sh"


def processes(*command, **variables):
    """The command, to be run as two processes with two devices each."""
    environment = {**os.environ, "PROCESSES": "2", "DEVICES": "2", **variables}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    environment[compilation_cache.ENVIRONMENT_VARIABLE] = "off"
    return subprocess.Popen(
        ["bash", str(SCRIPT), *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    """Where each network's arrays are after five steps of two processes with two devices each."""
    folder = tmp_path_factory.mktemp("processes")
    program = [sys.executable, "-m", "tests.training.device_steps", str(folder)]
    running = processes(*program, *NETWORKS)
    _, errors = running.communicate(timeout=500)
    assert running.returncode == 0, errors[-2000:]
    return folder


# Compiling VG-net's step is what takes the time here, so its four devices are in two processes.
NETWORKS = {"at_net": (2, 4), "vg_net": ()}


@pytest.mark.parametrize("network", NETWORKS)
def test_five_steps_are_the_same_on_any_number_of_devices_and_processes(network, of_two_processes):
    alone = device_steps.run(network, 1)
    others = {f"{count} devices": device_steps.run(network, count) for count in NETWORKS[network]}
    with np.load(of_two_processes / f"{network}.npz") as arrays:
        others["2 processes x 2 devices"] = dict(arrays)
    moved = [np.abs(array).max() for name, array in alone.items() if "moved" in name]
    assert np.median(moved) > 1e-5
    sizes = {name: np.linalg.norm(array.astype(np.float64)) for name, array in alone.items()}
    # The gradient of a bias is a sum over pixels that nearly cancels: what rounding leaves of it is
    # small beside other gradients, if not beside itself.
    largest = max(size for name, size in sizes.items() if "moved" in name)
    for which, arrays in others.items():
        assert arrays.keys() == alone.keys()
        for name, expected in alone.items():
            error = np.linalg.norm((arrays[name] - expected).astype(np.float64))
            assert error <= 1e-3 * sizes[name] + 1e-4 * largest, (which, name, error, largest)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_steps_lower_for_gpu_and_tpu(network):
    step, state, batches = device_steps.problem(network)
    devices = Devices(2)

    def shapes(leading, tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype), tree)

    batch = {name: array[:2] for name, array in batches[0].items()}
    inputs = shapes((2,), state), shapes((2,), batch), shapes((), jax.random.key(0))
    traced = jax.jit(devices.train_step(step)).trace(*inputs)
    lowered = traced.lower(lowering_platforms=("cuda", "tpu")).as_text()
    assert "all_reduce" in lowered


def test_a_run_of_two_processes_stops_on_request_and_goes_on_alone(tmp_path):
    data = tiny_dataset.write(tmp_path / "data", (20, 40), shards=1)
    workdir = tmp_path / "run"
    changes = {"frames": 4, "log_every": 1, "eval_every": 2, "eval_windows": 4}
    changes |= {"checkpoint_every": 2, "steps": 10**6}
    flags = [f"--config.{name}={value}" for name, value in changes.items()]
    program = [sys.executable, "-m", "atvg_jax.train", "--config=configs/at_net.py:smoke"]
    program += [f"--workdir={workdir}", f"--config.data={data}", "--distributed", *flags]
    running = processes(*program)
    try:
        deadline = time.monotonic() + 300
        while not (workdir / "checkpoints" / "2" / "state").is_dir():
            assert running.poll() is None, running.communicate()[1][-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        running.send_signal(signal.SIGTERM)
        output, errors = running.communicate(timeout=100)
    finally:
        running.kill()
    assert running.returncode == 0, errors[-2000:]
    assert output.count("stopped on request at step") == 1, "one process speaks for both"
    assert "4 cpu device(s), batch 4" in errors
    with Checkpoints(workdir) as checkpoints:
        stopped = checkpoints.latest
    assert f"at step {stopped} in" in output
    config = at_net.get_config("smoke").unlock()
    config.update({**changes, "data": str(data), "steps": stopped + 1, "devices": 1})
    config.eval_split = "test"  # there is none: nothing to compile for it
    assert loop.train_and_evaluate(config, workdir).step == stopped + 1


def test_the_script_ends_the_others_when_one_process_fails():
    started = time.monotonic()
    running = processes("bash", "-c", "[ $JAX_PROCESS_ID = 0 ] && exit 3; exec sleep 100")
    running.communicate(timeout=60)
    assert running.returncode == 3
    assert time.monotonic() - started < 60
