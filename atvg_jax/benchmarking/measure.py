"""One point measured in a process of its own, so that its memory and its first call are its own."""

import concurrent.futures
import dataclasses
import gc
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from atvg_jax import allocator, compilation_cache
from atvg_jax.benchmarking import timing
from atvg_jax.benchmarking.points import Point

COMPILED, EAGER = "compiled", "eager"
PACKAGES = ("atvg_jax", "jax", "jaxlib", "flax", "numpy")
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured of a point.

    Attributes:
        rounds: calls of each way, at most.
        seconds: begin no further round after so long.
        eager: op by op too, compiled and eager in turns.
    """

    rounds: int = 7
    seconds: float = 60.0
    eager: bool = True


@dataclasses.dataclass(frozen=True)
class Measured:
    """One point's numbers. Seconds and MiB.

    Attributes:
        point: what was measured.
        frames: that one call makes or learns from.
        first_call: tracing, compiling, writing to an empty compilation cache, running.
        first_call_cached: the same with the compilation cache filled.
        compiled: one call after that.
        eager_first_call: op by op, each kind of op compiled on the way; None if not measured.
        eager: one call after that, or None.
        speedup: eager's time over compiled's in the same round, or None.
        program_memory: arguments, results and what lies between, by XLA's account of the program.
        peak_memory: of the process after the compiled calls.
        peak_memory_eager: of the process in the end, eager calls included, or None.
        failed: why there are no numbers, else empty.
    """

    point: Point
    frames: int
    first_call: float = 0.0
    first_call_cached: float = 0.0
    compiled: timing.Spread | None = None
    eager_first_call: float | None = None
    eager: timing.Spread | None = None
    speedup: timing.Spread | None = None
    program_memory: float = 0.0
    peak_memory: float = 0.0
    peak_memory_eager: float | None = None
    failed: str = ""


def measure(point: Point, plan: Plan) -> Measured:
    """Measures a point in this process, with a compilation cache of its own.

    Args:
        point: what to measure.
        plan: how much of it.
    """
    with tempfile.TemporaryDirectory(prefix="atvg_jax_benchmark.") as folder:
        os.environ[compilation_cache.ENVIRONMENT_VARIABLE] = folder
        compilation_cache.enable()
        return _measure(point, plan)


def _measure(point: Point, plan: Plan) -> Measured:
    import jax

    from atvg_jax.benchmarking import cases

    if point.task in cases.STEPS:
        allocator.keep_freed_memory()  # as python -m atvg_jax.train does
    case = cases.build(point)
    case.build()
    first_call, _ = timing.once(case)
    jax.clear_caches()
    case.build()
    first_call_cached, _ = timing.once(case)
    memory = program_memory(case)
    case()
    peak = peak_memory()  # before the eager calls, which have one of their own
    ways: dict[str, Any] = {COMPILED: case}
    found: dict[str, Any] = {}
    if plan.eager:

        def eager() -> None:
            with jax.disable_jit():
                case()

        found["eager_first_call"], _ = timing.once(eager)
        ways[EAGER] = eager
    timings = timing.alternate(ways, plan.rounds, plan.seconds)
    if plan.eager:
        found["eager"] = timing.spread(timings[EAGER].wall)
        found["speedup"] = timing.ratio(timings, EAGER, COMPILED)
        found["peak_memory_eager"] = peak_memory()
    return Measured(
        point,
        point.made,
        first_call,
        first_call_cached,
        timing.spread(timings[COMPILED].wall),
        program_memory=memory,
        peak_memory=peak,
        **found,
    )


def program_memory(case: Any) -> float:
    """MiB that the largest of a case's programs holds at once, by XLA's account."""
    largest = max(held(program.compile()) for program in case.programs())
    gc.collect()
    return largest / MIB


def held(compiled: Any) -> int:
    """Bytes that a compiled program holds at once: arguments, results and what lies between."""
    memory = compiled.memory_analysis()
    begun = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return begun + memory.output_size_in_bytes - memory.alias_size_in_bytes


def peak_memory() -> float:
    """MiB of memory that this process has held at most."""
    try:
        # Not getrusage's, which begins at what the parent held.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return float(line.split()[1]) / 1024
    except (OSError, StopIteration):
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest / (MIB if sys.platform == "darwin" else 1024)


def environment() -> dict[str, Any]:
    """What the numbers were measured on: device, processor, versions, other load."""
    import jax

    device = jax.devices()[0]
    return {
        "device": device.device_kind if device.platform != "cpu" else _processor(),
        "platform": device.platform,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        from atvg_jax import __version__

        return __version__ if package == "atvg_jax" else "not installed"


def in_own_process(point: Point, plan: Plan) -> Measured:
    """``measure`` in a fresh process; one that is killed leaves a line instead of numbers."""
    try:
        return _in_process(measure, point, plan)
    except concurrent.futures.process.BrokenProcessPool:
        return Measured(point, point.made, failed="killed, most likely for want of memory")


def environment_in_own_process() -> Mapping[str, Any]:
    """``environment``, without starting JAX in this process, which would keep a GPU to itself."""
    return _in_process(environment)


def _in_process(function: Any, *arguments: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *arguments).result()
