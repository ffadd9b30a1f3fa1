"""The work that is measured: the networks, both training steps, and synthesis as users call it."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from atvg_jax import assets, models
from atvg_jax.benchmarking.points import STEPS, SYNTHESIS, Point
from atvg_jax.features import audio, faces, images, landmarks, video
from atvg_jax.inference import model_directory
from atvg_jax.inference.talking_face import TalkingFace
from atvg_jax.models.vg_net import LANDMARK_SIZE
from atvg_jax.training import steps
from atvg_jax.training.state import NetworkState, TrainState

PORTRAIT = "astronaut"
ADAM = (2e-4, 0.5, 0.999)  # rate and decays of the published optimizer


class Case:
    """One point's work. A call waits for its result; under ``jax.disable_jit`` it runs op by op.

    Args:
        function: pure; compiled anew by ``build``.
        arguments: what it is called with.
        carries: its first result takes the place of its first argument, which is donated.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple, carries: bool = False):
        self._function, self._arguments, self._carries = function, arguments, carries
        self.build()

    def build(self) -> None:
        """Forgets what was compiled: the next call compiles, or reads the compilation cache."""
        self._run = jax.jit(self._function, donate_argnums=(0,) if self._carries else ())

    def programs(self) -> list[Any]:
        """What is compiled, as ``jax.stages.Lowered``."""
        return [self._run.lower(*self._arguments)]

    def __call__(self) -> None:
        """One call."""
        result = jax.block_until_ready(self._run(*self._arguments))
        if self._carries:
            self._arguments = (result[0], *self._arguments[1:])


class Synthesis:
    """A portrait and a sound to frames, from aligned face and waveform; used as ``Case`` is."""

    def __init__(self, point: Point):
        settings = {"width": point.width, "dtype": point.precision}
        names = "at_net", "vg_net"
        self._model = model_directory.Model(
            {name: model_directory.NetworkConfig(name, settings) for name in names},
            {name: random_variables(name, settings) for name in names},
            _basis(),
        )
        picture = images.read_image(assets.portrait_path(PORTRAIT))
        facts = json.loads(assets.portrait_facts_path().read_text(encoding="utf-8"))
        # With the landmarks given, no detector is loaded.
        self._aligned = faces.align(picture, np.asarray(facts[PORTRAIT]["landmarks"]))
        speech = video.read_waveform(assets.speech_path())
        self._waveform = np.resize(speech, point.frames * audio.SAMPLES_PER_FRAME)
        self.build()

    def build(self) -> None:
        """Forgets what was compiled."""
        self._face = TalkingFace(self._model)

    def programs(self) -> list[Any]:
        """What is compiled, as ``jax.stages.Lowered``."""
        return self._face.programs(self._aligned)

    def __call__(self) -> None:
        """One call; its frames are NumPy arrays already."""
        self._face.synthesize(self._aligned, self._waveform, audio.SAMPLE_RATE)


def build(point: Point) -> Case | Synthesis:
    """Makes a point's networks with random weights, its inputs, and the work itself."""
    if point.task == SYNTHESIS:
        return Synthesis(point)
    return _step(point) if point.task in STEPS else _network(point)


