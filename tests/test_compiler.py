"""Options that XLA knows are passed on; without them everything still compiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atvg_jax import compiler


@pytest.fixture(autouse=True)
def _anew():
    compiler._known.cache_clear()
    yield
    compiler._known.cache_clear()


def _product(options):
    a, b = jnp.ones((64, 128)), jnp.full((128, 128), 0.5)
    compiled = jax.jit(jnp.dot, compiler_options=options).lower(a, b).compile()
    np.testing.assert_array_equal(compiled(a, b), np.full((64, 128), 64))
    return compiled.as_text()


def test_products_stay_with_xla_on_a_cpu():
    for options in (compiler.options(), compiler.options_of_one_picture()):
        assert options is not None
        assert "ynn" not in _product(options)
    assert "ynn" in _product(None), "the options change nothing any more"


def test_options_that_xla_does_not_know_are_left_out(monkeypatch):
    for unknown in ({"xla_cpu_gone": "1"}, dict.fromkeys(compiler.CPU_OPTIONS, "GONE")):
        monkeypatch.setattr(compiler, "CPU_OPTIONS", unknown)
        compiler._known.cache_clear()
        assert compiler.options() is None


def test_other_devices_get_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler.options() is None
