"""Training and evaluation steps: pure functions of (state, batch, rng).

Each maker takes modules and optimizers, built once, and returns a function to be compiled. Under
pmap, ``axis_name`` averages gradients, metrics and running batch statistics over the devices; the
statistics that normalise a batch are the device's own.

Batches (leading axis: examples of this device):

- AT-net: ``mfcc`` (B, T, 28, 12), ``landmarks`` (B, T, 136), ``example_landmark`` (B, 136).
- VG-net: ``example_image`` (B, 128, 128, 3) uint8, ``frames`` (B, T, 128, 128, 3) uint8,
  ``landmarks`` (B, T, 136), ``example_landmark`` (B, 136).

Landmarks are normalised times 5. Metrics are float32 scalars; evaluation's are (B,).
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from atvg_jax.models import ATNetSingle, VGOutput
from atvg_jax.training import losses, scores
from atvg_jax.training.memory import Memory
from atvg_jax.training.state import NetworkState, TrainState
from atvg_jax.training.terms import by_term, term_norms, weighted_sum

Array = jax.Array
Batch = Mapping[str, Array]
Metrics = dict[str, Array]
Step = Callable[[TrainState, Batch, Array], tuple[TrainState, Metrics]]
Evaluation = Callable[[TrainState, Batch], tuple[Metrics, dict[str, Array]]]


@dataclass(frozen=True)
class LossWeights:
    """Weights of the generator's terms; the discriminator's are 1, and share ``landmark``.

    Attributes:
        pixel: of the pixel loss.
        adversarial: of the generator's adversarial term; 0 for none.
        landmark: of every landmark regression term; 0 for a plain discriminator.
        dynamic: weigh pixels by attention; False is a plain absolute error.
        mouth: what the pixels of the mouth count more than others; 0 as published. The mouth is a
            tenth of the picture, and what else moves is mostly the head, which no input tells.
    """

    pixel: float = 10.0
    adversarial: float = 1.0
    landmark: float = 1.0
    dynamic: bool = True
    mouth: float = 0.0

    @property
    def judged(self) -> bool:
        """Whether the discriminator has any say; without, it is neither run nor trained."""
        return bool(self.adversarial or self.landmark)


def to_float(pixels: Array) -> Array:
    """uint8 0..255 -> float32 -1..1; floats pass through as they are."""
    if jnp.issubdtype(pixels.dtype, jnp.floating):
        return pixels
    return pixels.astype(jnp.float32) / 127.5 - 1.0


def _mean_over_devices(tree: Any, axis_name: str | None) -> Any:
    return lax.pmean(tree, axis_name) if axis_name else tree


def _updated(
    network: NetworkState,
    optimizer: optax.GradientTransformation,
    gradients: Any,
    batch_stats: Any,
) -> NetworkState:
    updates, opt_state = optimizer.update(gradients, network.opt_state, network.params)
    return NetworkState(optax.apply_updates(network.params, updates), batch_stats, opt_state)


def _apply(
    model: nn.Module,
    params: Any,
    batch_stats: Any,
    *inputs: Array,
    train: bool,
    dropout: Array | None = None,
    method: str | None = None,
    memory: Memory | None = None,
) -> tuple[Any, Any]:
    """Returns the network's output and its batch statistics after it."""

    def forward(params: Any, stats: Any, key: Array | None, *inputs: Array) -> tuple[Any, Any]:
        variables = {"params": params, "batch_stats": stats}
        rngs = {} if key is None else {"dropout": key}
        output, changed = model.apply(
            variables, *inputs, train=train, mutable=["batch_stats"], rngs=rngs, method=method
        )
        return output, changed.get("batch_stats", stats)

    run = memory.applied(forward) if memory else forward
    return run(params, batch_stats, dropout, *inputs)


def make_at_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    basis_mean: Array,
    basis_components: Array,
    axis_name: str | None = None,
    frozen_statistics: bool = False,
    memory: Memory | None = None,
    opening: float = 0.0,
) -> Step:
    """Makes AT-net's training step.

    Metrics: ``loss`` (of the components), ``gradient_norm`` and, where ``opening`` weighs it,
    ``opening_loss``.

    Args:
        model: ATNet, ATNetFramewise or ATNetSingle.
        optimizer: its optimizer.
        basis_mean: (136,) of the landmark basis.
        basis_components: (136, 6), columns orthonormal.
        axis_name: of the pmap that this runs under.
        frozen_statistics: inference mode inside the step: batch norm uses its running statistics
            and dropout is off, so that results do not depend on how a batch is split.
        memory: how the step saves memory; None: not at all.
        opening: weight of ``losses.opening_loss``; 0 as published.
    """
    train = not frozen_statistics
    predict = functools.partial(_at_predict(model), memory=memory)

    def step(state: TrainState, batch: Batch, rng: Array) -> tuple[TrainState, Metrics]:
        network = state.networks["at_net"]
        target = (batch["landmarks"] - basis_mean) @ basis_components  # (B, T, 6)
        example = (batch["example_landmark"] - basis_mean) @ basis_components

        def loss_of(params: Any) -> tuple[Array, tuple[Metrics, Any]]:
            predicted, stats = predict(
                params, network.batch_stats, example, batch["mfcc"], train=train, dropout=rng
            )
            terms = {"loss": losses.component_loss(predicted, target).mean()}
            if opening:
                points = predicted @ basis_components.T + basis_mean
                terms["opening_loss"] = losses.opening_loss(points, batch["landmarks"]).mean()
            return weighted_sum(terms, {"loss": 1.0, "opening_loss": opening}), (terms, stats)

        gradients, (metrics, stats) = jax.grad(loss_of, has_aux=True)(network.params)
        gradients, stats, metrics = _mean_over_devices((gradients, stats, metrics), axis_name)
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        after = _updated(network, optimizer, gradients, stats)
        return TrainState(state.step + 1, {"at_net": after}), metrics

    return step


