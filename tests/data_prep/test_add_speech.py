"""Speech that nobody filmed gets the landmarks that filmed people have at the same sounds.

The real encoder is a package of 90 MB that tests do not install. A made one takes its place, with
the same inputs, outputs and times: it hears nothing but the loudness of one sample.
"""

import json
import wave

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from atvg_jax.data import schema, wire
from atvg_jax.errors import InputError
from atvg_jax.features import audio, images
from atvg_jax.features.landmarks import mouth_opening
from data_prep import add_speech, pseudo_labels, speech_encoder
from data_prep.corpora.clip import Clip
from tests import tiny_dataset

FIELD, STEP = 127 + 64 * (7 - 1) + 192 * (3 - 1), 64 * 3 * 2
"""Samples that an output of Moonshine's first three layers is made of, and from one to the next."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """An encoder whose every channel is the sample in the middle of what an output is made of."""
    kernel = np.zeros((speech_encoder.CHANNELS, 1, FIELD), np.float32)
    kernel[:, 0, FIELD // 2] = 1
    nodes = [
        helper.make_node("Unsqueeze", ["input_values", "one"], ["sound"]),
        helper.make_node("Conv", ["sound", "kernel"], ["outputs"], strides=[STEP]),
        helper.make_node("Transpose", ["outputs"], ["made"], perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "ear",
        [
            helper.make_tensor_value_info("input_values", TensorProto.FLOAT, [1, "n"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, [1, "n"]),
        ],
        [helper.make_tensor_value_info("made", TensorProto.FLOAT, [1, "m", kernel.shape[0]])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.array([1]), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    path = tmp_path_factory.mktemp("encoder") / "ear.onnx"
    onnx.save(model, path)
    return speech_encoder.SpeechEncoder(path)


@pytest.mark.parametrize("frames", [3, 75, 700])
def test_rows_are_of_the_middles_of_pictures(encoder, frames):
    # 700 pictures are heard in three pieces. The loudness of a sample is its time in seconds.
    seconds = np.arange(frames * 640, dtype=np.float64) / 16000
    rows = encoder.rows(seconds.astype(np.float32), frames)
    assert rows.shape == (frames, 5 * speech_encoder.CHANNELS)
    for place, neighbour in enumerate((-2, -1, 0, 1, 2)):
        picture = np.clip(np.arange(frames) + neighbour, 0, frames - 1)
        heard = rows[:, place * speech_encoder.CHANNELS]
        # No output is of the first or last half of FIELD samples: the last ones there are stand in.
        reached = np.clip((picture + 0.5) * 640, FIELD // 2, frames * 640 - FIELD / 2) / 16000
        np.testing.assert_allclose(heard, reached, atol=STEP / 16000)
        inner = (picture > 0) & (picture < frames - 1)
        np.testing.assert_allclose(heard[inner], (picture[inner] + 0.5) * 0.04, atol=1e-4)


def test_sound_that_ends_early_is_followed_by_silence(encoder):
    rows = encoder.rows(np.full(40 * 640, 0.5, np.float32), 75)
    assert (rows[10:35] == 0.5).all()
    assert (rows[45:] == 0).all()


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no speech encoder"):
        speech_encoder.SpeechEncoder(tmp_path / "none.ort")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(InputError, match="no network for ONNX Runtime"):
        speech_encoder.SpeechEncoder(tmp_path / "text.onnx")


def test_the_regression_is_ridge_regression_of_evened_out_speakers():
    rng = np.random.default_rng(3)
    clips = [
        (rng.normal(size=(n, 7)).astype(np.float32) * 3 + 1, rng.normal(size=(n, 2)), speaker)
        for n, speaker in ((40, "a"), (25, "a"), (30, "b"))
    ]
    frames = {"a": 65, "b": 30}
    regression = pseudo_labels.Regression(frames)
    for features, components, speaker in clips:
        regression.add(features, components.astype(np.float32), speaker)
    labeller = regression.fit()

    # The same as least squares: rows for the weights, and a row for each feature that wants its
    # standardised coefficient to be zero.
    x = np.concatenate([features for features, _, _ in clips]).astype(np.float64)
    y = np.concatenate([c - c.mean(axis=0) for _, c, _ in clips])
    weights = np.concatenate([np.full(len(f), frames[s] ** -0.7) for f, _, s in clips])
    weights /= weights.sum()
    mean = weights @ x
    scale = np.sqrt(weights @ (x - mean) ** 2)
    rows = np.sqrt(weights)[:, None] * (x - mean) / scale
    wanted = np.sqrt(weights)[:, None] * y
    penalty = np.sqrt(pseudo_labels.RIDGE) * np.eye(7)
    coefficients, *_ = np.linalg.lstsq(
        np.concatenate([rows, penalty]), np.concatenate([wanted, np.zeros((7, 2))]), rcond=None
    )
    new = rng.normal(size=(50, 7))
    expected = (new / scale) @ coefficients
    made = labeller.label(new.astype(np.float32))
    np.testing.assert_allclose(made, expected - expected.mean(axis=0), atol=1e-5)


def loud(path, loudness):
    """A sound file that is as loud throughout each picture as it says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.repeat(np.asarray(loudness), 640)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def in_two(example, at):
    """The examples of a clip that is cut before a frame."""
    for start, end, name in ((0, at, ""), (at, len(example["frames"]), f"@{at}")):
        rows = slice(4 * start, 4 * end + schema.CONTEXT_ROWS)
        part = {key: example[key][start:end] for key in (*schema.ARRAYS, "frames")}
        part |= {"mfcc": example["mfcc"][rows], "clip_id": example["clip_id"] + name}
        yield schema.Example(speaker=example["speaker"], text="", **part)


