"""Files made here, picture by picture and tone by tone, and what must come back of them."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from atvg_jax.errors import InputError
from atvg_jax.features import video
from tests.features.media_files import (
    beep,
    beep_start,
    coded_picture,
    picture_number,
    write_file,
)


@pytest.mark.parametrize("rate", [25.0, 30.0, 30000 / 1001, 50.0, 60.0, 24.0])
def test_any_constant_rate_becomes_25_by_the_nearest_picture(tmp_path, rate):
    times = np.arange(40) / rate
    path = write_file(tmp_path / "a.mp4", times)
    frames = list(video.iter_frames(path))
    assert abs(len(frames) - 40 / rate * 25) <= 1  # the last one lasts as long as the file says
    # Where two source pictures are equally near either may be taken.
    for k, number in enumerate(map(picture_number, frames)):
        assert abs(times[number] - k / 25) <= np.abs(times - k / 25).min() + 1e-4


def test_slow_source_repeats_the_picture_on_show(tmp_path):
    path = write_file(tmp_path / "a.mp4", np.arange(10) / 10)
    numbers = [picture_number(f) for f in video.iter_frames(path)]
    assert numbers[0] == 0
    assert numbers == sorted(numbers)
    # A picture is on show from its own time on (here to half a frame), never later than that.
    for k, number in enumerate(numbers):
        assert -0.5 / 25 - 1e-6 <= k / 25 - number / 10 <= 0.1


def test_variable_frame_rate_follows_the_time_stamps(tmp_path):
    times = np.cumsum([0, 0.04, 0.04, 0.04, 0.2, 0.02, 0.02, 0.02, 0.04, 0.04, 0.5, 0.04, 0.04])
    path = write_file(tmp_path / "a.mp4", times)
    numbers = [picture_number(f) for f in video.iter_frames(path)]
    for number, time in enumerate(times):
        k = round(time * 25)
        if abs(time * 25 - k) < 1e-6:
            assert numbers[k] == number
    gap = round(times[9] * 25), round(times[10] * 25)
    assert set(numbers[gap[0] : gap[1]]) == {9}  # held through the half second without a picture


def test_another_output_rate(tmp_path):
    path = write_file(tmp_path / "a.mp4", np.arange(30) / 30)
    assert len(list(video.iter_frames(path, frame_rate=10))) == 10
    with pytest.raises(ValueError, match="frame rate"):
        next(video.iter_frames(path, frame_rate=0))


def groups(stream):
    """A picture that stands alone every 12, and pictures that lean on later ones."""
    stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
    if stream.codec_context.name == "libx264":  # also on those of the group before
        stream.options = {"x264-params": "open-gop=1:keyint=12"}


@pytest.mark.parametrize(
    ("name", "codec", "time_base", "late"),
    [
        ("a.mp4", "libx264", Fraction(1, 90000), 0.0),
        ("late.mp4", "libx264", Fraction(1, 90000), 3.0),
        ("a.mkv", "libx264", Fraction(1, 90000), 0.0),
        ("a.ts", "libx264", Fraction(1, 90000), 0.0),
        ("a.mpg", "mpeg1video", Fraction(1, 25), 0.0),
        ("a.264", "libx264", Fraction(1, 90000), 0.0),  # without times, and without an index
    ],
)
def test_a_later_start_gives_the_same_frames(tmp_path, name, codec, time_base, late):
    times = np.arange(110) / 25 + late
    path = write_file(
        tmp_path / name, times, codecs=(codec, "aac"), time_base=time_base, change_stream=groups
    )
    whole = list(video.iter_frames(path))
    for start in (1, 55, 61, 72, 109, 130):
        frames = list(video.iter_frames(path, start=start))
        assert len(frames) == max(0, 110 - start)
        for found, expected in zip(frames, whole[start:], strict=True):
            np.testing.assert_array_equal(found, expected)


def test_what_lies_before_a_later_start_is_not_decoded(tmp_path, monkeypatch):
    path = write_file(tmp_path / "a.mp4", np.arange(400) / 25, change_stream=groups)
    seen = []
    to_rgb = video.decoding.to_rgb
    monkeypatch.setattr(video.decoding, "to_rgb", lambda *given: seen.append(1) or to_rgb(*given))
    next(video.iter_frames(path, start=350))
    assert len(seen) < 90


def corner_picture(_):
    """Black, top left quarter red, bottom left quarter green."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32, 0] = 250
    picture[24:, :32, 1] = 250
    return picture


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("mirror", [False, True])
def test_rotation_and_mirror_flags_are_applied(tmp_path, degrees, mirror):
    path = write_file(
        tmp_path / "a.mp4",
        np.arange(3) / 25,
        pictures=corner_picture,
        change_stream=lambda s: s.set_display_rotation(degrees, hflip=mirror),
    )
    expected = np.rot90(corner_picture(0), degrees // 90)  # both turn anticlockwise
    expected = expected[:, ::-1] if mirror else expected
    frame = next(video.iter_frames(path))
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 12
    assert (video.probe(path).height, video.probe(path).width) == expected.shape[:2]


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_pictures_that_carry_exif_data(tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(corner_picture(0)).save(tmp_path / "a.jpg", exif=exif, subsampling=0)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, _ = corner_picture(0).shape
        stream.pix_fmt = "yuvj444p"
        for number in range(3):
            packet = av.Packet((tmp_path / "a.jpg").read_bytes())
            packet.pts = packet.dts = number
            packet.stream, packet.is_keyframe = stream, True
            container.mux(packet)
    frames = list(video.iter_frames(tmp_path / "a.avi"))
    assert len(frames) == 3
    shown = np.rot90(corner_picture(0), turns)
    assert np.abs(frames[0].astype(int) - shown).mean() < 4


def test_pixels_become_square(tmp_path):
    def squeeze(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    path = write_file(tmp_path / "a.mp4", np.arange(3) / 25, change_stream=squeeze)
    assert next(video.iter_frames(path)).shape == (48, 96, 3)


def test_interlaced_pictures_lose_their_combs_and_keep_their_times(tmp_path):
    def bar(number, field):
        picture = np.full((64, 96), 40, np.uint8)
        left = 4 * (2 * number + field)
        picture[:, left : left + 16] = 220
        return picture

    def combed(number):
        picture = bar(number, 0)
        picture[1::2] = bar(number, 1)[1::2]
        return np.repeat(picture[..., None], 3, axis=2)

    def interlace(stream):
        stream.codec_context.options = {"flags": "+ilme+ildct", "field_order": "tb", "q": "2"}
        stream.bit_rate = 8_000_000

    path = write_file(
        tmp_path / "a.mpg",
        np.arange(8) / 25,
        codecs=("mpeg2video", "mp2"),
        pictures=combed,
        change_stream=interlace,
        time_base=Fraction(1, 25),
    )
    with av.open(str(path)) as container:
        if not next(container.decode(video=0)).interlaced_frame:
            pytest.skip("this build of FFmpeg does not mark what it encodes as interlaced")
    frames = list(video.iter_frames(path))
    assert len(frames) == 8

    def combs(frame):
        grey = frame[..., 0].astype(float)
        return np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2).mean()

    assert combs(frames[4]) < 0.35 * combs(combed(4))


@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels"),
    [
        ("a.wav", "pcm_s16le", 44100, 2),
        ("a.flac", "flac", 48000, 1),
        ("a.m4a", "aac", 44100, 2),
        ("a.aac", "aac", 16000, 1),
        ("a.mp3", "libmp3lame", 44100, 1),
        ("a.mpg", "mp2", 32000, 1),
        ("a.ogg", "libopus", 48000, 1),
        ("a.mkv", "flac", 16000, 1),
    ],
)
def test_sound_of_every_kind_keeps_its_time_and_loudness(tmp_path, name, codec, rate, channels):
    signal = beep(1.5, start=0.7, length=0.2, rate=rate)
    if channels == 2:
        signal = np.stack([signal, signal], axis=1)
    path = write_file(tmp_path / name, sound=signal, rate=rate, codecs=("", codec))
    waveform = video.read_waveform(path)
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    # Containers that do not tell the encoder's delay leave it in: at most 2048 samples.
    told = name.endswith((".wav", ".flac", ".m4a", ".mp3", ".ogg", ".mkv"))
    slack = 0.004 if told else 2100 / rate
    assert abs(beep_start(waveform) - 0.7) < slack
    assert abs(len(waveform) / 16000 - 1.5) < (0.03 if told else 0.2)
    assert np.abs(waveform).max() == pytest.approx(0.8, abs=0.12)


def test_stereo_is_mixed_not_summed(tmp_path):
    left = np.stack([beep(1, 0.2, 0.6), np.zeros(16000)], axis=1)
    path = write_file(tmp_path / "a.wav", sound=left, codecs=("", "pcm_s16le"))
    assert np.abs(video.read_waveform(path)).max() == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("picture_start", "sound_start"), [(0.0, 0.0), (0.0, 0.3), (0.4, 0.0), (0.2, 0.32)]
)
def test_sound_is_placed_from_the_first_picture_on(tmp_path, suffix, picture_start, sound_start):
    path = write_file(
        tmp_path / f"a.{suffix}",
        picture_start + np.arange(50) / 25,
        sound=beep(1.6, start=0.8),
        sound_start=sound_start,
    )
    expected = sound_start + 0.8 - picture_start
    assert beep_start(video.read_waveform(path)) == pytest.approx(expected, abs=0.012)