def _at_predict(model: nn.Module) -> Callable[..., tuple[Array, Any]]:
    """``predict(params, stats, example, mfcc, train=, dropout=)`` for any AT network."""
    if isinstance(model, ATNetSingle):
        return lambda params, stats, example, mfcc, **how: _apply(model, params, stats, mfcc, **how)
    return lambda params, stats, *inputs, **how: _apply(model, params, stats, *inputs, **how)


def make_at_eval(model: nn.Module, basis_mean: Array, basis_components: Array) -> Evaluation:
    """Makes AT-net's evaluation.

    Returns:
        A function of (state, batch) to metrics ``loss`` (B,) and outputs ``landmarks``
        (B, T, 136), the predicted ones.
    """
    predict = _at_predict(model)

    def evaluate(state: TrainState, batch: Batch) -> tuple[Metrics, dict[str, Array]]:
        network = state.networks["at_net"]
        target = (batch["landmarks"] - basis_mean) @ basis_components
        example = (batch["example_landmark"] - basis_mean) @ basis_components
        predicted, _ = predict(
            network.params, network.batch_stats, example, batch["mfcc"], train=False
        )
        metrics = {"loss": losses.component_loss(predicted, target)}
        return metrics, {"landmarks": predicted @ basis_components.T + basis_mean}

    return evaluate


