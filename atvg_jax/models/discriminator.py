"""The regression-based discriminator: are these frames real, and which landmarks do they show?"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from atvg_jax.models.blocks import (
    ConvBlock,
    Linear,
    StackedLSTM,
    accumulating,
    fold_time,
    scaled,
    unfold_time,
)

Array = jax.Array

LANDMARK_SIZE = 136


class Discriminator(nn.Module):
    """Scores clips and regresses their landmarks.

    Chen et al., CVPR 2019, section 3.4. The released layout has 21.49 M parameters, of which a
    ``decoder`` of 0.59 M is never used and does not exist here.

    Attributes:
        width: multiplies every hidden channel count.
        dtype: of the computation; outputs are float32.
    """

    width: float = 1.0
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Builds the layers, which ``__call__`` and ``logits`` share."""
        width, dtype = self.width, self.dtype

        def conv(features: int, **settings: Any) -> ConvBlock:
            return ConvBlock(
                scaled(features, width), stride=2, width=width, dtype=dtype, **settings
            )

        self.image_1 = conv(64, bias=True, norm=False)
        self.image_2 = conv(128)
        self.image_3 = conv(256)
        self.image_4 = conv(512)
        self.image_fc = Linear(scaled(512, width), width=width, dtype=dtype)
        self.landmark_encoder_1 = Linear(scaled(256, width), width=width, dtype=dtype)
        self.landmark_encoder_2 = Linear(scaled(512, width), width=width, dtype=dtype)
        self.lstm = StackedLSTM(scaled(256, width), dtype=dtype)
        self.landmark_head = Linear(LANDMARK_SIZE, relu=False, width=width, dtype=dtype)
        self.decision = Linear(1, relu=False, width=width, dtype=dtype)

    def __call__(
        self, frames: Array, example_landmark: Array, train: bool = False
    ) -> tuple[Array, Array]:
        """Judges clips.

        Args:
            frames: (B, T, 128, 128, 3) in [-1, 1]; any T.
            example_landmark: (B, 136), of the portrait, normalised times 5.
            train: batch statistics on.

        Returns:
            score: (B,) in (0, 1), 1 for real. landmarks: (B, T, 136), the landmarks it sees.
        """
        logits, landmarks = self.logits(frames, example_landmark, train)
        return nn.sigmoid(logits), landmarks

    def logits(
        self, frames: Array, example_landmark: Array, train: bool = False
    ) -> tuple[Array, Array]:
        """The same with the score before its sigmoid, for a loss that cannot overflow."""
        return self.heads(self.features(frames, example_landmark, train), example_landmark)

    def features(self, frames: Array, example_landmark: Array, train: bool = False) -> Array:
        """What the two heads share: (B, T, hidden), the LSTM's output."""
        batch, count = frames.shape[:2]
        x = self.image_1(fold_time(frames), train)
        x = self.image_4(self.image_3(self.image_2(x, train), train), train)
        x = unfold_time(self.image_fc(x.reshape(x.shape[0], -1)), batch)
        example = self.landmark_encoder_2(self.landmark_encoder_1(example_landmark))
        example = jnp.broadcast_to(example[:, None], (batch, count, example.shape[-1]))
        hidden, _ = self.lstm(jnp.concatenate([example, x], axis=-1))
        return hidden

    def heads(self, hidden: Array, example_landmark: Array) -> tuple[Array, Array]:
        """Logits (B,) and landmarks (B, T, 136) of what ``features`` gives."""
        moved = jnp.tanh(self.landmark_head(hidden).astype(accumulating(self.dtype)))
        decision = self.decision(hidden).astype(accumulating(self.dtype))
        return decision.mean(axis=(1, 2)), example_landmark[:, None] + moved
