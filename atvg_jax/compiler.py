"""What XLA is asked for when it compiles for a CPU.

XLA hands matrix products of float32 to YNNPACK, which on one core makes none of ours faster: 36
products of 64 x 512 with 512 x 512 run at 39 GFLOP/s of processor time in it and at 100 in XLA's
own way (AVX-512 without AMX, jaxlib 0.10.2). On two cores both are about level over the whole
network. Convolutions with few output channels are four times as fast in it, so it keeps those.
"""

import functools

CPU_OPTIONS: dict[str, str | bool] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
}


@functools.cache
def options() -> dict[str, str | bool] | None:
    """``compiler_options`` for ``jax.jit``; None where they do not apply.

    That is on other devices, and with a version of XLA that does not know them, as experimental
    options may go.
    """
    import jax

    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=CPU_OPTIONS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return CPU_OPTIONS
