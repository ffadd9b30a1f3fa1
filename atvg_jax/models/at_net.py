"""AT-net: speech and one example landmark to facial landmarks (PCA components)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from atvg_jax.models.blocks import (
    ConvBlock,
    Dropout,
    Linear,
    LSTMCarry,
    StackedLSTM,
    accumulating,
    fold_time,
    scaled,
    unfold_time,
)

Array = jax.Array

WINDOW_ROWS = 28
WINDOW_COEFFICIENTS = 12
MOVEMENT = 0.05
"""Standard deviation of a landmark component of a talking face around the clip's mean: 0.02 to 0.11
for the six, measured on the clips that the bundled model was trained on."""


class AudioEncoder(nn.Module):
    """One 28 x 12 window of MFCC to 256 features.

    Attributes:
        norm: batch norm after each convolution (which then has no bias), as in ATNet; without, as
            in ATNetSingle, the convolutions have a bias.
    """

    norm: bool = True
    width: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, mfcc: Array, train: bool = False) -> Array:
        """(N, 28, 12) -> (N, 256 * width)."""
        if mfcc.shape[1:] != (WINDOW_ROWS, WINDOW_COEFFICIENTS):
            raise ValueError(
                f"mfcc windows are (N, {WINDOW_ROWS}, {WINDOW_COEFFICIENTS}), not {mfcc.shape}"
            )

        def conv(x: Array, features: int, name: str) -> Array:
            return ConvBlock(
                scaled(features, self.width),
                bias=not self.norm,
                norm=self.norm,
                width=self.width,
                dtype=self.dtype,
                name=name,
            )(x, train)

        x = mfcc[..., None]
        x = conv(x, 64, "conv_1")
        x = conv(x, 128, "conv_2")
        x = nn.max_pool(x, (3, 3), (1, 2))  # (N, 26, 5, 128)
        x = conv(x, 256, "conv_3")
        x = conv(x, 256, "conv_4")
        x = conv(x, 512, "conv_5")
        x = nn.max_pool(x, (3, 3), (2, 2))  # (N, 12, 2, 512)
        x = x.reshape(x.shape[0], -1)
        x = Linear(scaled(2048, self.width), width=self.width, dtype=self.dtype, name="fc_1")(x)
        return Linear(scaled(256, self.width), width=self.width, dtype=self.dtype, name="fc_2")(x)


class ATNet(nn.Module):
    """Speech to landmarks with a three-layer LSTM (30.07 M parameters at width 1).

    Chen et al., CVPR 2019, section 3.2; layer sizes from the released checkpoints.

    Attributes:
        width: multiplies every hidden channel count; ``compact`` is 0.25.
        components: PCA components in and out.
        dropout_rate: on the LSTM's input, in training alone; 0 as published.
        dtype: of the computation; parameters stay float32.
    """

    width: float = 1.0
    components: int = 6
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Builds the layers, which ``__call__`` and ``steps`` share."""
        width, dtype = self.width, self.dtype
        self.landmark_encoder_1 = Linear(scaled(256, width), width=width, dtype=dtype)
        self.landmark_encoder_2 = Linear(scaled(512, width), width=width, dtype=dtype)
        self.audio_encoder = AudioEncoder(width=width, dtype=dtype)
        self.lstm = StackedLSTM(scaled(256, width), dtype=dtype)
        self.dropout = Dropout(self.dropout_rate)
        self.output = Linear(self.components, relu=False, width=width, dtype=dtype)

    def __call__(self, example_landmark: Array, mfcc: Array, train: bool = False) -> Array:
        """Predicts every frame's landmarks.

        Args:
            example_landmark: (B, 6) components of the portrait's landmarks.
            mfcc: (B, T, 28, 12), the window around each frame; any T.
            train: batch statistics and dropout on.

        Returns:
            (B, T, 6) float32 components.
        """
        return self.steps(example_landmark, mfcc, train=train)[0]

    def steps(
        self,
        example_landmark: Array,
        mfcc: Array,
        carry: LSTMCarry | None = None,
        train: bool = False,
    ) -> tuple[Array, LSTMCarry]:
        """The same over one piece of a longer sound: takes and returns the LSTM's carry."""
        batch, frames = mfcc.shape[:2]
        landmark = self.landmark_encoder_2(self.landmark_encoder_1(example_landmark))
        landmark = jnp.broadcast_to(landmark[:, None], (batch, frames, landmark.shape[-1]))
        audio = unfold_time(self.audio_encoder(fold_time(mfcc), train), batch)
        features = jnp.concatenate([landmark, audio], axis=-1)
        features = self.dropout(features, train)
        hidden, carry = self.lstm(features, carry)
        return self.output(hidden).astype(accumulating(self.dtype)), carry


class ATNetFramewise(nn.Module):
    """How a face differs from an example, from one window of sound: what teaches AT-net's ear.

    AT-net's audio encoder and one linear layer; ``start_from`` takes the encoder over into an
    AT-net. Not in the paper.

    The linear layer starts at zero and speaks in units of a talking face's movement. With random
    weights the encoder's units are at first but noise in what it says, and the shortest way to less
    error is to turn them off: after 200 steps of batches of 256 at an eighth of the width, Adam had
    driven 18 of the 32 below zero for every sound there is, where no gradient brings them back.
    From zero it loses none; and as its weights must grow to say anything, so do the features.

    Attributes:
        width: multiplies every hidden channel count.
        components: PCA components in and out.
        dropout_rate: on the encoded sound, in training alone.
        dtype: of the computation.
    """

    width: float = 1.0
    components: int = 6
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, example_landmark: Array, mfcc: Array, train: bool = False) -> Array:
        """(B, 6) components, (B, T, 28, 12) windows -> (B, T, 6) float32 components."""
        encoder = AudioEncoder(width=self.width, dtype=self.dtype, name="audio_encoder")
        x = unfold_time(encoder(fold_time(mfcc), train), len(mfcc))
        x = Dropout(self.dropout_rate, name="dropout")(x, train)
        zeros = nn.initializers.zeros
        change = nn.Dense(self.components, kernel_init=zeros, dtype=self.dtype, name="change")(x)
        return example_landmark[:, None] + MOVEMENT * change.astype(accumulating(self.dtype))


class ATNetSingle(nn.Module):
    """Speech to landmarks a window at a time: no recurrence, no example landmark, no norm.

    Attributes:
        width: multiplies every hidden channel count.
        components: PCA components out.
        dropout_rate: on the encoded sound, in training alone; 0 as published.
        dtype: of the computation.
    """

    width: float = 1.0
    components: int = 6
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, mfcc: Array, train: bool = False) -> Array:
        """(..., 28, 12) windows -> (..., 6) float32 components."""
        lead = mfcc.shape[:-2]
        encoder = AudioEncoder(norm=False, width=self.width, dtype=self.dtype, name="audio_encoder")
        x = encoder(mfcc.reshape(-1, *mfcc.shape[-2:]), train)
        x = Dropout(self.dropout_rate, name="dropout")(x, train)
        output = Linear(
            self.components, relu=False, width=self.width, dtype=self.dtype, name="output"
        )
        return output(x).astype(accumulating(self.dtype)).reshape(*lead, self.components)