def test_flash_and_beep_survive_writing_and_reading_together(tmp_path):
    frames = [np.full((64, 64, 3), 255 if k == 30 else 16, np.uint8) for k in range(50)]
    path = tmp_path / "new" / "talk.mp4"
    video.write_video(path, frames, beep(2, start=30 / 25, length=0.04))
    back = np.array([f.mean() for f in video.iter_frames(path)])
    waveform = video.read_waveform(path)
    assert len(back) == 50
    assert len(waveform) == 50 * 640
    assert back.argmax() == 30
    assert beep_start(waveform) == pytest.approx(30 / 25, abs=0.002)
    assert [p.name for p in path.parent.iterdir()] == ["talk.mp4"]


@pytest.mark.parametrize("seconds", [0.5, 3.0])
@pytest.mark.parametrize("rate", [16000, 22050, 50000])
def test_written_sound_lasts_as_long_as_the_pictures(tmp_path, seconds, rate):
    path = tmp_path / "a.mp4"
    tone = beep(seconds, start=0.1, length=0.1, rate=rate)
    video.write_video(path, map(coded_picture, range(33)), tone, rate)
    with av.open(str(path)) as container:
        for stream in container.streams:
            assert stream.start_time == 0
            assert float(stream.duration * stream.time_base) == pytest.approx(33 / 25, abs=0.001)
        assert container.metadata["comment"] == "synthesized with atvg_jax"
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert container.streams.audio[0].codec_context.name == "aac"
    assert beep_start(video.read_waveform(path)) == pytest.approx(0.1, abs=0.003)


