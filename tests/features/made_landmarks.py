"""Landmarks of invented faces, and invented files of the published normalisation."""

import numpy as np

from atvg_jax.features import landmarks


def face_clip(frames=40, seed=0, gaps=None, identity=0.01, noise=0.0, scale=80.0, turn=0.0):
    """Pixels of an invented person who opens the mouth: mean face + identity + gap x direction."""
    rng = np.random.default_rng(seed)
    bundled = landmarks.bundled_face_shape()
    mean, direction = bundled.mean_shape, bundled.opening_direction
    person = mean + identity * rng.normal(size=(68, 2))
    if gaps is None:
        gaps = 0.03 + 0.03 * np.sin(np.arange(frames) * 0.7)
    shapes = person + np.asarray(gaps)[:, None, None] * direction
    shapes = shapes + noise * rng.normal(size=shapes.shape)
    shapes = shapes @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return scale * shapes + (60, 70)


def random_published(seed=0):
    """Image, mean shape (68, 2) and basis (100, 136) as the published normalisation takes them."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(68, 2)) * 50 + 200
    mean = (image - image.mean(axis=0)) / np.linalg.norm(image - image.mean(axis=0))
    basis = np.linalg.qr(rng.normal(size=(136, 100)))[0].T
    return image, mean, basis
