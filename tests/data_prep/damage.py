"""Hundreds of video files that are damaged, or whole and unusual, for ``damaged.py``."""

import itertools
import os
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from atvg_jax.features import images

from ..features.media_files import write_file
from .conftest import head, sound

FRAMES = 30
SIZE = 160
DARKEST = 0.6
"""Light of the first frame; it is 1 after the last."""

FORMATS = {
    "mp4": ("libx264", "aac"),
    "mov": ("libx264", "pcm_s16le"),
    "mkv": ("libx265", "libopus"),
    "avi": ("mpeg4", "libmp3lame"),
    "mpg": ("mpeg1video", "mp2"),
    "webm": ("libvpx", "libopus"),
    "ts": ("libx264", "aac"),
}
"""Containers, and a codec for picture and sound that is usual in them."""

Pick = Callable[[str], bool]
"""Whether a file is wanted, by its path."""


class Case(NamedTuple):
    """A file to build.

    Attributes:
        path: in the source folder.
        like: the whole file that it was, in the source folder; "" if there is none.
        expected: ``kept``, ``rejected``, or ``either``.
    """

    path: str
    like: str
    expected: str


# ---------------------------------------------------------------- whole files


def faces(count: int = FRAMES, size: int = SIZE) -> list[np.ndarray]:
    """Frames of a face that sways in a light that rises, by which they tell their time."""
    return [
        (frame * (DARKEST + (1 - DARKEST) * number / FRAMES)).clip(0, 255).astype(np.uint8)
        for number, frame in enumerate(head(count, size=size))
    ]


def write(path: Path, frames=None, samples=None, codecs=("libx264", "aac"), **settings) -> Path:
    """A video of the face that sways; what is given differs from the usual."""
    pictures = faces() if frames is None else frames
    path.parent.mkdir(parents=True, exist_ok=True)
    settings.setdefault("rate", 48000 if codecs[1] == "libopus" else 16000)
    if codecs[0] == "libx265":
        settings["change_stream"] = _quiet
    settings.setdefault("times", [n / 25 for n in range(len(pictures))])
    if path.suffix in (".avi", ".mpg"):
        settings.setdefault("time_base", Fraction(1, 25))
    if path.suffix == ".avi":  # which has no times for pictures that lean on later ones
        settings["change_stream"] = _no_b_frames
    if samples is None:
        samples = sound(FRAMES / 25, settings["rate"])
    return write_file(path, sound=samples, codecs=codecs, pictures=pictures.__getitem__, **settings)


def _no_b_frames(stream) -> None:
    stream.codec_context.max_b_frames = 0
    stream.codec_context.bit_rate = 1_000_000


def _quiet(stream) -> None:
    stream.options = {"x265-params": "log-level=none"}


def whole(source: Path, formats: tuple[str, ...]) -> dict[str, bytes]:
    """Writes one whole file of each format; their contents by suffix."""
    for suffix in formats:
        write(source / "whole" / f"{suffix}.{suffix}", codecs=FORMATS[suffix])
    return {s: (source / "whole" / f"{s}.{s}").read_bytes() for s in formats}


# ---------------------------------------------------------------- damage to the bytes


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    """The file up to somewhere."""
    return data[: int(rng.integers(1, len(data)))]


def flipped(count: int) -> Callable[[bytes, np.random.Generator], bytes]:
    """Some bits turned over, anywhere."""

    def flip(data: bytes, rng: np.random.Generator) -> bytes:
        changed = bytearray(data)
        for place in rng.integers(0, len(data), count):
            changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed)

    return flip


def flipped_in_front(data: bytes, rng: np.random.Generator) -> bytes:
    """Bits turned over in the first 300 bytes, where headers are."""
    return flipped(2)(data[:300], rng) + data[300:]


def _block(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(0, len(data)))
    return start, min(len(data), start + int(rng.integers(16, 4096)))


def zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    """A block of zeros in the middle, as a download with gaps has."""
    low, high = _block(data, rng)
    return data[:low] + bytes(high - low) + data[high:]


def overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    """A block of noise in the middle."""
    low, high = _block(data, rng)
    return data[:low] + rng.bytes(high - low) + data[high:]


def removed(data: bytes, rng: np.random.Generator) -> bytes:
    """A block is missing."""
    low, high = _block(data, rng)
    return data[:low] + data[high:]


def doubled(data: bytes, rng: np.random.Generator) -> bytes:
    """A block is there twice."""
    low, high = _block(data, rng)
    return data[:high] + data[low:]


BYTE_DAMAGE = {
    "truncated": (truncated, 7),
    "flipped_1": (flipped(1), 8),
    "flipped_20": (flipped(20), 5),
    "flipped_in_front": (flipped_in_front, 4),
    "zeroed": (zeroed, 4),
    "overwritten": (overwritten, 4),
    "removed": (removed, 3),
    "doubled": (doubled, 3),
}
"""Kinds of damage and how many of each a format gets."""


