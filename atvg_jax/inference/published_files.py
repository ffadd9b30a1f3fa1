"""Published PyTorch checkpoints to a model in memory, and a model to files of that kind."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atvg_jax.errors import InputError
from atvg_jax.inference import model_directory, published, torch_files

# Place in a model directory -> the published networks that may fill it.
PUBLISHED = {
    "at_net": ("AT_net", "AT_single"),
    "vg_net": ("VG_net",),
    "discriminator": ("GL_Discriminator",),
}
# The released code runs its recurrence over the batch: with one portrait, every frame starts anew.
RELEASED_SETTINGS: dict[str, dict[str, Any]] = {"vg_net": {"recurrence": "none"}}


def read(files: Mapping[str, Path], basis: str | os.PathLike[str]) -> model_directory.Model:
    """Reads published checkpoints into a model that runs as the published code did.

    Args:
        files: PyTorch file by place: ``at_net`` and ``vg_net``, perhaps ``discriminator``.
        basis: the folder of the published basis files, or a ``basis.npz``.

    Returns:
        The model: published size, recurrence off, the basis's own boost and normalisation.

    Raises:
        InputError: a file cannot be read or is of another network, or an entry is missing,
            unexpected or misshapen (all are named).
    """
    networks, variables, training = {}, {}, {}
    for slot, file in files.items():
        state_dict = torch_files.read(file)
        name = _which(state_dict, slot, file)
        try:
            variables[slot] = published.from_state_dict(name, state_dict)
        except InputError as error:
            raise InputError(f"{file}: {error}", error.reason) from error
        ours = published.NETWORKS[name][0]
        networks[slot] = model_directory.NetworkConfig(ours, RELEASED_SETTINGS.get(slot, {}))
        training[slot] = {"converted_from": name, "file": Path(file).name}
    loaded = model_directory.read_basis(Path(basis))
    return model_directory.Model(networks, variables, loaded, training)


def write(model: model_directory.Model, folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Writes a model's networks as PyTorch files that the published definitions load.

    Args:
        model: of the published size, read with ``everything``.
        folder: gets ``AT_net.pth`` or ``AT_single.pth``, ``VG_net.pth`` and, where the model has
            one, ``GL_Discriminator.pth``.

    Returns:
        File by place in the model directory.

    Raises:
        InputError: the model is not of the published size or without attention, or a file cannot
            be written.
    """
    names = {ours: name for name, (ours, _) in published.NETWORKS.items()}
    state_dicts = {}
    for slot, config in model.networks.items():
        if config.name not in names:
            raise InputError(
                f"there is no published definition of {config.name}, which the {slot} is: only "
                f"{', '.join(names)} go back to PyTorch"
            )
        width = config.settings.get("width", 1.0)
        if width != 1.0:
            raise InputError(
                f"the published definition of {names[config.name]} has one size, and this {slot} "
                f"is of width {width:g}: only models of width 1 go back to PyTorch"
            )
        if not config.settings.get("attention", True):
            raise InputError(
                f"the published definition of {names[config.name]} blends by attention, which this "
                "model was trained without: its frames would not be the same"
            )
        name = names[config.name]
        state_dicts[slot] = name, published.to_state_dict(name, model.variables[slot])
    files = {}
    for slot, (name, state_dict) in state_dicts.items():
        files[slot] = Path(folder) / f"{name}.pth"
        torch_files.write(files[slot], state_dict)
    return files


def _which(state_dict: Mapping[str, np.ndarray], slot: str, file: Path) -> str:
    """The published network whose names the file shares most, which must be one for ``slot``."""
    found = {key.removeprefix(published.PREFIX) for key in state_dict}

    def shared(name: str) -> float:
        own = {entry.name for entry in published.NETWORKS[name][1]}
        return len(own & found) / len(own | found)

    best = max(published.NETWORKS, key=shared)
    if shared(best) > 0.5 and best not in PUBLISHED[slot]:
        wanted = " or ".join(PUBLISHED[slot])
        raise InputError(
            f"{file} holds {best}, not {wanted}: give each file to its own flag", "wrong_network"
        )
    return max(PUBLISHED[slot], key=shared)
