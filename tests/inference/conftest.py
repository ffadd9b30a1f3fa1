"""A tiny model with random weights, and a portrait."""

from typing import Any

import jax
import numpy as np
import pytest
import skimage.data

from atvg_jax import compilation_cache, models
from atvg_jax.features.faces import AlignedFace
from atvg_jax.features.landmarks import LandmarkBasis
from atvg_jax.inference import model_directory
from atvg_jax.inference.talking_face import TalkingFace

WIDTH = 1 / 16


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """The persistent compilation cache in a folder of the tests' own; most tests hit it."""
    folder = tmp_path_factory.mktemp("compiled")
    before = jax.config.jax_compilation_cache_dir
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(compilation_cache.ENVIRONMENT_VARIABLE, str(folder))
        yield folder
    jax.config.update("jax_compilation_cache_dir", before)


def face_shape() -> np.ndarray:
    """(68, 2) a face drawn by hand: jaw, brows, nose, eyes, lips; x in -1 .. 1, y down."""

    def arc(x0: float, x1: float, y: float, bend: float, count: int) -> np.ndarray:
        t = np.linspace(-1, 1, count)
        return np.stack([(x0 + x1) / 2 + (x1 - x0) / 2 * t, y + bend * (1 - t**2)], axis=1)

    def ring(x: float, y: float, width: float, height: float, count: int) -> np.ndarray:
        t = np.pi + 2 * np.pi * np.arange(count) / count
        return np.stack([x + width * np.cos(t), y + height * np.sin(t)], axis=1)

    nose = np.stack([np.zeros(4), np.linspace(-0.3, 0.15, 4)], axis=1)
    return np.concatenate(
        [
            arc(-1, 1, -0.2, 1.2, 17),
            arc(-0.8, -0.2, -0.45, -0.15, 5),
            arc(0.2, 0.8, -0.45, -0.15, 5),
            nose,
            arc(-0.2, 0.2, 0.2, 0.08, 5),
            ring(-0.45, -0.25, 0.17, 0.08, 6),
            ring(0.45, -0.25, 0.17, 0.08, 6),
            ring(0, 0.55, 0.35, 0.15, 12),
            ring(0, 0.55, 0.25, 0.06, 8),
        ]
    )


@pytest.fixture(scope="session")
def basis() -> LandmarkBasis:
    """Fitted to faces that open their mouths and wobble."""
    rng = np.random.default_rng(0)
    shape = face_shape()
    shape = (shape - shape.mean(axis=0)) / np.linalg.norm(shape - shape.mean(axis=0))
    opening = np.zeros((68, 2))
    opening[54:60, 1] = opening[64:68, 1] = opening[4:13, 1] = 0.03
    gaps = rng.uniform(0, 1, 200)[:, None, None]
    shapes = shape + gaps * opening + 0.002 * rng.standard_normal((200, 68, 2))
    return LandmarkBasis.fit(shapes.astype(np.float32))


def random_variables(name: str, settings: dict[str, Any], seed: int) -> dict[str, Any]:
    """Random weights large enough that every input makes a difference to the output."""
    rng = np.random.default_rng(seed)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        kind = jax.tree_util.keystr(path[-1:])
        if "var" in kind:
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        if "scale" in kind:
            return rng.uniform(0.8, 1.2, leaf.shape).astype(np.float32)
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        deviation = 1.5 / np.sqrt(fan_in) if len(leaf.shape) > 1 else 0.1
        return (deviation * rng.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, models.abstract_variables(name, settings))


@pytest.fixture(scope="session")
def model(basis) -> model_directory.Model:
    settings = {"width": WIDTH}
    return model_directory.Model(
        networks={
            name: model_directory.NetworkConfig(name, settings) for name in ("at_net", "vg_net")
        },
        variables={
            "at_net": random_variables("at_net", settings, 1),
            "vg_net": random_variables("vg_net", settings, 2),
        },
        basis=basis,
        training={"note": "random"},
    )


@pytest.fixture(scope="session")
def talking_face(model, compiled) -> TalkingFace:
    return TalkingFace(model)


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """Eileen Collins, NASA, public domain: (512, 512, 3) uint8."""
    return skimage.data.astronaut()


@pytest.fixture(scope="session")
def aligned(talking_face, portrait) -> AlignedFace:
    return talking_face.align(portrait)


@pytest.fixture(scope="session")
def speech() -> np.ndarray:
    """1.5 s of a voiced sound that swells and fades four times a second, 16 kHz."""
    time = np.arange(24000) / 16000
    voice = sum(np.sin(2 * np.pi * 130 * k * time) / k for k in range(1, 20))
    return (0.1 * voice * (1 - np.cos(2 * np.pi * 4 * time))).astype(np.float32)
