"""Offsets of sound are found in clips made of numbers, in which the mouth follows the sound."""

import json
from pathlib import Path

import numpy as np
import pytest

from atvg_jax.data import schema, wire
from atvg_jax.errors import InputError
from atvg_jax.features.images import encode_jpeg
from atvg_jax.features.landmarks import bundled_face_shape
from data_prep import results, shards, sync, sync_corpus
from data_prep.corpora.clip import Clip
from data_prep.tasks import LocalRunner

PICTURE = encode_jpeg(np.zeros((128, 128, 3), np.uint8))
DIRECTIONS = np.random.default_rng(7).normal(size=(3, 68, 2))


def example(name, frames=75, late=0, noise=0.3, speaker="nobody", moves=True):
    """A clip whose lips follow three coefficients of the sound, which is late by rows of 10 ms."""
    rng = np.random.default_rng(sum(name.encode()))
    extra = 100
    slow = np.exp(-((np.arange(-12, 13) / 5) ** 2))
    rows = rng.normal(size=(4 * frames + 24 + 2 * extra + 24, 13))
    rows = np.stack([np.convolve(c, slow / slow.sum(), "valid") for c in rows.T], axis=1)
    heard = rows[extra + 14 : extra + 14 + 4 * frames : 4]  # the middle of each frame's window
    signal = heard[:, 1:4] / heard[:, 1:4].std(axis=0)
    shape = np.tile(bundled_face_shape().mean_shape, (frames, 1, 1))
    if moves:
        shape = shape + 0.01 * np.tensordot(signal, DIRECTIONS, 1)
        shape = shape + 0.01 * noise * rng.normal(size=shape.shape)
    stored = rows[extra - late : extra - late + 4 * frames + 24]
    return schema.Example(
        frames=[PICTURE] * frames,
        landmarks=shape.astype(np.float32),
        aligned_landmarks=(64 + 150 * shape).astype(np.float32),
        mfcc=stored.astype(np.float32),
        pose=np.zeros((frames, 3), np.float32),
        speaker=speaker,
        clip_id=name,
    )


def track(*args, **settings):
    return sync.track(vars(example(*args, **settings)))


@pytest.fixture(scope="module")
def weights():
    """The regression over 24 clips, for a fold that none of them is in."""
    moments = sync.Moments()
    for number in range(24):
        moments.add(track(f"clip {number}"), part=1 + number % 7)
    return moments.fit()[0]


class TestEstimate:
    @pytest.mark.parametrize("late", [-20, -7, 0, 3, 20, 45])
    def test_finds_by_how_much_sound_is_late(self, weights, late):
        found = sync.estimate(track("new", late=late), weights)
        assert found.offset == pytest.approx(late / 100, abs=0.011)
        assert found.confidence > 0.95
        assert found.correlation > 0.5

    def test_a_mouth_that_has_nothing_to_do_with_the_sound_is_unknown(self, weights):
        sure = [
            sync.estimate(track(f"deaf {n}", noise=300.0), weights).confidence for n in range(20)
        ]
        assert np.mean(np.array(sure) >= sync.CONFIDENT) <= 0.1

    def test_a_mouth_that_does_not_move_is_unknown(self, weights):
        found = sync.estimate(track("still", moves=False), weights)
        assert found.confidence < sync.CONFIDENT
        assert found.correlation == 0.0

    def test_a_clip_too_short_to_be_moved_is_unknown(self, weights):
        assert sync.estimate(track("short", frames=8), weights).confidence < sync.CONFIDENT

    def test_without_a_regression_nothing_is_known(self):
        few = sync.Moments()
        few.add(track("only"), part=1)
        weights = few.fit()
        assert not weights.any()
        assert sync.estimate(track("new"), weights[0]).confidence < sync.CONFIDENT


