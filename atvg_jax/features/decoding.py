"""What lies under ``video``: media files opened safely, and pictures with their times.

PyAV is imported here, in ``sound`` and in ``video`` alone. It raises on broken input, where OpenCV
and wrappers of the ffmpeg program silently give part of it; all that it raises becomes an
``InputError``.
"""

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.sidedata.sidedata
import numpy as np
import numpy.typing as npt

from atvg_jax.errors import InputError

Frame = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
PathLike = str | os.PathLike[str]

# What may be opened. Playlists, streams and devices are left out: they open other files, or never
# end.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,mxf,gif,dv,nut,"
    "wav,w64,flac,mp3,aac,aiff,au,caf,ac3,eac3,amr,amrnb,amrwb,tta,ape,h264,hevc,m4v,ivf,rm,g722"
)
LONGEST_GAP = 60.0  # seconds without a picture or sound inside a file before it counts as broken
_USUAL_RATES = (1.0, 1000.0)  # frame rates that are believed, Hz
_FALLBACK_RATE = 25.0
_EXACT_FORMATS = {"mp4", "matroska", "flac", "avi"}  # others estimate how long they last
_COUNTED_FORMATS = {"avi"}  # without times: what is missing puts all that follows out of step
_STEP_BACK = 1.5  # pictures by which a time stamp may lie before the one of the picture before
_HOLE = bytes(32)  # where an arithmetic coder wrote; 11 zeros were the most in whole pictures
_UNGUARDED_CODECS = {"vp8", "vp9"}  # which make a picture of whatever bytes they are given
_SKIP_LEAD = 2.0  # seconds before what is wanted that decoding begins at, at the latest
_SLACK, _COUNTED_SLACK = 0.15, 0.06  # seconds that a file may end before or after its header says


class Picture(NamedTuple):
    """A decoded picture and when it is on show."""

    time: float  # seconds since the first picture
    duration: float  # seconds
    frame: Any  # av.VideoFrame
    display_matrix: npt.NDArray[np.int32]  # (9,) [a b u c d v x y w]; empty where none is given


def unreadable(path: PathLike, why: str) -> InputError:
    """The error for a file that cannot be decoded."""
    why = " ".join(str(why).split()).rstrip(".")
    return InputError(
        f"{path}: cannot be read ({why}); give a whole video or sound file", reason="unreadable"
    )


@contextlib.contextmanager
def decoding(path: PathLike) -> Iterator[None]:
    """Turns whatever PyAV raises into an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{path}: takes more memory than there is", reason="memory") from error
    except (av.error.FFmpegError, OSError, ValueError, EOFError) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise unreadable(path, text) from error


@contextlib.contextmanager
def open_media(path: PathLike) -> Iterator[Any]:
    """An av container of a file, closed in the end.

    Raises:
        InputError: ``unreadable`` if it is missing, empty, no regular file or of no known format.
    """
    file = Path(path)
    if not file.is_file():  # also keeps pipes, devices and addresses out
        raise InputError(f"{path}: no such file; check the path", reason="unreadable")
    with decoding(path):
        if file.stat().st_size == 0:
            raise unreadable(path, "it is empty")
        if _is_cut_wave(file):
            raise unreadable(path, "it is shorter than its header says")
        container = av.open(
            str(file.resolve()),
            options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    try:
        streams = [video_stream(container), audio_stream(container)]
        if streams == [None, None]:
            raise unreadable(path, "there is neither video nor sound in it")
        if any(stream is not None and stream.codec_context is None for stream in streams):
            raise unreadable(path, "nothing is known that decodes what is in it")
        yield container
    finally:
        container.close()


def _is_cut_wave(file: Path) -> bool:
    """Whether a RIFF file ends before its header says; FFmpeg would take what is there for all."""
    with file.open("rb") as opened:
        header = opened.read(8)
    declared = int.from_bytes(header[4:], "little")
    if header[:4] != b"RIFF" or declared in (0, 0xFFFFFFFF):  # 0 and -1: written to a pipe
        return False
    return declared + 8 > file.stat().st_size + 1  # 1: some writers forget the padding byte


def video_stream(container: Any) -> Any:
    """The first video stream that is not a cover picture, or None."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def audio_stream(container: Any) -> Any:
    """The first sound stream, or None."""
    return next(iter(container.streams.audio), None)


