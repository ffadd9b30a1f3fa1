"""Video and sound files through PyAV: constant frame rate in, H.264 and AAC out, sound in step."""

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from atvg_jax.errors import InputError
from atvg_jax.features import audio, decoding, sound
from atvg_jax.features.images import check_frame
from atvg_jax.whole_files import written_whole

Frame = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_BT709 = 1  # FFmpeg's number for it as colour space, primaries and transfer


class VideoInfo(NamedTuple):
    """What a file says of itself, as it will be shown (after rotation, square pixels)."""

    path: str
    width: int
    height: int
    frame_rate: float  # of the source, Hz; 0 if unknown
    duration: float  # seconds; 0 if unknown
    frames: int  # pictures at the source's rate, perhaps estimated; 0 if unknown
    has_video: bool
    has_audio: bool


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Looks at a file's headers and its first picture.

    Raises:
        InputError: ``unreadable`` if it is missing, empty or no video or sound file.
    """
    with decoding.open_media(path) as container:
        stream = decoding.video_stream(container)
        duration = (container.duration or 0) / av.time_base
        has_audio = decoding.audio_stream(container) is not None
        if stream is None:
            return VideoInfo(str(path), 0, 0, 0.0, duration, 0, False, has_audio)
        rate = decoding.source_rate(stream)
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        frames = stream.frames or round(duration * rate)
        first = next(decoding.pictures(path, container, stream))
        height, width, _ = decoding.to_rgb(first, stream).shape
        return VideoInfo(str(path), width, height, rate, duration, frames, True, has_audio)


def iter_frames(
    path: str | os.PathLike[str],
    frame_rate: float = audio.FRAME_RATE,
    start: int = 0,
    threads: int = 0,
) -> Iterator[Frame]:
    """Pictures of a video at a constant rate, whatever rate or time stamps the file has.

    Frame k is the picture whose time stamp lies nearest to k / frame_rate after the first picture's
    (the one still on show where none lies within half a frame). Rotation and mirroring flags and
    non-square pixels are applied; interlaced pictures are deinterlaced.

    Args:
        path: of the video.
        frame_rate: of the output, Hz.
        start: frame to begin with. What lies before is skipped and not decoded, where the file
            allows it.
        threads: that decode; 0: as many as there are cores.

    Yields:
        (H, W, 3) uint8 RGB. Repeated pictures are the same array; do not write into it.

    Raises:
        InputError: ``unreadable``, at once or midway, if the file cannot be decoded to its end;
            ``no_video`` if it holds sound alone.
    """
    if not frame_rate > 0:
        raise ValueError(f"the frame rate must be positive, not {frame_rate}")
    with decoding.open_media(path) as container:
        stream = decoding.video_stream(container)
        if stream is None:
            raise InputError(f"{path}: has no video; give a video file", reason="no_video")
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        slot = start  # of the next picture to give
        shown: Frame | None = None
        position = end = 0.0  # of `shown`, in output frames
        for picture in decoding.pictures(path, container, stream, start / frame_rate):
            begin = picture.time * frame_rate
            if shown is not None:
                # The new picture takes over half-way between the two, after a gap half a slot
                # early.
                change = max((position + begin) / 2, begin - 0.5)
                while slot <= change - 1e-6:
                    yield shown
                    slot += 1
            position, end = begin, begin + picture.duration * frame_rate
            shown = decoding.to_rgb(picture, stream)
        while shown is not None and (slot == 0 or slot <= end - 0.5 + 1e-6):
            yield shown
            slot += 1


def read_waveform(
    path: str | os.PathLike[str], sample_rate: int = audio.SAMPLE_RATE
) -> npt.NDArray[np.float32]:
    """The sound of a sound file or a video, mixed to one channel.

    In a video, sample 0 is the time of the first picture: sound that starts later is preceded by
    silence, sound that starts earlier is cut. Encoder delay and padding that the file declares are
    left out.

    Returns:
        (N,) float32 in [-1, 1] at ``sample_rate``.

    Raises:
        InputError: ``no_audio`` if there is no sound in it, ``unreadable`` if it cannot be decoded.
    """
    if sample_rate <= 0:
        raise ValueError(f"the sample rate must be positive, not {sample_rate}")
    waveform, rate = sound.read(path)
    if not waveform.size:
        raise InputError(f"{path}: has no sound; give a file with sound", reason="no_audio")
    if rate == sample_rate:
        return waveform
    import soxr  # sound at the wanted rate does not pay for the import

    return soxr.resample(waveform, rate, sample_rate, quality="HQ")


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[npt.ArrayLike],
    waveform: npt.ArrayLike | None = None,
    sample_rate: int = audio.SAMPLE_RATE,
    frame_rate: float = audio.FRAME_RATE,
    comment: str = "synthesized with atvg_jax",
) -> None:
    """Writes an mp4 (H.264 yuv420p, AAC) in one pass over ``frames``.

    Sound and picture start together and last equally long: the sound is cut, or followed by
    silence, to the length of the frames. An odd width or height is padded by repeating its last
    column or row. Nothing appears under ``path`` until the file is whole.

    Args:
        path: of the mp4; folders are made.
        frames: of (H, W, 3) uint8, all of one size; at least one.
        waveform: (N,) or (N, channels) float in [-1, 1] or integer PCM. None: no sound.
        sample_rate: of the waveform, Hz.
        frame_rate: Hz.
        comment: goes into the file's metadata.

    Raises:
        ValueError: for no frames, or frames of another shape, size or type.
    """
    if not frame_rate > 0:
        raise ValueError(f"the frame rate must be positive, not {frame_rate}")
    encodable = None if waveform is None else _encodable(waveform, sample_rate)
    with written_whole(path) as temporary:
        _encode(str(temporary), frames, encodable, frame_rate, comment)


def _encodable(waveform: npt.ArrayLike, sample_rate: int) -> tuple[npt.NDArray[np.float32], int]:
    """(N,) float32 in [-1, 1] at a rate that AAC knows."""
    samples = audio.mono(waveform)
    if samples.dtype.kind != "f":
        samples = samples / audio.full_scale(samples.dtype)
    samples = samples.astype(np.float32)
    if sample_rate not in _AAC_RATES:
        import soxr

        samples, sample_rate = soxr.resample(samples, sample_rate, 48000), 48000
    return np.clip(samples, -1.0, 1.0), sample_rate


def _encode(
    path: str,
    frames: Iterable[npt.ArrayLike],
    waveform: tuple[npt.NDArray[np.float32], int] | None,
    frame_rate: float,
    comment: str,
) -> None:
    rate = Fraction(frame_rate).limit_denominator(1001)
    size: tuple[int, ...] = ()
    count = 0
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = comment
        video = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "fast"})
        video.pix_fmt = "yuv420p"
        # Said outright, because players guess the colour space from the size of the picture.
        video.codec_context.colorspace = _BT709
        video.codec_context.color_primaries = _BT709
        video.codec_context.color_trc = _BT709
        track = _SoundTrack(container, *waveform) if waveform is not None else None
        for picture in frames:
            array = check_frame(picture)
            if not size:
                size = array.shape
                video.width, video.height = size[1] + size[1] % 2, size[0] + size[0] % 2
            if array.shape != size:
                raise ValueError(f"frame {count} is {array.shape}, those before it {size}")
            array = np.pad(array, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            frame.pts = count
            frame.time_base = 1 / rate
            container.mux(video.encode(frame))
            count += 1
            if track is not None:
                track.write_until(count / rate)
        if not count:
            raise ValueError("a video needs at least one frame")
        container.mux(video.encode(None))
        if track is not None:
            track.finish()


class _SoundTrack:
    """Encodes a waveform piece by piece, so that sound and picture lie side by side in the file."""

    def __init__(self, container: Any, samples: npt.NDArray[np.float32], rate: int):
        self.container = container
        self.samples = samples
        self.rate = rate
        self.stream = container.add_stream("aac", rate=rate, layout="mono")
        self.stream.bit_rate = 128_000
        self.done = 0

    def write_until(self, seconds: Fraction) -> None:
        """Encodes up to ``seconds`` from the start, silence where the waveform has ended."""
        end = round(seconds * self.rate)
        piece = self.samples[self.done : end]
        piece = np.pad(piece, (0, end - self.done - len(piece)))
        if not len(piece):
            return
        frame = av.AudioFrame.from_ndarray(piece[None], format="fltp", layout="mono")
        frame.sample_rate = self.rate
        frame.pts = self.done
        frame.time_base = Fraction(1, self.rate)
        self.done = end
        self.container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        self.container.mux(self.stream.encode(None))
