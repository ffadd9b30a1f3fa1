"""Video and sound files in and out through PyAV: constant frame rate, sound in step with the picture."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

from atvg_jax.errors import InputError
from atvg_jax.features import audio

Frame = npt.NDArray[np.uint8]

# What may be opened. Playlists, streams and device inputs are left out: they open other files, or never end.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,mxf,gif,dv,nut,"
    "wav,w64,flac,mp3,aac,aiff,au,caf,ac3,eac3,amr,amrnb,amrwb,wv,tta,ape,h264,hevc,m4v,ivf,rm"
)
_LONGEST_GAP = 60.0  # seconds without a picture or sound inside a file before it counts as broken
_SOUND_JITTER = (
    0.04  # seconds that time stamps may differ from counted samples before we believe them
)
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


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
    with _open(path) as container:
        stream = _video_stream(container)
        duration = (container.duration or 0) / av.time_base
        has_audio = bool(container.streams.audio)
        if stream is None:
            return VideoInfo(str(path), 0, 0, 0.0, duration, 0, False, has_audio)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        frames = stream.frames or round(duration * rate)
        with _reading(path):
            first = next(iter(container.decode(stream)), None)
        if first is None:
            raise _unreadable(path, "it holds no pictures")
        height, width = _to_rgb(first).shape[:2]
        return VideoInfo(str(path), width, height, rate, duration, frames, True, has_audio)


def iter_frames(
    path: str | os.PathLike[str], frame_rate: float = audio.FRAME_RATE
) -> Iterator[Frame]:
    """Pictures of a video at a constant rate, whatever rate or time stamps the file has.

    Frame k is the picture whose time stamp lies nearest to k / frame_rate after the first picture's (the
    one still on show where none lies within half a frame). Rotation and mirroring flags and
    non-square pixels are applied; interlaced pictures are deinterlaced.

    Args:
        path: of the video.
        frame_rate: of the output, Hz.

    Yields:
        (H, W, 3) uint8 RGB. Repeated pictures are the same array; do not write into it.

    Raises:
        InputError: ``unreadable``, at once or midway, if the file cannot be decoded to its end;
            ``no_video`` if it holds sound alone.
    """
    if not frame_rate > 0:
        raise ValueError(f"the frame rate must be positive, not {frame_rate}")
    with _open(path) as container:
        stream = _video_stream(container)
        if stream is None:
            raise InputError(f"{path}: has no video; give a video file", reason="no_video")
        stream.thread_type = "AUTO"
        slot = 0  # of the next picture to give
        shown: Frame | None = None
        position = end = 0.0  # of `shown`, in units of output frames
        for time, duration, picture in _timed_pictures(path, container, stream):
            next_position = time * frame_rate
            if shown is not None:
                # A new picture takes over half-way between the two, or half a slot early after a gap.
                change = max((position + next_position) / 2, next_position - 0.5)
                while slot <= change - 1e-6 and slot < next_position:
                    yield shown
                    slot += 1
            shown, position = _to_rgb(picture), next_position
            end = (time + duration) * frame_rate
        if shown is None:
            raise _unreadable(path, "it holds no pictures")
        while slot == 0 or slot <= end - 0.5 + 1e-6:
            yield shown
            slot += 1


def read_waveform(
    path: str | os.PathLike[str], sample_rate: int = audio.SAMPLE_RATE
) -> npt.NDArray[np.float32]:
    """The sound of a sound file or a video, mixed to one channel.

    In a video, sample 0 is the time of the first picture: sound that starts later is preceded by silence,
    sound that starts earlier is cut. Encoder delay and padding that the file declares are left out.

    Returns:
        (N,) float32 in [-1, 1] at ``sample_rate``.

    Raises:
        InputError: ``no_audio`` if there is no sound in it, ``unreadable`` if it cannot be decoded.
    """
    with _open(path) as container:
        if not container.streams.audio:
            raise InputError(f"{path}: has no sound; give a file with sound", reason="no_audio")
        stream = container.streams.audio[0]
        origin = _first_picture_time(path, container)
        if origin is not None:
            container.seek(0, any_frame=False) if False else None
    with _open(path) as container:
        stream = container.streams.audio[0]
        waveform, rate = _decode_sound(path, container, stream, origin)
    if not waveform.size:
        raise InputError(f"{path}: has no sound; give a file with sound", reason="no_audio")
    if rate == sample_rate:
        return waveform
    if sample_rate == audio.SAMPLE_RATE:
        return audio.resample(waveform, rate)
    import soxr

    return soxr.resample(waveform, rate, sample_rate)


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[npt.ArrayLike],
    waveform: npt.ArrayLike | None = None,
    sample_rate: int = audio.SAMPLE_RATE,
    frame_rate: float = audio.FRAME_RATE,
    comment: str = "synthesized with atvg_jax",
) -> None:
    """Writes an mp4 (H.264 yuv420p, AAC) in one pass over ``frames``.

    Sound and picture start together and last equally long: the sound is cut, or followed by silence, to
    the length of the frames. An odd width or height is padded by repeating its last column or row.
    Nothing appears under ``path`` until the file is whole.

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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(
        prefix=f".{path.stem}.", suffix=".part.mp4", dir=path.parent
    )
    os.close(handle)
    try:
        sound = None if waveform is None else _encodable(waveform, sample_rate)
        _encode(temporary, frames, sound, frame_rate, comment)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


# --- reading ---


