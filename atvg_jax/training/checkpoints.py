"""Checkpoints of a run under WORKDIR/checkpoints/STEP/, through Orbax.

A checkpoint is complete or it is not there: Orbax writes to a temporary name and renames. It holds
these items: ``state`` (a ``TrainState``: parameters, batch statistics and optimizer states of every
network, and the step), ``average`` (running averages of the network's variables, where the run
keeps them), ``data`` (the position of the data iterator) and ``metrics`` (held-out ones). Arrays
are saved once, not once a device, so that a run goes on with any number of devices. Random numbers
follow from seed and step; no key is stored.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from atvg_jax.errors import InputError

FOLDER = "checkpoints"
BASIS_FILE, CONFIG_FILE = "basis.npz", "config.json"  # beside it
STATE, AVERAGE, DATA = "state", "average", "data"
_NAMES_SHOWN = 6  # differing arrays that an error lists before it only counts them


class Checkpoints:
    """The checkpoints of one run.

    Args:
        workdir: the run's folder.
        keep: how many of the latest to keep.
        best_metric: the held-out metric whose best (lowest) checkpoint is kept besides; "" for
        none.
    """

    def __init__(self, workdir: Path | str, keep: int = 3, best_metric: str = ""):
        self.folder = Path(workdir).absolute() / FOLDER
        policies: list[Any] = [preservation_policy.LatestN(max(1, keep))]
        score: Callable[[Any], float] | None = None
        if best_metric:

            def score(metrics: Any) -> float:
                return metrics.get(best_metric, np.inf)  # inf: saved without a score

            policies.append(
                preservation_policy.BestN(
                    get_metric_fn=score, reverse=True, n=1, keep_checkpoints_without_metrics=False
                )
            )
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
                # Policies alone choose what stays; this makes Orbax write the metrics down, so
                # that a run that goes on still knows which checkpoint was the best.
                best_fn=score,
                best_mode="min",
                cleanup_tmp_directories=True,
            ),
            item_handlers={
                STATE: ocp.StandardCheckpointHandler(),
                AVERAGE: ocp.StandardCheckpointHandler(),
                DATA: ocp.JsonCheckpointHandler(),
            },
        )

    @property
    def latest(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Steps of all checkpoints that are there."""
        return sorted(self._manager.all_steps())

    def save(
        self,
        step: int,
        state: Any,
        average: Any,
        data: dict[str, Any],
        metrics: dict[str, float] | None = None,
    ) -> None:
        """Starts to write a checkpoint; training may go on, the arrays given are NumPy copies.

        Args:
            step: steps done.
            state: the ``TrainState``, not replicated.
            average: running averages; empty for none.
            data: the data iterator's position.
            metrics: held-out metrics of this very state, where there are any.
        """
        items: dict[str, Any] = {
            STATE: ocp.args.StandardSave(state),
            DATA: ocp.args.JsonSave(data),
        }
        if jax.tree.leaves(average):
            items[AVERAGE] = ocp.args.StandardSave(average)
        self._manager.save(
            step, args=ocp.args.Composite(**items), metrics=metrics or {}, force=True
        )

    def restore(self, state: Any, average: Any) -> tuple[Any, Any, dict[str, Any]] | None:
        """Reads the newest complete checkpoint.

        Args:
            state: a state of this run's networks (arrays or shapes) to restore into.
            average: the same for running averages; empty when the run keeps none.

        Returns:
            state, average and data position, or None where there is no checkpoint. Averages that
            the checkpoint lacks start at the restored parameters and are returned empty.

        Raises:
            InputError: the checkpoint is of a network with other parameters.
        """
        step = self.latest
        if step is None:
            return None
        folder = self.folder / str(step)
        saved = self._manager.item_metadata(step)
        self._compare(saved[STATE], state, folder)
        items: dict[str, Any] = {
            STATE: ocp.args.StandardRestore(_abstract(state)),
            DATA: ocp.args.JsonRestore(),
        }
        with_average = (folder / AVERAGE).is_dir() and bool(jax.tree.leaves(average))
        if with_average:
            items[AVERAGE] = ocp.args.StandardRestore(_abstract(average))
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return restored[STATE], restored[AVERAGE] if with_average else {}, restored[DATA]

    def weights(self, average: Any) -> Any | None:
        """Reads nothing but the running averages of the newest complete checkpoint.

        Args:
            average: the network's variables (arrays or shapes) to restore into.

        Returns:
            The averages, or None where there is no checkpoint or it keeps none.

        Raises:
            InputError: the checkpoint is of a network with other parameters.
        """
        step = self.latest
        if step is None or not (self.folder / str(step) / AVERAGE).is_dir():
            return None
        self._compare(self._manager.item_metadata(step)[AVERAGE], average, self.folder / str(step))
        items = {AVERAGE: ocp.args.StandardRestore(_abstract(average))}
        return self._manager.restore(step, args=ocp.args.Composite(**items))[AVERAGE]

    def _compare(self, saved: Any, state: Any, folder: Path) -> None:
        have = _shapes(saved.tree if hasattr(saved, "tree") else saved)
        want = _shapes(state)
        differing = [
            f"{name} {have.get(name, 'absent')} there, {want.get(name, 'absent')} here"
            for name in sorted(have.keys() | want.keys())
            if have.get(name) != want.get(name)
        ]
        if differing:
            # Statistics and optimizer states follow the parameters; the parameters say it best.
            parameters = [text for text in differing if "/params/" in text.partition(" ")[0]]
            parameters = [text for text in parameters if "/opt_state/" not in text]
            shown = (parameters or differing)[:_NAMES_SHOWN]
            rest = len(differing) - len(shown)
            raise InputError(
                f"{folder} is a checkpoint of another network: {'; '.join(shown)}"
                + (f"; and {rest} more arrays" if rest else "")
                + "; use the config it was trained with, or another --workdir",
                reason="different_network",
            )

    def wait(self) -> None:
        """Returns when everything saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being written, and ends."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _abstract(tree: Any) -> Any:
    """Shapes and dtypes of a tree, restored as NumPy-like arrays on the first device."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=device), tree
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shape of each array by name, such as ``networks/at_net/params/lstm/kernel``."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))[0]
    return {"/".join(_key(part) for part in path): tuple(leaf.shape) for path, leaf in leaves}


def _key(part: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute))
    return str(part)
