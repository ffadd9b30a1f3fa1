"""VG-net's frames on a CPU that multiplies bfloat16 natively, with half the bits in most products.

``fast_frames`` with the factors of three kinds of products rounded to bfloat16: of the recurrence,
the residual blocks and the wider transposed convolutions. Sums, states, norms, heads and all that
is not a product stay float32. Against float32 the frames of the published size with random weights
differ by 46 dB, those of the bundled model by 74 dB. It pays on chips with AVX512-BF16 or AMX;
others widen every factor again, and are slower with it than without.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from atvg_jax.inference.fast_frames import FastFrames, Weights
from atvg_jax.models import winograd
from atvg_jax.models.convolutions import as_products
from atvg_jax.models.vg_net import RESIDUAL_BLOCKS

Array = jax.Array

# Transposed convolutions with more features than this are products of patches; those with fewer
# spend their time on laying patches out.
WIDE_UP = 32
UPS = ("attention_up_1", "attention_up_2", "decoder_up_1", "decoder_up_2", "base_up_1", "base_up_2")


class HalfFrames(FastFrames):
    """``FastFrames`` with products of bfloat16."""

    @property
    def compiler_options(self) -> None:
        """XLA's own choice: YNNPACK, which is what multiplies bfloat16 natively."""
        return

    def prepare(self, variables: Mapping[str, Any]) -> Weights:
        """``fast_frames.prepare``, then bfloat16; 0.5 GB at the published width."""
        weights = super().prepare(variables)

        def half(x: Any) -> np.ndarray:
            return np.asarray(x).astype(jnp.bfloat16)

        for index in range(RESIDUAL_BLOCKS):
            for part in (1, 2):
                layer = weights[f"residual_{index}_{part}"]
                turned = half(layer["winograd"]).swapaxes(1, 2)
                weights[f"residual_{index}_{part}"] = {
                    "winograd": np.ascontiguousarray(turned),
                    "bias": layer["bias"],
                }
        for name in ("hidden", "hidden_turned"):
            weights[name] = [[half(tap) for tap in row] for row in weights[name]]
        for name in UPS:
            alone = name == "attention_up_1"  # its bias is the portrait's part
            kernel = weights[name] if alone else weights[name][0]
            if kernel.shape[-1] > WIDE_UP and kernel.shape[0] == 3:
                products = tuple(half(matrix) for matrix in as_products(jnp.asarray(kernel)))
                weights[name] = products if alone else (products, weights[name][1])
        return weights

    def refined(self, weights: Weights, x: Array) -> Array:
        """The residual blocks: (8, 8, T, 512 width) -> (T, 8, 8, 512 width)."""

        def conv(x: Array, layer: Weights) -> Array:
            return winograd.convolve_from_left(x, layer["winograd"]) + layer["bias"][:, None]

        x = x.swapaxes(2, 3)
        for index in range(RESIDUAL_BLOCKS):
            y = nn.relu(conv(x, weights[f"residual_{index}_1"]))
            x = x + conv(y, weights[f"residual_{index}_2"])
        return jnp.moveaxis(x, 3, 0)