def source_rate(stream: Any) -> float:
    """Pictures a second that a video stream declares; 0 if that is unknown or absurd."""
    low, high = _USUAL_RATES
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and low <= rate <= high:
            return float(rate)
    return 0.0


def pictures(path: PathLike, container: Any, stream: Any, start: float = 0.0) -> Iterator[Picture]:
    """The pictures of a stream in order, times strictly increasing.

    Args:
        path: of the file, for errors.
        container: the open file, not read from yet.
        stream: its video stream.
        start: seconds since the first picture. The picture on show then and some before it come
            first; those further back do not matter, and are skipped where the file allows it.

    Raises:
        InputError: ``unreadable`` where decoding fails or a picture is damaged, where time stamps
            leap or go back, or where the file does not end where its header says, however late
            that is noticed.
    """
    usual = 1.0 / (source_rate(stream) or _FALLBACK_RATE)
    origin = _skip(path, container, stream, start) if start > _SKIP_LEAD else None
    whole_from = -math.inf if origin is None else origin + start - _SKIP_LEAD / 2
    matrix: npt.NDArray[np.int32] | None = None
    time = duration = 0.0
    counted = bool(formats(container) & _COUNTED_FORMATS)
    latest = -math.inf
    for frame in _progressive(path, container, stream):
        if matrix is None and frame.is_corrupt and (frame.time or 0.0) < whole_from:
            continue  # it leans on pictures before the one that was skipped to
        stamp = None if counted else frame.time
        if stamp is not None:
            # Decoders give pictures in the order of their times: the times are damaged.
            if latest - stamp > _STEP_BACK * usual:
                raise unreadable(path, f"a time stamp goes back by {latest - stamp:.2f} s")
            latest = max(latest, stamp)
        if origin is None:
            origin = frame.time or 0.0
        elif matrix is None:  # the first after those that were skipped
            time = frame.time - origin
        elif frame.time is None:
            time += usual
        elif frame.time - origin <= time:  # repeated; half, so that those that follow are in time
            time += usual / 2
        elif frame.time - origin - time > LONGEST_GAP:
            raise unreadable(path, f"no picture for {frame.time - origin - time:.0f} s")
        else:
            time = frame.time - origin
        if matrix is None:
            matrix = _display_matrix(frame)
        if frame.is_corrupt:
            raise unreadable(path, f"a damaged picture {time:.2f} s from the start")
        duration = usual
        if frame.duration and frame.time_base:
            duration = min(float(frame.duration * frame.time_base), 1.0)
        yield Picture(time, duration, frame, matrix)
    if origin is None:
        raise unreadable(path, "it holds no pictures")
    declared = declared_end(container, stream, origin)
    if declared and abs(declared - (time + duration)) > max(declared_slack(container), 1.5 * usual):
        raise unreadable(path, f"it ends after {time + duration:.1f} of {declared:.1f} s")


def _skip(path: PathLike, container: Any, stream: Any, start: float) -> float | None:
    """Has a stream go on shortly before ``start`` seconds after its first picture.

    Tried with the file opened again first, because what has failed cannot always be taken back.

    Returns:
        The time stamp of the first picture, in seconds; None where the file cannot be skipped in,
        which is then read from its start.
    """
    with open_media(path) as trial:
        same = video_stream(trial)
        first = next(_decoded(path, trial, same), None)
        if first is None or first.time is None:
            return None
        place = round((first.time + start - _SKIP_LEAD) / same.time_base)
        try:
            trial.seek(place, stream=same)
            found = next(_decoded(path, trial, same), None)
        except (av.error.FFmpegError, InputError):
            return None
        # Some files have no index, and a guess may lie too late.
        if found is None or found.time is None or found.time > first.time + start - _SKIP_LEAD / 2:
            return None
    with decoding(path):
        container.seek(place, stream=stream)
    return float(first.time)


