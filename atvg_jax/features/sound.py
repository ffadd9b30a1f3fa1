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

_HEAD = 17  # packets, in which a picture that is shown first comes at the latest
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

    The file is opened once for both, and no picture is decoded where the first one's time stamp is
    told by the file: either takes as long as decoding a second of sound.

    Returns:
        The time stamp of the first picture in seconds, None if there is none; and the packets of
        sound that were read on the way to it.
    """
    seen = video_stream(container)
    if seen is None:
        return None, []
    passed: list[Any] = []
    head = list(itertools.islice(_pictures_packets(path, container, seen, stream, passed), _HEAD))
    stamps = [packet.pts for packet in head if packet.size]
    plain = stamps and head[0].is_keyframe and not head[0].is_discard and None not in stamps
    if plain and min(stamps) == stamps[0]:  # none is shown before the first of the file
        return float(stamps[0] * seen.time_base), passed
    seen.codec_context.thread_count = 1  # more are started in more time than they save
    more = _pictures_packets(path, container, seen, stream, passed)
    frame = next(decoded(path, itertools.chain(head, more)), None)
    return None if frame is None else frame.time or 0.0, passed


def _pictures_packets(
    path: PathLike, container: Any, seen: Any, stream: Any, passed: list[Any]
) -> Iterator[Any]:
    """The coming packets of pictures; those of sound before them go to ``passed``."""
    if passed and not passed[-1].size:  # the end has been read
        return
    packets = container.demux(seen, stream)
    while True:
        with decoding(path):
            packet = next(packets, None)
        if packet is None:
            return
        if packet.stream_index == stream.index:
            passed.append(packet)
        elif packet.is_corrupt:
            raise unreadable(path, "a part of it is missing")
        else:
            yield packet


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
        with decoding(path):
            if frame.format.name == "fltp":  # as most decoders give it
                parts = [frame.to_ndarray()]
            else:
                # The channels are kept: FFmpeg's own mixing makes stereo louder than full scale.
                converter = converter or av.AudioResampler(
                    format="fltp", layout=frame.layout, rate=frame.sample_rate
                )
                parts = [part.to_ndarray() for part in converter.resample(frame)]
        mixed = [part[0] if len(part) == 1 else part.mean(axis=0) for part in parts]
        samples = mixed[0] if len(mixed) == 1 else np.concatenate([*mixed, np.zeros(0)])
        yield frame, samples.astype(np.float32)
