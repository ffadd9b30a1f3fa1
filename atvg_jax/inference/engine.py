"""Both networks behind one compiled function that makes a few frames and carries their state on."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from atvg_jax.features import audio, landmarks
from atvg_jax.inference.model_directory import Model

# Frames made in one call. Each size compiles once, when first needed; state goes from call to call,
# so that any sequence of sizes gives the same frames.
WHOLE = (16,)  # all the sound is there: full calls, the last one padded
LIVE = (16, 4, 1)  # sound is still arriving: whatever is complete, at once


class Portrait(NamedTuple):
    """A portrait as the networks see it, on the device.

    Attributes:
        features: ``models.PortraitFeatures`` of VG-net, or ``None`` for landmarks alone.
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


def to_bytes(pixels: jax.Array) -> jax.Array:
    """Float pixels in [-1, 1] to uint8, rounded."""
    return jnp.round(jnp.clip((pixels + 1) * 127.5, 0, 255)).astype(jnp.uint8)


class Engine:
    """AT-net and VG-net of one model, compiled once.

    Attributes:
        basis: the model's ``LandmarkBasis``.
    """

    def __init__(self, model: Model):
        self.basis = model.basis
        self._at_name = model.networks["at_net"].name
        self._at_net = model.networks["at_net"].create()
        self._vg_net = model.networks["vg_net"].create()
        self._at_variables = jax.device_put(model.variables["at_net"])
        self._vg_variables = jax.device_put(model.variables["vg_net"])
        # The basis is affine: taken from its own decode, so that there is one definition of it.
        count = len(self.basis.boost)
        mean = self.basis.decode(np.zeros(count, np.float32))
        self._mean = jnp.asarray(mean, jnp.float32)
        self._directions = jnp.asarray(
            self.basis.decode(np.eye(count, dtype=np.float32)) - mean, jnp.float32
        )
        self._boost = jnp.asarray(self.basis.boost, jnp.float32)
        self._encode = jax.jit(functools.partial(self._vg_net.apply, method="encode_portrait"))
        self._speak_jit = jax.jit(self._speak)
        self._show_jit = jax.jit(self._show)
        self._carries: dict[bool, Any] = {}  # shapes of the state, found by tracing, kept

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
        image = jnp.asarray(crop, jnp.float32)[None] / 127.5 - 1
        # Through the basis, as the landmarks that drive the frames are: what the basis leaves out
        # of the portrait's shape must not look like a movement.
        example = components @ self._directions + self._mean  # (1, 136)
        if not through_basis:
            example = jnp.asarray(landmarks.to_model(shape))[None]
        return Portrait(self._encode(self._vg_variables, image, example), components)

    def start(self, portrait: Portrait) -> Any:
        """The networks' state before the first frame: zeros."""
        landmarks_only = portrait.features is None
        if landmarks_only not in self._carries:
            self._carries[landmarks_only] = self._carry_shapes(portrait)
        shapes = self._carries[landmarks_only]
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def _carry_shapes(self, portrait: Portrait) -> Any:
        windows = jax.ShapeDtypeStruct(
            (1, 1, audio.WINDOW_ROWS, audio.WINDOW_COEFFICIENTS), jnp.float32
        )
        points, at_carry = jax.eval_shape(
            self._speak, self._at_variables, portrait.components, windows, None
        )
        vg_carry = None
        if portrait.features is not None:
            vg_carry = jax.eval_shape(
                self._show, self._vg_variables, portrait.features, points, None
            )[1]
        return at_carry, vg_carry

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

    def _pieces(self, portrait: Portrait, points: jax.Array, carry: Any) -> tuple[Pieces, Any]:
        """Landmarks (1, n, 136) -> all that is made of them, VG-net's state."""
        frames = attention = motion = None
        if portrait.features is not None:
            made, carry = self._show_jit(self._vg_variables, portrait.features, points, carry)
            frames, attention, motion = (np.asarray(array) for array in made)
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
        return (components * self._boost) @ self._directions + self._mean, carry

    def _show(
        self, variables: Any, features: Any, points: jax.Array, carry: Any
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Any]:
        """Portrait features, landmarks (1, n, 136) -> frames, attention, motion; VG-net's state."""
        output, carry = self._vg_net.apply(variables, features, points, carry, method="frames_from")
        attention = output.attention[0, ..., 0].astype(jnp.float32)
        return (to_bytes(output.frames[0]), attention, to_bytes(output.motion[0])), carry
