"""Both networks behind one compiled function that makes a few frames and carries their state on."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from atvg_jax import compiler
from atvg_jax.errors import InputError
from atvg_jax.features import audio, landmarks, lips
from atvg_jax.inference.fast_frames import FastFrames
from atvg_jax.inference.frame_maker import FrameMaker, PlainFrames
from atvg_jax.inference.half_frames import HalfFrames
from atvg_jax.inference.model_directory import Model

# What VG-net's large products are computed in; the first is the default. AT-net is float32.
PRECISIONS = ("float32", "bfloat16")

# Frames made in one call. Each size compiles once, when first needed; state goes from call to call,
# so that any sequence of sizes gives the same frames, to rounding.
WHOLE = (32, 16)  # all the sound is there: full calls, the last one padded
WHOLE_ON_LANES = (64, 32, 16, 8)  # sizes compile nothing but AT-net there; waits are for each call
LIVE = (16, 4, 1)  # sound is still arriving: whatever is complete, at once


def call_size(waiting: int, sizes: tuple[int, ...]) -> int:
    """The largest of the descending sizes that so many frames fill; else the smallest, to pad."""
    return next((size for size in sizes if size <= waiting), sizes[-1])


class Portrait(NamedTuple):
    """A portrait as the networks see it, on the device.

    Attributes:
        features: what VG-net makes of it, or ``None`` for landmarks alone.
        components: (1, 6), the portrait's landmarks in the basis, AT-net's example.
    """

    features: Any
    components: jax.Array


class Pieces(NamedTuple):
    """What the engine makes for n frames.

    Attributes:
        frames: (n, 128, 128, 3) uint8, or ``None`` for landmarks alone, as the next two.
        attention: (n, 128, 128) float32 in [0, 1].
        motion: (n, 128, 128, 3) uint8.
        landmarks: (n, 68, 2) float32, normalised.
    """

    frames: np.ndarray | None
    attention: np.ndarray | None
    motion: np.ndarray | None
    landmarks: np.ndarray


class Engine:
    """AT-net and VG-net of one model, compiled once.

    Attributes:
        basis: the model's ``LandmarkBasis``.
        whole: the frames of a call where all the sound is there, sizes in falling order.
    """

    def __init__(self, model: Model, precision: str = PRECISIONS[0]):
        if precision not in PRECISIONS:
            raise InputError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.basis = model.basis
        self._at_name = model.networks["at_net"].name
        self._at_net = model.networks["at_net"].create()
        vg_net = model.networks["vg_net"].create()
        frames: FastFrames | PlainFrames
        if jax.default_backend() == "cpu":
            frames = (FastFrames if precision == "float32" else HalfFrames)(vg_net)
        else:  # the libraries' convolutions are faster than what spares multiplications
            # float32 leaves a network that was set to compute in another type as it is.
            halved = precision == "bfloat16"
            frames = PlainFrames(vg_net.clone(dtype=jnp.bfloat16) if halved else vg_net)
        self._vg_net = FrameMaker(frames, model.variables["vg_net"])
        self.whole = WHOLE_ON_LANES if self._vg_net.has_lanes else WHOLE
        self._at_variables = jax.device_put(model.variables["at_net"])
        # The basis is affine: taken from its own decode, so that there is one definition of it.
        count = len(self.basis.boost)
        mean = self.basis.decode(np.zeros(count, np.float32))
        self._mean = jnp.asarray(mean, jnp.float32)
        self._directions = jnp.asarray(
            self.basis.decode(np.eye(count, dtype=np.float32)) - mean, jnp.float32
        )
        self._boost = jnp.asarray(self.basis.boost, jnp.float32)
        self._speak_jit = jax.jit(self._speak, compiler_options=compiler.options())
        self._at_carry: Any = None  # shapes of the state, found by tracing, kept

    def portrait(
        self,
        crop: np.ndarray,
        shape: np.ndarray,
        landmarks_only: bool = False,
        through_basis: bool = True,
    ) -> Portrait:
        """Computes what depends on the portrait alone.

        Args:
            crop: (128, 128, 3) uint8, the aligned face.
            shape: (68, 2) its landmarks, normalised.
            landmarks_only: leave VG-net out.
            through_basis: give VG-net what the basis holds of the shape. Without, the shape itself,
                for frames from landmarks that did not go through the basis either.
        """
        components = jnp.asarray(self.basis.encode(shape), jnp.float32)[None]  # (1, 6)
        if landmarks_only:
            return Portrait(None, components)
        image = jnp.asarray(crop, jnp.float32) / 127.5 - 1
        # Through the basis, as the landmarks that drive the frames are: what the basis leaves out
        # of the portrait's shape must not look like a movement.
        example = components[0] @ self._directions + self._mean  # (136,)
        if not through_basis:
            example = jnp.asarray(landmarks.to_model(shape))
        return Portrait(self._vg_net.portrait(image, example), components)

    def start(self, portrait: Portrait) -> Any:
        """The networks' state before the first frame: zeros."""
        if self._at_carry is None:
            self._at_carry = self._at_carry_shapes(portrait)
        at_carry = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self._at_carry)
        landmarks_only = portrait.features is None
        return at_carry, None if landmarks_only else self._vg_net.start()

    def _at_carry_shapes(self, portrait: Portrait) -> Any:
        windows = jax.ShapeDtypeStruct(
            (1, 1, audio.WINDOW_ROWS, audio.WINDOW_COEFFICIENTS), jnp.float32
        )
        return jax.eval_shape(self._speak, self._at_variables, portrait.components, windows, None)[
            1
        ]

    def run(self, portrait: Portrait, windows: np.ndarray, carry: Any) -> tuple[Pieces, Any]:
        """Makes the next frames.

        Args:
            portrait: from ``portrait``.
            windows: (n, 28, 12); every n compiles anew.
            carry: from ``start``, or from the call before.

        Returns:
            The frames, and the state after them.
        """
        at_carry, vg_carry = carry
        points, at_carry = self._speak_jit(
            self._at_variables, portrait.components, windows[None], at_carry
        )
        pieces, vg_carry = self._pieces(portrait, points, vg_carry)
        return pieces, (at_carry, vg_carry)

    def show(self, portrait: Portrait, shapes: np.ndarray, carry: Any) -> tuple[Pieces, Any]:
        """Makes the next frames from landmarks, without a sound.

        Args:
            portrait: from ``portrait``.
            shapes: (n, 68, 2) normalised; every n compiles anew.
            carry: from ``start``, or from the call before.

        Returns:
            The frames, and the state after them.
        """
        at_carry, vg_carry = carry
        points = jnp.asarray(landmarks.to_model(shapes))[None]
        pieces, vg_carry = self._pieces(portrait, points, vg_carry)
        return pieces, (at_carry, vg_carry)

    def programs(self, portrait: Portrait, count: int) -> list[Any]:
        """What makes ``count`` frames, lowered (``jax.stages.Lowered``) and not run."""
        at_carry, _ = self.start(portrait)
        window = (1, count, audio.WINDOW_ROWS, audio.WINDOW_COEFFICIENTS)
        speak = self._speak_jit.lower(
            self._at_variables,
            portrait.components,
            jax.ShapeDtypeStruct(window, np.float32),
            at_carry,
        )
        return [speak, *self._vg_net.programs(portrait.features, count)]

    def _pieces(self, portrait: Portrait, points: jax.Array, carry: Any) -> tuple[Pieces, Any]:
        """Landmarks (1, n, 136) -> all that is made of them, VG-net's state."""
        frames = attention = motion = None
        if portrait.features is not None:
            made, carry = self._vg_net.make(portrait.features, points[0], carry)
            frames, attention, motion = made
        shapes = np.asarray(landmarks.from_model(np.asarray(points[0])), np.float32)
        return Pieces(frames, attention, motion, shapes), carry

    def _speak(
        self, variables: Any, example: jax.Array, windows: jax.Array, carry: Any
    ) -> tuple[jax.Array, Any]:
        """(1, 6), (1, n, 28, 12) -> landmarks (1, n, 136) in model units, AT-net's state."""
        if self._at_name == "at_single":
            components = self._at_net.apply(variables, windows)
        else:
            components, carry = self._at_net.apply(
                variables, example, windows, carry, method="steps"
            )
        values = (components * self._boost) @ self._directions + self._mean
        return lips.apart(values, self.basis), carry
