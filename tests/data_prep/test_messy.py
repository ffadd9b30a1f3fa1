"""Footage as it comes, whatever its rate, size, turn, lacing and company, is prepared."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from atvg_jax.features import faces, images, video
from data_prep import tracking
from data_prep.corpora.clip import Clip
from data_prep.prepare import Prepared, PrepareSettings, mfcc_rows, prepare

from .conftest import head, sound, talk

SETTINGS = PrepareSettings(shortest=10)


def examples_of(path, settings=SETTINGS):
    prepared = prepare(Clip(clip_id="x", video=path, speaker="a", split="train"), settings)
    assert isinstance(prepared, Prepared), prepared
    return prepared.examples


def only_example_of(path, settings=SETTINGS):
    (example,) = examples_of(path, settings)
    return example


def write(
    path, frames, times, waveform=None, codecs=("libx264", "aac"), settle=lambda stream: None
):
    """A file of pictures at times of our choice (seconds), with a sound from 0 on."""
    with av.open(str(path), "w") as container:
        base = Fraction(1, 90000) if codecs[0] == "libx264" else Fraction(1, 25)
        stream = container.add_stream(codecs[0], rate=25)
        stream.codec_context.time_base = base
        stream.pix_fmt = "yuv420p"
        spoken = container.add_stream(codecs[1], rate=16000, layout="mono")
        for number, (picture, time) in enumerate(zip(frames, times, strict=True)):
            if not number:
                stream.height, stream.width = picture.shape[:2]
                settle(stream)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        waveform = sound(times[-1] + 0.04) if waveform is None else waveform
        frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), 0
        to_codec = av.AudioResampler(
            format=spoken.codec_context.format.name,
            layout="mono",
            rate=16000,
            frame_size=spoken.codec_context.frame_size or 1024,
        )
        for part in [*to_codec.resample(frame), *to_codec.resample(None)]:
            container.mux(spoken.encode(part))
        container.mux(spoken.encode(None))
    return path


class TestTime:
    @pytest.mark.parametrize("rate", [15.0, 30000 / 1001, 60.0])
    def test_pictures_are_resampled_and_sound_is_not_touched(self, tmp_path, rate):
        seconds, spoken = 1.2, sound(1.2)
        path = tmp_path / "x.mp4"
        video.write_video(path, head(round(seconds * rate)), spoken, 16000, frame_rate=rate)
        example = only_example_of(path)
        assert abs(len(example.frames) - 30) <= 1
        expected = mfcc_rows(spoken, 0, len(example.frames))[20:110, 1:]
        later = mfcc_rows(spoken, 1, len(example.frames))[20:110, 1:]
        error = np.abs(example.mfcc[20:110, 1:] - expected).mean()
        assert error < 0.5 * np.abs(later - expected).mean()  # AAC changes the sound a little

    def test_a_variable_rate_follows_the_time_stamps(self, tmp_path):
        """The face moves evenly in time, though pictures come in bursts."""
        rng = np.random.default_rng(0)
        times = np.cumsum(np.concatenate([[0], rng.choice([0.02, 0.03, 0.06], 39)]))
        pictures = [shifted(40 * time) for time in times]
        example = only_example_of(write(tmp_path / "x.mp4", pictures, times))
        (stretch,) = tracking.stretches(video.iter_frames(tmp_path / "x.mp4"), 10, 250)
        x = stretch.landmarks[:, 27:48, 0].mean(axis=1)
        seconds = np.arange(len(x)) / 25
        assert len(example.frames) == len(x)
        slope, start = np.polyfit(seconds, x, 1)
        assert slope == pytest.approx(40, rel=0.1)  # pixels a second
        assert np.abs(x - slope * seconds - start).max() < 2.0  # 40 ms are 1.6 pixels

    @pytest.mark.parametrize("longer", [0.5, 3.0])
    def test_sound_longer_than_the_picture(self, tmp_path, longer):
        spoken = sound(1.2 + longer)
        path = write(tmp_path / "x.mp4", head(30), np.arange(30) / 25, spoken)
        example = only_example_of(path)
        assert len(example.frames) == 30
        assert example.mfcc.shape == (4 * 30 + 24, 13)
        # The last window hears what is said after the last picture, as in the middle of a clip.
        expected = mfcc_rows(spoken, 0, 30)[-12:, 1:]
        silent = mfcc_rows(spoken[: 30 * 640], 0, 30)[-12:, 1:]
        error = np.abs(example.mfcc[-12:, 1:] - expected).mean()
        assert error < 0.3 * np.abs(silent - expected).mean()

    def test_music_is_sound(self, tmp_path):
        time = np.arange(19200) / 16000
        chord = sum(np.sin(2 * np.pi * hertz * time) for hertz in (262, 330, 392)) / 6
        path = talk(tmp_path / "x.mp4", frames=30, waveform=chord.astype(np.float32))
        assert np.isfinite(only_example_of(path).mfcc).all()


def shifted(x):
    """The face, ``x`` pixels further to the right in a wide frame."""
    (picture,) = head(1, size=160)
    wide = np.full((160, 260, 3), 90, np.uint8)
    whole = int(x)
    moved = Image.fromarray(picture).transform(
        (160, 160),
        Image.Transform.AFFINE,
        (1, 0, whole - x, 0, 1, 0),
        Image.Resampling.BICUBIC,
    )
    wide[:, whole + 11 : whole + 170] = np.asarray(moved)[:, 1:]
    return wide


class TestPicture:
    @pytest.mark.parametrize("size", [(148, 262), (391, 205)])
    def test_any_size(self, tmp_path, size):
        height, width = size
        pictures = []
        for picture in head(14, size=min(size), zoom=0.9):
            framed = np.full((height, width, 3), 70, np.uint8)
            top, left = (height - min(size)) // 2, (width - min(size)) // 2
            framed[top : top + min(size), left : left + min(size)] = picture
            pictures.append(framed)
        video.write_video(tmp_path / "x.mp4", pictures, sound(0.56), 16000)
        assert len(only_example_of(tmp_path / "x.mp4").frames) == 14

    @pytest.mark.parametrize("degrees", [90, 180, -90])
    def test_what_a_phone_held_sideways_has_written(self, tmp_path, degrees):
        """The pictures lie on their side in the file; a flag says how to turn them."""
        lying = [np.rot90(picture, -degrees // 90) for picture in head(14)]
        path = write(
            tmp_path / "x.mp4",
            lying,
            np.arange(14) / 25,
            settle=lambda stream: stream.set_display_rotation(degrees),
        )
        example = only_example_of(path)
        assert np.abs(example.pose[:, 2]).max() < 12  # roll
        upright = only_example_of(talk(tmp_path / "y.mp4", frames=14))
        first, second = (images.decode_jpeg(e.frames[7]).astype(float) for e in (example, upright))
        assert np.abs(first - second).mean() < 6

    def test_interlaced(self, tmp_path):
        """Each picture holds two moments in its even and odd rows, as television wrote them."""
        moments = [shifted(1.5 * number) for number in range(28)]
        combed = []
        for number in range(14):
            picture = moments[2 * number].copy()
            picture[1::2] = moments[2 * number + 1][1::2]
            combed.append(picture)

        def lace(stream):
            stream.codec_context.options = {"flags": "+ilme+ildct", "field_order": "tb", "q": "2"}
            stream.bit_rate = 8_000_000

        path = write(
            tmp_path / "x.mpg", combed, np.arange(14) / 25, None, ("mpeg2video", "mp2"), lace
        )
        with av.open(str(path)) as container:
            if not next(container.decode(video=0)).interlaced_frame:
                pytest.skip("this build of FFmpeg does not mark what it encodes as interlaced")
        example = only_example_of(path)

        def combs(picture):
            grey = picture[..., 1].astype(float)
            return np.abs(grey[1:-1] - (grey[:-2] + grey[2:]) / 2)[20:90, 30:100].mean()

        laced = faces.align(combed[7]).crop
        assert combs(images.decode_jpeg(example.frames[7])) < 0.75 * combs(laced)


def beside(left, right):
    """Frames with two people, who have half of them each."""
    for one, other in zip(left, right, strict=True):
        yield np.concatenate([one, other], axis=1)


def hidden(count, size=160):
    """The face with a board held before it."""
    for picture in head(count, size=size, mirror=True):
        covered = picture.copy()
        covered[size // 6 : -size // 8, size // 5 : -size // 5] = 120
        yield covered


def nobody(count, size=160):
    return [np.full((size, size, 3), 120, np.uint8)] * count


class TestCompany:
    def sides(self, frames, shortest=5, longest=1000):
        """Start and length of every stretch, and whether its face is in the right half."""
        frames = list(frames)
        found = tracking.stretches(frames, shortest, longest)
        middle = frames[0].shape[1] / 2
        return [
            (s.start, len(s.regions), bool(s.landmarks[:, :, 0].mean() > middle))
            for s in found
            if not isinstance(s, int)
        ]

    @pytest.mark.parametrize("stays", ["left", "right"])
    def test_of_two_faces_the_one_that_is_there_longest(self, stays):
        whole = list(head(14, size=160))
        part = [*head(6, size=160, mirror=True), *hidden(8)]
        pair = (whole, part) if stays == "left" else (part, whole)
        assert self.sides(beside(*pair)) == [(0, 14, stays == "right")]

    def test_of_two_faces_that_stay_one(self):
        small = list(head(14, size=160, zoom=0.7))
        large = list(head(14, size=160, zoom=1.1, mirror=True))
        found = self.sides(beside(small, large), longest=9)
        assert [(start, count) for start, count, _ in found] == [(0, 9), (9, 5)]
        assert len({right for *_, right in found}) == 1

    def test_one_after_the_other(self):
        left = [*head(8, size=160), *nobody(8)]
        right = [*hidden(8), *head(8, size=160, mirror=True)]
        assert self.sides(beside(left, right)) == [(0, 8, False), (8, 8, True)]

    def test_cuts_and_comings_and_goings_through_a_file(self, tmp_path):
        frames = [*head(12), *head(12, zoom=0.75, mirror=True), *nobody(5, 192), *head(12)]
        path = tmp_path / "x.mp4"
        video.write_video(path, frames, sound(len(frames) / 25), 16000)
        made = examples_of(path)
        assert [(e.clip_id, len(e.frames)) for e in made] == [("x", 12), ("x@12", 12), ("x@29", 12)]
