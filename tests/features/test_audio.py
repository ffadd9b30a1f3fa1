"""MFCC against the golden numbers, SciPy and arithmetic."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from atvg_jax.features import audio


def speechlike(samples, seed=0):
    """Noise that swells and dies, with a stretch of digital silence."""
    rng = np.random.default_rng(seed)
    wave = rng.normal(size=samples) * (0.1 + 0.1 * np.sin(np.arange(samples) / 900))
    wave[samples // 3 : samples // 2] = 0.0
    return np.clip(wave, -1, 1)


def reference_mfcc(samples):
    """The definition written out row by row, with SciPy's DCT."""
    emphasised = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    rows = 1 + max(0, int(np.ceil((len(samples) - 400) / 160)))
    emphasised = np.append(emphasised, np.zeros(rows * 160 + 400))

    def mel(hertz):
        return 2595 * np.log10(1 + hertz / 700)

    corners = 700 * (10 ** (np.linspace(mel(0), mel(8000), 28) / 2595) - 1)
    corners = np.floor(513 * corners / 16000).astype(int)
    out = []
    for row in range(rows):
        power = np.abs(np.fft.fft(emphasised[160 * row : 160 * row + 400], 512)[:257]) ** 2 / 512
        bands = []
        for low, centre, high in zip(corners, corners[1:], corners[2:], strict=False):
            band = 0.0
            for k in range(low, centre):
                band += power[k] * (k - low) / (centre - low)
            for k in range(centre, high):
                band += power[k] * (high - k) / (high - centre)
            bands.append(band if band else np.finfo(float).eps)
        cepstrum = scipy.fft.dct(np.log(bands), type=2, norm="ortho")[:13]
        cepstrum *= 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
        cepstrum[0] = np.log(power.sum() if power.sum() else np.finfo(float).eps)
        out.append(cepstrum)
    return np.array(out)


def assert_close(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["int16", "float"])
def test_golden_numbers(reference, kind):
    with np.load(reference / "mfcc.npz") as golden:
        wave = golden["pcm"] if kind == "int16" else golden["pcm"] / 32768.0
        assert_close(audio.mfcc(wave, 16000), golden["mfcc"])
        assert_close(audio.padded_mfcc(wave, 16000), golden["padded_mfcc"])
        assert_close(audio.windows(wave, 16000), golden["windows"])


@pytest.mark.parametrize("samples", [1, 399, 400, 401, 560, 561, 3000])
def test_definition(samples):
    wave = speechlike(samples)
    assert_close(audio.mfcc(wave, 16000), reference_mfcc(wave).astype(np.float32))


def test_silence_is_finite_and_flat():
    rows = audio.mfcc(np.zeros(2000), 16000)
    np.testing.assert_allclose(rows[:, 0], np.log(np.finfo(np.float64).eps), rtol=1e-6)
    np.testing.assert_allclose(rows[:, 1:], 0, atol=1e-5)
    assert audio.mfcc(np.zeros(0), 16000).shape == (1, 13)


def test_loudness_reaches_the_energy_alone():
    wave = np.random.default_rng(0).normal(size=4000) * 0.01
    quiet, loud = audio.mfcc(wave, 16000), audio.mfcc(10 * wave, 16000)
    np.testing.assert_allclose(loud[:, 1:], quiet[:, 1:], atol=1e-4)
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], np.log(100), atol=1e-4)


