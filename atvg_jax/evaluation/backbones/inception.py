"""FID: how far apart two sets of pictures are, in the features of one particular Inception v3.

Heusel, Ramsauer, Unterthiner, Nessler and Hochreiter, NeurIPS 2017. The network is the one of
``inception-2015-12-05``, as ``pytorch-fid`` ported it (``pt_inception-2015-12-05-6726825d``), with
that network's peculiarities: averages that leave padding out, and a maximum where the last block of
every other Inception v3 has an average. Its 2048 features are those before the classifier.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from atvg_jax.evaluation.backbones import layers

NETWORK = "the Inception v3 of FID (pt_inception-2015-12-05)"
FEATURES = 2048
INPUT_SIZE = 299
_EPSILON = 0.001  # of batch normalisation

FloatArray = npt.NDArray[np.float64]


def features(
    unit: Callable[..., Any], x: Any, last_pool: Callable[[Any], Any] | None = None
) -> Any:
    """The network up to its last average: pictures (N, 3, H, W) in [-1, 1] to (N, 2048).

    Args:
        unit: ``unit(name, x, outputs, kernel, stride=1, padding=(0, 0))``: convolution, batch
            normalisation and ReLU. It knows the weights; what else it is made of is its business.
        x: the pictures.
        last_pool: of the last block; the maximum of this network where None.
    """
    import jax.numpy as jnp

    average = layers.average_pool

    def maximum(x: Any) -> Any:
        return layers.max_pool(x, 3, 1, padding=1)

    def a(name: str, x: Any, pool: int) -> Any:
        one = unit(f"{name}.branch1x1", x, 64, (1, 1))
        five = unit(f"{name}.branch5x5_1", x, 48, (1, 1))
        five = unit(f"{name}.branch5x5_2", five, 64, (5, 5), padding=(2, 2))
        three = unit(f"{name}.branch3x3dbl_1", x, 64, (1, 1))
        three = unit(f"{name}.branch3x3dbl_2", three, 96, (3, 3), padding=(1, 1))
        three = unit(f"{name}.branch3x3dbl_3", three, 96, (3, 3), padding=(1, 1))
        pooled = unit(f"{name}.branch_pool", average(x), pool, (1, 1))
        return jnp.concatenate([one, five, three, pooled], axis=1)

    def b(name: str, x: Any) -> Any:
        three = unit(f"{name}.branch3x3", x, 384, (3, 3), stride=2)
        double = unit(f"{name}.branch3x3dbl_1", x, 64, (1, 1))
        double = unit(f"{name}.branch3x3dbl_2", double, 96, (3, 3), padding=(1, 1))
        double = unit(f"{name}.branch3x3dbl_3", double, 96, (3, 3), stride=2)
        return jnp.concatenate([three, double, layers.max_pool(x, 3, 2)], axis=1)

    def c(name: str, x: Any, middle: int) -> Any:
        wide, tall = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}
        one = unit(f"{name}.branch1x1", x, 192, (1, 1))
        seven = unit(f"{name}.branch7x7_1", x, middle, (1, 1))
        seven = unit(f"{name}.branch7x7_2", seven, middle, **wide)
        seven = unit(f"{name}.branch7x7_3", seven, 192, **tall)
        double = unit(f"{name}.branch7x7dbl_1", x, middle, (1, 1))
        double = unit(f"{name}.branch7x7dbl_2", double, middle, **tall)
        double = unit(f"{name}.branch7x7dbl_3", double, middle, **wide)
        double = unit(f"{name}.branch7x7dbl_4", double, middle, **tall)
        double = unit(f"{name}.branch7x7dbl_5", double, 192, **wide)
        pooled = unit(f"{name}.branch_pool", average(x), 192, (1, 1))
        return jnp.concatenate([one, seven, double, pooled], axis=1)

    def d(name: str, x: Any) -> Any:
        three = unit(f"{name}.branch3x3_1", x, 192, (1, 1))
        three = unit(f"{name}.branch3x3_2", three, 320, (3, 3), stride=2)
        seven = unit(f"{name}.branch7x7x3_1", x, 192, (1, 1))
        seven = unit(f"{name}.branch7x7x3_2", seven, 192, (1, 7), padding=(0, 3))
        seven = unit(f"{name}.branch7x7x3_3", seven, 192, (7, 1), padding=(3, 0))
        seven = unit(f"{name}.branch7x7x3_4", seven, 192, (3, 3), stride=2)
        return jnp.concatenate([three, seven, layers.max_pool(x, 3, 2)], axis=1)

    def e(name: str, x: Any, pool: Callable[[Any], Any]) -> Any:
        wide, tall = {"kernel": (1, 3), "padding": (0, 1)}, {"kernel": (3, 1), "padding": (1, 0)}
        one = unit(f"{name}.branch1x1", x, 320, (1, 1))
        three = unit(f"{name}.branch3x3_1", x, 384, (1, 1))
        parts = [one, unit(f"{name}.branch3x3_2a", three, 384, **wide)]
        parts.append(unit(f"{name}.branch3x3_2b", three, 384, **tall))
        double = unit(f"{name}.branch3x3dbl_1", x, 448, (1, 1))
        double = unit(f"{name}.branch3x3dbl_2", double, 384, (3, 3), padding=(1, 1))
        parts.append(unit(f"{name}.branch3x3dbl_3a", double, 384, **wide))
        parts.append(unit(f"{name}.branch3x3dbl_3b", double, 384, **tall))
        parts.append(unit(f"{name}.branch_pool", pool(x), 192, (1, 1)))
        return jnp.concatenate(parts, axis=1)

    x = unit("Conv2d_1a_3x3", x, 32, (3, 3), stride=2)
    x = unit("Conv2d_2a_3x3", x, 32, (3, 3))
    x = unit("Conv2d_2b_3x3", x, 64, (3, 3), padding=(1, 1))
    x = layers.max_pool(x, 3, 2)
    x = unit("Conv2d_3b_1x1", x, 80, (1, 1))
    x = unit("Conv2d_4a_3x3", x, 192, (3, 3))
    x = layers.max_pool(x, 3, 2)
    x = a("Mixed_5b", x, 32)
    x = a("Mixed_5c", x, 64)
    x = a("Mixed_5d", x, 64)
    x = b("Mixed_6a", x)
    for name, middle in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        x = c(f"Mixed_{name}", x, middle)
    x = d("Mixed_7a", x)
    x = e("Mixed_7b", x, average)
    x = e("Mixed_7c", x, last_pool or maximum)
    return x.mean(axis=(2, 3))


def apply_unit(
    weights: layers.Weights,
    name: str,
    x: Any,
    outputs: int,
    kernel: layers.Pair,
    stride: int = 1,
    padding: layers.Pair = (0, 0),
) -> Any:
    """Convolution without bias, batch normalisation by the stored statistics, ReLU."""
    import jax.numpy as jnp

    weight, bias, mean, variance = (
        weights[f"{name}.bn.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / jnp.sqrt(variance + _EPSILON)
    x = layers.convolve(x, weights[f"{name}.conv.weight"], stride, padding)
    return jnp.maximum(x * scale[:, None, None] + (bias - mean * scale)[:, None, None], 0)


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights, found by walking through the network."""
    import jax
    import jax.numpy as jnp

    wanted: dict[str, tuple[int, ...]] = {}

    def note(
        name: str,
        x: Any,
        outputs: int,
        kernel: layers.Pair,
        stride: int = 1,
        padding: layers.Pair = (0, 0),
    ) -> Any:
        weight = (outputs, x.shape[1], *kernel)
        wanted[f"{name}.conv.weight"] = weight
        for part in ("weight", "bias", "running_mean", "running_var"):
            wanted[f"{name}.bn.{part}"] = (outputs,)
        return layers.convolve(x, jnp.zeros(weight), stride, padding)

    jax.eval_shape(functools.partial(features, note), jnp.zeros((1, 3, INPUT_SIZE, INPUT_SIZE)))
    return wanted


