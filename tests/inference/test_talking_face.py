import dataclasses
import subprocess
import sys

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atvg_jax import models
from atvg_jax.errors import InputError
from atvg_jax.features import audio, faces, landmarks, lips
from atvg_jax.inference import model_directory, talking_face
from atvg_jax.inference.talking_face import TalkingFace


@pytest.fixture(scope="module")
def clip(talking_face, aligned, speech):
    return talking_face.synthesize(aligned, speech, 16000)


def pieces(waveform, size):
    return (waveform[start : start + size] for start in range(0, len(waveform), size))


def test_clip(clip, speech):
    frames = 38  # 24000 samples / 640 = 37.5
    assert clip.frames.shape == (frames, 128, 128, 3)
    assert clip.motion.shape == (frames, 128, 128, 3)
    assert clip.frames.dtype == clip.motion.dtype == np.uint8
    assert clip.attention.shape == (frames, 128, 128)
    assert clip.attention.dtype == np.float32
    assert 0 <= clip.attention.min() <= clip.attention.max() <= 1
    assert clip.landmarks.shape == (frames, 68, 2)
    assert clip.landmarks.dtype == np.float32
    np.testing.assert_array_equal(clip.waveform, speech)


def test_frames_blend_motion_into_the_portrait(clip, aligned):
    alpha = clip.attention[..., None]
    blend = alpha * clip.motion.astype(float) + (1 - alpha) * aligned.crop.astype(float)
    np.testing.assert_allclose(clip.frames, blend, atol=1.01)


def test_networks_in_one_piece_give_the_same(model, clip, aligned, speech):
    """The plain modules, the whole clip in one call, no chunks and no carried state."""
    basis = model.basis
    components = basis.encode(basis.normaliser.normalise(aligned.landmarks[None]))
    windows = audio.windows_from_mfcc(audio.padded_mfcc(speech, 16000, frames=38))
    at_net = models.create("at_net", model.networks["at_net"].settings)
    vg_net = models.create("vg_net", model.networks["vg_net"].settings)
    predicted = jax.jit(at_net.apply)(model.variables["at_net"], components, windows[None])
    points = lips.apart(basis.decode(np.asarray(predicted) * basis.boost), basis)
    np.testing.assert_allclose(clip.landmarks, landmarks.from_model(points[0]), atol=1e-4)
    image = jnp.asarray(aligned.crop, jnp.float32)[None] / 127.5 - 1
    output = jax.jit(vg_net.apply)(
        model.variables["vg_net"], image, points, basis.decode(components)
    )
    np.testing.assert_allclose(clip.attention, output.attention[0, ..., 0], atol=1e-3)
    expected = np.asarray((output.frames[0] + 1) * 127.5)
    assert np.abs(clip.frames - expected).max() < 0.7


def test_the_mouth_depends_on_sound_and_time(clip):
    assert np.ptp(clip.landmarks, axis=0).max() > 1e-3
    assert np.abs(np.diff(clip.frames.astype(int), axis=0)).max() > 2


@pytest.mark.parametrize("size", [1, 640, 5000, 24000])
def test_stream_gives_the_frames_of_synthesize(talking_face, clip, aligned, speech, size):
    moments = list(talking_face.moments(aligned, pieces(speech, size), 16000))
    assert len(moments) == len(clip.frames)
    for name, tolerance in [("landmarks", 1e-5), ("attention", 1e-4)]:
        found = np.stack([getattr(moment, name) for moment in moments])
        np.testing.assert_allclose(found, getattr(clip, name), atol=tolerance)
    frames = np.stack([moment.frame for moment in moments]).astype(int)
    assert np.abs(frames - clip.frames).max() <= 1
    assert (frames != clip.frames).mean() < 0.01


def test_stream_yields_frames(talking_face, portrait, clip, speech):
    frames = list(talking_face.stream(portrait, pieces(speech, 8000), 16000))
    assert np.abs(np.stack(frames).astype(int) - clip.frames).max() <= 1


def test_stream_is_not_ahead_of_its_sound(talking_face, aligned, speech):
    """A frame is there once the sound has gone 2800 samples past its beginning, and no sooner."""
    given = 0

    def microphone():
        nonlocal given
        for chunk in pieces(speech[:16000], 160):
            given += len(chunk)
            yield chunk

    arrivals = [given for _ in talking_face.stream(aligned, microphone(), 16000)]
    live = arrivals[:21]  # the others wait for sound that never comes
    expected = 640 * np.arange(21) + 2800
    assert all(np.array(live) - expected >= 0)
    assert all(np.array(live) - expected < 160)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (640, 1), (641, 2), (10240, 16)])
