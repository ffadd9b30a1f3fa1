"""The model directory: everything that synthesis needs, in one folder and without pickle.

    DIR/model.json           layout version, networks, feature settings, training record
    DIR/basis.npz            the landmark basis, its normaliser and boost
    DIR/at_net.safetensors   weights, one array under each of ``params/...`` and ``batch_stats/...``
    DIR/vg_net.safetensors

Whoever reads it needs no other file and no flag. Where the weights were converted from published
files, two more keep what synthesis does not need, so that the way back is complete:

    DIR/discriminator.safetensors
    DIR/published.safetensors   entries that no network of ours uses, as ``SLOT/NAME``
"""

import dataclasses
import functools
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from atvg_jax.errors import InputError
from atvg_jax.features import audio, faces, landmarks
from atvg_jax.whole_files import folder_written_whole

LAYOUT_VERSION = 1
DESCRIPTION_FILE = "model.json"
BASIS_FILE = "basis.npz"
# What each of the two entries of model.json may be an instance of.
NETWORKS = {"at_net": ("at_net", "at_mean", "at_single"), "vg_net": ("vg_net",)}
SPARE_NETWORKS = {"discriminator": ("discriminator",)}  # may be there beside these
KEPT = "published"  # collection of what published files hold and no network uses
WEIGHT_DTYPES = ("float32", "float16")
# More names than this in one error help nobody.
NAMES_SHOWN = 6

Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Which network it is and how it was built.

    Attributes:
        name: a name that ``atvg_jax.models.create`` knows.
        settings: the keyword settings given to it, such as ``{"width": 0.25}``.
    """

    name: str
    settings: Mapping[str, Any]

    def create(self) -> Any:
        """Builds the Flax module; ``InputError`` where this version has no such network."""
        from atvg_jax import models

        return models.create(self.name, self.settings)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model in memory: what a model directory holds.

    Attributes:
        networks: ``at_net`` and ``vg_net``, each with its settings; perhaps ``discriminator``.
        variables: for each of them, ``{"params": ..., "batch_stats": ...}`` of NumPy arrays, and
            ``published`` where a published file held more than that.
        basis: the ``LandmarkBasis`` that both networks were trained with.
        training: free-form record of where the weights come from.
    """

    networks: Mapping[str, NetworkConfig]
    variables: Mapping[str, Variables]
    basis: landmarks.LandmarkBasis
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def feature_settings() -> dict[str, float]:
    """The constants of ``atvg_jax.features`` that weights depend on."""
    return {
        "sample_rate": audio.SAMPLE_RATE,
        "frame_rate": audio.FRAME_RATE,
        "mfcc_count": audio.MFCC_COUNT,
        "window_rows": audio.WINDOW_ROWS,
        "window_coefficients": audio.WINDOW_COEFFICIENTS,
        "crop_size": faces.CROP_SIZE,
        "landmark_scale": landmarks.LANDMARK_SCALE,
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"params": {"a": {"kernel": x}}}`` to ``{"params/a/kernel": x}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, name + "/"))
        else:
            flat[name] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> Variables:
    """The inverse of ``flatten``."""
    tree: Variables = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def expected_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every array that the network has; traces it, computes nothing.

    Raises:
        InputError: no network can be built with these settings.
    """
    try:
        return _shapes(config.name, json.dumps(dict(config.settings), sort_keys=True))
    except (TypeError, ValueError, OverflowError) as error:  # whatever a wrong value runs into
        reason = str(error).splitlines()[0]
        raise InputError(
            f"no {config.name} can be built with the settings {dict(config.settings)}: {reason}"
        ) from error


@functools.cache
def _shapes(name: str, settings: str) -> dict[str, tuple[int, ...]]:
    from atvg_jax import models

    variables = models.abstract_variables(name, json.loads(settings))
    return {path: leaf.shape for path, leaf in flatten(variables).items()}


def _listed(names: list[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def check_weights(flat: Mapping[str, np.ndarray], config: NetworkConfig, origin: str) -> None:
    """Raises ``InputError`` naming arrays that are missing, extra, misshapen or not finite.

    Args:
        flat: arrays under names such as ``params/a/kernel``.
        config: the network that they should be of.
        origin: what the message calls them, a file for instance.
    """
    expected = expected_shapes(config)
    missing = sorted(expected.keys() - flat.keys())
    extra = sorted(flat.keys() - expected.keys())
    shared = sorted(expected.keys() & flat.keys())
    misshapen = [
        f"{name} {tuple(flat[name].shape)}, wanted {expected[name]}"
        for name in shared
        if tuple(flat[name].shape) != expected[name]
    ]
    problems = []
    for problem, names in [("missing", missing), ("unknown", extra), ("misshapen", misshapen)]:
        if names:
            problems.append(f"{problem}: {_listed(names)}")
    if not problems:
        odd = [
            name
            for name in shared
            if flat[name].dtype.name not in WEIGHT_DTYPES or not np.isfinite(flat[name]).all()
        ]
        if odd:
            problems.append(f"not finite {' or '.join(WEIGHT_DTYPES)}: {_listed(odd)}")
    if problems:
        settings = dict(config.settings)
        raise InputError(
            f"{origin} does not hold the weights of {config.name} {settings}: "
            + "; ".join(problems)
        )


def write(path: str | os.PathLike[str], model: Model, dtype: str = "float32") -> Path:
    """Writes a model directory; under its final name it is complete or absent.

    Args:
        path: the directory to make. A model directory that is there already is replaced; anything
            else that is there is left alone.
        model: what to write; its weights are checked against its settings first.
        dtype: of the parameters in the files, one of ``WEIGHT_DTYPES``: float16 halves their size
            and rounds them to 11 bits. Running statistics are float32 always.

    Returns:
        The directory.

    Raises:
        InputError: ``path`` is something else than a model directory, cannot be written, or the
            weights do not fit the networks or the dtype.
    """
    path = Path(path)
    weights: dict[str, dict[str, np.ndarray]] = {}
    kept: dict[str, np.ndarray] = {}
    for slot, config in model.networks.items():
        variables = dict(model.variables[slot])
        kept |= flatten(variables.pop(KEPT, {}), f"{slot}/")
        flat = flatten(variables)
        with np.errstate(over="ignore"):  # what becomes infinite is refused by name below
            weights[slot] = {
                name: np.ascontiguousarray(
                    value, dtype=dtype if name.startswith("params/") else np.float32
                )
                for name, value in flat.items()
            }
        check_weights(weights[slot], config, f"the {slot} to be written")
    description = {
        "layout_version": LAYOUT_VERSION,
        **{
            slot: {"name": config.name, "settings": dict(config.settings)}
            for slot, config in model.networks.items()
        },
        "features": feature_settings(),
        "training": dict(model.training),
    }
    with folder_written_whole(path, DESCRIPTION_FILE, "a model directory") as temporary:
        files = {**weights, KEPT: kept} if kept else weights
        _write_files(temporary, description, files, model.basis)
    return path


def _write_files(
    folder: Path,
    description: Mapping[str, Any],
    weights: Mapping[str, dict[str, np.ndarray]],
    basis: landmarks.LandmarkBasis,
) -> None:
    from safetensors.numpy import save_file

    for slot, flat in weights.items():
        file = folder / f"{slot}.safetensors"
        save_file(flat, file)
        file.chmod(0o644)  # safetensors makes files that only their owner can read
    basis.save(folder / BASIS_FILE)
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")


def read(path: str | os.PathLike[str], everything: bool = False) -> Model:
    """Reads and checks a model directory.

    Args:
        path: the directory.
        everything: what synthesis does not need too: a discriminator, and published entries that
            no network uses.

    Returns:
        The model, weights as NumPy float32.

    Raises:
        InputError: it is no model directory, of another layout version, made for other features
            than this version computes, or its weights do not fit its networks.
    """
    path = Path(path)
    description = _read_description(path)
    slots = dict(NETWORKS)
    if everything:
        slots |= {slot: names for slot, names in SPARE_NETWORKS.items() if slot in description}
    networks = {slot: _network_config(path, description, slot, slots[slot]) for slot in slots}
    basis = read_basis(_present(path, BASIS_FILE))
    variables = {slot: _read_weights(path, slot, config) for slot, config in networks.items()}
    if everything and (path / f"{KEPT}.safetensors").is_file():
        for name, array in _load(path, KEPT).items():
            slot, _, entry = name.partition("/")
            if slot in variables:
                variables[slot].setdefault(KEPT, {})[entry] = array
    return Model(networks, variables, basis, description.get("training") or {})


def read_basis(file: Path) -> landmarks.LandmarkBasis:
    """A landmark basis with the six components that AT-net speaks in.

    ``file`` is an npz file, or the folder of the published basis files.
    """
    # Asked first, since np.load leaves a file open that looks like a zip file and is none.
    if not file.is_dir() and not zipfile.is_zipfile(file):
        raise InputError(f"{file} is not a landmark basis: it is no npz file")
    basis = landmarks.LandmarkBasis.load(file)
    if basis.components.shape[1] != landmarks.COMPONENTS:
        raise InputError(
            f"{file} has {basis.components.shape[1]} components and the networks use "
            f"{landmarks.COMPONENTS}"
        )
    return basis


def _present(path: Path, name: str) -> Path:
    if not (path / name).is_file():
        raise InputError(f"{path} is not a complete model directory: it has no {name}")
    return path / name


def _read_description(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"there is no model directory {path}")
    if not (path / DESCRIPTION_FILE).is_file():
        hint = (
            "; it looks like a training run: join two with python -m atvg_jax.export"
            if (path / "checkpoints").is_dir()
            else ""
        )
        raise InputError(f"{path} is not a model directory: it has no {DESCRIPTION_FILE}{hint}")
    file = path / DESCRIPTION_FILE
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is not readable as JSON: {error}") from error
    if not isinstance(description, dict) or "layout_version" not in description:
        raise InputError(f"{file} does not describe a model: it has no layout_version")
    version = description["layout_version"]
    if version != LAYOUT_VERSION:
        raise InputError(
            f"{path} has layout version {version!r} and this program reads version "
            f"{LAYOUT_VERSION}; use the version of atvg_jax that wrote it"
        )
    features = description.get("features")
    if features != feature_settings():
        raise InputError(
            f"{path} was made for features {features} and this program computes "
            f"{feature_settings()}; use the version of atvg_jax that wrote it"
        )
    return description


def _network_config(
    path: Path, description: Mapping[str, Any], slot: str, names: tuple[str, ...]
) -> NetworkConfig:
    entry = description.get(slot)
    if (
        not isinstance(entry, dict)
        or entry.get("name") not in names
        or not isinstance(entry.get("settings"), dict)
    ):
        raise InputError(f"{path / DESCRIPTION_FILE} does not say what its {slot} is: {entry!r}")
    return NetworkConfig(entry["name"], entry["settings"])


def _read_weights(path: Path, slot: str, config: NetworkConfig) -> Variables:
    flat = _load(path, slot)
    check_weights(flat, config, str(path / f"{slot}.safetensors"))
    return unflatten({name: value.astype(np.float32) for name, value in flat.items()})


def _load(path: Path, name: str) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = _present(path, f"{name}.safetensors")
    try:
        return load_file(file)
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError) as error:
        # KeyError, AttributeError: element types that NumPy has no name for.
        raise InputError(f"{file} is not a readable safetensors file: {error}") from error
