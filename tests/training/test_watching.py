"""What a run tells while it goes, and what stops it."""

import jax
import numpy as np
import optax
import pytest
from tensorboardX.proto.event_pb2 import Event

from atvg_jax.data import wire
from atvg_jax.data.pipeline import Reading
from atvg_jax.errors import InputError
from atvg_jax.training import experiment
from atvg_jax.training.parallel import Devices
from atvg_jax.training.profiling import profiler
from atvg_jax.training.validation import Validation
from atvg_jax.training.watch import Watch
from configs import at_net


def metrics(**values):
    return Devices(2).replicate({name: np.float32(value) for name, value in values.items()})


def test_a_term_that_is_not_finite_is_named_with_its_step(tmp_path):
    watch = Watch(tmp_path, 0, 10, 64, ("g_pixel",))
    for step, value in ((1, 0.5), (2, np.nan), (3, np.inf)):
        told = metrics(g_pixel=1, g_landmark=value, g_gradient_norm=value)
        watch.step(step, told, waited=0.0)
    with pytest.raises(InputError, match=r"at step 2: g_landmark is nan; the last good checkpoint"):
        watch.flush(learning_rate=1e-3)
    watch.close()


def test_scalars_are_means_since_the_last_time(tmp_path):
    watch = Watch(tmp_path, 0, 10, 64, ("loss",))
    watch.step(1, metrics(loss=1.0), waited=0.0)
    watch.step(2, metrics(loss=2.0), waited=0.0)
    told = watch.flush(learning_rate=1e-3)
    assert watch.flush(learning_rate=1e-3) == {}
    watch.close()
    assert told["loss"] == 1.5
    assert told["frames_per_second"] * told["step_seconds"] == pytest.approx(64)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    events = [Event.FromString(record) for record in wire.read_records(path)]
    written = {v.tag: (e.step, v.simple_value) for e in events for v in e.summary.value}
    assert written["train/learning_rate"] == (2, pytest.approx(1e-3))
    assert written["train/loss"] == (2, 1.5)
    assert written.keys() == {f"train/{name}" for name in told}


class Source:
    """Eight held-out windows that are their own numbers."""

    def __len__(self):
        return 8

    def fixed(self, number):
        return {"x": np.float32(number)}


def test_validation_is_a_mean_over_windows_and_ends_when_told_to():
    devices = Devices(2)

    def evaluate(state, batch):
        return {"value": state * batch["x"]}, {"frames": batch["x"]}

    def judge(batch, frames):
        np.testing.assert_array_equal(frames, batch["x"])
        return {"judged": 2 * batch["x"]}

    validation = Validation(devices, evaluate, Source(), 6, 0, Reading(1, 2), judge)
    state = devices.replicate(np.float32(10))
    assert validation.metrics(state) == {"value": 35.0, "judged": 7.0}
    assert validation.metrics(state, stop=lambda: True) is None


@pytest.mark.parametrize(
    ("start", "end", "recorded"), [(0, 100, (10, 12)), (5, 9, (7, 9)), (5, 7, (6, 7)), (5, 6, None)]
)
def test_profiled_steps_come_after_the_first_and_within_the_run(
    start, end, recorded, tmp_path, monkeypatch
):
    seen = []
    now = None
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: seen.append(now))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: seen.append(now))
    with profiler(tmp_path, start, end, 2) as tick:
        for now in range(start + 1, end + 1):
            tick(now, ())
    assert seen == ([] if recorded is None else list(recorded))


def test_clipping_bounds_the_gradient_and_is_off_by_default():
    config = at_net.get_config().unlock()
    gradient = {"a": np.full(4, 30.0, np.float32), "b": np.full(4, 40.0, np.float32)}  # norm 100

    def first_moment():
        optimizer = experiment.optimizer(config)
        _, state = optimizer.update(gradient, optimizer.init(gradient), gradient)
        return float(optax.tree.norm(optax.tree.get(state, "mu")))

    assert first_moment() == pytest.approx((1 - config.adam_b1) * 100)
    config.clip_norm = 1.0
    assert first_moment() == pytest.approx((1 - config.adam_b1) * 1)