def random_variables(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Variables that keep signals at their size; what they are makes no difference to the time."""
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> np.ndarray:
        if jax.tree_util.keystr(path[-1:]) in ("['var']", "['scale']"):
            return np.ones(leaf.shape, np.float32)
        if len(leaf.shape) < 2:
            return np.zeros(leaf.shape, np.float32)
        fan_in = np.prod(leaf.shape[:-1])
        return rng.standard_normal(leaf.shape, np.float32) * np.float32(np.sqrt(2 / fan_in))

    return jax.tree_util.tree_map_with_path(draw, models.abstract_variables(name, settings))


def vg_batch(batch: int, frames: int) -> dict[str, np.ndarray]:
    """Noise in the shapes of ``training.steps``: (B, 128, 128, 3) and (B, T, 128, 128, 3) uint8."""
    rng = np.random.default_rng(0)
    return {
        "example_image": rng.integers(0, 256, (batch, 128, 128, 3), np.uint8),
        "frames": rng.integers(0, 256, (batch, frames, 128, 128, 3), np.uint8),
        "landmarks": rng.standard_normal((batch, frames, LANDMARK_SIZE), np.float32),
        "example_landmark": rng.standard_normal((batch, LANDMARK_SIZE), np.float32),
    }


def at_batch(batch: int, frames: int) -> dict[str, np.ndarray]:
    """Noise in the shapes of ``training.steps``: windows of sound and landmarks."""
    rng = np.random.default_rng(0)
    window = audio.WINDOW_ROWS, audio.WINDOW_COEFFICIENTS
    return {
        "mfcc": rng.standard_normal((batch, frames, *window), np.float32),
        "landmarks": rng.standard_normal((batch, frames, LANDMARK_SIZE), np.float32),
        "example_landmark": rng.standard_normal((batch, LANDMARK_SIZE), np.float32),
    }


def train_state(
    settings: dict[str, Any], *names: str, optimizer: Any = None
) -> tuple[TrainState, Any]:
    """Networks with random weights under an optimizer (the published one), and that optimizer."""
    optimizer = optimizer or optax.adam(*ADAM)
    networks = {}
    for name in names:
        variables = random_variables(name, settings)
        params = variables["params"]
        networks[name] = NetworkState(
            params, variables.get("batch_stats", {}), jax.device_get(optimizer.init(params))
        )
    return TrainState(np.zeros((), np.int32), networks), optimizer  # type: ignore[arg-type]


def vg_step(
    point: Point, optimizer: Any = None, **settings: Any
) -> tuple[Callable[..., Any], tuple[TrainState, dict[str, np.ndarray], jax.Array]]:
    """The adversarial step and its first arguments.

    Args:
        point: which step.
        optimizer: of both networks; None for the published one.
        **settings: ``make_vg_step``'s.
    """
    network = {"width": point.width, "dtype": point.precision}
    state, optimizer = train_state(network, "vg_net", "discriminator", optimizer=optimizer)
    generator, judge = (models.create(name, network) for name in ("vg_net", "discriminator"))
    step = steps.make_vg_step(generator, judge, optimizer, optimizer, **settings)
    return step, (state, vg_batch(point.batch, point.frames), jax.random.key(0, impl="rbg"))


def _step(point: Point) -> Case:
    if point.task == "vg_step":
        function, arguments = vg_step(point)
    else:
        settings = {"width": point.width, "dtype": point.precision}
        state, optimizer = train_state(settings, "at_net")
        basis = _basis()
        function = steps.make_at_step(
            models.create("at_net", settings),
            optimizer,
            jnp.asarray(basis.mean),
            jnp.asarray(basis.components),
        )
        key = jax.random.key(0, impl="rbg")
        arguments = state, at_batch(point.batch, point.frames), key
    return Case(function, jax.device_put(arguments), carries=True)


def _network(point: Point) -> Case:
    settings = {"width": point.width, "dtype": point.precision}
    model = models.create(point.task, settings)
    rng = np.random.default_rng(0)
    inputs: tuple[np.ndarray, ...]
    if point.task == "at_net":
        windows = at_batch(point.batch, point.frames)["mfcc"]
        inputs = rng.standard_normal((point.batch, 6), np.float32), windows
    else:
        batch = vg_batch(point.batch, point.frames)
        image, frames = (
            batch[name].astype(np.float32) / 127.5 - 1 for name in ("example_image", "frames")
        )
        example = batch["example_landmark"]
        inputs = (frames, example)
        if point.task == "vg_net":
            inputs = (image, batch["landmarks"], example)
    variables = random_variables(point.task, settings)
    return Case(model.apply, jax.device_put((variables, *inputs)))


def _basis() -> landmarks.LandmarkBasis:
    """A basis of the mean face and noise."""
    mean = landmarks.bundled_face_shape().mean_shape
    noise = np.random.default_rng(0).standard_normal((200, *mean.shape))
    return landmarks.LandmarkBasis.fit(mean + 0.002 * noise)