def make_vg_step(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer_g: optax.GradientTransformation,
    optimizer_d: optax.GradientTransformation,
    axis_name: str | None = None,
    frozen_statistics: bool = False,
    weights: LossWeights | None = None,
    memory: Memory | None = None,
) -> Step:
    """Makes the adversarial training step.

    The discriminator steps first, on real and on made clips in separate calls; the generator then
    steps against the discriminator as it is after that. The generator's forward pass runs once:
    its frames serve both, and its gradient is pulled back through the pass already made.

    Besides the terms, metrics have the norms of the networks' gradients (``g_gradient_norm``,
    ``d_gradient_norm``) and what each weighed term brings: ``TERM_gradient_norm``, for the
    generator's terms by the frames it made, for the discriminator's by what its two heads share.
    It costs one more pass back through the discriminator to the frames.

    Args:
        generator: VGNet.
        discriminator: Discriminator.
        optimizer_g: the generator's optimizer.
        optimizer_d: the discriminator's.
        axis_name: of the pmap that this runs under.
        frozen_statistics: as for ``make_at_step``.
        weights: of the loss terms; None for the published ones.
        memory: as for ``make_at_step``.
    """
    apply = functools.partial(_apply, memory=memory)
    train = not frozen_statistics
    weights = weights or LossWeights()
    of_pixels = jnp.asarray(losses.mouth_weights(weights.mouth)) if weights.mouth else 1.0
    judge_scale = {
        f"d_{term}_{kind}": scale
        for term, scale in (("adversarial", 1.0), ("landmark", weights.landmark))
        for kind in ("real", "fake")
    }

    def judge(params: Any, stats: Any, frames: Array, example: Array) -> tuple[Any, Any]:
        return apply(discriminator, params, stats, frames, example, train=train, method="logits")

    def step(state: TrainState, batch: Batch, rng: Array) -> tuple[TrainState, Metrics]:
        maker, judging = state.networks["vg_net"], state.networks["discriminator"]
        image, real = to_float(batch["example_image"]), to_float(batch["frames"])
        landmarks, example = batch["landmarks"], batch["example_landmark"]

        def make(params: Any) -> tuple[VGOutput, Any]:
            inputs = (image, landmarks, example)
            return apply(generator, params, maker.batch_stats, *inputs, train=train, dropout=rng)

        made, pull_back, maker_stats = jax.vjp(make, maker.params, has_aux=True)

        def judged(params: Any, hidden: Array, kind: str) -> Metrics:
            variables = {"params": params}
            outputs: Any = discriminator.apply(variables, hidden, example, method="heads")
            logits, seen = outputs
            return {
                f"d_adversarial_{kind}": losses.adversarial_loss(logits, kind == "real").mean(),
                f"d_landmark_{kind}": losses.landmark_loss(seen, landmarks).mean(),
            }

        def discriminator_loss(params: Any) -> tuple[Array, tuple[Metrics, Any, dict[str, Array]]]:
            stats = judging.batch_stats
            terms: Metrics = {}
            hidden: dict[str, Array] = {}
            for kind, frames in (("real", real), ("fake", made.frames)):
                hidden[kind], stats = apply(
                    discriminator, params, stats, frames, example, train=train, method="features"
                )
                terms |= judged(params, hidden[kind], kind)
            total = weighted_sum(terms, judge_scale)
            return total, ({**terms, "d_total": total}, stats, hidden)

        metrics: Metrics = {}
        squares: Metrics = {}
        if weights.judged:
            gradients, (metrics, judging_stats, hidden) = jax.grad(
                discriminator_loss, has_aux=True
            )(judging.params)
            for kind, seen in hidden.items():
                terms_of = functools.partial(judged, judging.params, kind=kind)
                squares |= by_term(terms_of, judge_scale, seen)[2]
            gradients, judging_stats = _mean_over_devices((gradients, judging_stats), axis_name)
            metrics["d_gradient_norm"] = optax.tree.norm(gradients)
            judging = _updated(judging, optimizer_d, gradients, judging_stats)

        def of_pictures(frames: Array) -> Metrics:
            attention = made.attention if weights.dynamic else jnp.full_like(made.attention, 0.5)
            pixel = losses.dynamic_pixel_loss(frames, real, attention, of_pixels).mean()
            return {"g_pixel": pixel}

        def of_judge(frames: Array) -> Metrics:
            # The statistics that this call would leave behind are dropped: the discriminator has
            # already seen these very frames in its own step.
            (logits, seen), _ = judge(judging.params, judging.batch_stats, frames, example)
            return {
                "g_adversarial": losses.adversarial_loss(logits, True).mean(),
                "g_landmark": losses.landmark_loss(seen, landmarks).mean(),
            }

        scale = {
            "g_pixel": weights.pixel,
            "g_adversarial": weights.adversarial,
            "g_landmark": weights.landmark,
        }
        # Attention enters the loss as a constant, so nothing is pulled back through it but what it
        # does to the frames.
        terms, to_made, of_terms = by_term(of_pictures, scale, made.frames)
        if weights.judged:
            more, also_to_made, more_squares = by_term(of_judge, scale, made.frames)
            terms, of_terms = terms | more, of_terms | more_squares
            to_made = jax.tree.map(jnp.add, to_made, also_to_made)
        squares |= of_terms
        terms["g_total"] = weighted_sum(terms, scale)
        zeros = jax.tree.map(jnp.zeros_like, made)
        (gradients,) = pull_back(zeros._replace(frames=to_made[0]))
        gradients, maker_stats = _mean_over_devices((gradients, maker_stats), axis_name)
        metrics |= terms
        metrics["g_gradient_norm"] = optax.tree.norm(gradients)
        metrics["attention"] = made.attention.mean()
        maker = _updated(maker, optimizer_g, gradients, maker_stats)
        networks = {"vg_net": maker, "discriminator": judging}
        metrics = _mean_over_devices(metrics, axis_name) | term_norms(squares, axis_name)
        return TrainState(state.step + 1, networks), metrics

    return step


def make_vg_eval(generator: nn.Module, discriminator: nn.Module) -> Evaluation:
    """Makes VG-net's evaluation.

    Returns:
        A function of (state, batch) to metrics (B,): ``pixel`` (the dynamic loss), ``l1`` (plain
        absolute error, frames in [-1, 1]), ``psnr`` (dB) and ``ssim``, means over frames;
        ``static_l1``, ``static_psnr`` and ``static_ssim`` (the portrait unmoved, the floor to
        beat), ``landmark`` and ``score`` (what the discriminator sees and thinks); and outputs
        ``frames``, ``attention``, ``motion``, ``landmark_attention``.
    """

    def evaluate(state: TrainState, batch: Batch) -> tuple[Metrics, dict[str, Array]]:
        maker, judging = state.networks["vg_net"], state.networks["discriminator"]
        image, real = to_float(batch["example_image"]), to_float(batch["frames"])
        example = batch["example_landmark"]
        made, _ = _apply(
            generator,
            maker.params,
            maker.batch_stats,
            image,
            batch["landmarks"],
            example,
            train=False,
        )
        (score, seen), _ = _apply(
            discriminator,
            judging.params,
            judging.batch_stats,
            made.frames,
            example,
            train=False,
        )
        still = jnp.broadcast_to(image[:, None], real.shape)
        metrics = {
            "pixel": losses.dynamic_pixel_loss(made.frames, real, made.attention),
            "l1": jnp.abs(made.frames - real).mean(axis=(1, 2, 3, 4)),
            "psnr": scores.psnr(made.frames, real),
            "static_l1": jnp.abs(still - real).mean(axis=(1, 2, 3, 4)),
            "static_psnr": scores.psnr(still, real),
            "ssim": scores.ssim(made.frames, real),
            "static_ssim": scores.ssim(still, real),
            "landmark": losses.landmark_loss(seen, batch["landmarks"]),
            "score": score,
        }
        return metrics, made._asdict()

    return evaluate