def damaged_bytes(source: Path, files: dict[str, bytes], seed: int, pick: Pick) -> Iterator[Case]:
    """Every format with every kind of damage, at random places."""
    for (kind, (damage, count)), suffix in itertools.product(BYTE_DAMAGE.items(), files):
        for number in range(count):
            rng = np.random.default_rng([seed, number, *kind.encode(), *suffix.encode()])
            path = f"{kind}/{number}.{suffix}"
            if pick(path):
                _put(source / path, damage(files[suffix], rng))
                yield Case(path, f"whole/{suffix}.{suffix}", "either")


def absurd_sizes(source: Path, data: bytes, pick: Pick) -> Iterator[Case]:
    """An mp4 whose boxes, tables, times and pictures have impossible sizes.

    Not the table of differences between the orders of decoding and of showing (``ctts``): without
    it a file is whole, and two frames out of step, which nothing in it tells.
    """
    # Where in a box a 32-bit number lies, counted from its name, and what is written there.
    places = [(name, -4, "size") for name in (b"ftyp", b"moov", b"trak", b"stbl", b"mdat", b"avcC")]
    places += [(b"stsz", 12, "count"), (b"stts", 8, "count"), (b"stco", 8, "count")]
    places += [(b"stsc", 8, "count"), (b"stss", 8, "count")]
    places += [(b"mvhd", 16, "scale"), (b"mdhd", 16, "scale"), (b"mvhd", 20, "length")]
    places += [(b"mdhd", 20, "length"), (b"stco", 12, "offset"), (b"stts", 16, "delta")]
    places += [(b"avc1", 28, "picture"), (b"tkhd", 80, "width"), (b"stsz", 16, "sample")]
    for name, offset, what in places:
        start = data.index(name)
        for value in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
            path = f"absurd/{name.decode()}_{what}_{value:x}.mp4"
            if pick(path):
                changed = bytearray(data)
                struct.pack_into(">I", changed, start + offset, value)
                _put(source / path, bytes(changed))
                yield Case(path, "whole/mp4.mp4", "either")


def no_videos(source: Path, files: dict[str, bytes], pick: Pick) -> Iterator[Case]:
    """Files that are called videos and are not."""
    playlist = "#EXTM3U\n#EXTINF:1,\n../whole/mp4.mp4\n#EXT-X-ENDLIST\n"
    contents = {
        "empty.mp4": b"",
        "one_byte.mp4": b"\0",
        "text.mp4": b"This is no video, but it has been called one.\n" * 200,
        "page.mp4": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "zeros.mp4": bytes(200_000),
        "zeros.mpg": bytes(200_000),
        "noise.mpg": np.random.default_rng(1).bytes(200_000),
        "noise.mp4": np.random.default_rng(2).bytes(200_000),
        "noise.ts": np.random.default_rng(3).bytes(188 * 1000),
        "picture.mp4": images.encode_jpeg(next(iter(head(1)))),
        "archive.mp4": b"PK\x03\x04" + bytes(1000),
        "list.mp4": playlist.encode(),
        "concat.mp4": b"ffconcat version 1.0\nfile '../whole/mp4.mp4'\n",
        "session.mp4": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
    }
    for name, content in contents.items():
        _put(source / "none" / name, content)
        yield Case(f"none/{name}", "", "rejected")
    os.mkfifo(source / "none" / "pipe.mp4")
    (source / "none" / "broken_link.mp4").symlink_to("nowhere.mp4")
    (source / "none" / "endless.mp4").symlink_to("/dev/zero")
    with open(source / "none" / "sparse.mp4", "wb") as file:
        file.truncate(2**32)
    for name in ("pipe", "broken_link", "endless", "sparse"):
        yield Case(f"none/{name}.mp4", "", "rejected")
    # A wrong ending does no harm: what is in a file counts.
    for suffix, other in itertools.permutations(files, 2):
        path = f"renamed/{suffix}.{other}"
        if pick(path):
            _put(source / path, files[suffix])
            yield Case(path, f"whole/{suffix}.{suffix}", "kept")


# ---------------------------------------------------------------- whole, but unusual


