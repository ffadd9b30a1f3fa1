"""One clip: its example is what the schema says, in step with its sound, or there is a reason."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from atvg_jax.features import audio, faces, images, video
from atvg_jax.features.landmarks import LandmarkNormaliser
from data_prep.corpora.clip import Clip, Word
from data_prep.prepare import Prepared, PrepareSettings, Reject, jitter, mfcc_rows, prepare

from ..features.media_files import write_file
from .conftest import head, sound, talk


def clip_of(path, **fields):
    return Clip(**{"clip_id": path.name, "video": path, "speaker": "a", "split": "train", **fields})


@pytest.fixture(scope="module")
def example(talking):
    prepared = prepare(clip_of(talking, text="hello"), PrepareSettings())
    assert isinstance(prepared, Prepared)
    (only,) = prepared.examples
    return only


class TestExample:
    def test_it_has_every_frame(self, example):
        assert len(example.frames) == 30
        assert example.mfcc.shape == (4 * 30 + 24, 13)
        assert (example.clip_id, example.speaker, example.text) == ("talking.mp4", "a", "hello")

    def test_frames_show_the_face_upright_in_the_middle(self, example):
        frame = images.decode_jpeg(example.frames[7])
        assert frame.shape == (128, 128, 3)
        (found, *_) = faces.detect(frame)
        left, _, right, _ = found.box
        assert abs((left + right) / 2 - 64) < 12
        assert right - left > 60

    def test_landmarks_lie_on_the_frames(self, example):
        for number in (0, 15, 29):
            frame = images.decode_jpeg(example.frames[number])
            points = example.aligned_landmarks[number]
            again = faces.predict_landmarks(frame, faces.landmark_box(points))
            assert np.linalg.norm(again - points, axis=1).mean() < 1.5

    def test_normalised_landmarks_have_the_normaliser_s_scale(self, example):
        shapes = example.landmarks.astype(float)
        sizes = np.linalg.norm(shapes - shapes.mean(axis=1, keepdims=True), axis=(1, 2))
        np.testing.assert_allclose(sizes, 1.0, atol=0.1)
        expected = LandmarkNormaliser.default().normalise(example.aligned_landmarks)
        np.testing.assert_allclose(example.landmarks, expected, atol=1e-6)

    def test_the_crop_does_not_shake(self, example):
        assert jitter(example.aligned_landmarks) < 1.0

    def test_a_frontal_face_has_a_small_pose(self, example):
        yaw, pitch, roll = np.abs(np.median(example.pose, axis=0))
        assert max(yaw, roll) < 10
        # A generic head takes a short nose for a nod: over people who face the camera, pitch
        # spreads by 10 degrees (standard deviation), and this face is at the end of that.
        assert pitch < 35

    def test_twice_the_same(self, talking, example):
        again = prepare(clip_of(talking, text="hello"), PrepareSettings()).examples[0]
        assert again.frames == example.frames
        np.testing.assert_array_equal(again.landmarks, example.landmarks)

    def test_clip_settings_and_outcome_can_be_sent_to_another_process(self, talking, example):
        for item in (clip_of(talking), PrepareSettings(), example):
            pickle.loads(pickle.dumps(item))


class TestSound:
    def test_rows_of_a_whole_clip_are_those_of_synthesis(self):
        waveform = sound(2.0)
        np.testing.assert_allclose(
            mfcc_rows(waveform, 0, 50), audio.padded_mfcc(waveform, 16000, frames=50), atol=1e-4
        )

    def test_rows_of_a_stretch_are_those_of_the_whole(self):
        waveform = sound(4.0)
        whole = mfcc_rows(waveform, 0, 100)
        np.testing.assert_allclose(
            mfcc_rows(waveform, 30, 40), whole[4 * 30 : 4 * 70 + 24], atol=1e-4
        )

    @pytest.mark.parametrize("samples", [0, 100, 700, 16000])
    def test_sound_that_ends_is_followed_by_silence(self, samples):
        rows = mfcc_rows(sound(1.0)[:samples], 0, 60)
        assert rows.shape == (4 * 60 + 24, 13)
        assert np.isfinite(rows).all()
        silent = mfcc_rows(np.zeros(0, np.float32), 0, 60)
        np.testing.assert_array_equal(rows[-100:], silent[-100:])

    @pytest.mark.parametrize("late", [0.2, -0.2, 0.0])
    def test_a_late_sound_is_put_right(self, tmp_path, late):
        """The same speech, delayed in the file and corrected, gives the same rows."""
        shift = round(abs(late) * 16000)
        speech = sound(1.6)
        moved = np.pad(speech, (shift, 0)) if late > 0 else speech[shift:]
        path = talk(tmp_path / "x.mp4", frames=40, waveform=moved)
        (made,) = prepare(clip_of(path, audio_offset=late), PrepareSettings()).examples
        first = 5 if late < 0 else 0  # 0.2 s whose sound is not in the file
        assert made.clip_id == ("x.mp4@5" if first else "x.mp4")
        frames = 34 - first
        expected = mfcc_rows(speech, first, 40)[12 : 4 * frames, 1:]
        found = made.mfcc[12 : 4 * frames, 1:]
        wrong = mfcc_rows(speech, first + 5, 40)[12 : 4 * frames, 1:]
        error = np.abs(found - expected).mean()
        assert error < 0.3 * np.abs(found - wrong).mean()  # AAC changes the sound a little

    def test_sound_in_a_file_of_its_own(self, tmp_path):
        silent = talk(tmp_path / "x.mp4", frames=30, waveform=np.zeros(19200, np.float32))
        spoken = talk(tmp_path / "spoken.mp4", frames=30)
        (made,) = prepare(clip_of(silent, audio=spoken), PrepareSettings()).examples
        np.testing.assert_allclose(
            made.mfcc, mfcc_rows(video.read_waveform(spoken), 0, 30), atol=1e-4
        )

    def test_frames_after_the_sound_has_ended_are_left_out(self, tmp_path):
        path = talk(tmp_path / "x.mp4", frames=60)
        short = tmp_path / "short.mp4"
        video.write_video(short, head(30), sound(1.2), 16000)
        (made,) = prepare(clip_of(path, audio=short), PrepareSettings()).examples
        assert 29 <= len(made.frames) <= 37


class TestStretches:
    def test_a_long_clip_gives_several_examples(self, tmp_path):
        path = talk(tmp_path / "x.mp4", frames=60)
        settings = PrepareSettings(shortest=10, longest=25)
        prepared = prepare(clip_of(path), settings)
        assert [(e.clip_id, len(e.frames)) for e in prepared.examples] == [
            ("x.mp4", 25),
            ("x.mp4@25", 25),
            ("x.mp4@50", 10),
        ]
        whole = prepare(clip_of(path), PrepareSettings()).examples[0]
        np.testing.assert_allclose(
            prepared.examples[1].mfcc, whole.mfcc[100 : 100 + 4 * 25 + 24], atol=1e-4
        )

    def test_each_has_the_words_that_are_said_in_it(self, tmp_path):
        path = talk(tmp_path / "x.mp4", frames=60)
        words = (Word("one", 0.1, 0.5), Word("two", 0.9, 1.3), Word("three", 1.9, 2.3))
        clip = clip_of(path, text="one two three", words=words)
        made = prepare(clip, PrepareSettings(shortest=10, longest=25)).examples
        assert [example.text for example in made] == ["one", "two", "three"]

    def test_another_frame_rate_is_resampled(self, tmp_path):
        path = tmp_path / "x.mp4"
        video.write_video(path, head(60), sound(1.2), 16000, frame_rate=50)
        (made,) = prepare(clip_of(path), PrepareSettings()).examples
        assert len(made.frames) == 30


def grey(count):
    return [np.full((96, 96, 3), 120, np.uint8)] * count


class TestRejects:
    def reason(self, path, **settings):
        outcome = prepare(clip_of(path), PrepareSettings(**settings))
        assert isinstance(outcome, Reject), outcome
        assert path.name in outcome.message
        assert "\n" not in outcome.message
        return outcome.reason

    def test_no_face(self, tmp_path):
        video.write_video(tmp_path / "x.mp4", grey(30), sound(1.2), 16000)
        assert self.reason(tmp_path / "x.mp4") == "no_face"

    def test_too_short(self, tmp_path):
        assert self.reason(talk(tmp_path / "x.mp4", frames=10)) == "too_short"
        assert self.reason(talk(tmp_path / "y.mp4", frames=1)) == "too_short"

    def test_no_sound(self, tmp_path):
        video.write_video(tmp_path / "x.mp4", grey(30))
        assert self.reason(tmp_path / "x.mp4") == "no_audio"

    def test_silence(self, tmp_path):
        path = talk(tmp_path / "x.mp4", waveform=np.zeros(19200, np.float32))
        assert self.reason(path) == "no_audio"

    def test_sound_of_damaged_numbers(self, tmp_path, talking):
        for number, wrong in enumerate((np.nan, np.inf, -1e6)):
            speech = sound(1.2)
            speech[5000] = wrong
            path = write_file(
                tmp_path / f"{number}.mkv", sound=speech, codecs=("libx264", "pcm_f32le")
            )
            clip = clip_of(talking, audio=path)
            outcome = prepare(clip, PrepareSettings())
            assert (outcome.reason, path.name in outcome.message) == ("unreadable", True)

    def test_still_pictures(self, tmp_path):
        assert self.reason(talk(tmp_path / "x.mp4", still=True)) == "still"
        frames = list(head(30))
        shown = [frames[number - number % 2] for number in range(30)]  # a slow camera's will do
        video.write_video(tmp_path / "z.mp4", shown, sound(1.2), 16000)
        assert isinstance(prepare(clip_of(tmp_path / "z.mp4"), PrepareSettings()), Prepared)

    def test_jitter_and_pose(self, talking):
        assert self.reason(talking, max_jitter=0.0) == "jitter"
        assert self.reason(talking, max_yaw=0.0) == "pose"

    def test_missing(self, tmp_path):
        assert self.reason(tmp_path / "absent.mp4") == "unreadable"

    def test_damaged_files(self, tmp_path, talking):
        whole = talking.read_bytes()
        rng = np.random.default_rng(0)
        path = tmp_path / "x.mp4"
        kinds = [b"", b"text", whole[: len(whole) // 2], whole[len(whole) // 2 :], rng.bytes(5000)]
        for content in kinds:
            path.write_bytes(content)
            assert self.reason(path) == "unreadable"

    def test_flipped_bits_give_a_reason_or_a_sound_example(self, tmp_path, talking):
        whole = talking.read_bytes()
        rng = np.random.default_rng(1)
        path = tmp_path / "x.mp4"
        for _ in range(6):
            content = bytearray(whole)
            for at in rng.integers(len(content), size=20):
                content[at] ^= 1 << rng.integers(8)
            path.write_bytes(bytes(content))
            outcome = prepare(clip_of(path), PrepareSettings())
            assert isinstance(outcome, Prepared) or outcome.reason


class TestJitter:
    def test_by_hand(self):
        still = np.random.default_rng(0).normal(64, 20, (1, 68, 2)).repeat(9, axis=0)
        assert jitter(still) == pytest.approx(0)
        moving = still + np.arange(9)[:, None, None]
        assert jitter(moving) == pytest.approx(0)
        shaking = still + np.array([0, 1] * 4 + [0])[:, None, None] * [1.0, 0.0]
        assert jitter(shaking) == pytest.approx(2.0)

    def test_speech_is_no_jitter(self):
        points = np.zeros((9, 68, 2))
        points[::2, 48:] += 5
        points[::2, :17] += 5
        assert jitter(points) == 0


def test_workers_are_import_light():
    program = (
        "import sys, data_prep.prepare, data_prep.results, data_prep.workers, data_prep.build\n"
        "heavy = {'tensorflow', 'jax', 'flax', 'librosa', 'matplotlib', 'grain', 'dlib', 'cv2'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
