"""``python -m benchmarks.synthesis``: VG-net from a portrait to uint8 frames, here and elsewhere.

The same weights in this package, in PyTorch (eager, channels last, compiled, bfloat16 autocast) and
in onnxruntime, on the CPU, in turns in one process. Each way makes all frames in one call and is
compared with PyTorch's float32 frames.
"""

import argparse
import functools
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from atvg_jax import command_line, compilation_cache, models
from atvg_jax.benchmarking import timing
from atvg_jax.inference.fast_frames import FastFrames
from atvg_jax.inference.frame_maker import FrameMaker, PlainFrames
from atvg_jax.inference.half_frames import HalfFrames
from atvg_jax.inference.published import to_state_dict
from benchmarks import torch_networks
from tests.reference_weights import random_variables

Way = Callable[[], np.ndarray]
EAGER, OURS, HALF = "PyTorch eager", "atvg_jax", "atvg_jax bfloat16"
COMPACT, HALF_COMPACT = "atvg_jax compact", "atvg_jax compact bfloat16"


def parser() -> command_line.Parser:
    """The flags."""
    flags = command_line.Parser(
        "python -m benchmarks.synthesis",
        "Times VG-net from a portrait to uint8 frames in this package, PyTorch and onnxruntime.",
        "python -m benchmarks.synthesis --rounds=5",
    )
    flags.add_argument("--frames", type=int, default=16, help="of one portrait, in one call")
    flags.add_argument("--rounds", type=int, default=5, help="measurements of each way")
    flags.add_argument("--threads", type=int, default=2, help="of PyTorch and onnxruntime")
    flags.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure torch.compile too, which takes a C++ compiler and minutes",
    )
    return flags


class Inputs:
    """A portrait, landmarks and the example landmark, in both layouts."""

    def __init__(self, frames: int):
        rng = np.random.default_rng(0)
        self.image = rng.uniform(-1, 1, (128, 128, 3)).astype(np.float32)
        self.landmarks = rng.standard_normal((frames, 136)).astype(np.float32)
        self.example = rng.standard_normal(136).astype(np.float32)

    def torch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(1, 3, 128, 128), (1, T, 136), (1, 136)."""
        image = torch.tensor(np.moveaxis(self.image, -1, 0)[None].copy())
        return image, torch.tensor(self.landmarks[None]), torch.tensor(self.example[None])


def ours(maker: FrameMaker, inputs: Inputs) -> Way:
    """This package's path: the portrait's features, then all frames."""

    def way() -> np.ndarray:
        features = maker.portrait(inputs.image, inputs.example)
        return maker.make(features, inputs.landmarks, maker.start())[0].frames

    return way


class ToBytes(torch.nn.Module):
    """PyTorch's VG-net with uint8 frames (T, 128, 128, 3) for output."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(
        self, image: torch.Tensor, landmarks: torch.Tensor, example: torch.Tensor
    ) -> torch.Tensor:
        """(1, 3, 128, 128), (1, T, 136), (1, 136) -> (T, 128, 128, 3) uint8."""
        frames = self.network(image, landmarks, example).frames[0].float()
        pixels = ((frames.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255)
        return pixels.to(torch.uint8)


def torch_network(variables: dict) -> ToBytes:
    """PyTorch's VG-net with this package's weights."""
    network = torch_networks.VGNet()
    state = {key: torch.tensor(x) for key, x in to_state_dict("VG_net", variables).items()}
    network.load_state_dict(state, strict=True)
    return ToBytes(network).eval()


def torch_ways(network: ToBytes, inputs: Inputs, compiled: bool) -> dict[str, Way]:
    """PyTorch's ways."""
    image, landmarks, example = inputs.torch()

    def way(model: Callable, dtype: torch.dtype | None = None) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is not None):
            return model(image, landmarks, example).contiguous().numpy()

    ways = {EAGER: functools.partial(way, network)}
    channels_last = torch_networks.VGNet()
    channels_last.load_state_dict(network.network.state_dict())
    channels_last = ToBytes(channels_last).eval().to(memory_format=torch.channels_last)
    ways["PyTorch channels last"] = functools.partial(way, channels_last)
    ways["PyTorch bfloat16 autocast"] = functools.partial(way, network, torch.bfloat16)
    if compiled:
        ways["torch.compile"] = functools.partial(way, torch.compile(network))
    return ways


def onnx_way(network: ToBytes, inputs: Inputs, threads: int) -> Way:
    """onnxruntime's way: the network as PyTorch exports it."""
    import onnxruntime

    names = ("image", "landmarks", "example")
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "vg_net.onnx"
        torch.onnx.export(
            network, inputs.torch(), str(path), dynamo=False, input_names=names, opset_version=17
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options)
    feed = {name: x.numpy() for name, x in zip(names, inputs.torch(), strict=True)}
    return lambda: session.run(None, feed)[0]


def psnr(frames: np.ndarray, expected: np.ndarray) -> float:
    """Of uint8 frames, in dB; infinite for equal ones."""
    error = np.square(frames.astype(np.float64) - expected).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def main() -> None:
    """Parses the flags, measures, prints the table."""
    started = time.monotonic()
    arguments = parser().parse_args()
    torch.set_num_threads(arguments.threads)
    compilation_cache.enable()
    inputs = Inputs(arguments.frames)
    variables = random_variables("vg_net", {})
    network = torch_network(variables)
    compact = {"width": models.COMPACT_WIDTH}
    model, small = models.create("vg_net"), models.create("vg_net", compact)
    small_variables = random_variables("vg_net", compact)
    ways: dict[str, Way] = {
        OURS: ours(FrameMaker(FastFrames(model), variables), inputs),
        "atvg_jax without lanes": ours(FrameMaker(FastFrames(model), variables, False), inputs),
        "atvg_jax, network as defined": ours(FrameMaker(PlainFrames(model), variables), inputs),
        HALF: ours(FrameMaker(HalfFrames(model), variables), inputs),
        COMPACT: ours(FrameMaker(FastFrames(small), small_variables), inputs),
        HALF_COMPACT: ours(FrameMaker(HalfFrames(small), small_variables), inputs),
        **torch_ways(network, inputs, arguments.compile),
        "onnxruntime": onnx_way(network, inputs, arguments.threads),
    }
    exact = ways[EAGER]()
    for name, way in ways.items():
        if name not in (COMPACT, HALF_COMPACT):
            print(f"{name:34} PSNR to PyTorch's float32 frames {psnr(way(), exact):6.1f} dB")
    small_psnr = psnr(ways[HALF_COMPACT](), ways[COMPACT]())  # they compile here
    print(f"{HALF_COMPACT:34} PSNR to its float32 frames {small_psnr:18.1f} dB")
    timings = timing.alternate(ways, arguments.rounds)
    print(timing.table(timings, arguments.frames, EAGER))
    for full, small_way in ((OURS, COMPACT), (HALF, HALF_COMPACT)):
        print(
            f"{full} to {EAGER}: {timing.ratio(timings, EAGER, full).median:.2f} times the frames; "
            f"{small_way} to {full}: {timing.ratio(timings, full, small_way).median:.2f} times"
        )
    print(
        f"measured {len(ways)} ways, {arguments.rounds} rounds of {arguments.frames} frames, in "
        f"{time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    command_line.run(main)
