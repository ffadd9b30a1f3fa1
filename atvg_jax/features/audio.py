"""Sound to MFCC and the 28 x 12 window that each 25 fps frame sees.

The features are those of the published networks: 100 Hz, 25 ms rectangular windows, 26 HTK-mel
filters on whole FFT bins, 13 liftered coefficients of which the first is the log frame energy (the
defaults of the ``python_speech_features`` package that the authors used). librosa's own MFCC
differs in each of these, so of librosa only its resampler serves, soxr, and it is called directly:
``librosa.resample`` gives the same samples after 2.5 s of imports and compilation, soxr after 0.1
s.
"""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]

SAMPLE_RATE = 16000  # Hz
FRAME_RATE = 25  # video frames a second
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
STEP = 160  # samples from one MFCC row to the next: 10 ms
WIDTH = 400  # samples that one MFCC row covers: 25 ms
ROWS_PER_FRAME = SAMPLES_PER_FRAME // STEP
WINDOW_ROWS = 28  # rows that one video frame sees: 280 ms centred on it
MFCC_COUNT = 13
WINDOW_COEFFICIENTS = MFCC_COUNT - 1  # the networks do not see the energy
PADDING = 1920  # samples of silence before and after the sound: 120 ms = 12 rows = (28 - 4) / 2

_FFT = 512
_FILTERS = 26
_LIFTER = 22
_PRE_EMPHASIS = 0.97
_EPS = np.finfo(np.float64).eps  # stands in for zero energy before a logarithm


