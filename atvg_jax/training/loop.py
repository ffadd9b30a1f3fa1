"""A whole training run: ``train_and_evaluate(config, workdir)`` for either network."""

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from atvg_jax import compilation_cache
from atvg_jax.data.pipeline import Augmentation, ClipWindows, Reading, TrainBatches, Windows
from atvg_jax.errors import InputError
from atvg_jax.features import images
from atvg_jax.features.landmarks import LandmarkBasis
from atvg_jax.training import experiment, samples, start_from
from atvg_jax.training.averaging import (
    RunState,
    averaged_step,
    to_evaluate,
    variables,
    with_variables,
)
from atvg_jax.training.checkpoints import BASIS_FILE, CONFIG_FILE, Checkpoints
from atvg_jax.training.checkpoints import FOLDER as CHECKPOINTS
from atvg_jax.training.parallel import Devices, first_process
from atvg_jax.training.profiling import profiler
from atvg_jax.training.stopping import StopRequest, stop_request
from atvg_jax.training.validation import Validation
from atvg_jax.training.watch import Watch
from atvg_jax.whole_files import written_whole


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        step: steps done in all.
        metrics: last held-out metrics, or training metrics where nothing is held out.
        preempted: it was asked to stop (SIGTERM) before its last step.
        seconds: how long this call took.
    """

    step: int
    metrics: dict[str, float]
    preempted: bool
    seconds: float


def train_and_evaluate(config: Mapping[str, Any], workdir: Path | str) -> Result:
    """Trains the network that ``config`` describes, or goes on where WORKDIR's run stopped.

    Where parameters come from: this run's newest complete checkpoint; without one, the averaged
    weights of the run that ``config.start_from`` names, as far as both networks have the same
    modules; without that, random initialisation from ``config.seed``.

    Args:
        config: a complete config, see ``configs/at_net.py``.
        workdir: the run's folder.

    Raises:
        InputError: a setting, the data set or the folder's earlier run does not fit, or the
            loss stopped being finite.
    """
    started = time.perf_counter()
    compilation_cache.enable()
    workdir = Path(workdir)
    devices = Devices(config["devices"])
    experiment.memory(config).check(devices.per_device(config["batch_size"]))
    reading = Reading(
        config["read_threads"], config["read_ahead"], jax.process_index(), jax.process_count()
    )
    windows = Windows(config["network"], config["frames"], config.get("example", "before"))
    source = ClipWindows(config["data"], "train", windows, config["balance"])
    held_out = _held_out(config, windows)
    basis = _basis(Path(config["data"]), workdir)
    plan = experiment.build(config, basis)
    weights = _weights_to_start_from(config, plan, workdir)
    _write_config(config, workdir, plan.best_metric)

    batches = TrainBatches(
        source, config["batch_size"], config["seed"], Augmentation(**config["augment"]), reading
    )
    root = jax.random.key(config["seed"], impl="rbg")
    with Checkpoints(workdir, config["keep"], plan.best_metric) as checkpoints:
        state = _start(plan, config, checkpoints, batches, weights)
        start = int(state.train.step)
        run = Run(config, workdir, devices, plan, checkpoints, batches, held_out, reading)
        try:
            metrics, step = run.train(devices.replicate(state), start, root)
        finally:
            run.watch.close()
    seconds = time.perf_counter() - started
    return Result(step, metrics, step < config["steps"], seconds)


class Run:
    """The pieces of a run while it goes; ``train_and_evaluate`` puts them together."""

    def __init__(
        self,
        config: Mapping[str, Any],
        workdir: Path,
        devices: Devices,
        plan: experiment.Experiment,
        checkpoints: Checkpoints,
        batches: TrainBatches,
        held_out: ClipWindows | None,
        reading: Reading,
    ):
        self.config, self.workdir, self.devices, self.plan = config, workdir, devices, plan
        self.checkpoints, self.batches = checkpoints, batches
        self.first_process = first_process()
        self.validation = held_out and Validation(
            devices,
            plan.evaluate,
            held_out,
            config["batch_size"],
            config["eval_windows"],
            reading,
            plan.judge,
        )
        self.position = batches.get_state()
        self.watch = Watch(
            workdir,
            start=checkpoints.latest or 0,
            steps=config["steps"],
            frames_per_step=config["batch_size"] * config["frames"],
            headline=plan.headline,
            writes=self.first_process,
        )
        self._describe(held_out)

    def train(self, state: RunState, start: int, root: jax.Array) -> tuple[dict[str, float], int]:
        """Steps from ``start`` to ``config.steps``; returns last metrics and steps done."""
        config, watch = self.config, self.watch
        step_function = self.devices.train_step(
            averaged_step(self.plan.step, self.plan.network, config["ema_decay"])
        )
        feed = self.devices.prefetch(_positions(self.batches))
        metrics: dict[str, float] = {}
        step, saved = start, self.checkpoints.latest
        profiled = config["profile_steps"] if self.first_process else 0
        with (
            stop_request() as stop,
            profiler(self.workdir, start, config["steps"], profiled) as profile,
        ):
            while step < config["steps"] and not stop.at(step):
                before = time.perf_counter()
                batch, self.position = next(feed)
                waited = time.perf_counter() - before
                state, values = step_function(state, batch, jax.random.fold_in(root, step))
                step += 1
                watch.step(step, values, waited)
                profile(step, state)
                last = step == config["steps"]
                if _due(step, config["log_every"]) or step == start + 1 or last:
                    metrics_now = watch.flush(self._rate(step))
                    if not self.validation:
                        metrics = metrics_now
                scores = None
                if self.validation and (_due(step, config["eval_every"]) or last):
                    scores = self._evaluate(step, state, stop)
                    metrics = scores or metrics
                if _due(step, config["checkpoint_every"]) or last:
                    self._save(step, state, scores)
                    saved = step
        if step > start and saved != step:
            self._save(step, state, None)
        self.checkpoints.wait()
        return metrics, step

    def _rate(self, step: int) -> float:
        return float(self.plan.learning_rate(step - 1))

    def _evaluate(self, step: int, state: RunState, stop: StopRequest) -> dict[str, float] | None:
        """Held-out metrics, or None where there is no time left for them."""
        assert self.validation
        self.watch.flush(self._rate(step))
        before = time.perf_counter()
        judged = to_evaluate(state, self.plan.network)
        scores = self.validation.metrics(judged, stop.now)
        if scores is None:
            return None
        self.watch.scalars(self.config["eval_split"], step, scores)
        listed = "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
        self.watch.say(f"step {step}, {self.config['eval_split']}: {listed}")
        batch, outputs = self.validation.samples(judged)
        if self.first_process:
            path = samples.write(self.workdir, step, self.plan.network, batch, outputs)
            self.watch.picture("samples", step, images.read_image(path))
        self.watch.paused(time.perf_counter() - before)
        return scores

    def _save(self, step: int, state: RunState, scores: dict[str, float] | None) -> None:
        # A state with a number that is not finite must not become the last good checkpoint.
        self.watch.flush(self._rate(step))
        before = time.perf_counter()
        local = self.devices.unreplicate(state)
        _check_finite(local, step)
        self.checkpoints.save(step, local.train, local.average, self.position, scores)
        self.watch.paused(time.perf_counter() - before)

    def _describe(self, held_out: ClipWindows | None) -> None:
        source = self.batches.source
        say = self.watch.say
        say(
            f"{self.plan.network}: {source.clips} clips, {len(source)} windows of "
            f"{source.windows.frames} frames an epoch; {self.devices.total} "
            f"{self.devices.local[0].platform} device(s), batch {self.config['batch_size']}"
        )
        if source.skipped:
            say(f"{source.skipped} clips are shorter than {source.windows.shortest} frames: unused")
        if held_out is None and self.config["eval_split"]:
            split = self.config["eval_split"]
            say(f"nothing is held out: {self.config['data']} has no usable {split!r} clips")
        if self.checkpoints.latest is not None:
            say(f"continuing from step {self.checkpoints.latest}")


def _held_out(config: Mapping[str, Any], windows: Windows) -> ClipWindows | None:
    """The held-out split; None where none is wanted, there, or long enough for a window."""
    if not config["eval_split"]:
        return None
    try:
        return ClipWindows(config["data"], config["eval_split"], windows)
    except InputError as error:
        if error.reason == "unreadable":
            raise
        return None


def _basis(data: Path, workdir: Path) -> LandmarkBasis:
    """The data set's landmark basis, copied into the run, since its networks are of no use without.

    Raises:
        InputError: there is none, or the run was started with another.
    """
    path, own = data / BASIS_FILE, workdir / BASIS_FILE
    if not path.is_file():
        raise InputError(f"{data} has no {BASIS_FILE}: build the data set again", reason="missing")
    theirs = LandmarkBasis.load(path)
    if not own.is_file():
        if not first_process():
            return theirs
        with written_whole(own) as temporary:
            shutil.copyfile(path, temporary)
        return theirs
    basis = LandmarkBasis.load(own)
    if basis.components.shape != theirs.components.shape or not np.allclose(
        basis.components, theirs.components, atol=1e-6
    ):
        raise InputError(
            f"{workdir} was trained with another landmark basis than {path}: use another "
            f"--workdir, or build the data set with --basis={own}"
        )
    return basis


def _start(
    plan: experiment.Experiment,
    config: Mapping[str, Any],
    checkpoints: Checkpoints,
    batches: TrainBatches,
    weights: dict[str, Any] | None,
) -> RunState:
    """The newest checkpoint's state, with the data at its position; or a fresh one, its network
    with ``weights`` where there are any.
    """
    keep_average = bool(config["ema_decay"])
    if not 0 <= config["ema_decay"] < 1:
        raise InputError(f"config.ema_decay={config['ema_decay']} must be in [0, 1); 0 is off")
    # Another generator than the steps' one, so that initialisation shares no key with a step, and
    # one that compiles in a fifth of the time: a network has some 80 arrays to draw.
    init_key = jax.random.key(config["seed"], impl="unsafe_rbg")
    if checkpoints.latest is None:
        train = plan.init(init_key, batches.source.sample_landmarks)
        if weights is not None:
            train = with_variables(train, plan.network, weights)
        return RunState(train, variables(train, plan.network) if keep_average else {})
    abstract = plan.abstract()
    average = variables(abstract, plan.network) if keep_average else {}
    restored = checkpoints.restore(abstract, average)
    assert restored is not None
    train, average, position = restored
    batches.set_state(position)
    if keep_average and not average:
        average = variables(train, plan.network)
    return RunState(train, average)


def _weights_to_start_from(
    config: Mapping[str, Any], plan: experiment.Experiment, workdir: Path
) -> dict[str, Any] | None:
    """Weights of the run that the config names; None where it names none, or where this run has a
    checkpoint of its own.
    """
    named = config.get("start_from")
    # What a save that was killed leaves behind begins with a number too, and is no checkpoint.
    if not named or any(path.name.isdigit() for path in (workdir / CHECKPOINTS).glob("*")):
        return None
    return start_from.weights(Path(named), plan)


def _positions(batches: TrainBatches) -> Iterator[tuple[Any, dict[str, int]]]:
    """Each batch with the position after it, so that what is read ahead does not count as seen."""
    for batch in batches:
        yield batch, batches.get_state()


def _write_config(config: Mapping[str, Any], workdir: Path, best_metric: str) -> None:
    """config.json: which network this is and every setting, for whoever loads a checkpoint."""
    path = workdir / CONFIG_FILE
    settings = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    # AT-net comes in two architectures under one config.
    name = settings.get("architecture", settings["network"])
    if path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8")).get("network")
        if earlier != name:
            raise InputError(
                f"{workdir} holds a run of {earlier}, not of {name}: use another --workdir"
            )
    if first_process():
        content = {"network": name, "best_metric": best_metric, "config": settings}
        text = json.dumps(content, indent=2)
        with written_whole(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _check_finite(state: RunState, step: int) -> None:
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    for path, leaf in leaves:
        if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf.sum(dtype=np.float64)):
            raise InputError(
                f"training diverged by step {step}: {jax.tree_util.keystr(path)} is not finite; "
                "the last good checkpoint is kept",
                reason="diverged",
            )
