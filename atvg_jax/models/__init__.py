"""The networks: plain Flax modules, pure functions of (variables, inputs)."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from atvg_jax.errors import InputError
from atvg_jax.models.at_net import ATNet, ATNetFramewise, ATNetSingle
from atvg_jax.models.discriminator import Discriminator
from atvg_jax.models.ensemble import ATNetMean
from atvg_jax.models.vg_net import PortraitFeatures, VGNet, VGOutput

__all__ = [
    "COMPACT_WIDTH",
    "NETWORKS",
    "ATNet",
    "ATNetFramewise",
    "ATNetMean",
    "ATNetSingle",
    "Discriminator",
    "PortraitFeatures",
    "VGNet",
    "VGOutput",
    "abstract_variables",
    "create",
]

# A quarter of the channels is a sixteenth of the multiply-adds.
COMPACT_WIDTH = 0.25

NETWORKS: dict[str, type[nn.Module]] = {
    "at_net": ATNet,
    "at_mean": ATNetMean,
    "at_single": ATNetSingle,
    "at_framewise": ATNetFramewise,
    "vg_net": VGNet,
    "discriminator": Discriminator,
}
# Smallest inputs that each network accepts, for shapes and initialisation.
INPUT_SHAPES: dict[str, list[tuple[int, ...]]] = {
    "at_net": [(1, 6), (1, 1, 28, 12)],
    "at_mean": [(1, 6), (1, 1, 28, 12)],
    "at_single": [(1, 28, 12)],
    "at_framewise": [(1, 6), (1, 1, 28, 12)],
    "vg_net": [(1, 128, 128, 3), (1, 1, 136), (1, 136)],
    "discriminator": [(1, 1, 128, 128, 3), (1, 136)],
}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create(name: str, settings: Mapping[str, Any] | None = None) -> nn.Module:
    """Builds a network from the plain values that a config or a model directory holds.

    Args:
        name: one of ``NETWORKS``.
        settings: the module's fields, such as ``{"width": 0.25}``; ``dtype`` by name.

    Raises:
        InputError: an unknown network, setting or dtype.
    """
    if name not in NETWORKS:
        raise InputError(f"no network is called {name!r}: choose one of {', '.join(NETWORKS)}")
    module = NETWORKS[name]
    fields = dict(settings or {})
    known = set(module.__dataclass_fields__) - {"parent", "name"}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise InputError(
            f"{name} has no setting {', '.join(unknown)}: it has {', '.join(sorted(known))}"
        )
    if "dtype" in fields:
        if fields["dtype"] not in DTYPES:
            raise InputError(f"dtype {fields['dtype']!r} is not one of {', '.join(DTYPES)}")
        fields["dtype"] = DTYPES[fields["dtype"]]
    return module(**fields)


def abstract_variables(name: str, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns shapes and dtypes of a network's variables without computing any.

    Args:
        name: one of ``NETWORKS``.
        settings: as for ``create``.
    """
    model = create(name, settings)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in INPUT_SHAPES[name]]
    return dict(jax.eval_shape(model.init, jax.random.key(0), *arrays))
