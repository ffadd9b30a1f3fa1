"""What a run begins with when it begins with another run's weights (``config.start_from``)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from atvg_jax.errors import InputError
from atvg_jax.features.landmarks import LandmarkBasis
from atvg_jax.training import experiment
from atvg_jax.training.averaging import variables
from atvg_jax.training.checkpoints import BASIS_FILE, CONFIG_FILE, Checkpoints

Modules = dict[str, dict[str, Any]]


def weights(folder: Path, plan: experiment.Experiment) -> Modules:
    """The averaged weights of a run's modules that this network has too.

    Args:
        folder: the run's.
        plan: of the run that begins. Where the other trained the same network these are all its
            weights, otherwise the modules that both have by the same name.

    Returns:
        ``{"params": {module: ...}, "batch_stats": {module: ...}}``.

    Raises:
        InputError: there is no such run, it has no checkpoint yet, its network has no module of
            this one, or one of another shape.
    """
    held = variables(_plan_of(folder).abstract(), plan.network)
    wanted = variables(plan.abstract(), plan.network)
    shared = {
        name: {module: held[name][module] for module in wanted[name] if module in held[name]}
        for name in wanted
    }
    if not shared["params"]:
        raise InputError(f"config.start_from={folder} is of a network that has nothing of this one")
    for name, modules in shared.items():
        for module, arrays in modules.items():
            if _shapes(arrays) != _shapes(wanted[name][module]):
                raise InputError(
                    f"config.start_from={folder} is of another network: its {module} has other "
                    "shapes (was it trained with another config.model?)"
                )
    with Checkpoints(folder) as checkpoints:
        average = checkpoints.weights(held)
    if average is None:
        raise InputError(f"config.start_from={folder} has no checkpoint with averaged weights yet")
    return {
        name: {module: average[name][module] for module in modules}
        for name, modules in shared.items()
    }


def _plan_of(folder: Path) -> experiment.Experiment:
    """What a run trained, by its own folder."""
    file = folder / CONFIG_FILE
    if not file.is_file() or not (folder / BASIS_FILE).is_file():
        raise InputError(
            f"config.start_from={folder} is no training run: it has no {CONFIG_FILE} and "
            f"{BASIS_FILE}"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))["config"]
        return experiment.build(config, LandmarkBasis.load(folder / BASIS_FILE))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"config.start_from={folder}: {file.name} describes no run") from error


def _shapes(tree: Mapping[str, Any]) -> Any:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)