class Inception:
    """The features, with weights from a file.

    Raises:
        InputError: the file is not this network's.
    """

    def __init__(self, path: str | os.PathLike[str]):
        import jax

        self._weights = layers.read_weights(path, shapes(), NETWORK)
        self._features = jax.jit(_features_of)

    def __call__(self, frames: npt.ArrayLike) -> FloatArray:
        """(n, 2048) float64 of (n, H, W, 3) uint8 frames, one by one to stay small."""
        pictures = np.asarray(frames)
        found = [
            np.asarray(self._features(self._weights, picture[None]))[0] for picture in pictures
        ]
        return np.asarray(found, np.float64).reshape(-1, FEATURES)


def _features_of(weights: layers.Weights, frames: Any) -> Any:
    return features(functools.partial(apply_unit, weights), _as_inputs(frames))


def _as_inputs(frames: Any) -> Any:
    """(N, H, W, 3) uint8 to (N, 3, 299, 299) in [-1, 1], interpolated linearly."""
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(frames, jnp.float32) / 127.5 - 1
    size = (x.shape[0], INPUT_SIZE, INPUT_SIZE, 3)
    return jnp.moveaxis(jax.image.resize(x, size, "linear", antialias=False), -1, 1)


class Moments:
    """Mean and covariance of features that come in pieces; memory does not grow with them."""

    def __init__(self) -> None:
        self.count = 0
        self._total: Any = 0.0
        self._products: Any = 0.0

    def add(self, values: npt.ArrayLike) -> None:
        """Takes (n, d) features in."""
        x = np.asarray(values, np.float64)
        self.count += len(x)
        self._total = self._total + x.sum(axis=0)
        self._products = self._products + x.T @ x

    def gaussian(self) -> tuple[FloatArray, FloatArray]:
        """(d,) mean and (d, d) covariance of at least two features."""
        if self.count < 2:
            raise ValueError(f"a covariance takes at least two features, not {self.count}")
        mean = self._total / self.count
        spread = self._products - self.count * np.outer(mean, mean)
        return mean, spread / (self.count - 1)


def frechet_distance(real: Moments, generated: Moments) -> float:
    """``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` of two sets of features (Dowson, 1982)."""
    (m1, c1), (m2, c2) = real.gaussian(), generated.gaussian()
    # (C1 C2)^(1/2) has the trace of (R C2 R)^(1/2) with R = C1^(1/2), which is symmetric.
    values, vectors = np.linalg.eigh(c1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ c2 @ root)
    cross = np.sqrt(np.maximum(inner, 0)).sum()
    return float(np.square(m1 - m2).sum() + np.trace(c1) + np.trace(c2) - 2 * cross)


class FrechetDistances:
    """FID of several systems, from features that come clip by clip."""

    def __init__(self) -> None:
        self._moments: dict[str, Moments] = {}

    def add(self, system: str, values: npt.ArrayLike) -> None:
        """Takes in (n, 2048) features of one of a system's clips."""
        self._moments.setdefault(system, Moments()).add(values)

    def from_system(self, real: str) -> dict[str, float]:
        """By system, the distance of its features from those of ``real``; empty without any."""
        if real not in self._moments:
            return {}
        return {
            name: frechet_distance(self._moments[real], own)
            for name, own in self._moments.items()
            if min(own.count, self._moments[real].count) > 1
        }
