"""What XLA is asked for when it compiles for a CPU.

XLA hands matrix products of float32 to YNNPACK, which on one core makes none of ours faster: 36
products of 64 x 512 with 512 x 512 run at 39 GFLOP/s of processor time in it and at 100 in XLA's
own way (AVX-512 without AMX, jaxlib 0.10.2). On two cores both are about level over the whole
network. Convolutions with few output channels are four times as fast in it, so it keeps those
where many frames are made; but it runs most convolutions on one core, so that a single picture's
are faster in XLA's own way (9 ms for a portrait's features where it takes 14 on two cores).
"""

import functools

FUSION_TYPE = "xla_cpu_experimental_ynn_fusion_type"
CPU_OPTIONS: dict[str, str | bool] = {FUSION_TYPE: "LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"}
# One kind has to be named, and a network in inference has no sums over maps.
CPU_OPTIONS_OF_ONE_PICTURE: dict[str, str | bool] = {FUSION_TYPE: "LIBRARY_FUSION_TYPE_REDUCE"}


def options() -> dict[str, str | bool] | None:
    """``compiler_options`` for ``jax.jit`` of what makes many frames; None where they do not apply.

    That is on other devices, and with a version of XLA that does not know them, as experimental
    options may go.
    """
    return _known(tuple(CPU_OPTIONS.items()))


def options_of_one_picture() -> dict[str, str | bool] | None:
    """The same for what is computed once, of one picture."""
    return _known(tuple(CPU_OPTIONS_OF_ONE_PICTURE.items()))


@functools.cache
def _known(wanted: tuple[tuple[str, str | bool], ...]) -> dict[str, str | bool] | None:
    import jax

    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=dict(wanted)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return None
    return dict(wanted)
