"""VG-net: one portrait and landmarks over time to frames, with attention and motion maps."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from atvg_jax.models.blocks import (
    ConvBlock,
    Linear,
    ResidualBlock,
    UpBlock,
    accumulating,
    fold_time,
    scaled,
    unfold_time,
    weight_init,
)
from atvg_jax.models.convolutions import NARROW, conv_side_by_side, side_by_side, wide_conv
from atvg_jax.models.mmrnn import MMRNN

Array = jax.Array

LANDMARK_SIZE = 136
IMAGE_SIZE = 128
LANDMARK_MAP = 8  # landmarks enter the convolutions as an 8 x 8 map of one channel
RESIDUAL_BLOCKS = 9
HEAD_KERNEL = 7


class VGOutput(NamedTuple):
    """What VG-net makes of B clips of T frames.

    Attributes:
        frames: (B, T, 128, 128, 3) in [-1, 1].
        attention: (B, T, 128, 128, 1) in [0, 1], where the frame leaves the portrait.
        motion: (B, T, 128, 128, 3) in [-1, 1], what it puts there.
        landmark_attention: (B, T, 32, 32, 1) in [0, 1], where landmarks move features.
    """

    frames: Array
    attention: Array
    motion: Array
    landmark_attention: Array


class PortraitFeatures(NamedTuple):
    """What depends on the portrait alone, computed once however many frames follow.

    Attributes:
        image: (B, 128, 128, 3) in [-1, 1].
        shallow: (B, 32, 32, 128 width), f1 of the paper's figure.
        deep: (B, 8, 8, 512 width), f2.
        landmark_map: (B, 8, 8, 256 width), g of the example landmark.
        landmark_feature: (B, 8, 8, 512 width), h of the example landmark.
    """

    image: Array
    shallow: Array
    deep: Array
    landmark_map: Array
    landmark_feature: Array


class Head(nn.Module):
    """Kernel and bias of one 7 x 7 convolution to the maps that make a frame.

    Both heads read the same large map, so ``VGNet`` runs them as one convolution: with one or three
    output channels each would cost as much as both together.
    """

    features: int
    width: float = 1.0

    @nn.compact
    def __call__(self, channels: int) -> tuple[Array, Array]:
        """Returns the kernel (7, 7, channels, features) and the bias (features,)."""
        shape = (HEAD_KERNEL, HEAD_KERNEL, channels, self.features)
        kernel = self.param("kernel", weight_init(self.width), shape)
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class VGNet(nn.Module):
    """Landmarks and a portrait to frames (58.36 M parameters at width 1).

    Chen et al., CVPR 2019, section 3.3; layer sizes from the released checkpoints.

    Attributes:
        width: multiplies every hidden channel count; ``compact`` is 0.25, a sixteenth of the
            multiply-adds.
        recurrence: of the MMRNN, ``time`` (the paper's) or ``none`` (the released code's).
        dropout_rate: inside the residual blocks, in training alone.
        attention: blend portrait and motion by the attention map; False takes the frame straight
            from the motion head (the paper's ablation) and attention is 1 everywhere.
        dtype: of the computation; parameters, statistics and outputs stay float32.
    """

    width: float = 1.0
    recurrence: str = "time"
    dropout_rate: float = 0.5
    attention: bool = True
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Builds the layers, which whole clips and streaming share."""
        width, dtype = self.width, self.dtype

        def conv(features: int, **settings: Any) -> ConvBlock:
            return ConvBlock(scaled(features, width), width=width, dtype=dtype, **settings)

        def up(features: int, bias: bool = False) -> UpBlock:
            return UpBlock(scaled(features, width), bias=bias, width=width, dtype=dtype)

        # Image encoder 1 and 2.
        self.image_1 = conv(64, kernel=7, pad=False)
        self.image_2 = conv(64, stride=2)
        self.image_3 = conv(128, stride=2)
        self.image_4 = conv(256, stride=2)
        self.image_5 = conv(512, stride=2)
        # The 64 values are the 8 x 8 map itself, so this layer keeps its size at every width.
        self.landmark_fc = Linear(LANDMARK_MAP**2, dtype=dtype)
        self.landmark_conv = conv(256)
        self.landmark_feature = conv(512, small_map=True)
        # Landmark attention.
        self.attention_up_1 = up(256, bias=True)
        self.attention_up_2 = up(128, bias=True)
        self.attention_head = nn.Conv(
            1, (3, 3), padding=1, kernel_init=weight_init(width), dtype=dtype
        )
        # Multi-modal recurrence.
        self.bottleneck = conv(128, small_map=True)
        self.mmrnn = MMRNN(scaled(512, width), self.recurrence, dtype)
        # Decoder.
        self.residual = [
            ResidualBlock(self.dropout_rate, width, dtype) for _ in range(RESIDUAL_BLOCKS)
        ]
        self.decoder_up_1 = up(256)
        self.decoder_up_2 = up(128)
        self.base_up_1 = up(64)
        self.base_up_2 = up(32)
        self.motion_head = Head(3, width)
        self.alpha_head = Head(1, width)

    def __call__(
        self, image: Array, landmarks: Array, example_landmark: Array, train: bool = False
    ) -> VGOutput:
        """Makes T frames from each portrait.

        Args:
            image: (B, 128, 128, 3) in [-1, 1].
            landmarks: (B, T, 136), normalised times 5; any T.
            example_landmark: (B, 136), of the portrait.
            train: batch statistics (over batch and time together) and dropout on.

        Returns:
            VGOutput.

        Raises:
            ValueError: a shape is not one of these.
        """
        check_shapes(image, landmarks, example_landmark)
        batch = image.shape[0]
        shallow, deep = self.encode_image(image, train)
        # Example and target landmarks share their layers, so they share one batch too.
        together = jnp.concatenate([example_landmark[:, None], landmarks], axis=1)
        maps, features = self.encode_landmarks(fold_time(together), train)
        maps, features = unfold_time(maps, batch), unfold_time(features, batch)
        portrait = PortraitFeatures(image, shallow, deep, maps[:, 0], features[:, 0])
        return self.decode(portrait, maps[:, 1:], features[:, 1:], None, train)[0]

    def encode_portrait(self, image: Array, example_landmark: Array) -> PortraitFeatures:
        """(B, 128, 128, 3), (B, 136) -> PortraitFeatures, in inference mode."""
        maps, features = self.encode_landmarks(example_landmark)
        return PortraitFeatures(image, *self.encode_image(image), maps, features)

    def frames_from(
        self, portrait: PortraitFeatures, landmarks: Array, carry: Array | None = None
    ) -> tuple[VGOutput, Array]:
        """Makes one piece of a longer clip, in inference mode.

        Args:
            portrait: from ``encode_portrait``.
            landmarks: (B, T, 136).
            carry: (B, 8, 8, 512 width), the MMRNN's state before; None at the start.

        Returns:
            VGOutput of these T frames, and the state after them.
        """
        batch = landmarks.shape[0]
        maps, features = self.encode_landmarks(fold_time(landmarks))
        maps, features = unfold_time(maps, batch), unfold_time(features, batch)
        return self.decode(portrait, maps, features, carry, False)

    def encode_image(self, image: Array, train: bool = False) -> tuple[Array, Array]:
        """(B, 128, 128, 3) -> f1 (B, 32, 32, 128 width), f2 (B, 8, 8, 512 width)."""
        x = jnp.pad(image, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
        x = self.image_2(self.image_1(x, train), train)
        shallow = self.image_3(x, train)
        return shallow, self.image_5(self.image_4(shallow, train), train)

    def encode_landmarks(self, landmarks: Array, train: bool = False) -> tuple[Array, Array]:
        """(N, 136) -> g (N, 8, 8, 256 width), h (N, 8, 8, 512 width)."""
        x = self.landmark_fc(landmarks).reshape(-1, LANDMARK_MAP, LANDMARK_MAP, 1)
        x = self.landmark_conv(x, train)
        return x, self.landmark_feature(x, train)

    def decode(
        self,
        portrait: PortraitFeatures,
        maps: Array,
        features: Array,
        carry: Array | None,
        train: bool,
    ) -> tuple[VGOutput, Array]:
        """Landmark maps g and features h, (B, T, 8, 8, ...), to frames and the MMRNN's state."""
        batch, frames = maps.shape[:2]

        def over_time(x: Array) -> Array:
            return jnp.broadcast_to(x[:, None], (batch, frames, *x.shape[1:]))

        x = jnp.concatenate([maps, over_time(portrait.landmark_map)], axis=-1)
        x = self.attention_up_1(fold_time(x), train)
        x = self.attention_up_2(x, train)
        landmark_attention = nn.sigmoid(self.attention_head(x))  # (B T, 32, 32, 1)

        moved = features - portrait.landmark_feature[:, None]
        x = jnp.concatenate([over_time(portrait.deep), moved], axis=-1)
        x = self.bottleneck(fold_time(x), train)
        x, carry = self.mmrnn(unfold_time(x, batch), carry)

        x = fold_time(x)
        for block in self.residual:
            x = block(x, train)
        x = self.decoder_up_2(self.decoder_up_1(x, train), train)
        shallow = fold_time(over_time(portrait.shallow))
        x = shallow * (1 - landmark_attention) + x * landmark_attention
        x = self.base_up_2(self.base_up_1(x, train), train)
        maps = unfold_time(self.heads(x), batch)
        motion, alpha = jnp.tanh(maps[..., :3]), nn.sigmoid(maps[..., 3:])
        if not self.attention:
            alpha = jnp.ones_like(alpha)
        image = portrait.image[:, None].astype(motion.dtype)
        made = alpha * motion + (1 - alpha) * image
        landmark_attention = unfold_time(landmark_attention.astype(motion.dtype), batch)
        return VGOutput(made, alpha, motion, landmark_attention), carry

    def heads(self, x: Array) -> Array:
        """(N, 128, 128, 32 width) -> (N, 128, 128, 4): motion (3) and alpha before activation."""
        kernels, biases = zip(
            self.motion_head(x.shape[-1]), self.alpha_head(x.shape[-1]), strict=True
        )
        kernel = jnp.concatenate(kernels, axis=-1).astype(self.dtype)
        if x.shape[-1] <= NARROW:
            y = conv_side_by_side(x, side_by_side(kernel))
        else:
            y = wide_conv(x, kernel)
        return y.astype(accumulating(self.dtype)) + jnp.concatenate(biases)


def check_shapes(image: Array, landmarks: Array, example_landmark: Array) -> None:
    """Raises ValueError, naming the shapes, unless they are VG-net's."""
    batch = image.shape[0]
    if (
        image.shape != (batch, IMAGE_SIZE, IMAGE_SIZE, 3)
        or landmarks.ndim != 3
        or (landmarks.shape[0], landmarks.shape[2]) != (batch, LANDMARK_SIZE)
        or example_landmark.shape != (batch, LANDMARK_SIZE)
    ):
        raise ValueError(
            "VGNet takes image (B, 128, 128, 3), landmarks (B, T, 136), example_landmark (B, 136); "
            f"got {image.shape}, {landmarks.shape}, {example_landmark.shape}"
        )
