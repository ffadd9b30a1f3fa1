import math

import numpy as np
import pytest

from atvg_jax.errors import InputError
from atvg_jax.features import audio
from atvg_jax.inference.sound_stream import WindowStream, as_mono


def speechlike(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * 140 * time) + 0.5 * np.sin(2 * np.pi * 900 * time)
    loudness = 0.15 * (1 + np.sin(2 * np.pi * 3 * time))
    return (tone * loudness + 0.01 * rng.standard_normal(time.size)).astype(np.float32)


def streamed(waveform: np.ndarray, rate: float, size: int) -> np.ndarray:
    stream = WindowStream(rate)
    made = [
        windows
        for start in range(0, len(waveform), size)
        for windows in stream.push(waveform[start : start + size])
    ]
    return np.concatenate([*made, stream.finish()])


@pytest.mark.parametrize("samples", [1, 399, 640, 641, 2800, 16000, 17777])
def test_windows_are_those_of_the_whole_sound(samples):
    waveform = speechlike(2, 16000)[:samples]
    frames = math.ceil(samples / 640)
    whole = audio.windows_from_mfcc(audio.padded_mfcc(waveform, 16000, frames=frames))
    found = streamed(waveform, 16000, 5000)
    assert found.shape == (frames, 28, 12)
    np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 160, 641, 4000, 10**6])
def test_chunks_do_not_matter(size):
    waveform = speechlike(0.7, 16000)
    np.testing.assert_array_equal(
        streamed(waveform, 16000, size), streamed(waveform, 16000, len(waveform))
    )


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_chunks_do_not_matter_when_resampling(rate):
    waveform = speechlike(1.3, rate)
    whole = streamed(waveform, rate, len(waveform))
    assert len(whole) == math.ceil(math.ceil(len(waveform) * 16000 / rate) / 640)
    for size in (97, 1024, 30000):
        np.testing.assert_allclose(streamed(waveform, rate, size), whole, atol=1e-3)


def test_resampled_stream_is_the_resampled_sound():
    waveform = speechlike(1.0, 44100)
    whole = audio.windows_from_mfcc(audio.padded_mfcc(waveform, 44100, frames=25))
    found = streamed(waveform, 44100, 4410)
    # Two passes of one resampler: their rounding differs, in the quietest bands the most.
    assert np.abs(found - whole).mean() < 0.02


def test_a_frame_comes_as_soon_as_its_window_is_there():
    # Rows 0 .. 27 after 120 ms of silence end at 27 * 160 + 400 - 1920 = 2800 samples.
    stream = WindowStream(16000)
    assert sum(map(len, stream.push(np.zeros(2799, np.float32)))) == 0
    assert sum(map(len, stream.push(np.zeros(1, np.float32)))) == 1
    assert sum(map(len, stream.push(np.zeros(639, np.float32)))) == 0
    assert sum(map(len, stream.push(np.zeros(1, np.float32)))) == 1


def test_memory_does_not_grow():
    stream = WindowStream(16000)
    for _ in range(50):
        for windows in stream.push(np.zeros(16000, np.float32)):
            assert len(windows) <= 26
        assert sum(piece.size for piece in stream._pieces) < 10000


def test_no_sound_is_no_frames():
    assert len(WindowStream(16000).finish()) == 0


def test_integers_channels_and_floats_agree():
    waveform = speechlike(0.1, 16000)
    pcm = np.round(waveform * 32768).astype(np.int16)
    np.testing.assert_allclose(as_mono(pcm), waveform, atol=1 / 32768)
    np.testing.assert_array_equal(as_mono(np.stack([pcm, pcm], axis=1)), as_mono(pcm))
    np.testing.assert_allclose(as_mono(np.array([0, 128, 255], np.uint8)), [-1, 0, 127 / 128])


@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros((2, 3, 4), np.float32),
        np.zeros((2, 1000), np.float32),
        np.full(10, np.nan, np.float32),
        np.full(10, 20000.0),
        np.array(["a"]),
        np.float32(0),
    ],
)
def test_what_is_not_sound_is_refused(waveform):
    with pytest.raises(InputError):
        list(WindowStream(16000).push(waveform))


@pytest.mark.parametrize("rate", [0, -1, float("nan"), 1e9])
def test_absurd_rates_are_refused(rate):
    with pytest.raises(InputError, match="sample rate"):
        WindowStream(rate)