def test_the_regression_of_a_fold_has_not_seen_it():
    whole, others = sync.Moments(), sync.Moments()
    for number in range(16):
        of, part = track(f"clip {number}"), number % sync.FOLDS
        whole.add(of, part)
        if part != 3:
            others.add(of, part)
    np.testing.assert_array_equal(whole.fit()[3], others.fit()[3])
    assert np.abs(whole.fit()[2] - others.fit()[2]).max() > 1e-4


def test_the_regression_is_ridge_regression():
    """Against the normal equations of all rows stacked."""
    moments, windows, shapes = sync.Moments(), [], []
    for number in range(16):
        of = track(f"clip {number}")
        moments.add(of, part=1)
        windows.append(of.windows[0 : 4 * len(of.shape) : 4])
        shapes.append(of.shape)
    x, y = np.concatenate(windows), np.concatenate(shapes)
    penalty = np.sqrt(sync.RIDGE * np.sum(x**2) / x.shape[1])
    expected, *_ = np.linalg.lstsq(
        np.concatenate([x, penalty * np.eye(x.shape[1])]),
        np.concatenate([y, np.zeros((x.shape[1], y.shape[1]))]),
        rcond=None,
    )
    np.testing.assert_allclose(moments.fit()[0], expected, atol=1e-8)


