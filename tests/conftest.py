"""Four CPU devices for every test, and the real footage where a checkout has it beside it."""

import os
from pathlib import Path

# Before anything imports jax: device count is fixed when the backend starts.
# Tests compile large programs to run them once, so half the time goes without LLVM's optimisation.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
    ]
).strip()
os.environ["JAX_PLATFORMS"] = "cpu"

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _shared(part: str) -> Path:
    folder = SHARED / part
    if not folder.is_dir():
        pytest.skip(f"needs {part}/ of the material that is kept beside the checkout, not in it")
    return folder


@pytest.fixture(scope="session")
def reference() -> Path:
    """Golden numbers of the published networks."""
    return _shared("reference")


@pytest.fixture(scope="session")
def clips() -> Path:
    """Real footage."""
    return _shared("clips")