def test_every_kind_of_pcm_gives_the_same():
    wave = (speechlike(3000) * 20000).astype(np.int16)
    expected = audio.mfcc(wave, 16000)
    for other in (wave.astype(np.int32) << 16, wave / np.float32(32768), np.stack([wave, wave], 1)):
        np.testing.assert_allclose(audio.mfcc(other, 16000), expected, atol=1e-3)
    coarse = (wave // 256 + 128).astype(np.uint8)
    signed = (wave // 256 * 256).astype(np.int16)
    np.testing.assert_allclose(audio.mfcc(coarse, 16000), audio.mfcc(signed, 16000), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(samples=st.integers(0, 9000))
def test_rows_for_every_frame(samples):
    frames = audio.frame_count(samples)
    assert 640 * (frames - 1) < max(samples, 1) <= 640 * frames
    wave = speechlike(samples, seed=samples)
    rows = audio.padded_mfcc(wave, 16000, frames=frames)
    assert rows.shape == (4 * frames + 24, 13)
    assert audio.windows_from_mfcc(rows).shape == (frames, 28, 12)
    published = audio.padded_mfcc(wave, 16000)
    # The same numbers but for the published version's last row, which a shorter padding cuts.
    shared = min(len(rows), len(published)) - 1
    np.testing.assert_array_equal(rows[:shared], published[:shared])


def test_a_cut_out_clip_has_the_rows_of_the_whole():
    wave = speechlike(20 * 640)
    whole, cut = audio.padded_mfcc(wave, frames=20), audio.padded_mfcc(wave, frames=8)
    np.testing.assert_array_equal(cut, whole[: len(cut)])


def test_windows_are_centred_on_their_frames():
    # A click in the middle of frame 5 stands in the middle of its window.
    wave = np.zeros(12 * 640)
    wave[5 * 640 + 320] = 1.0
    windows = audio.windows_from_mfcc(audio.padded_mfcc(wave, frames=12))
    loud = np.flatnonzero(np.abs(windows[5]).sum(axis=1) > 1)
    assert loud.mean() == pytest.approx(13.5, abs=1.0)
    rows = audio.padded_mfcc(wave, frames=12)
    for t in (0, 5, 11):
        np.testing.assert_array_equal(windows[t], rows[4 * t : 4 * t + 28, 1:])


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 50000])
def test_resampling_keeps_pitch_time_and_loudness(rate):
    seconds, hertz = 1.0, 440.0
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)
    out = audio.resample(wave, rate)
    assert out.dtype == np.float32
    assert len(out) == pytest.approx(16000 * seconds, abs=1)
    expected = 0.5 * np.sin(2 * np.pi * hertz * np.arange(len(out)) / 16000)
    np.testing.assert_allclose(out[200:-200], expected[200:-200], atol=2e-3)


def test_resampling_agrees_with_librosa():
    import librosa  # on first use here alone: it takes seconds to import

    wave = speechlike(22050).astype(np.float32)
    theirs = librosa.resample(wave, orig_sr=22050, target_sr=16000, res_type="soxr_hq")
    np.testing.assert_allclose(audio.resample(wave, 22050), theirs, atol=1e-6)


def test_16_khz_is_left_alone():
    wave = speechlike(1000).astype(np.float32)
    np.testing.assert_array_equal(audio.resample(wave, 16000), wave)
    stereo = np.stack([wave, -wave], axis=1)
    np.testing.assert_allclose(audio.resample(stereo, 16000), 0, atol=1e-7)
    np.testing.assert_allclose(audio.resample(stereo.T, 16000), 0, atol=1e-7)


@pytest.mark.parametrize(
    ("wave", "rate", "message"),
    [
        (np.zeros((3, 4, 5)), 16000, "waveform"),
        (np.zeros((100, 40)), 16000, "waveform"),
        (np.array([0.0, np.nan]), 16000, "finite"),
        (np.array(["a"]), 16000, "integers or floats"),
        (np.zeros(10), 0, "sample rate"),
        (np.zeros(10), -1, "sample rate"),
    ],
)
def test_wrong_sound_is_named(wave, rate, message):
    with pytest.raises(ValueError, match=message):
        audio.mfcc(wave, rate)


def test_wrong_rows_are_named():
    with pytest.raises(ValueError, match="rows, 13"):
        audio.windows_from_mfcc(np.zeros((40, 12)))
    with pytest.raises(ValueError, match="28"):
        audio.windows_from_mfcc(np.zeros((27, 13)))
    with pytest.raises(ValueError, match="at least 1"):
        audio.padded_mfcc(np.zeros(640), frames=0)


def test_importing_is_light():
    code = (
        "import sys, atvg_jax.features.audio as a, numpy as n; a.windows(n.ones(6400), 16000);"
        "heavy = {'librosa', 'numba', 'scipy', 'soxr', 'tensorflow', 'jax'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