def odd_sounds(source: Path, pick: Pick) -> Iterator[Case]:
    """Sound of every kind, and pictures and sound of unequal length."""
    speech = {rate: sound(FRAMES / 25, rate) for rate in (8000, 16000, 96000)}
    stereo = np.stack([speech[16000]] * 2, axis=1)
    gaps = speech[16000].copy()
    gaps[4000:4100] = np.nan
    endless = speech[16000].copy()
    endless[5000] = np.inf
    long = np.concatenate([speech[16000], sound(9.0)])
    pcm = ("libx264", "pcm_f32le")
    low = {"samples": speech[8000], "rate": 8000}
    high = {"samples": speech[96000], "rate": 96000, "codecs": pcm}
    shown = faces(60)
    like = "whole/mp4.mp4"
    kinds = {
        # What is missing above 4000 Hz is noise of the rounding, and nothing to compare with.
        "8_bit_8000.avi": ("", "kept", low | {"codecs": ("mpeg4", "pcm_u8")}),
        "8_bit_8000.mkv": ("", "kept", low | {"codecs": ("libx264", "pcm_u8")}),
        "float_96000.mkv": (like, "kept", high),
        "float_96000.mov": (like, "kept", high),
        "stereo.mp4": (like, "kept", {"samples": stereo}),
        "too_loud.mkv": ("", "either", {"samples": 50 * speech[16000], "codecs": pcm}),
        "no_numbers.mkv": ("", "rejected", {"samples": gaps, "codecs": pcm}),
        "infinite.mkv": ("", "rejected", {"samples": endless, "codecs": pcm}),
        "silent.mp4": ("", "rejected", {"samples": 0 * speech[16000]}),
        "very_short.mkv": ("", "rejected", {"samples": speech[16000][:100], "codecs": pcm}),
        "half.mkv": ("", "rejected", {"samples": speech[16000][:8000], "codecs": pcm}),
        "longer.mp4": (like, "kept", {"samples": long}),
        "longer.mkv": (like, "kept", {"samples": long, "codecs": pcm}),
        "late.mkv": ("", "kept", {"samples": long, "codecs": pcm, "sound_start": 0.2}),
        "ends_early.mkv": ("", "kept", {"frames": shown, "codecs": pcm}),
    }
    yield from _write_picked(source, "sound", kinds, pick)
    write_file(source / "sound" / "none.mp4", [n / 25 for n in range(FRAMES)])
    write_file(source / "sound" / "alone.mp4", sound=speech[16000])
    yield Case("sound/none.mp4", "", "rejected")
    yield Case("sound/alone.mp4", "", "rejected")


def odd_pictures(source: Path, pick: Pick) -> Iterator[Case]:
    """Few pictures, none, tiny and huge ones, strange times."""
    face = faces()
    noise = np.random.default_rng(5)
    blank = [np.full((64, 64, 3), 128, np.uint8)] * FRAMES
    times = np.arange(FRAMES) / 25
    jumps = times + np.where(times > 0.6, 1000.0, 0.0)
    lossless = ("ffv1", "aac")
    strange = noise.integers(0, 255, (25, 96, 96, 3), np.uint8)
    reject, keep = ("", "rejected"), ("whole/mp4.mp4", "kept")
    kinds = {
        "no_frames.mp4": (*reject, {"frames": face, "times": []}),
        "no_frames.mkv": (*reject, {"frames": face, "times": []}),
        "1_frame.mp4": (*reject, {"frames": face[:1]}),
        "1_frame.avi": (*reject, {"frames": face[:1], "codecs": FORMATS["avi"]}),
        "2_frames.mp4": (*reject, {"frames": face[:2]}),
        "23_frames.mp4": (*reject, {"frames": face[:23]}),
        "24_frames.mp4": (*keep, {"frames": face[:24]}),
        "2_pixels.mkv": (*reject, {"frames": [f[:2, :2] for f in face], "codecs": lossless}),
        "narrow.mkv": (*reject, {"frames": [f[:, :8] for f in face], "codecs": lossless}),
        "wide.mkv": (*reject, {"frames": [np.tile(f[:16], (1, 60, 1)) for f in face[:25]]}),
        "blank.mp4": (*reject, {"frames": blank}),
        "noise.mp4": (*reject, {"frames": strange}),
        "gap.mp4": (*reject, {"frames": face, "times": jumps}),
        "fast.mp4": (*reject, {"frames": face, "times": times / 40}),
        "slow.mp4": (*reject, {"frames": face[:3], "times": [0.0, 20.0, 40.0]}),
    }
    yield from _write_picked(source, "pictures", kinds, pick)
    if not pick("pictures/two_sizes.ts"):
        return
    # The size changes on the way, as in a recording of a television channel.
    ends = [write(source / ".parts" / f"{size}.ts", frames=faces(size=size))
            for size in (SIZE, 96)]  # fmt: skip
    _put(source / "pictures" / "two_sizes.ts", b"".join(path.read_bytes() for path in ends))
    yield Case("pictures/two_sizes.ts", "", "either")


def _put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_picked(source: Path, folder: str, kinds: dict, pick: Pick) -> Iterator[Case]:
    """Writes those of some files that are wanted."""
    for name, (like, expected, settings) in kinds.items():
        if pick(f"{folder}/{name}"):
            write(source / folder / name, **settings)
            yield Case(f"{folder}/{name}", like, expected)


def make(
    source: Path, seed: int = 0, formats: tuple[str, ...] = tuple(FORMATS), pick: Pick = bool
) -> list[Case]:
    """Writes the files; what there is, the whole ones first.

    Args:
        source: their folder.
        seed: of the damage.
        formats: of the whole files, which are damaged; ``mp4`` among them.
        pick: which of the other files; all.
    """
    files = whole(source, formats)
    cases = [Case(f"whole/{s}.{s}", f"whole/{s}.{s}", "kept") for s in files]
    cases += damaged_bytes(source, files, seed, pick)
    cases += absurd_sizes(source, files["mp4"], pick)
    cases += no_videos(source, files, pick)
    cases += odd_sounds(source, pick)
    cases += odd_pictures(source, pick)
    return cases
