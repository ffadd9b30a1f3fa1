"""A model on clips whose features are prepared already, as those of a data set are."""

from collections.abc import Callable
from typing import Any

import numpy as np

from atvg_jax import compilation_cache
from atvg_jax.inference import engine, model_directory


class PreparedFace:
    """Makes clips from prepared features: windows of sound, or landmarks themselves.

    Attributes:
        basis: the model's ``LandmarkBasis``.
    """

    def __init__(self, model: model_directory.Model):
        """Takes a model in memory; ``model_directory.read`` reads one from disk."""
        compilation_cache.enable()
        self._engine = engine.Engine(model)
        self.basis = model.basis

    def from_sound(
        self,
        crop: np.ndarray,
        landmarks: np.ndarray,
        windows: np.ndarray,
        landmarks_only: bool = False,
    ) -> engine.Pieces:
        """What ``TalkingFace.synthesize`` makes of the portrait and the sound.

        Args:
            crop: (128, 128, 3) uint8, the aligned portrait.
            landmarks: (68, 2) its points, in pixels of the crop.
            windows: (T, 28, 12).
            landmarks_only: leave VG-net out.
        """
        shape = np.asarray(self.basis.normaliser.normalise(landmarks[None]))[0]
        portrait = self._engine.portrait(crop, shape, landmarks_only)
        return self._whole(self._engine.run, portrait, windows)

    def from_landmarks(
        self, crop: np.ndarray, shape: np.ndarray, shapes: np.ndarray
    ) -> engine.Pieces:
        """What VG-net makes of landmarks that are given to it as they are.

        Args:
            crop: (128, 128, 3) uint8, the aligned portrait.
            shape: (68, 2) its landmarks, normalised.
            shapes: (T, 68, 2) landmarks of the frames, normalised together with it.
        """
        portrait = self._engine.portrait(crop, shape, through_basis=False)
        return self._whole(self._engine.show, portrait, shapes)

    def _whole(
        self,
        call: Callable[[engine.Portrait, np.ndarray, Any], tuple[engine.Pieces, Any]],
        portrait: engine.Portrait,
        inputs: np.ndarray,
    ) -> engine.Pieces:
        """All frames, in as few calls as can be."""
        carry = self._engine.start(portrait)
        parts: list[engine.Pieces] = []
        done = 0
        while done < len(inputs):
            size = engine.call_size(len(inputs) - done, self._engine.whole)
            piece = inputs[done : done + size]
            # Only the last call is padded, so what padding does to the state is never seen.
            piece = np.concatenate([piece, np.repeat(piece[-1:], size - len(piece), axis=0)])
            pieces, carry = call(portrait, np.asarray(piece, np.float32), carry)
            parts.append(pieces)
            done += size

        def joined(name: str) -> Any:
            arrays = [getattr(part, name) for part in parts]
            return None if arrays[0] is None else np.concatenate(arrays)[: len(inputs)]

        return engine.Pieces(
            joined("frames"), joined("attention"), joined("motion"), joined("landmarks")
        )