def test_number_of_frames(talking_face, aligned, samples, frames):
    made = talking_face.synthesize(aligned, np.zeros(samples, np.float32), 16000)
    assert len(made.frames) == frames


@pytest.mark.parametrize(("rate", "samples"), [(8000, 4000), (44100, 22050), (50000, 25001)])
def test_other_rates(talking_face, aligned, rate, samples):
    sound = np.random.default_rng(0).uniform(-1, 1, (samples, 2))
    made = talking_face.synthesize(aligned, sound, rate)
    assert len(made.frames) == -(-samples * 25 // rate)
    assert made.waveform.shape == (samples,)


def test_saved_video_lasts_as_long_as_the_sound(clip, tmp_path):
    file = clip.save(tmp_path / "talk.mp4")
    assert [entry.name for entry in tmp_path.iterdir()] == ["talk.mp4"]
    with av.open(str(file)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec.name, sound.codec.name) == ("h264", "aac")
        assert picture.average_rate == 25
        assert picture.frames == 38
        seconds = float(sound.duration * sound.time_base)
        assert abs(seconds - 38 / 25) <= 1 / 25
        assert abs(seconds - len(clip.waveform) / clip.sample_rate) <= 1 / 25


def test_a_model_directory_makes_the_same_frames(model, clip, aligned, speech, tmp_path):
    model_directory.write(tmp_path / "model", model)
    again = TalkingFace.load(tmp_path / "model").synthesize(aligned, speech, 16000)
    np.testing.assert_array_equal(again.frames, clip.frames)


def test_another_precision_is_refused(model):
    with pytest.raises(InputError, match="float32, bfloat16, not 'int8'"):
        TalkingFace(model, precision="int8")


def test_boost_of_the_basis_is_applied(model, talking_face, aligned, speech, clip):
    basis = dataclasses.replace(model.basis, boost=np.full(6, 2, np.float32))
    boosted = TalkingFace(dataclasses.replace(model, basis=basis))
    made = list(boosted.moments(aligned, [speech], 16000, landmarks_only=True, live=False))
    mean = landmarks.from_model(model.basis.mean)
    found = np.stack([moment.landmarks for moment in made])
    # Closed at a half of the way, inner lips close at the same middle.
    wanted = lips.apart(landmarks.to_model(mean + 2 * (clip.landmarks - mean)), model.basis)
    np.testing.assert_allclose(found, landmarks.from_model(wanted), atol=1e-5)
    assert made[0].frame is None


def test_landmarks_instead_of_a_detector(talking_face, portrait, aligned, speech):
    points = faces.apply(faces.invert(aligned.matrix), aligned.landmarks)
    made = talking_face.align(portrait, points.astype(np.float32))
    assert np.abs(made.crop.astype(int) - aligned.crop).mean() < 12


@pytest.mark.parametrize(
    ("image", "points", "message"),
    [
        (np.zeros((64, 64), np.uint8), None, "uint8 RGB"),
        (np.zeros((64, 64, 3), np.float32), None, "uint8 RGB"),
        (np.zeros((256, 256, 3), np.uint8), None, "no face"),
        (np.zeros((256, 256, 3), np.uint8), np.zeros((5, 2)), "68"),
        (np.zeros((256, 256, 3), np.uint8), np.full((68, 2), np.nan), "68"),
        (np.zeros((256, 256, 3), np.uint8), np.full((68, 2), 900.0), "outside"),
    ],
)
def test_pictures_that_do_not_do(talking_face, speech, image, points, message):
    with pytest.raises(InputError, match=message):
        talking_face.stream(image, [speech], 16000, landmarks=points)


def test_sounds_that_do_not_do(talking_face, aligned):
    with pytest.raises(InputError, match="empty"):
        talking_face.synthesize(aligned, np.zeros(0, np.float32), 16000)
    with pytest.raises(InputError, match="finite"):
        talking_face.synthesize(aligned, np.full(900, np.inf), 16000)
    with pytest.raises(InputError, match="sample rate"):
        talking_face.synthesize(aligned, np.zeros(900), 0)


def test_without_a_bundled_model_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(talking_face, "BUNDLED_MODEL", tmp_path)
    with pytest.raises(InputError, match=r"atvg_jax\.export"):
        TalkingFace.load()


def test_imports_are_light():
    code = """
import sys, atvg_jax, atvg_jax.inference
assert not {"jax", "numpy"} & set(sys.modules), "import atvg_jax"
atvg_jax.TalkingFace
heavy = {"tensorflow", "dlib", "torch", "gradio", "librosa", "scipy", "matplotlib", "orbax",
         "optax", "tensorboardX", "grain"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
