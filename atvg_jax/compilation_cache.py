"""Compiled programs kept on disk, so that only the first start on a machine compiles.

``ATVG_JAX_CACHE`` names another folder than the user's cache; ``off`` keeps nothing. A folder that
JAX itself was given (``JAX_COMPILATION_CACHE_DIR``) is left as it is.
"""

import hashlib
import os
import platform
from pathlib import Path

ENVIRONMENT_VARIABLE = "ATVG_JAX_CACHE"


def folder() -> Path | None:
    """Where compiled programs go, or ``None`` where the user wants none."""
    wanted = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if wanted.lower() in ("off", "0", "none"):
        return None
    if wanted:
        return Path(wanted).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "atvg_jax" / "compiled" / _processor()


def enable() -> Path | None:
    """Turns the persistent compilation cache on; harmless when called again.

    Returns:
        The folder in use, or ``None`` where there is none: switched off, or not writable.
    """
    import jax

    already = getattr(jax.config, "jax_compilation_cache_dir", None)
    if already:
        return Path(already)
    target = folder()
    if target is None:
        return None
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(target, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(target))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return target


def _processor() -> str:
    # A home folder may be shared by unlike machines, and code for one CPU need not run on another.
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = [platform.processor()]
    kinds = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    digest = hashlib.sha256("\n".join(kinds or lines[:1]).encode()).hexdigest()[:8]
    return f"{platform.machine() or 'machine'}-{digest}"