def test_colours_come_back(tmp_path):
    colours = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (128, 128, 128)]
    frames = [np.full((32, 32, 3), c, np.uint8) for c in colours]
    video.write_video(tmp_path / "a.mp4", frames)
    for frame, colour in zip(video.iter_frames(tmp_path / "a.mp4"), colours, strict=True):
        assert np.abs(frame.mean(axis=(0, 1)) - colour).max() < 5


def test_odd_sizes_are_padded_by_their_edge(tmp_path):
    rows = np.linspace(0, 255, 31).astype(np.uint8)
    frame = np.repeat(np.repeat(rows[:, None, None], 45, axis=1), 3, axis=2)
    video.write_video(tmp_path / "a.mp4", [frame] * 3)
    back = next(video.iter_frames(tmp_path / "a.mp4"))
    assert back.shape == (32, 46, 3)
    assert np.abs(back[:31, :45].astype(int) - frame).mean() < 4
    assert np.abs(back[31].astype(int) - back[30]).mean() < 6


def test_writing_streams_and_leaves_nothing_behind_when_it_fails(tmp_path):
    def broken():
        yield coded_picture(0)
        raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError, match="network"):
        video.write_video(tmp_path / "a.mp4", broken())
    with pytest.raises(ValueError, match="at least one frame"):
        video.write_video(tmp_path / "a.mp4", [])
    with pytest.raises(ValueError, match="uint8"):
        video.write_video(tmp_path / "a.mp4", [coded_picture(0).astype(np.float32)])
    with pytest.raises(ValueError, match="before it"):
        video.write_video(tmp_path / "a.mp4", [coded_picture(0), coded_picture(0, (32, 32))])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_file_that_was_there(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(ValueError, match="at least one"):
        video.write_video(path, [])
    assert path.read_bytes() == b"precious"


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path, tmp_path / "file" / "a.mp4"):
        with pytest.raises(InputError) as caught:
            video.write_video(path, [coded_picture(0)])
        assert caught.value.reason == "unwritable"
    with pytest.raises(ValueError, match="frame rate"):
        video.write_video(tmp_path / "a.mp4", [coded_picture(0)], frame_rate=0)


def test_probe_says_what_is_in_a_file(tmp_path):
    path = write_file(tmp_path / "a.mp4", np.arange(30) / 30, sound=beep(1, 0.5))
    info = video.probe(path)
    assert (info.width, info.height, info.has_video, info.has_audio) == (64, 48, True, True)
    assert info.frame_rate == pytest.approx(30, rel=0.01)
    assert info.frames == 30
    assert info.duration == pytest.approx(1.0, abs=0.05)
    silent = video.probe(
        write_file(tmp_path / "b.wav", sound=beep(1, 0.5), codecs=("", "pcm_s16le"))
    )
    assert (silent.has_video, silent.has_audio) == (False, True)


def test_real_footage_is_read_whole_and_in_step(clips):
    grid = next((clips / "grid").glob("*/*.mpg"))
    frames = list(video.iter_frames(grid))
    assert len(frames) == 75
    assert frames[0].shape == (288, 360, 3)
    assert len(video.read_waveform(grid)) == pytest.approx(75 * 640, abs=640)
    thirty = clips / "folder" / "vico_d5s6u96knvkp_01.mp4"  # 210 pictures at 30 a second
    assert sum(1 for _ in video.iter_frames(thirty)) == 175
