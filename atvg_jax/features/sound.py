"""What lies under ``video``: the sound of media files, in step with their pictures."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from atvg_jax.features.decoding import (
    LONGEST_GAP,
    PathLike,
    audio_stream,
    declared_end,
    declared_slack,
    decoded,
    decoding,
    formats,
    open_media,
    unreadable,
    video_stream,
)

FloatArray = npt.NDArray[np.float32]

_SOUND_JITTER = 0.04  # seconds by which time stamps of sound may differ from the count of samples


def read(path: PathLike) -> tuple[FloatArray, int]:
    """The first sound stream of a file, mixed to one channel, from the first picture's time on.

    Returns:
        (N,) float32 and its sample rate in Hz; no samples if there is no sound.

    Raises:
        InputError: ``unreadable``.
    """
    with open_media(path) as container:
        stream = audio_stream(container)
        if stream is None:
            return np.zeros(0, np.float32), 0
        return _placed(path, container, stream)


def _first_picture(path: PathLike, container: Any, stream: Any) -> tuple[float | None, list[Any]]:
    """When the pictures that go with a sound stream begin.

    The file is opened once for both, because opening it takes as long as decoding some frames.

    Returns:
        The time stamp of the first picture in seconds, None if there is none; and the packets of
        sound that were read on the way to it.
    """
    seen = video_stream(container)
    if seen is None:
        return None, []
    seen.codec_context.thread_count = 1  # more are started in more time than they save
    passed: list[Any] = []
    packets = container.demux(seen, stream)
    while True:
        with decoding(path):
            packet = next(packets, None)
            if packet is None:
                return None, passed
            if packet.stream_index == stream.index:
                passed.append(packet)
                continue
            frames = packet.decode()
        if packet.is_corrupt:
            raise unreadable(path, "a part of it is missing")
        if frames:
            return frames[0].time or 0.0, passed


def _placed(path: PathLike, container: Any, stream: Any) -> tuple[FloatArray, int]:
    """(N,) float32 at the stream's own rate, sample 0 at the first picture (or its own start)."""
    origin, passed = _first_picture(path, container, stream)
    ended = bool(passed) and passed[-1].size == 0  # what tells the decoder that no more comes
    packets = passed if ended else itertools.chain(passed, container.demux(stream))
    rate, length = 0, 0
    pieces: list[FloatArray] = []
    for frame, samples in _sound_frames(path, packets):
        rate = rate or frame.sample_rate
        if origin is None:
            origin = frame.time or 0.0
        if frame.time is not None:
            # Time stamps are rounded, to 1 ms in some files: within a stream the samples count.
            gap = round((frame.time - origin) * rate) - length
            if gap > LONGEST_GAP * rate:
                raise unreadable(path, f"no sound for {gap / rate:.0f} s")
            if abs(gap) > (_SOUND_JITTER * rate if length else 0):
                if gap > 0:
                    pieces.append(np.zeros(gap, np.float32))
                    length += gap
                else:
                    samples = samples[-gap:]
        pieces.append(samples)
        length += len(samples)
    waveform = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    declared, seconds = declared_end(container, stream, origin or 0.0), length / max(rate, 1)
    if declared - seconds > declared_slack(container):
        raise unreadable(path, f"its sound ends after {seconds:.1f} of {declared:.1f} s")
    if declared and "mp4" in formats(container):  # the encoder filled its last block with silence
        waveform = waveform[: max(0, round(declared * rate))]
    return waveform, rate


def _sound_frames(path: PathLike, packets: Iterable[Any]) -> Iterator[tuple[Any, FloatArray]]:
    """Decoded frames of sound and their samples, (n,) float32 in [-1, 1], at the first's rate."""
    converter = None
    for frame in decoded(path, packets):
        if converter is None:
            # The channels are kept: FFmpeg's own mixing makes stereo louder than full scale.
            converter = av.AudioResampler(
                format="fltp", layout=frame.layout, rate=frame.sample_rate
            )
        with decoding(path):
            parts = [part.to_ndarray().mean(axis=0) for part in converter.resample(frame)]
        yield frame, np.concatenate([*parts, np.zeros(0)]).astype(np.float32)
