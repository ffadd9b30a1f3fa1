"""VG-net compiled for this machine: a portrait's features, then frames of bytes."""

import functools
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from atvg_jax import compiler
from atvg_jax.inference import fast_frames, lanes
from atvg_jax.models import VGNet
from atvg_jax.models.blocks import accumulating
from atvg_jax.models.vg_net import LANDMARK_MAP, LANDMARK_SIZE

# Frames that go through a stage together on a lane. More of them cost less each, as every chunk
# reads all weights (0.7 GB at the published width); but lanes wait for a call's first and last one.
CHUNKS = (16, 8)
# Frames decoded together on a lane; few, so that lanes end at about the same time.
FEW = 2
# Urgencies: what makes more tasks comes first, what waits for no other last.
REFINE, SHOW, ATTEND = 0, 1, 2


class Shown(NamedTuple):
    """T frames as bytes.

    Attributes:
        frames: (T, 128, 128, 3) uint8.
        attention: (T, 128, 128) float32 in [0, 1].
        motion: (T, 128, 128, 3) uint8.
    """

    frames: Any
    attention: Any
    motion: Any


def to_bytes(pixels: jax.Array) -> jax.Array:
    """Float pixels in [-1, 1] to uint8, rounded."""
    return jnp.round(jnp.clip((pixels + 1) * 127.5, 0, 255)).astype(jnp.uint8)