def test_a_moved_clip_teaches_the_same_as_one_in_sync():
    still, moved = sync.Moments(), sync.Moments()
    still.add(track("clip", frames=200), part=0)
    moved.add(track("clip", frames=200, late=20), part=0, lag=20)
    there, back = (m.both[0] / m.frames[0] for m in (still, moved))
    assert moved.frames[0] == 195
    assert np.corrcoef(there.ravel(), back.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("late", [-12, 0, 20])
def test_mouth_opening_and_loudness_tell_what_all_clips_share(late):
    """Made to peak together; 120 ms early, at once, and 200 ms late."""
    frames, rng = 400, np.random.default_rng(0)
    loud = np.convolve(rng.normal(size=4 * frames + 224 + 40), np.ones(41) / 41, "valid")
    opening = loud[100 + 14 : 100 + 14 + 4 * frames : 4]
    shape = np.tile(bundled_face_shape().mean_shape, (frames, 1, 1))
    shape[:, 66, 1] = shape[:, 62, 1] + 0.05 + 0.1 * opening
    mfcc = np.zeros((4 * frames + 24, 13))
    mfcc[:, 0] = loud[100 - late : 100 - late + len(mfcc)]
    sums = sync.energy_sums({"aligned_landmarks": 64 + 150 * shape, "mfcc": mfcc})
    peak, correlation = sync.energy_peak(sums)
    assert peak == pytest.approx(late / 100, abs=0.011)
    assert correlation > 0.8
    moved, _ = sync.energy_peak(
        sync.energy_sums({"aligned_landmarks": 64 + 150 * shape, "mfcc": mfcc}, late)
    )
    assert moved == pytest.approx(0.0, abs=0.011)
    assert sync.energy_peak(np.zeros((3, 101))) is None


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """What is said of 30 clips of three splits, two of them shifted by 200 ms."""
    out = tmp_path_factory.mktemp("sync")
    done = []
    for number in range(30):
        split = schema.SPLITS[max(0, number - 27)]
        late = {4: 20, 28: -20}.get(number, 0)
        made = example(f"{number:02d}.mp4", late=late, speaker=f"{split} {number % 4}")
        framed = wire.frame_record(schema.serialize(made))
        path = out / "work" / "00" / f"{number:038d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(framed)
        record = results.Record(made.clip_id, 75, 0, len(framed))
        clip = Clip(made.clip_id, Path("x"), made.speaker, split)
        done.append((clip, results.Result(path, (record,), {}, None)))
    planned = shards.plan(done)
    runner = LocalRunner(2, 2**32)
    shards.write(out, out / "work", planned, runner)
    return out, sync_corpus.judge(out, planned, runner, runner)


class TestDataSet:
    def test_what_was_shifted_is_named_first(self, judged):
        _, said = judged
        named = {clip["clip_id"]: clip["offset"] for clip in said["most_off"]}
        assert set(named) == {"04.mp4", "28.mp4"}
        assert named["04.mp4"] == pytest.approx(0.2, abs=0.011)
        assert named["28.mp4"] == pytest.approx(-0.2, abs=0.011)

    def test_the_distribution(self, judged):
        _, said = judged
        train = said["splits"]["train"]
        assert (train["examples"], train["known"]) == (28, 28)
        assert train["histogram"] == {"0": 27, "0.2": 1}
        assert train["beyond_one_frame"] == pytest.approx(1 / 28, abs=1e-4)
        assert train["quantiles"]["0.5"] == pytest.approx(0.0, abs=0.011)
        assert said["splits"]["validation"]["beyond_three_frames"] == 1.0

    def test_every_example_has_its_line(self, judged):
        out, _ = judged
        lines = [json.loads(line) for line in (out / "sync.jsonl").read_text().splitlines()]
        assert [line["clip_id"] for line in lines] == [f"{number:02d}.mp4" for number in range(30)]
        assert lines[29]["split"] == "test"
        assert abs(lines[29]["offset"]) <= 0.011


def test_what_all_clips_share():
    sums = np.ones((3, 101))
    sums[0] *= 0.2
    sums[0, 70] = 0.5  # 200 ms
    assert sync_corpus.common_offset(sums) == pytest.approx(0.2 - sync.ENERGY_PEAK)
    assert sync_corpus.common_offset(sums * [[0.1], [1], [1]]) is None
    assert sync_corpus.common_offset(np.zeros((3, 101))) is None
    found = sync_corpus._moved(sync.Estimate(-0.19, 0.9, 0.5), 0.22)
    assert found == sync.Estimate(0.03, 0.9, 0.5)


def test_an_offset_that_is_not_known_is_not_told():
    rows = [
        ("a", "train", sync.Estimate(0.5, 0.3, 0.1)),
        ("b", "train", sync.Estimate(0.04, 0.9, 0.5)),
    ]
    said = sync_corpus.summary(rows)
    assert said["splits"]["train"]["known"] == 1
    assert said["splits"]["train"]["beyond_one_frame"] == 0.0
    assert said["splits"]["test"]["quantiles"] is None
    assert said["most_off"] == []
    assert json.loads(sync_corpus._line(*rows[0]))["offset"] is None


class TestCorrected:
    LINES = (
        {"clip_id": "late.mp4", "offset": 0.2},
        {"clip_id": "parts.mp4@250", "offset": -0.3},
        {"clip_id": "parts.mp4", "offset": -0.1},
        {"clip_id": "parts.mp4@500", "offset": -0.12},
        {"clip_id": "nearly.mp4", "offset": 0.05},
        {"clip_id": "unknown.mp4", "offset": None},
    )

    def write(self, tmp_path, lines=LINES):
        path = tmp_path / "offsets.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    def test_clips_get_what_was_found_on_top_of_what_they_had(self, tmp_path):
        names = ("late.mp4", "parts.mp4", "nearly.mp4", "unknown.mp4", "new.mp4")
        clips = [Clip(name, Path(name), "a", "train", audio_offset=0.04) for name in names]
        found = sync_corpus.corrected(clips, self.write(tmp_path))
        assert [clip.audio_offset for clip in found] == [0.24, -0.08, 0.04, 0.04, 0.04]
        assert [clip.clip_id for clip in found] == list(names)

    def test_a_file_that_cannot_be_used(self, tmp_path):
        clips = [Clip("other.mp4", Path("x"), "a", "train")]
        with pytest.raises(InputError, match="names no clip of this corpus"):
            sync_corpus.corrected(clips, self.write(tmp_path))
        with pytest.raises(InputError, match=r"give the sync.jsonl of a build"):
            sync_corpus.corrected(clips, self.write(tmp_path, [{"clip_id": "a"}]))
        with pytest.raises(InputError, match=r"nowhere.jsonl"):
            sync_corpus.corrected(clips, tmp_path / "nowhere.jsonl")
