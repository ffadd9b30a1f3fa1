"""The model that comes with the project."""

import dataclasses

import numpy as np
import pytest

from atvg_jax import assets
from atvg_jax.features import faces, images, video
from atvg_jax.features.landmarks import mouth_opening
from atvg_jax.inference import model_directory
from atvg_jax.inference.talking_face import BUNDLED_MODEL, TalkingFace

SECONDS = 3


@pytest.fixture(scope="module")
def face():
    return TalkingFace.load()


@pytest.fixture(scope="module")
def portrait():
    return faces.align(images.read_image(assets.portrait_path("hopper")))


def test_it_is_small_and_holds_no_pickle():
    files = list(BUNDLED_MODEL.iterdir())
    assert sum(file.stat().st_size for file in files) < 20e6
    assert {file.suffix for file in files} == {".json", ".npz", ".safetensors"}


def test_its_lips_move_with_speech_and_rest_in_silence(face, portrait):
    speech = video.read_waveform(assets.speech_path())[: SECONDS * 16000]
    spoken = face.synthesize(portrait, speech, 16000)
    silent = face.synthesize(portrait, np.zeros_like(speech), 16000)
    assert mouth_opening(spoken.landmarks).std() > 3 * mouth_opening(silent.landmarks)[5:].std()
    # What moves in the frames is the mouth, not the forehead and the eyes.
    moved = spoken.frames.astype(float).std(axis=0).mean(axis=-1)
    assert moved[80:115, 40:90].mean() > 4 * moved[:64].mean()


def lip_heights(face, portrait):
    """How far the inner lips are apart, frame by frame of the bundled sentence; crossed below 0.

    In shares of the distance between the eyes' centres.
    """
    speech = video.read_waveform(assets.speech_path())
    moments = face.moments(portrait, [speech], 16000, landmarks_only=True, live=False)
    shapes = np.stack([moment.landmarks for moment in moments])
    eyes = [shapes[:, points].mean(axis=1) for points in (slice(36, 42), slice(42, 48))]
    upper, lower = 62, 66
    return (shapes[:, lower, 1] - shapes[:, upper, 1]) / np.linalg.norm(eyes[0] - eyes[1], axis=1)


def test_its_lips_close_and_do_not_cross(face, portrait):
    heights = lip_heights(face, portrait)
    # dlib's points of 30 clips of the GRID corpus, by the words' times: real lips come to 0.035 at
    # p, b and m, and go to 0.21 in a wide vowel (benchmarks/lip_closures.py).
    assert max(heights) > 0.2
    assert min(heights) > -7e-5  # the rounding of float32
    assert min(heights) < 0.01


def test_its_lips_that_would_cross_are_shut(portrait):
    model = model_directory.read(BUNDLED_MODEL)
    further = dataclasses.replace(model, basis=model.basis.boosted(2 * model.basis.boost))
    heights = lip_heights(TalkingFace(further), portrait)
    assert min(heights) == pytest.approx(0, abs=7e-5)  # shut, to the rounding of float32
    assert max(heights) > 0.2


def test_products_of_bfloat16_make_frames_that_look_the_same(face, portrait):
    speech = video.read_waveform(assets.speech_path())[: SECONDS * 16000]
    exact = face.synthesize(portrait, speech, 16000)
    halved = TalkingFace.load(precision="bfloat16").synthesize(portrait, speech, 16000)
    np.testing.assert_allclose(halved.landmarks, exact.landmarks, atol=1e-6)
    difference = halved.frames.astype(float) - exact.frames
    assert 0 < np.square(difference).mean() < 255**2 / 10**6  # 60 dB
    assert np.abs(difference).max() <= 3