class PlainFrames:
    """VG-net as it is defined, with the functions of ``fast_frames.FastFrames``."""

    def __init__(self, model: VGNet):
        self._model = model

    @property
    def compiler_options(self) -> dict[str, str | bool] | None:
        """As of ``fast_frames.FastFrames``."""
        return compiler.options()

    def prepare(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """The variables as they are."""
        return variables

    def portrait(self, weights: Any, image: jax.Array, example_landmark: jax.Array) -> Any:
        """(128, 128, 3) in [-1, 1], (136,) -> ``models.PortraitFeatures``."""
        return self._model.apply(
            weights, image[None], example_landmark[None], method="encode_portrait"
        )

    def start(self, weights: Any) -> jax.Array:
        """The recurrent state before the first frame: zeros (1, 8, 8, 512 width)."""
        channels = weights["params"]["mmrnn"]["hidden_kernel"].shape[2]
        dtype = accumulating(self._model.dtype)
        return jnp.zeros((1, LANDMARK_MAP, LANDMARK_MAP, channels), dtype)

    def frames(
        self, weights: Any, portrait: Any, landmarks: jax.Array, carry: jax.Array
    ) -> tuple[fast_frames.Made, jax.Array]:
        """Makes T frames from landmarks (T, 136); returns them and the state after them."""
        made: Any = self._model.apply(
            weights, portrait, landmarks[None], carry, method="frames_from"
        )
        output, carry = made
        return fast_frames.Made(
            output.frames[0], output.attention[0, ..., 0], output.motion[0]
        ), carry


class FrameMaker:
    """Makes frames in calls of any number of landmarks, each number compiled when first used.

    A call of whole chunks runs on lanes (see ``lanes``), where there are any: one goes ahead
    through the recurrence, the others follow with what its states become, then it joins them.
    """

    def __init__(
        self,
        network: fast_frames.FastFrames | PlainFrames,
        variables: Any,
        use_lanes: bool = True,
    ):
        """Prepares the network.

        Args:
            network: VG-net in one of its forms.
            variables: of a ``VGNet``.
            use_lanes: without, every call is one program, as on devices that have no lanes.
        """
        self._network = network
        self._weights = jax.device_put(network.prepare(variables))
        jit = functools.partial(jax.jit, compiler_options=network.compiler_options)
        self._encode = jax.jit(network.portrait, compiler_options=compiler.options_of_one_picture())
        self._show = jit(self._shown)
        self._lane_weights: list[Any] = []
        if use_lanes and isinstance(network, fast_frames.FastFrames):
            self._lane_weights = lanes.on_each(self._weights)
            one_core = lanes.threads() == 1

            def states(weights: Any, features: Any, landmarks: Any, carry: Any) -> Any:
                maps = network.maps(weights, landmarks)
                return network.states(weights, features, maps, carry, one_core)

            def attention(weights: Any, features: Any, landmarks: Any) -> jax.Array:
                return network.attention(weights, features, network.maps(weights, landmarks))

            self._states, self._attend = jit(states), jit(attention)
            self._refine = jit(network.refined)
            self._decode = jit(lambda *inputs: _bytes(network.decoded(*inputs)))

    @property
    def has_lanes(self) -> bool:
        """Whether calls of whole chunks are spread over cores."""
        return bool(self._lane_weights)

    def portrait(self, image: jax.Array, example_landmark: jax.Array) -> Any:
        """What depends on the portrait alone, of (128, 128, 3) in [-1, 1] and (136,)."""
        return self._encode(self._weights, image, example_landmark)

    def start(self) -> jax.Array:
        """The recurrent state before the first frame."""
        return self._network.start(self._weights)

    def make(
        self, features: Any, landmarks: np.ndarray | jax.Array, carry: Any
    ) -> tuple[Shown, Any]:
        """Makes T frames.

        Args:
            features: from ``portrait``.
            landmarks: (T, 136), normalised times 5.
            carry: from ``start`` or from the call before.

        Returns:
            The frames, NumPy's arrays, and the state after them.
        """
        if chunk := self._chunk(len(landmarks)):
            return self._make_on_lanes(chunk, features, np.asarray(landmarks), carry)
        shown, carry = self._show(self._weights, features, landmarks, carry)
        return Shown(*map(np.asarray, shown)), carry

    def programs(self, features: Any, count: int) -> list[jax.stages.Lowered]:
        """What ``make`` runs for ``count`` landmarks, lowered and not run."""
        chunk = self._chunk(count)
        points = jax.ShapeDtypeStruct((chunk or count, LANDMARK_SIZE), np.float32)
        inputs = self._weights, features, points, self.start()
        if chunk is None:
            return [self._show.lower(*inputs)]
        x, _ = jax.eval_shape(self._states, *inputs)
        refined = jax.eval_shape(self._refine, self._weights, x)
        of_few = self._weights, features, jax.ShapeDtypeStruct((FEW, LANDMARK_SIZE), np.float32)
        few = jax.ShapeDtypeStruct((FEW, *refined.shape[1:]), refined.dtype)
        return [
            self._states.lower(*inputs),
            self._refine.lower(self._weights, x),
            self._attend.lower(*of_few),
            self._decode.lower(*of_few[:2], jax.eval_shape(self._attend, *of_few), few),
        ]

    def _chunk(self, count: int) -> int | None:
        """The chunks of a call on lanes; None where it is one program."""
        # Other threads than this one do not know of ``jax.disable_jit``.
        op_by_op: bool = jax.config.jax_disable_jit  # type: ignore[attr-defined]
        return chunk_size(count) if self.has_lanes and not op_by_op else None

    def _make_on_lanes(
        self, size: int, features: Any, landmarks: np.ndarray, carry: Any
    ) -> tuple[Shown, Any]:
        features, carry = jax.tree.map(np.asarray, (features, carry))
        count = len(landmarks)
        parts: dict[int, Shown] = {}
        tasks = lanes.Tasks(count // size + 2 * (count // FEW))
        attentions = [_Once() for _ in range(0, count, FEW)]

        def attention(start: int, lane: int) -> np.ndarray:
            def make() -> np.ndarray:
                few = landmarks[start : start + FEW]
                return np.asarray(self._attend(self._lane_weights[lane], features, few))

            return attentions[start // FEW].get(make)

        def refine(start: int, x: np.ndarray, lane: int) -> None:
            x = np.asarray(self._refine(self._lane_weights[lane], x))
            for at in range(0, len(x), FEW):
                tasks.add(SHOW, functools.partial(show, start + at, x[at : at + FEW]))

        def show(start: int, x: np.ndarray, lane: int) -> None:
            seen = attention(start, lane)
            shown = self._decode(self._lane_weights[lane], features, seen, x)
            parts[start] = Shown(*map(np.asarray, shown))

        for start in range(0, count, FEW):
            tasks.add(ATTEND, functools.partial(attention, start))
        others = [_pool().submit(tasks.work, lane) for lane in range(1, len(self._lane_weights))]
        try:
            for start in range(0, count, size):
                points = landmarks[start : start + size]
                x, carry = self._states(self._lane_weights[0], features, points, carry)
                tasks.add(REFINE, functools.partial(refine, start, np.asarray(x)))
            tasks.work(0)
        finally:
            tasks.stop()
            wait(others)
        for other in others:
            other.result()  # raises what was raised there
        ordered = [parts[start] for start in sorted(parts)]
        return Shown(*map(np.concatenate, zip(*ordered, strict=True))), np.asarray(carry)

    def _shown(
        self, weights: Any, features: Any, landmarks: jax.Array, carry: jax.Array
    ) -> tuple[Shown, jax.Array]:
        made, carry = self._network.frames(weights, features, landmarks, carry)
        return _bytes(made), carry


class _Once:
    """A value that several may want: whoever asks first makes it, others wait for that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value: Any = None

    def get(self, make: Callable[[], Any]) -> Any:
        with self._lock:
            if self._value is None:
                self._value = make()
            return self._value


def chunk_size(count: int) -> int | None:
    """The largest of ``CHUNKS`` of which ``count`` is a multiple, twice at least; else the last.

    Returns:
        The size, or None where the last one does not divide ``count`` either.
    """
    fitting = [size for size in CHUNKS if count % size == 0]
    return next((size for size in fitting if count >= 2 * size), fitting[-1] if fitting else None)


def _bytes(made: fast_frames.Made) -> Shown:
    return Shown(to_bytes(made.frames), made.attention.astype(jnp.float32), to_bytes(made.motion))


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """The lanes after the first, which is the calling thread's."""
    return ThreadPoolExecutor(len(lanes.devices()) - 1, thread_name_prefix="atvg_jax lane")