def frame_count(samples: int) -> int:
    """Number of 25 fps frames that ``samples`` of 16 kHz sound last; the last may be in part."""
    if samples < 0:
        raise ValueError(f"a sound cannot have {samples} samples")
    return max(1, -(-samples // SAMPLES_PER_FRAME))


def mono(waveform: npt.ArrayLike) -> Array:
    """Mixes a waveform down to one channel and checks it.

    Args:
        waveform: (N,), (N, channels) or (channels, N); the shorter axis is the channels.

    Returns:
        (N,) float64 in the units of the input, or the input's own integers if it has one channel.

    Raises:
        ValueError: if it is not numeric, has three axes or more than 32 channels, or is not finite.
    """
    samples = np.asarray(waveform)
    if samples.dtype.kind not in "iuf":
        raise ValueError(f"a waveform holds integers or floats, not {samples.dtype}")
    if samples.dtype == np.uint8:  # 8-bit PCM is the one kind that is centred on 128
        samples = (samples.astype(np.int16) - 128) * 256
    if samples.ndim == 2:
        channel_axis = int(np.argmin(samples.shape))
        if samples.shape[channel_axis] > 32 or 0 in samples.shape:
            raise ValueError(f"a waveform is (N,) or (N, channels), not {samples.shape}")
        if samples.shape[channel_axis] == 1:
            samples = samples.reshape(-1)
        elif samples.dtype.kind == "f":
            samples = samples.mean(axis=channel_axis, dtype=np.float64)
        else:
            samples = np.rint(samples.mean(axis=channel_axis)).astype(samples.dtype)
    if samples.ndim != 1:
        raise ValueError(f"a waveform is (N,) or (N, channels), not {samples.shape}")
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        raise ValueError("the waveform holds values that are not finite")
    return samples


def resample(waveform: npt.ArrayLike, sample_rate: int) -> FloatArray:
    """One channel of a sound at 16 kHz.

    Args:
        waveform: (N,) or (N, channels), float in [-1, 1] or integer PCM.
        sample_rate: of the waveform, in Hz.

    Returns:
        (ceil(N * 16000 / sample_rate),) float32 in [-1, 1] (a little over where the filter rings).
    """
    _check_rate(sample_rate)
    samples = mono(waveform)
    if samples.dtype.kind != "f":
        samples = samples / full_scale(samples.dtype)
    samples = samples.astype(np.float32)
    if sample_rate == SAMPLE_RATE or not samples.size:
        return samples
    import soxr  # 16 kHz sound, the usual case, does not pay for the import

    return soxr.resample(samples, sample_rate, SAMPLE_RATE, quality="HQ")


def full_scale(dtype: npt.DTypeLike) -> float:
    """The integer that stands for amplitude 1 in PCM of ``dtype``: 32768 for int16."""
    return float(np.iinfo(np.dtype(dtype)).max) + 1.0


def mfcc(waveform: npt.ArrayLike, sample_rate: int = SAMPLE_RATE) -> FloatArray:
    """Mel-frequency cepstral coefficients, one row every 10 ms.

    Args:
        waveform: (N,) or (N, channels). Float in [-1, 1], or integer PCM, whose full scale is 1.
            (Loudness reaches coefficient 0 alone.)
        sample_rate: in Hz; other rates than 16000 are resampled.

    Returns:
        (1 + ceil((N - 400) / 160), 13) float32 for N samples at 16 kHz, the sound followed by zeros
        where the last row runs over its end; one row if N <= 400. Coefficient 0 is the log energy.

    Reference: ``python_speech_features.mfcc`` with its default settings.
    """
    return _mfcc(_samples(waveform, sample_rate))


def padded_mfcc(
    waveform: npt.ArrayLike, sample_rate: int = SAMPLE_RATE, frames: int | None = None
) -> FloatArray:
    """MFCC of the sound between 120 ms of silence, so that frame t is centred on rows 4t .. 4t+28.

    Args:
        waveform: as for ``mfcc``.
        sample_rate: in Hz.
        frames: number T of video frames to serve. The sound is cut or followed by more silence so
            that there are exactly 4 T + 24 rows. None: only 120 ms after the sound, whatever rows
            that gives, as published.

    Returns:
        (rows, 13) float32.
    """
    samples = _samples(waveform, sample_rate)
    if frames is None:
        return _mfcc(np.pad(samples, PADDING))
    if frames < 1:
        raise ValueError(f"the number of frames must be at least 1, not {frames}")
    rows = ROWS_PER_FRAME * frames + WINDOW_ROWS - ROWS_PER_FRAME
    room = (rows - 1) * STEP + WIDTH
    # What lies beyond the last frame and its 120 ms would reach no window; a sound that goes
    # on there is kept, so that a cut-out clip has the same rows as the whole recording.
    samples = samples[: room - PADDING]
    return _mfcc(np.pad(samples, (PADDING, room - PADDING - len(samples))))


def windows_from_mfcc(rows: npt.ArrayLike) -> FloatArray:
    """The window of each video frame.

    Args:
        rows: (R, 13) from ``padded_mfcc``.

    Returns:
        (R // 4 - 6, 28, 12) float32 read-only view: rows 4t .. 4t+28 of coefficients 1..12.
    """
    coefficients = np.asarray(rows, dtype=np.float32)
    if coefficients.ndim != 2 or coefficients.shape[1] != MFCC_COUNT:
        raise ValueError(f"MFCC must be (rows, {MFCC_COUNT}), not {coefficients.shape}")
    count = len(coefficients) // ROWS_PER_FRAME - (WINDOW_ROWS // ROWS_PER_FRAME - 1)
    if count < 1:
        raise ValueError(f"one window takes {WINDOW_ROWS} MFCC rows, got {len(coefficients)}")
    view = np.lib.stride_tricks.sliding_window_view(coefficients[:, 1:], WINDOW_ROWS, axis=0)
    return view[: ROWS_PER_FRAME * count : ROWS_PER_FRAME].transpose(0, 2, 1)


def windows(waveform: npt.ArrayLike, sample_rate: int = SAMPLE_RATE) -> FloatArray:
    """(T, 28, 12) windows of a sound as published: ``windows_from_mfcc(padded_mfcc(...))``.

    Note that a sound of exactly T frames gives T - 1 windows this way (its rows end 5 ms too soon);
    pass ``frames=T`` to ``padded_mfcc`` where every frame must have one.
    """
    return windows_from_mfcc(padded_mfcc(waveform, sample_rate))


def _check_rate(sample_rate: int) -> None:
    if not 1000 <= sample_rate <= 768000:
        raise ValueError(f"the sample rate must be within 1000 .. 768000 Hz, not {sample_rate}")


def _samples(waveform: npt.ArrayLike, sample_rate: int) -> npt.NDArray[np.float64]:
    """(N,) samples at 16 kHz in [-1, 1]."""
    _check_rate(sample_rate)
    samples = mono(waveform)
    if sample_rate != SAMPLE_RATE:
        samples = resample(samples, sample_rate)
    if samples.dtype.kind != "f":
        return samples / full_scale(samples.dtype)
    return samples.astype(np.float64)


def _mfcc(samples: npt.NDArray[np.float64]) -> FloatArray:
    """(rows, 13) of (N,) samples at 16 kHz in [-1, 1]."""
    rows = 1 + max(0, -(-(len(samples) - WIDTH) // STEP))
    emphasised = samples.copy()
    emphasised[1:] -= _PRE_EMPHASIS * samples[:-1]
    emphasised = np.pad(emphasised, (0, (rows - 1) * STEP + WIDTH - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(emphasised, WIDTH)[::STEP]

    power = np.abs(np.fft.rfft(frames, _FFT)) ** 2 / _FFT  # (rows, 257)
    energy = power.sum(axis=1)
    mel = power @ _mel_filters().T  # (rows, 26)
    log_mel = np.log(np.where(mel == 0, _EPS, mel))
    cepstra = log_mel @ _cosines().T  # (rows, 13)
    cepstra[:, 0] = np.log(np.where(energy == 0, _EPS, energy))
    return cepstra.astype(np.float32)


@cache
def _mel_filters() -> npt.NDArray[np.float64]:
    """(26, 257) triangles on whole FFT bins, evenly spaced in HTK mel over 0 .. 8000 Hz."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, _FILTERS + 2) / 2595) - 1)
    corners = np.floor((_FFT + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(_FFT // 2 + 1)
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (bins - left) / (middle - left)
    falling = (right - bins) / (right - middle)
    return np.maximum(0.0, np.minimum(rising, falling))


@cache
def _cosines() -> npt.NDArray[np.float64]:
    """(13, 26) orthonormal DCT-II of the log mel energies, each row times its sinusoidal lifter."""
    n = np.arange(MFCC_COUNT)[:, None]
    k = np.arange(_FILTERS)[None]
    dct = np.sqrt(2 / _FILTERS) * np.cos(np.pi * n * (2 * k + 1) / (2 * _FILTERS))
    dct[0] /= np.sqrt(2)
    return dct * (1 + _LIFTER / 2 * np.sin(np.pi * n / _LIFTER))
