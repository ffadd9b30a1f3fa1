"""What a config describes, built once: modules, optimizers, step and evaluation functions."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from atvg_jax import models
from atvg_jax.errors import InputError
from atvg_jax.features.landmarks import MOUTH, LandmarkBasis
from atvg_jax.training import losses, mouths, parallel, steps
from atvg_jax.training.initialisation import with_whitened_landmarks
from atvg_jax.training.memory import Memory
from atvg_jax.training.state import NetworkState, TrainState, init_at_state, init_vg_state

AT_COMPONENTS = 6  # of the landmark basis that AT-net predicts
LANDMARK_INITS = ("normal", "whitened")
LANDMARK_SAMPLE = 4000  # frames by which an initialisation is fitted to the data
SampleLandmarks = Callable[[int], np.ndarray]
SCHEDULES = ("constant", "linear", "cosine")
_EYE_CORNERS = (36, 45)  # iBUG numbering


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One network under training.

    Attributes:
        network: ``at_net`` or ``vg_net``, whose variables synthesis uses.
        init: ``init(key, sample_landmarks) -> TrainState``; the second is a function of how many
            frames to (N, 136) landmarks of the training data, called where a network asks for it.
        abstract: ``abstract() -> TrainState`` of shapes and dtypes, nothing computed.
        step: ``step(state, batch, rng) -> (state, metrics)`` for one device of many.
        evaluate: ``evaluate(state, batch) -> (metrics (B,), outputs)``.
        learning_rate: of a step number.
        best_metric: the held-out metric (lower is better) that picks the best checkpoint.
        headline: the training metrics that the progress line shows.
        judge: more held-out metrics, by ``judge(batch, frames)``, of frames made; or None.
    """

    network: str
    init: Callable[[jax.Array, SampleLandmarks], TrainState]
    abstract: Callable[[], TrainState]
    step: Callable
    evaluate: Callable
    learning_rate: Callable[[int], float]
    best_metric: str
    headline: tuple[str, ...]
    judge: Callable | None = None


def build(config: Mapping[str, Any], basis: LandmarkBasis) -> Experiment:
    """Builds what ``config`` (see ``configs/``) describes.

    Raises:
        InputError: a setting that does not exist or is out of range.
    """
    if config["network"] == "at_net":
        return _at_net(config, basis)
    if config["network"] == "vg_net":
        return _vg_net(config)
    raise InputError(f"config.network={config['network']!r} is neither 'at_net' nor 'vg_net'")


def model_settings(config: Mapping[str, Any], which: str = "model") -> dict[str, Any]:
    """A network's settings for ``models.create``, the compute dtype among them."""
    return {**dict(config[which]), "dtype": config["compute_dtype"]}


def learning_rate(config: Mapping[str, Any]) -> Callable[[int], float]:
    """The learning rate of each step: a linear warm-up, then constant or falling to zero."""
    peak, warmup, total = config["learning_rate"], config["warmup_steps"], config["steps"]
    rest = max(1, total - warmup)
    if peak <= 0:
        raise InputError(f"config.learning_rate={peak} must be above 0")
    if config["schedule"] == "constant":
        after = optax.constant_schedule(peak)
    elif config["schedule"] == "linear":
        after = optax.linear_schedule(peak, 0.0, rest)
    elif config["schedule"] == "cosine":
        after = optax.cosine_decay_schedule(peak, rest)
    else:
        raise InputError(f"config.schedule={config['schedule']!r}: choose {', '.join(SCHEDULES)}")
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def optimizer(config: Mapping[str, Any]) -> optax.GradientTransformation:
    """Adam as published (2e-4, 0.5, 0.999 by default), with optional clipping and weight decay."""
    parts = [optax.clip_by_global_norm(config["clip_norm"])] if config["clip_norm"] else []
    parts.append(optax.scale_by_adam(b1=config["adam_b1"], b2=config["adam_b2"]))
    if config["weight_decay"]:
        parts.append(optax.add_decayed_weights(config["weight_decay"]))
    parts.append(optax.scale_by_learning_rate(learning_rate(config)))
    return optax.chain(*parts)


def memory(config: Mapping[str, Any]) -> Memory:
    """How a step saves memory."""
    return Memory(config["remat"], config["accumulate"])


