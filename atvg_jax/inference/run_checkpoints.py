"""Weights from a training run's folder.

    RUN/config.json             the network's name and the config it was trained with
    RUN/basis.npz               the landmark basis of its data
    RUN/checkpoints/STEP/       Orbax: ``state``, and ``average`` where the run keeps averages

A folder on disk is all that lies between training and inference: nothing of ``atvg_jax.training``
is imported here, and optimizer states are not read.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from atvg_jax.errors import InputError
from atvg_jax.inference import model_directory

CHECKPOINTS, STATE, AVERAGE, DATA = "checkpoints", "state", "average", "data"
METRICS = "metrics"
COLLECTIONS = ("params", "batch_stats")


class Run(NamedTuple):
    """What a run has come to.

    Attributes:
        network: which network it trained and its settings.
        variables: ``{"params": ..., "batch_stats": ...}``, NumPy float32.
        basis_file: the run's landmark basis.
        record: where the weights come from, for the model directory's training record.
    """

    network: model_directory.NetworkConfig
    variables: model_directory.Variables
    basis_file: Path
    record: dict[str, Any]


def read_run(path: str | os.PathLike[str], slot: str, best: bool = False) -> Run:
    """Reads a complete checkpoint of a run; its averaged weights where it keeps them.

    Args:
        path: the run's folder (the trainer's ``--workdir``).
        slot: ``at_net`` or ``vg_net``, what the run should have trained.
        best: the checkpoint that did best on held-out clips, not the latest.

    Raises:
        InputError: no run, a run of the other network, no complete checkpoint, or one that its
            config does not describe.
    """
    path = Path(path)
    name, config, metric = _read_config(path)
    if name not in model_directory.NETWORKS[slot]:
        raise InputError(f"{path} is a run of {name}, not of {slot}; are --at and --vg swapped?")
    basis_file = path / model_directory.BASIS_FILE
    if not basis_file.is_file():
        raise InputError(f"{path} is not a complete training run: it has no {basis_file.name}")
    network = model_directory.NetworkConfig(name, config["model"])
    step, averaged, variables = _read_checkpoint(path, slot, metric if best else None)
    flat = model_directory.flatten(variables)
    model_directory.check_weights(flat, network, f"checkpoint {step} of {path}")
    # Where the data and other runs lay on the machine that trained is nobody else's business.
    settings = {key: value for key, value in config.items() if key != "data"}
    if settings.get("start_from"):
        settings["start_from"] = Path(str(settings["start_from"])).name
    record = {"step": step, "averaged": averaged, "config": settings}
    return Run(network, variables, basis_file, record)


def join(
    at_run: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    vg_run: str | os.PathLike[str],
    best: bool = False,
) -> model_directory.Model:
    """Puts a run of each network together into one model.

    Args:
        at_run: folder of an AT-net run; or several, whose mean is taken (``models.ensemble``).
        vg_run: folder of a VG-net run.
        best: take of each the checkpoint that did best on held-out clips, not the latest.

    Raises:
        InputError: a run cannot be read, they were trained with different landmark bases, or
            several of AT-net are of different networks.
    """
    at_runs = [at_run] if isinstance(at_run, str | os.PathLike) else at_run
    several = [read_run(path, "at_net", best) for path in at_runs]
    vg = read_run(vg_run, "vg_net", best)
    for one in several:
        if not _same_arrays(one.basis_file, vg.basis_file):
            raise InputError(
                "the landmark bases of the two runs differ "
                f"({one.basis_file} and {vg.basis_file}): train both networks on the same data set"
            )
    at = _mean(several) if len(several) > 1 else several[0]
    return model_directory.Model(
        networks={"at_net": at.network, "vg_net": vg.network},
        variables={"at_net": at.variables, "vg_net": vg.variables},
        basis=model_directory.read_basis(at.basis_file),
        training={"at_net": at.record, "vg_net": vg.record},
    )


def _mean(runs: Sequence[Run]) -> Run:
    """Several AT-net runs as one of the network that gives their mean."""
    from atvg_jax.models import ensemble

    first = runs[0].network
    for run in runs:
        if run.network != first or first.name != "at_net":
            raise InputError(
                f"{runs[0].basis_file.parent} and {run.basis_file.parent}: a mean takes runs of "
                "at_net with the same settings of the network"
            )
    variables = ensemble.of_members([run.variables for run in runs])
    network = model_directory.NetworkConfig("at_mean", {**first.settings, "members": len(runs)})
    record = {"mean_of": [run.record for run in runs]}
    return Run(network, variables, runs[0].basis_file, record)


def _read_config(path: Path) -> tuple[str, dict[str, Any], str]:
    """The network's name, the config, and the held-out metric that tells the best checkpoint."""
    file = path / "config.json"
    if not file.is_file():
        raise InputError(f"{path} is not a training run: it has no {file.name}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is not readable as JSON: {error}") from error
    config = content.get("config") if isinstance(content, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise InputError(f"{file} does not describe a run: it has no config with a model")
    if not isinstance(content.get("network"), str):
        raise InputError(f"{file} does not say which network it is of")
    return content["network"], config, str(content.get("best_metric", ""))


def _best_step(folder: Path, metric: str, steps: list[int]) -> int:
    """The step whose held-out metric is the lowest."""
    scores = {}
    for step in steps:
        file = folder / str(step) / METRICS / METRICS
        try:
            score = json.loads(file.read_text(encoding="utf-8"))[metric]
        except (OSError, ValueError, KeyError):
            continue  # saved without being judged
        if isinstance(score, int | float):
            scores[step] = score
    if not scores:
        raise InputError(f"no checkpoint in {folder} was judged on held-out clips: take the latest")
    return min(scores, key=lambda step: scores[step])


def _read_checkpoint(
    path: Path, slot: str, best_metric: str | None
) -> tuple[int, bool, model_directory.Variables]:
    """Step, whether the weights are averaged, and the weights.

    The latest step, or the one where ``best_metric`` is the lowest.
    """
    import jax
    import orbax.checkpoint as ocp

    folder = (path / CHECKPOINTS).absolute()
    if not folder.is_dir():
        raise InputError(f"{path} has no {CHECKPOINTS} yet: train it first")
    manager = ocp.CheckpointManager(
        folder,
        # What follows from reading only, said outright: Orbax warns about what it sets itself.
        options=ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0),
        item_handlers={
            STATE: ocp.PyTreeCheckpointHandler(),
            AVERAGE: ocp.PyTreeCheckpointHandler(),
            DATA: ocp.JsonCheckpointHandler(),  # not read, but Orbax warns of unknown items
        },
    )
    try:
        step = manager.latest_step()
        if step is None:
            raise InputError(f"{path} has no complete checkpoint yet: train it further")
        if best_metric is not None:
            step = _best_step(folder, best_metric, manager.all_steps())
        try:
            saved = manager.item_metadata(step)
            averaged = (folder / str(step) / AVERAGE).is_dir()
            item = AVERAGE if averaged else STATE
            tree = saved[item].tree
            parts = tree if averaged else tree["networks"][slot]
            wanted: Any = {
                name: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), part)
                for name, part in parts.items()
                if name in COLLECTIONS
            }
            if not averaged:
                wanted = {"networks": {slot: wanted}}
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
            arguments = ocp.args.PyTreeRestore(
                item=wanted, restore_args=as_numpy, partial_restore=True
            )
            restored = manager.restore(step, args=ocp.args.Composite(**{item: arguments}))[item]
        except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            raise InputError(
                f"checkpoint {step} of {path} cannot be read as a run of {slot}: {error}"
            ) from error
    finally:
        manager.close()
    found = restored if averaged else restored["networks"][slot]
    return step, averaged, {name: found[name] for name in COLLECTIONS if found.get(name)}


def _same_arrays(first: Path, second: Path) -> bool:
    for file in (first, second):
        model_directory.read_basis(file)
    with np.load(first, allow_pickle=False) as a, np.load(second, allow_pickle=False) as b:
        return sorted(a.files) == sorted(b.files) and all(
            # An unknown explained variance is NaN, and the same as another.
            np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f")
            for name in a.files
        )
