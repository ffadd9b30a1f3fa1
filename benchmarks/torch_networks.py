"""The published networks in PyTorch, to measure against and to check gradients with.

Entries of their state dicts carry the published names, so that a released file loads with
``strict=True`` once its ``module.`` prefixes are gone. Layouts are PyTorch's: (B, T, C, H, W). The
package never imports this: PyTorch is in ``benchmarks/requirements.txt`` alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

RESIDUAL_BLOCKS = 9
DILATION = 2
LANDMARK_MAP = 8


class VGFrames(NamedTuple):
    """What VG-net makes.

    Attributes:
        frames: (B, T, 3, 128, 128) in [-1, 1].
        attention: (B, T, 1, 128, 128) in [0, 1].
        motion: (B, T, 3, 128, 128) in [-1, 1].
        landmark_attention: (B, T, 1, 32, 32) in [0, 1].
    """

    frames: Tensor
    attention: Tensor
    motion: Tensor
    landmark_attention: Tensor


def conv_block(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, pad: int = 1
) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def up_block(inputs: int, outputs: int, bias: bool) -> list[nn.Module]:
    """Transposed convolution that doubles the map, batch norm, ReLU."""
    conv = nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1, bias=bias)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


class ResidualBlock(nn.Module):
    """x + (conv, norm, ReLU, dropout, conv, norm)(x)."""

    def __init__(self, channels: int, dropout: float):
        super().__init__()
        self.conv_block = nn.Sequential(
            *conv_block(channels, channels),
            nn.Dropout(dropout),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        return x + self.conv_block(x)


class ConvGRU(nn.Module):
    """Convolutional GRU of one layer, gates r, u, n in cuDNN's form."""

    def __init__(self, inputs: int, features: int):
        super().__init__()
        self.features = features
        self.weight_ih_l0 = nn.Parameter(torch.empty(3 * features, inputs, 3, 3))
        self.weight_hh_l0 = nn.Parameter(torch.empty(3 * features, features, 3, 3))
        self.bias_ih_l0 = nn.Parameter(torch.empty(3 * features))
        self.bias_hh_l0 = nn.Parameter(torch.empty(3 * features))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(features**-0.5), features**-0.5)

    def forward(self, x: Tensor, each_frame: "EachFrame") -> Tensor:
        """(B, T, C, H, W) -> states (B, T, features, H, W), from a zero state."""

        def conv(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return functional.conv2d(maps, weight, bias, padding=DILATION, dilation=DILATION)

        from_input = each_frame(lambda maps: conv(maps, self.weight_ih_l0, self.bias_ih_l0), x)
        batch, frames, _, height, width = x.shape
        hidden = x.new_zeros(batch, self.features, height, width)
        states = []
        for index in range(frames):
            i_r, i_u, i_n = from_input[:, index].chunk(3, 1)
            h_r, h_u, h_n = conv(hidden, self.weight_hh_l0, self.bias_hh_l0).chunk(3, 1)
            r, u = torch.sigmoid(i_r + h_r), torch.sigmoid(i_u + h_u)
            n = torch.tanh(i_n + r * h_n)
            hidden = n + u * (hidden - n)
            states.append(hidden)
        return torch.stack(states, 1)


EachFrame = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


def folded(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Runs a function of (N, ...) over (B, T, ...) with time folded into the batch."""
    return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def in_turn(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The same a time step at a time, as the released code does."""
    return torch.stack([function(frame) for frame in x.unbind(1)], 1)


class VGNet(nn.Module):
    """Landmarks and a portrait to frames; recurrent over time."""

    def __init__(self, dropout: float = 0.5, each_frame: EachFrame = folded):
        super().__init__()
        self.each_frame = each_frame
        self.image_encoder1 = nn.Sequential(
            nn.ReflectionPad2d(3),
            conv_block(3, 64, kernel=7, pad=0),
            conv_block(64, 64, stride=2),
            conv_block(64, 128, stride=2),
        )
        self.image_encoder2 = nn.Sequential(
            conv_block(128, 256, stride=2), conv_block(256, 512, stride=2)
        )
        self.landmark_encoder = nn.Sequential(nn.Linear(136, LANDMARK_MAP**2), nn.ReLU())
        self.landmark_encoder_stage2 = nn.Sequential(conv_block(1, 256))
        self.lmark_feature = nn.Sequential(conv_block(256, 512))
        self.lmark_att = nn.Sequential(
            *up_block(512, 256, bias=True),
            *up_block(256, 128, bias=True),
            nn.Sequential(nn.Conv2d(128, 1, 3, padding=1), nn.Sigmoid()),
        )
        self.bottle_neck = nn.Sequential(conv_block(1024, 128))
        self.convGRU = ConvGRU(128, 512)
        self.generator1 = nn.Sequential(
            *(ResidualBlock(512, dropout) for _ in range(RESIDUAL_BLOCKS)),
            *up_block(512, 256, bias=False),
            *up_block(256, 128, bias=False),
        )
        self.base = nn.Sequential(*up_block(128, 64, bias=False), *up_block(64, 32, bias=False))
        self.generator_color = nn.Sequential(nn.Conv2d(32, 3, 7, padding=3), nn.Tanh())
        self.generator_attention = nn.Sequential(nn.Conv2d(32, 1, 7, padding=3), nn.Sigmoid())

    def landmark_maps(self, landmarks: Tensor) -> Tensor:
        """(N, 136) -> g (N, 256, 8, 8)."""
        maps = self.landmark_encoder(landmarks).view(-1, 1, LANDMARK_MAP, LANDMARK_MAP)
        return self.landmark_encoder_stage2(maps)

    def forward(self, image: Tensor, landmarks: Tensor, example_landmark: Tensor) -> VGFrames:
        """(B, 3, 128, 128) in [-1, 1], (B, T, 136), (B, 136) -> VGFrames."""
        each_frame, frames = self.each_frame, landmarks.shape[1]

        def over_time(x: Tensor) -> Tensor:
            return x[:, None].expand(-1, frames, *x.shape[1:])

        shallow = self.image_encoder1(image)
        deep = self.image_encoder2(shallow)
        example_map = self.landmark_maps(example_landmark)
        example_feature = self.lmark_feature(example_map)
        maps = each_frame(self.landmark_maps, landmarks)
        both = torch.cat([maps, over_time(example_map)], 2)
        landmark_attention = each_frame(self.lmark_att, both)
        moved = each_frame(self.lmark_feature, maps) - example_feature[:, None]
        x = each_frame(self.bottle_neck, torch.cat([over_time(deep), moved], 2))
        x = each_frame(self.generator1, self.convGRU(x, each_frame))
        x = over_time(shallow) * (1 - landmark_attention) + x * landmark_attention
        x = each_frame(self.base, x)
        motion = each_frame(self.generator_color, x)
        attention = each_frame(self.generator_attention, x)
        made = attention * motion + (1 - attention) * image[:, None]
        return VGFrames(made, attention, motion, landmark_attention)


class Discriminator(nn.Module):
    """Scores clips and regresses their landmarks; its ``decoder`` is never used, as published."""

    def __init__(self, each_frame: EachFrame = folded):
        super().__init__()
        self.each_frame = each_frame
        self.image_encoder_dis = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 64, 3, 2, 1), nn.ReLU()),
            conv_block(64, 128, stride=2),
            conv_block(128, 256, stride=2),
            conv_block(256, 512, stride=2),
        )
        self.encoder = nn.Sequential(nn.Linear(136, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 136))
        self.img_fc = nn.Sequential(nn.Linear(512 * 8 * 8, 512), nn.ReLU())
        self.lstm = nn.LSTM(1024, 256, 3, batch_first=True)
        self.lstm_fc = nn.Sequential(nn.Linear(256, 136), nn.Tanh())
        self.decision = nn.Sequential(nn.Linear(256, 1))

    def forward(self, frames: Tensor, example_landmark: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 3, 128, 128), (B, 136) -> score (B,) in (0, 1), landmarks (B, T, 136)."""
        seen = self.each_frame(lambda x: self.img_fc(self.image_encoder_dis(x).flatten(1)), frames)
        example = self.encoder(example_landmark)[:, None].expand(-1, frames.shape[1], -1)
        hidden, _ = self.lstm(torch.cat([example, seen], -1))
        landmarks = example_landmark[:, None] + self.lstm_fc(hidden)
        return torch.sigmoid(self.decision(hidden).mean((1, 2))), landmarks


class ATNet(nn.Module):
    """Speech and an example landmark to PCA components."""

    def __init__(self) -> None:
        super().__init__()
        self.lmark_encoder = nn.Sequential(
            nn.Linear(6, 256), nn.ReLU(), nn.Linear(256, 512), nn.ReLU()
        )
        self.audio_eocder = nn.Sequential(
            conv_block(1, 64),
            conv_block(64, 128),
            nn.MaxPool2d(3, (1, 2)),
            conv_block(128, 256),
            conv_block(256, 256),
            conv_block(256, 512),
            nn.MaxPool2d(3, (2, 2)),
        )
        self.audio_eocder_fc = nn.Sequential(
            nn.Linear(512 * 12 * 2, 2048), nn.ReLU(), nn.Linear(2048, 256), nn.ReLU()
        )
        self.lstm = nn.LSTM(256 * 3, 256, 3, batch_first=True)
        self.lstm_fc = nn.Sequential(nn.Linear(256, 6))

    def forward(self, example_landmark: Tensor, mfcc: Tensor) -> Tensor:
        """(B, 6), (B, T, 28, 12) -> (B, T, 6)."""
        audio = self.audio_eocder_fc(self.audio_eocder(mfcc.flatten(0, 1)[:, None]).flatten(1))
        audio = audio.unflatten(0, mfcc.shape[:2])
        example = self.lmark_encoder(example_landmark)[:, None].expand(-1, mfcc.shape[1], -1)
        return self.lstm_fc(self.lstm(torch.cat([example, audio], -1))[0])