def _at_net(config: Mapping[str, Any], basis: LandmarkBasis) -> Experiment:
    if basis.components.shape[1] < AT_COMPONENTS:
        raise InputError(
            f"the landmark basis has {basis.components.shape[1]} components; AT-net needs "
            f"{AT_COMPONENTS}: build the data set from more clips"
        )
    architecture = config["architecture"]
    model = models.create(architecture, model_settings(config))
    optimiser = optimizer(config)
    mean = jnp.asarray(basis.mean, jnp.float32)
    components = jnp.asarray(basis.components[:, :AT_COMPONENTS], jnp.float32)
    evaluate = steps.make_at_eval(model, mean, components)

    def judged(state: TrainState, batch: Mapping[str, jax.Array]) -> tuple[dict, dict]:
        # Beside each figure the one of a face that stays as the example frame has it: what a
        # network must beat before it can be said to have heard anything.
        metrics, outputs = evaluate(state, batch)
        still = jnp.broadcast_to(batch["example_landmark"][:, None], batch["landmarks"].shape)
        missed = (still - batch["landmarks"]) @ components
        metrics = {
            **metrics,
            "static_loss": losses.component_loss(missed, jnp.zeros_like(missed)),
            "mouth_error": mouth_error(outputs["landmarks"], batch["landmarks"]),
            "static_mouth_error": mouth_error(still, batch["landmarks"]),
            "opening_error": opening_error(outputs["landmarks"], batch["landmarks"]),
            "static_opening_error": opening_error(still, batch["landmarks"]),
            "opening_loss": losses.opening_loss(outputs["landmarks"], batch["landmarks"]),
        }
        return metrics, outputs

    return Experiment(
        network="at_net",
        init=lambda key, _: init_at_state(model, optimiser, key, architecture),
        abstract=lambda: _abstract(
            at_net=(architecture, model_settings(config), optimiser),
        ),
        step=steps.make_at_step(
            model,
            optimiser,
            mean,
            components,
            parallel.AXIS,
            memory=memory(config),
            opening=config["loss"]["opening"],
        ),
        evaluate=judged,
        learning_rate=learning_rate(config),
        best_metric="loss",
        headline=("loss",),
    )


def _vg_net(config: Mapping[str, Any]) -> Experiment:
    generator = models.create("vg_net", model_settings(config))
    discriminator = models.create("discriminator", model_settings(config, "discriminator"))
    optimisers = optimizer(config), optimizer(config)
    weights = steps.LossWeights(**dict(config["loss"]))
    if config["landmark_init"] not in LANDMARK_INITS:
        choices = ", ".join(LANDMARK_INITS)
        raise InputError(f"config.landmark_init={config['landmark_init']!r}: choose {choices}")

    def init(key: jax.Array, sample_landmarks: SampleLandmarks) -> TrainState:
        state = init_vg_state(generator, discriminator, *optimisers, key)
        if config["landmark_init"] == "normal":
            return state
        maker = state.networks["vg_net"]
        sample = sample_landmarks(LANDMARK_SAMPLE)
        params = with_whitened_landmarks(maker.params, sample, jax.random.fold_in(key, 1))
        networks = {**state.networks, "vg_net": maker.replace(params=params)}  # type: ignore[attr-defined]
        return state.replace(networks=networks)  # type: ignore[attr-defined]

    return Experiment(
        network="vg_net",
        init=init,
        abstract=lambda: _abstract(
            vg_net=("vg_net", model_settings(config), optimisers[0]),
            discriminator=(
                "discriminator",
                model_settings(config, "discriminator"),
                optimisers[1],
            ),
        ),
        step=steps.make_vg_step(
            generator,
            discriminator,
            *optimisers,
            parallel.AXIS,
            weights=weights,
            memory=memory(config),
        ),
        evaluate=steps.make_vg_eval(generator, discriminator),
        learning_rate=learning_rate(config),
        best_metric="l1",
        headline=("g_pixel", "g_total", *(("d_total",) if weights.judged else ())),
        judge=mouths.mouth_distances if config["eval_landmarks"] else None,
    )


def _abstract(**networks: tuple[str, dict[str, Any], optax.GradientTransformation]) -> TrainState:
    """Shapes and dtypes of a state; for each network its name, settings and optimizer."""
    states = {}
    for key, (name, settings, optimiser) in networks.items():
        variables = models.abstract_variables(name, settings)
        params, stats = variables["params"], variables.get("batch_stats", {})
        states[key] = NetworkState(params, stats, jax.eval_shape(optimiser.init, params))
    return TrainState(jax.ShapeDtypeStruct((), jnp.int32), states)  # type: ignore[arg-type]


def mouth_error(landmarks: jax.Array, target: jax.Array) -> jax.Array:
    """Mean distance of mouth points, each mouth centred, in percent of the eye corners' distance.

    Args:
        landmarks: (B, T, 136).
        target: (B, T, 136), whose outer eye corners give the unit.

    Returns:
        (B,).
    """
    a, b = _points(landmarks), _points(target)
    difference = a[..., MOUTH, :] - b[..., MOUTH, :]
    difference -= difference.mean(axis=-2, keepdims=True)
    distance = jnp.linalg.norm(difference, axis=-1).mean(axis=-1)
    return (100 * distance / _eye_distance(b)).mean(axis=-1)


def opening_error(landmarks: jax.Array, target: jax.Array) -> jax.Array:
    """Mean difference of the gaps between the inner lips, in percent of the eye corners' distance.

    Args:
        landmarks: (B, T, 136).
        target: (B, T, 136).

    Returns:
        (B,).
    """
    gap = jnp.abs(losses.lip_gap(landmarks) - losses.lip_gap(target))
    return (100 * gap / _eye_distance(_points(target))).mean(axis=-1)


def _points(landmarks: jax.Array) -> jax.Array:
    return landmarks.reshape(*landmarks.shape[:-1], 68, 2)


def _eye_distance(points: jax.Array) -> jax.Array:
    right, left = _EYE_CORNERS
    return jnp.linalg.norm(points[..., left, :] - points[..., right, :], axis=-1)
