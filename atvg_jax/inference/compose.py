"""The moving face back in the whole portrait, at the portrait's own resolution.

VG-net's frame is ``attention * motion + (1 - attention) * portrait``. Here the same blend is done
on the original picture: motion and attention are small and smooth and are carried back through the
alignment, while the portrait's share keeps its own pixels. Attention fades out towards the border
of the crop, so that no square shows.
"""

import numpy as np
from PIL import Image

from atvg_jax.features import faces

FADE = 20  # crop pixels over which attention fades to nothing at the border
# Attention below this is the network's way of saying none: the portrait's pixels stay bit for bit.
LEAST_ATTENTION = 0.02


def fade_mask(size: int = faces.CROP_SIZE, fade: int = FADE) -> np.ndarray:
    """(size, size) float32: 0 on the border, rising smoothly (3 t^2 - 2 t^3) to 1 inside."""
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]) / fade
    step = np.clip(distance, 0, 1)
    profile = step * step * (3 - 2 * step)
    return np.outer(profile, profile).astype(np.float32)


class WholePortrait:
    """Puts the frames of one face into the picture that it was taken from."""

    def __init__(self, image: np.ndarray, matrix: np.ndarray):
        """Prepares the part of the picture that may move.

        Args:
            image: (H, W, 3) uint8, the whole portrait.
            matrix: (2, 3) picture pixel to crop pixel, ``AlignedFace.matrix``.
        """
        self._image = image
        size = faces.CROP_SIZE
        corners = faces.apply(faces.invert(matrix), [(0, 0), (size, 0), (0, size), (size, size)])
        height, width = image.shape[:2]
        low = np.floor(corners.min(axis=0)).astype(int)
        high = np.ceil(corners.max(axis=0)).astype(int) + 1
        self._left, self._top = (int(v) for v in np.clip(low, 0, (width, height)))
        self._right, self._bottom = (int(v) for v in np.clip(high, 0, (width, height)))
        self._part = image[self._top : self._bottom, self._left : self._right].astype(np.float32)
        # Pillow maps output to input by pixel edges, the alignment by pixel centres.
        linear = np.asarray(matrix, float)[:, :2]
        shift = matrix[:, 2] + linear @ (self._left + 0.0, self._top + 0.0)
        shift = shift + 0.5 - linear @ (0.5, 0.5)
        self._coefficients = tuple(np.concatenate([linear, shift[:, None]], axis=1).ravel())
        self._fade = fade_mask()

    def frame(self, attention: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """The whole portrait in one moment.

        Args:
            attention: (128, 128) float32 in [0, 1].
            motion: (128, 128, 3) uint8.

        Returns:
            (H, W, 3) uint8: the portrait itself, bit for bit, wherever there is no attention.
        """
        if not self._part.size:
            return self._image
        share = np.clip((attention - LEAST_ATTENTION) / (1 - LEAST_ATTENTION), 0, 1) * self._fade
        alpha = np.clip(self._back(share.astype(np.float32)), 0, 1)[..., None]
        colour = self._back(motion).astype(np.float32)
        blended = np.round(self._part + alpha * (colour - self._part)).astype(np.uint8)
        whole = self._image.copy()
        whole[self._top : self._bottom, self._left : self._right] = blended
        return whole

    def _back(self, crop: np.ndarray) -> np.ndarray:
        """A crop-sized map or picture, resampled onto the part of the portrait."""
        height, width = self._part.shape[:2]
        return np.asarray(
            Image.fromarray(crop).transform(
                (width, height),
                Image.Transform.AFFINE,
                self._coefficients,
                resample=Image.Resampling.BICUBIC,
            )
        )
