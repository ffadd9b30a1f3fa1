"""Files that are cut, damaged, or not what their name says."""

import av
import numpy as np
import pytest

from atvg_jax.errors import InputError
from atvg_jax.features import video
from tests.features.media_files import beep, picture_number, write_file


def whole_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    path = tmp_path / "whole.mp4"
    video.write_video(path, noise, beep(60 / 25, 0.5))
    return path.read_bytes()


def read_all(path):
    for _ in video.iter_frames(path):
        pass
    video.read_waveform(path)


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "folder",
        "empty",
        "text",
        "noise",
        "header",
        "half",
        "late cut",
        "zeros",
        "bits",
        "playlist",
        "codec",
    ],
)
def test_broken_files_are_named_in_one_line(tmp_path, kind):
    path = tmp_path / "broken.mp4"
    data = bytearray(whole_file(tmp_path))
    rng = np.random.default_rng(1)
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        if kind == "zeros":
            data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
        if kind == "bits":
            for place in rng.integers(len(data) // 4, len(data), 100):
                data[place] ^= 0xFF
        if kind == "codec":  # the four letters that name it in the description of the pictures
            at = data.index(b"stsd") + 16
            data[at : at + 4] = b"zzzz"
        content = {
            "empty": b"",
            "text": b"This is no video.\n" * 50,
            "noise": rng.bytes(20_000),
            "header": bytes(data[:300]),
            "half": bytes(data[: len(data) // 2]),
            "late cut": bytes(data[: int(len(data) * 0.85)]),
            "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nwhole.mp4\n",
        }
        path.write_bytes(content.get(kind, bytes(data)))
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert caught.value.reason == "unreadable"
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def b_frames(stream):
    stream.options = {"bf": "2", "b-adapt": "0"}


def test_time_stamps_out_of_order_are_found(tmp_path):
    """Nothing else tells: each picture is whole, and the file as long as it says."""
    path = write_file(tmp_path / "a.mp4", np.arange(30) / 25, change_stream=b_frames)
    assert [picture_number(frame) for frame in video.iter_frames(path)] == list(range(30))
    data = bytearray(path.read_bytes())
    # How much later than decoded pictures are shown, for runs of them. One run never ends.
    run = data.index(b"ctts") + 12 + 8 * 10
    assert 1 <= int.from_bytes(data[run : run + 4], "big") <= 2
    data[run] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(InputError, match="a time stamp goes back by") as caught:
        read_all(path)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_zeros_for_lost_bytes_are_found_where_the_decoder_takes_them(tmp_path, codec):
    noise = np.random.default_rng(0).integers(0, 255, (12, 96, 96, 3), dtype=np.uint8)
    path = write_file(
        tmp_path / "a.webm", np.arange(12) / 25, codecs=(codec, ""), pictures=noise.__getitem__
    )
    assert len(list(video.iter_frames(path))) == 12
    with av.open(str(path)) as container:
        packet = [bytes(packet) for packet in container.demux() if packet.size][6]
    hole = len(packet) // 2
    lost = packet[:hole] + bytes(len(packet) - hole)
    path.write_bytes(path.read_bytes().replace(packet, lost))
    with pytest.raises(InputError, match="a part of a picture is zeros") as caught:
        read_all(path)
    assert caught.value.reason == "unreadable"


def test_video_without_pictures(tmp_path):
    path = write_file(tmp_path / "a.mp4", times=[], sound=beep(1, 0.5))
    with pytest.raises(InputError) as caught:
        list(video.iter_frames(path))
    assert caught.value.reason in ("unreadable", "no_video")


def test_sound_without_pictures_and_pictures_without_sound(tmp_path):
    sound = write_file(tmp_path / "a.wav", sound=beep(1, 0.5), codecs=("", "pcm_s16le"))
    with pytest.raises(InputError) as caught:
        next(video.iter_frames(sound))
    assert caught.value.reason == "no_video"
    silent = write_file(tmp_path / "a.mp4", np.arange(5) / 25)
    with pytest.raises(InputError) as caught:
        video.read_waveform(silent)
    assert caught.value.reason == "no_audio"


@pytest.mark.parametrize("keep", [0.5, 0.005])
@pytest.mark.parametrize(("name", "codec"), [("a.wav", "pcm_s16le"), ("a.flac", "flac")])
def test_cut_sound_file(tmp_path, keep, name, codec):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32000)
    path = write_file(tmp_path / name, sound=noise, codecs=("", codec))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(InputError) as caught:
        video.read_waveform(path)
    assert caught.value.reason == "unreadable"