def examples(folder, split):
    return [
        schema.deserialize(record)
        for path in schema.data_files(folder, split)
        for record in wire.read_records(path)
    ]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A data set in which mouths are open where it is loud, and the clips it is of.

    Each clip is two examples, as those are whose face was lost for a moment.
    """
    folder = tmp_path_factory.mktemp("corpus")
    data = tiny_dataset.write(folder / "data", lengths=(75,) * 8, speakers="abcd")
    clips = []
    for example in examples(data, "train"):
        opening = mouth_opening(example["landmarks"])
        name = example["clip_id"]
        sound = loud(folder / "sound" / f"{name}.wav", 0.1 + opening)
        clips.append(Clip(name, folder / "no.mp4", example["speaker"], "train", audio=sound))
    for path in schema.data_files(data, "train"):
        records = [schema.deserialize(record) for record in wire.read_records(path)]
        halves = [half for example in records for half in in_two(example, 40)]
        path.write_bytes(b"".join(wire.frame_record(schema.serialize(half)) for half in halves))
    return data, clips


@pytest.fixture(scope="module")
def pattern():
    t = np.arange(300)
    return 0.25 + 0.1 * np.sin(0.5 * t) + 0.05 * np.sin(0.83 * t)


@pytest.fixture(scope="module")
def spoken(corpus, encoder, pattern, tmp_path_factory):
    """A data set with speech of two speakers beside."""
    folder = tmp_path_factory.mktemp("spoken")
    speech = folder / "speech"
    loud(speech / "anna" / "long.wav", pattern)
    loud(speech / "bob" / "one.wav", pattern[:20])
    loud(speech / "bob" / "two.wav", pattern[20:50])
    loud(speech / "bob" / "zero.wav", np.zeros(30))
    (speech / "bob" / "notes.txt").write_text("no sound")
    (speech / "bob" / "zzz.wav").write_bytes(b"RIFFnothing")
    added = add_speech.add_speech(*corpus, speech, folder / "out", encoder)
    return folder / "out", added


def test_speech_moves_lips_as_filmed_people_do(spoken, pattern):
    long = [e for e in examples(spoken[0], "train") if e["speaker"] == "speech/anna"]
    assert [len(e["landmarks"]) for e in long] == [250, 57]  # and a pause after it
    opening = mouth_opening(long[0]["landmarks"])
    heard = pattern[:250]
    inside = slice(2, 248)
    assert np.corrcoef(opening[inside], heard[inside])[0, 1] > 0.95


def test_short_recordings_of_a_speaker_follow_each_other(spoken, pattern):
    (bob,) = [e for e in examples(spoken[0], "train") if e["speaker"] == "speech/bob"]
    between = np.zeros(4000, np.float32)
    parts = [np.repeat(part, 640) / part.max() / 2 for part in (pattern[:20], pattern[20:50])]
    whole = np.concatenate([parts[0], between, parts[1], between])
    frames = audio.frame_count(len(whole))
    expected = audio.padded_mfcc(whole, frames=frames)
    # The energy of what is as loud as silence apart; 16-bit files are a little off.
    np.testing.assert_allclose(bob["mfcc"][20:80, 1:], expected[20:80, 1:], atol=0.5)


def test_filmed_people_stay_as_they_are(spoken, corpus):
    for split in ("train", "validation"):
        before = {e["clip_id"]: e for e in examples(corpus[0], split)}
        after = {e["clip_id"]: e for e in examples(spoken[0], split)}
        assert before.keys() == {name for name in after if "#" not in name}
        for name, example in before.items():
            np.testing.assert_array_equal(after[name]["landmarks"], example["landmarks"])
            np.testing.assert_array_equal(after[name]["mfcc"], example["mfcc"])
            assert after[name]["speaker"] == example["speaker"]
    black = images.decode_jpeg(after[name]["frames"][0])
    assert black.shape == (128, 128, 3)
    assert not black.any()


def test_what_came_of_it_is_told(spoken):
    told = json.loads((spoken[0] / "speech.json").read_text())
    assert told == spoken[1]._asdict()
    assert told["copied"] == 16
    assert told["added"] == 3
    assert told["left_out"] == 2


def test_bad_input_gets_one_line_and_leaves_nothing(corpus, encoder, tmp_path):
    data, clips = corpus
    speech = tmp_path / "speech"
    with pytest.raises(InputError, match="is not a folder"):
        add_speech.add_speech(data, clips, speech, tmp_path / "out", encoder)
    speech.mkdir()
    with pytest.raises(InputError, match="holds no recordings"):
        add_speech.add_speech(data, clips, speech, tmp_path / "out", encoder)
    loud(speech / "a.wav", np.full(30, 0.2))
    with pytest.raises(InputError, match="that the corpus does not"):
        add_speech.add_speech(data, clips[1:], speech, tmp_path / "out", encoder)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="is not a data set of this command"):
        add_speech.add_speech(data, clips, speech, data, encoder)
    assert examples(data, "train")
