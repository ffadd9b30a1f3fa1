"""What a training run compiles, counted by JAX itself."""

import jax
import pytest
from jax._src import monitoring
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from atvg_jax import compilation_cache
from atvg_jax.training import loop
from atvg_jax.training.watch import Watch
from configs import at_net
from tests import tiny_dataset

COMPILATION = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def compiled():
    """Names of functions compiled so far."""
    names = []

    def note(event, _seconds, **details):
        if event == COMPILATION:
            names.append(details.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(note)
    yield names
    monitoring.unregister_event_duration_listener(note)


def test_a_run_compiles_its_step_once_and_keeps_it_on_disk(tmp_path, monkeypatch, compiled):
    cache = tmp_path / "compiled"
    monkeypatch.setenv(compilation_cache.ENVIRONMENT_VARIABLE, str(cache))
    before = jax.config.jax_compilation_cache_dir
    after_step, note = [], Watch.step

    def noted(self, step, metrics, waited):
        note(self, step, metrics, waited)
        after_step.append(len(compiled))

    monkeypatch.setattr(Watch, "step", noted)
    settings = at_net.get_config("smoke").unlock()
    settings.update({"data": str(tiny_dataset.write(tmp_path / "data")), "steps": 4, "frames": 4})
    settings.update({"eval_every": 0, "checkpoint_every": 0, "log_every": 4, "devices": 1})
    try:
        # A cache that an earlier test has opened stays open in this process whatever the setting.
        jax_cache.reset_cache()
        jax.config.update("jax_compilation_cache_dir", None)
        loop.train_and_evaluate(settings.lock(), tmp_path / "run")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax_cache.reset_cache()
    # The second step already runs what the first has compiled, and so do all others.
    assert len(after_step) == 4
    assert after_step[1] == after_step[3], compiled[after_step[1] :]
    assert any(cache.iterdir()), "nothing was kept"