@contextlib.contextmanager
def _reading(path: Any) -> Iterator[None]:
    """Turns whatever PyAV raises into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except (av.error.FFmpegError, OSError, ValueError, EOFError, MemoryError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _unreadable(path, text) from error


def _unreadable(path: Any, why: str) -> InputError:
    why = " ".join(str(why).split()).rstrip(".")
    return InputError(
        f"{path}: cannot be read ({why}); give a whole video or sound file", reason="unreadable"
    )


@contextlib.contextmanager
def _open(path: Any) -> Iterator[Any]:
    file = Path(path)
    if not file.is_file():  # also keeps pipes, devices and addresses out
        raise InputError(f"{path}: no such file; check the path", reason="unreadable")
    if file.stat().st_size == 0:
        raise _unreadable(path, "it is empty")
    with _reading(path):
        container = av.open(
            str(file.resolve()),
            options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    try:
        yield container
    finally:
        container.close()


def _video_stream(container: Any) -> Any:
    """The first video stream that is not a cover picture, or None."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def _timed_pictures(path: Any, container: Any, stream: Any) -> Iterator[tuple[float, float, Any]]:
    """(seconds since the first picture, seconds on show, decoded picture), times increasing."""
    rate = float(stream.average_rate or stream.guessed_rate or audio.FRAME_RATE)
    usual = 1.0 / rate if 1.0 <= rate <= 1000.0 else 1.0 / audio.FRAME_RATE
    origin: float | None = None
    last = duration = 0.0
    deinterlacer = None
    pictures = container.decode(stream)
    while True:
        with _reading(path):
            picture = next(pictures, None)
        if picture is None:
            break
        time = picture.time
        if origin is None:
            origin = 0.0 if time is None else time
            seconds = 0.0
        elif time is None or time - origin <= last:  # no or repeated time stamp
            seconds = last + usual
        else:
            seconds = time - origin
        if seconds - last > _LONGEST_GAP:
            raise _unreadable(path, f"no picture for {seconds - last:.0f} s")
        duration = usual
        if picture.duration and picture.time_base:
            duration = min(float(picture.duration * picture.time_base), 1.0) or usual
        last = seconds
        if picture.interlaced_frame:
            deinterlacer = deinterlacer or _deinterlacer(picture, stream)
            with _reading(path):
                deinterlacer.push(picture)
                picture = deinterlacer.pull()
        yield seconds, duration, picture


def _deinterlacer(picture: Any, stream: Any) -> Any:
    graph = av.filter.Graph()
    source = graph.add_buffer(template=stream, time_base=stream.time_base)
    filtered = graph.add("yadif", "mode=send_frame:deint=all")
    sink = graph.add("buffersink")
    source.link_to(filtered)
    filtered.link_to(sink)
    graph.configure()
    return graph


def _to_rgb(picture: Any) -> Frame:
    return picture.to_ndarray(format="rgb24")


def _first_picture_time(path: Any, container: Any) -> float | None:
    """Time stamp of the first picture in seconds; None where there is no video."""
    stream = _video_stream(container)
    if stream is None:
        return None
    with _reading(path):
        picture = next(iter(container.decode(stream)), None)
    return picture.time if picture is not None else None


def _decode_sound(
    path: Any, container: Any, stream: Any, origin: float | None
) -> tuple[npt.NDArray[np.float32], int]:
    """(N,) float32 at the stream's own rate from ``origin`` seconds on (None: from its start)."""
    rate = 0
    pieces: list[npt.NDArray[np.float32]] = []
    length = 0
    resampler = None
    frames = container.decode(stream)
    while True:
        with _reading(path):
            frame = next(frames, None)
        if frame is None:
            break
        if resampler is None:
            rate = frame.sample_rate
            resampler = av.AudioResampler(format="fltp", layout=frame.layout, rate=rate)
        if origin is None:
            origin = frame.time or 0.0
        time = frame.time
        with _reading(path):
            samples = np.concatenate(
                [part.to_ndarray().mean(axis=0) for part in resampler.resample(frame)]
            ).astype(np.float32)
        if time is not None:
            gap = round((time - origin) * rate) - length
            if gap > _LONGEST_GAP * rate:
                raise _unreadable(path, f"no sound for {gap / rate:.0f} s")
            if abs(gap) > (_SOUND_JITTER * rate if pieces else 0):
                if gap > 0:
                    pieces.append(np.zeros(gap, np.float32))
                    length += gap
                else:
                    samples = samples[-gap:]
        pieces.append(samples)
        length += len(samples)
    if not pieces:
        return np.zeros(0, np.float32), rate
    waveform = np.concatenate(pieces)
    if stream.duration and stream.time_base and stream.start_time is not None:
        end = float((stream.start_time + stream.duration) * stream.time_base) - (origin or 0.0)
        waveform = waveform[: max(0, round(end * rate))]
    return waveform, rate


# --- writing ---


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
    sound: tuple[npt.NDArray[np.float32], int] | None,
    frame_rate: float,
    comment: str,
) -> None:
    rate = Fraction(frame_rate).limit_denominator(1001)
    size: tuple[int, ...] | None = None
    count = 0
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["comment"] = comment
        video = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "fast"})
        video.pix_fmt = "yuv420p"
        track = _SoundTrack(container, *sound) if sound is not None else None
        for picture in frames:
            array = np.asarray(picture)
            if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
                raise ValueError(f"a frame is (H, W, 3) uint8, not {array.shape} {array.dtype}")
            if size is None:
                size = array.shape
                video.width, video.height = size[1] + size[1] % 2, size[0] + size[0] % 2
            if array.shape != size:
                raise ValueError(f"frame {count} is {array.shape}, those before it {size}")
            array = np.pad(array, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
            frame.pts = count
            frame.time_base = 1 / rate
            container.mux(video.encode(frame))
            count += 1
            if track is not None:
                track.write_until(float(count / rate))
        if size is None:
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

    def write_until(self, seconds: float) -> None:
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