def _progressive(path: PathLike, container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames; from the first interlaced one on, all go through a deinterlacer."""
    filters = None
    for frame in _decoded(path, container, stream):
        if filters is None and frame.interlaced_frame:
            filters = _deinterlacer(stream)
        if filters is None:
            yield frame
        else:
            with decoding(path):
                filters.vpush(frame)
            yield from _filtered(path, filters)
    if filters is not None:
        with decoding(path):
            filters.vpush(None)
        yield from _filtered(path, filters)


def _decoded(path: PathLike, container: Any, stream: Any) -> Iterator[Any]:
    """The frames of a stream; the last packet, an empty one, has those that the decoder kept."""
    packets = container.demux(stream)
    if stream.codec_context.name in _UNGUARDED_CODECS:
        packets = _without_holes(path, packets)
    return decoded(path, packets)


def _without_holes(path: PathLike, packets: Iterable[Any]) -> Iterator[Any]:
    """Packets, with an InputError for one with zeros for bytes that were lost.

    Of such a packet VP8 makes a picture like the one before, and of those that follow it, too.
    """
    for packet in packets:
        if _HOLE in bytes(packet):
            raise unreadable(path, "a part of a picture is zeros")
        yield packet


def decoded(path: PathLike, packets: Iterable[Any]) -> Iterator[Any]:
    """The frames of packets, with an InputError for whatever is wrong with one."""
    packets = iter(packets)
    while True:
        with decoding(path):
            packet = next(packets, None)
            frames = packet.decode() if packet is not None else []
        if packet is None:
            return
        if packet.is_corrupt:
            raise unreadable(path, "a part of it is missing")
        yield from frames


def _deinterlacer(stream: Any) -> Any:
    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(template=stream, time_base=stream.time_base),
        graph.add("yadif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _filtered(path: PathLike, filters: Any) -> Iterator[Any]:
    """What a filter graph has ready."""
    while True:
        try:
            frame = filters.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        except av.error.FFmpegError as error:
            raise unreadable(path, str(error)) from error
        yield frame


def _display_matrix(frame: Any) -> npt.NDArray[np.int32]:
    """The display matrix of a frame, empty if there is none.

    Asked of a video's first frame alone: PyAV ties a frame to its side data in a reference cycle,
    which would keep hundreds of frames until the next garbage collection.
    """
    try:
        sides = list(frame.side_data)
    except ValueError:  # beside it is something that PyAV does not know, such as EXIF data
        angle = math.radians(frame.rotation)  # counterclockwise; mirroring is not told
        cosine, sine = round(2**16 * math.cos(angle)), round(2**16 * math.sin(angle))
        return np.array([cosine, -sine, 0, sine, cosine, 0, 0, 0, 2**30], np.int32)
    for data in sides:
        if data.type == av.sidedata.sidedata.Type.DISPLAYMATRIX:
            return np.frombuffer(bytes(data), dtype=np.int32)
    return np.zeros(0, np.int32)


def to_rgb(picture: Picture, stream: Any) -> Frame:
    """(H, W, 3) uint8 as a player shows it: rotated, mirrored and with square pixels."""
    frame = picture.frame
    width, height = frame.width, frame.height
    aspect = float(stream.sample_aspect_ratio or 1)  # width over height of one pixel
    if not 0.25 <= aspect <= 4.0:  # absurd
        aspect = 1.0
    if aspect >= 1:
        width = round(width * aspect)
    else:
        height = round(height / aspect)
    # One thread: PyAV would start and end a pool of them for every frame, which costs more than
    # the conversion itself.
    array = frame.to_ndarray(format="rgb24", width=width, height=height, threads=1)
    return np.ascontiguousarray(_oriented(array, picture.display_matrix))


def _oriented(array: Frame, matrix: npt.NDArray[np.int32]) -> Frame:
    """Applies the quarter turns and mirrorings of a display matrix [a b u c d v x y w]."""
    if len(matrix) != 9:
        return array
    a, b, c, d = (int(matrix[i]) for i in (0, 1, 3, 4))  # (x, y) is shown at (ax + cy, bx + dy)
    if abs(a) + abs(d) < abs(b) + abs(c):
        array = array.transpose(1, 0, 2)
        a, d = c, b
    return array[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def declared_end(container: Any, stream: Any, origin: float) -> float:
    """Seconds from ``origin`` at which the header says that a stream ends; 0 if it says nothing."""
    names = formats(container)
    if not stream.duration or not stream.time_base or not names & _EXACT_FORMATS:
        return 0.0
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - origin


def declared_slack(container: Any) -> float:
    """Seconds by which a stream may end before or after ``declared_end``."""
    return _COUNTED_SLACK if formats(container) & _COUNTED_FORMATS else _SLACK


def formats(container: Any) -> set[str]:
    """Names of a file's format."""
    return set(container.format.name.split(","))
