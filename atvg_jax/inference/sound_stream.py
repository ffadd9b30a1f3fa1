"""Sound that arrives piece by piece, turned into the windows that AT-net reads.

The windows are the same whatever the pieces: resampling keeps its filter state, and MFCC rows are
computed by ``features.audio.mfcc`` on blocks that start one row early, so that pre-emphasis finds
the sample before the first row that is kept.
"""

import math
from collections.abc import Iterator

import numpy as np

from atvg_jax.errors import InputError
from atvg_jax.features import audio

CONTEXT_ROWS = audio.WINDOW_ROWS - audio.ROWS_PER_FRAME  # 24: shared by neighbouring windows
# Longer pieces are cut up, so that memory does not grow with them (a second of sound).
LONGEST_BLOCK_SECONDS = 1.0
# A float waveform that goes this far beyond [-1, 1] is 16-bit numbers that someone cast.
LARGEST_AMPLITUDE = 16.0
MOST_CHANNELS = 32


def as_mono(waveform: np.ndarray) -> np.ndarray:
    """Checks a waveform and makes it mono float32.

    Args:
        waveform: ``(N,)`` or ``(N, channels)``; floats in [-1, 1] or integer PCM.

    Returns:
        ``(N,)`` float32 in [-1, 1].

    Raises:
        InputError: another shape, another type, values that are not finite or far beyond 1.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim not in (1, 2) or (waveform.ndim == 2 and waveform.shape[1] > MOST_CHANNELS):
        raise InputError(
            f"a waveform is (N,) or (N, channels), not of shape {waveform.shape}", reason="sound"
        )
    if np.issubdtype(waveform.dtype, np.unsignedinteger):
        half = 2.0 ** (8 * waveform.dtype.itemsize - 1)
        mono = waveform.astype(np.float64) / half - 1.0
    elif np.issubdtype(waveform.dtype, np.integer):
        mono = waveform.astype(np.float64) / 2.0 ** (8 * waveform.dtype.itemsize - 1)
    elif np.issubdtype(waveform.dtype, np.floating):
        mono = waveform
    else:
        raise InputError(f"a waveform of type {waveform.dtype} is not sound", reason="sound")
    if mono.ndim == 2:
        mono = mono.mean(axis=1)
    mono = np.asarray(mono, np.float32)
    largest = float(np.abs(mono).max(initial=0.0))
    if not math.isfinite(largest):
        raise InputError("the waveform holds values that are not finite", reason="sound")
    if largest > LARGEST_AMPLITUDE:
        raise InputError(
            f"the waveform reaches {largest:g}; float sound lies within [-1, 1]", reason="sound"
        )
    return mono


def as_sample_rate(sample_rate: float) -> float:
    """Checks a sample rate in Hz; raises ``InputError`` where nothing could be made of it."""
    rate = float(sample_rate)
    if not 1000 <= rate <= 1_000_000:
        raise InputError(f"a sample rate of {sample_rate} Hz is not one of sound", reason="sound")
    return rate


class WindowStream:
    """Windows of MFCC from sound in pieces of any length; memory does not grow.

    A frame's window ends 175 ms after the frame begins (120 ms of context after its own 40 ms and
    what the last MFCC row reaches beyond), and it is handed out as soon as those samples are there.
    """

    def __init__(self, sample_rate: float):
        self._rate = as_sample_rate(sample_rate)
        self._resampler = None
        if self._rate != audio.SAMPLE_RATE:
            import soxr

            self._resampler = soxr.ResampleStream(
                self._rate, audio.SAMPLE_RATE, 1, dtype="float32", quality="HQ"
            )
        self._received = 0  # samples at the rate of the source
        self._resampled = 0  # samples at 16 kHz
        self._frames = 0
        # From one row before the next frame's first row on. Before the sound lies silence.
        self._pieces = [np.zeros(audio.STEP + audio.PADDING, np.float32)]
        self._length = self._pieces[0].size

    def push(self, waveform: np.ndarray) -> Iterator[np.ndarray]:
        """Takes the next piece of sound.

        Args:
            waveform: ``(N,)`` or ``(N, channels)``, N from 0 to anything; see ``as_mono``.

        Yields:
            ``(n, 28, 12)`` float32 windows that are complete now, in order, a second of sound or
            so at a time.
        """
        waveform = np.asarray(waveform)
        block = max(1, int(self._rate * LONGEST_BLOCK_SECONDS))
        for start in range(0, waveform.shape[0] if waveform.ndim else 1, block):
            piece = as_mono(waveform[start : start + block] if waveform.ndim else waveform)
            self._received += piece.size
            if self._resampler is not None:
                piece = self._resampler.resample_chunk(piece)
            self._append(piece)
            if ready := self._complete_frames():
                yield self._take(ready)

    def finish(self) -> np.ndarray:
        """Ends the sound: silence follows it, and the frames that were waiting are complete.

        Returns:
            ``(n, 28, 12)`` windows, so that there are ``ceil(N / 640)`` in all for N samples at
            16 kHz.
        """
        if self._resampler is not None:
            self._append(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        samples = math.ceil(self._received * audio.SAMPLE_RATE / self._rate)
        # The resampler may be a sample off what the duration says; the duration rules.
        surplus = self._resampled - samples
        buffered = np.concatenate(self._pieces)
        if surplus > 0:
            buffered = buffered[:-surplus]
        frames = math.ceil(samples / audio.SAMPLES_PER_FRAME) - self._frames
        needed = _samples_for(frames)
        self._pieces = [np.pad(buffered, (0, max(0, needed - buffered.size)))[:needed]]
        self._length = needed
        return self._take(frames)

    def _append(self, piece: np.ndarray) -> None:
        if piece.size:
            self._pieces.append(piece)
            self._length += piece.size
            self._resampled += piece.size

    def _complete_frames(self) -> int:
        rows = (self._length - audio.WIDTH) // audio.STEP
        return max(0, (rows - CONTEXT_ROWS) // audio.ROWS_PER_FRAME)

    def _take(self, frames: int) -> np.ndarray:
        if frames <= 0:
            return np.zeros((0, audio.WINDOW_ROWS, audio.WINDOW_COEFFICIENTS), np.float32)
        buffered = np.concatenate(self._pieces)
        rows = audio.mfcc(buffered[: _samples_for(frames)], audio.SAMPLE_RATE)[1:]
        rest = buffered[frames * audio.SAMPLES_PER_FRAME :].copy()
        self._pieces, self._length = [rest], rest.size
        self._frames += frames
        return audio.windows_from_mfcc(rows)


def _samples_for(frames: int) -> int:
    # One row ahead for pre-emphasis, 4 rows a frame, 24 of context, and the last row's 25 ms.
    rows_after_first = audio.ROWS_PER_FRAME * frames + CONTEXT_ROWS
    return audio.STEP * rows_after_first + audio.WIDTH
