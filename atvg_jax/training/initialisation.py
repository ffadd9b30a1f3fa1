"""Initial weights that are fitted to the data. Not in the paper."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

# Directions that vary by less than this share of the strongest are noise of the landmarks more than
# speech: they are not scaled up any further.
_FLOOR = 0.1
# Nor those by which no face moves (model units, in which a face is some 5 across): a landmark
# predictor does not tell them.
_SMALLEST = 1e-3


def whitened_dense(landmarks: np.ndarray, features: int, key: Array) -> dict[str, Array]:
    """A dense layer whose outputs over ``landmarks`` start centred, with variance 1, and mixed.

    Normalised landmarks are one mean shape and small changes of it: behind a layer drawn without
    regard to them, nine tenths and more of what the next layers see is the mean shape, the same in
    every frame, and batch norm keeps that share. A network then needs thousands of steps before
    its pictures depend on the landmarks at all. This draws the layer so that it subtracts the mean
    and brings the directions in which landmarks vary to one scale, and mixes them at random: a
    data-dependent initialisation as of Salimans and Kingma, "Weight Normalization" (2016), with
    the directions whitened. The layer is an ordinary one; only its first values differ.

    Args:
        landmarks: (N, C), a sample of the training data.
        features: outputs of the layer.
        key: for the mixing.

    Returns:
        ``kernel`` (C, features) and ``bias`` (features,), float32.
    """
    sample = np.asarray(landmarks, np.float64)
    mean = sample.mean(axis=0)
    _, deviation, directions = np.linalg.svd(sample - mean, full_matrices=False)
    deviation /= len(sample) ** 0.5
    scale = 1 / np.maximum(deviation, max(_FLOOR * deviation[0], _SMALLEST))
    variance = np.square(deviation * scale).sum()  # of a sum of all directions, each scaled
    mixing = np.asarray(jax.random.normal(key, (len(scale), features)), np.float64)
    kernel = (directions.T * scale) @ mixing / max(variance, 1.0) ** 0.5
    return {
        "kernel": jnp.asarray(kernel, jnp.float32),
        "bias": jnp.asarray(-mean @ kernel, jnp.float32),
    }


def with_whitened_landmarks(params: Any, landmarks: np.ndarray, key: Array) -> Any:
    """VG-net's parameters with the layer that reads landmarks drawn by ``whitened_dense``."""
    features = params["landmark_fc"]["dense"]["bias"].shape[0]
    return {**params, "landmark_fc": {"dense": whitened_dense(landmarks, features, key)}}
