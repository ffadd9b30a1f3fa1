"""The reader: what a batch holds, that nothing is lost or doubled, and that a position resumes."""

import subprocess
import sys

import numpy as np
import pytest

from atvg_jax.data import augment, schema
from atvg_jax.data.pipeline import (
    Augmentation,
    ClipWindows,
    Reading,
    TrainBatches,
    Windows,
    cut,
    held_out_batches,
)
from atvg_jax.data.records import ClipRecords
from atvg_jax.errors import InputError
from atvg_jax.features import audio, landmarks
from tests import tiny_dataset

AT, VG = Windows("at_net"), Windows("vg_net")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset.write(tmp_path_factory.mktemp("pipeline") / "data")


class Numbers:
    """A source whose windows are their own numbers."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def random(self, number, augmentation, rng):
        return {"number": np.asarray(number), "draw": np.asarray(rng.random())}

    def fixed(self, number):
        return {"number": np.asarray(number)}


def take(batches, count):
    return [next(batches) for _ in range(count)]


def numbers(batches):
    return np.concatenate([batch["number"] for batch in batches]).tolist()


def test_batches_have_the_shapes_that_the_networks_take(data):
    batch = next(TrainBatches(ClipWindows(data, "train", AT), 3, seed=0))
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "mfcc": ((3, 16, 28, 12), "float32"),
        "landmarks": ((3, 16, 136), "float32"),
        "example_landmark": ((3, 136), "float32"),
    }
    batch = next(TrainBatches(ClipWindows(data, "train", VG), 2, seed=0))
    assert {name: (array.shape, array.dtype.name) for name, array in batch.items()} == {
        "example_image": ((2, 128, 128, 3), "uint8"),
        "frames": ((2, 16, 128, 128, 3), "uint8"),
        "landmarks": ((2, 16, 136), "float32"),
        "example_landmark": ((2, 136), "float32"),
    }


def test_a_sample_of_landmarks_is_spread_over_the_clips(data):
    source = ClipWindows(data, "train", VG)
    sample = source.sample_landmarks(40)
    clips = [source.records.example(n)["landmarks"] for n in range(len(source.records))]
    known = [5 * clip.reshape(len(clip), 136) for clip in clips if len(clip) >= 16]
    assert 20 <= len(sample) <= 60
    found = [{n for n, rows in enumerate(known) if (rows == one).all(1).any()} for one in sample]
    assert all(found)
    assert len(set.union(*found)) >= 2


def test_sound_landmarks_and_pictures_of_a_window_belong_together(data):
    clip = ClipRecords(schema.data_files(data, "train")).example(0)
    start, example_frame = 2, 11
    window = cut(clip, AT, start, start - 1)
    for t in range(16):
        first = 4 * (start + t)
        expected = clip["mfcc"][first : first + 28, 1:]
        np.testing.assert_array_equal(window["mfcc"][t], expected)
        points = 5 * clip["landmarks"][start + t].ravel()
        np.testing.assert_allclose(window["landmarks"][t], points, rtol=1e-6)
    previous = 5 * clip["landmarks"][start - 1].ravel()
    np.testing.assert_allclose(window["example_landmark"], previous, rtol=1e-6)
    window = cut(clip, VG, start, example_frame)
    # The corner of picture n is 3 n bright; JPEG keeps a flat square to a step or so.
    brightness = window["frames"][:, 4, 4].mean(axis=-1) / 3
    np.testing.assert_allclose(brightness, np.arange(start, start + 16), atol=0.7)
    assert window["example_image"][4, 4].mean() / 3 == pytest.approx(example_frame, abs=0.7)


def test_at_windows_of_lrw_clips_are_placed_as_published():
    rng = np.random.default_rng(0)
    places = [AT.place(29, 0, 1, rng) for _ in range(300)]
    assert {example for _, example in places} == {3, 4, 5, 6, 7}
    assert all(start == example + 1 for start, example in places)


def test_an_example_from_anywhere_in_the_clip():
    anywhere = Windows("at_net", example="any")
    rng = np.random.default_rng(2)
    places = [anywhere.place(29, 0, 1, rng) for _ in range(600)]
    assert {start for start, _ in places} == set(range(29 - 16 + 1))
    assert {example for _, example in places} == set(range(29))
    # Held-out windows begin with the clip's first frame, as a clip that is synthesized does.
    assert [anywhere.place_evenly(48, part, 3)[1] for part in range(3)] == [0, 0, 0]
    # No frame is needed before the window.
    assert anywhere.count(np.asarray([15, 16, 17])).tolist() == [0, 1, 1]
    assert AT.count(np.asarray([15, 16, 17])).tolist() == [0, 0, 1]


def test_the_example_may_be_the_mean_of_the_clip(data):
    mean = Windows("at_net", frames=1, example="mean")
    assert mean.count(np.asarray([1, 24])).tolist() == [1, 24]
    source = ClipWindows(str(data), "train", mean)
    clip = source.records.example(0)["landmarks"]
    expected = landmarks.to_model(clip.astype(np.float64).mean(axis=0))
    rng = np.random.default_rng(0)
    for window in (source.random(3, Augmentation(), rng), source.fixed(3)):
        np.testing.assert_allclose(window["example_landmark"], expected, rtol=1e-5, atol=1e-6)
        # What is to be answered for is a frame of the clip as ever, and the clip is as it was.
        frames = landmarks.to_model(clip)
        assert np.abs(frames - window["landmarks"]).max(axis=1).min() < 1e-6
    # VG-net needs a picture of its example, and there is none of a mean.
    assert Windows("vg_net", example="mean").place_evenly(40, 0, 1)[1] == 0


def test_windows_of_an_unknown_kind_are_refused():
    with pytest.raises(InputError, match="no network is called 'ta_net'"):
        Windows("ta_net")
    with pytest.raises(InputError, match=r"config\.example='after'"):
        Windows("at_net", example="after")


@pytest.mark.parametrize("frames", [17, 18, 24, 25, 29, 75, 400])
@pytest.mark.parametrize("windows", [AT, VG])
def test_windows_lie_within_their_clip_and_together_cover_it(windows, frames):
    rng = np.random.default_rng(1)
    parts = int(windows.count(np.asarray(frames)))
    assert parts == max(1, frames // 16)
    starts, examples = [], []
    for _ in range(200):
        for part in range(parts):
            start, example = windows.place(frames, part, parts, rng)
            assert 0 <= start <= frames - 16
            assert 0 <= example < frames
            starts.append(start)
            examples.append(example)
    margin = 6 if windows is AT else 0
    assert min(starts) <= margin
    assert max(starts) >= frames - 16 - margin
    if windows is VG and frames < 100:
        assert set(examples) == set(range(frames))


def test_an_epoch_loses_and_doubles_no_window_and_epochs_differ():
    batches = TrainBatches(Numbers(30), 5, seed=3)
    first, second = numbers(take(batches, 6)), numbers(take(batches, 6))
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second
    assert first != sorted(first)
    other = TrainBatches(Numbers(30), 5, seed=4)
    assert numbers(take(other, 6)) != first


@pytest.mark.parametrize("processes", [1, 2, 3, 6])
def test_processes_together_lose_and_double_no_window_of_an_epoch(processes):
    shares = [
        numbers(take(TrainBatches(Numbers(30), 6, 0, reading=Reading(1, 2, n, processes)), 10))
        for n in range(processes)
    ]
    per_epoch = 30 // processes
    for epoch in range(2):
        seen = [share[epoch * per_epoch : (epoch + 1) * per_epoch] for share in shares]
        assert sorted(np.concatenate(seen)) == list(range(30))


def test_processes_share_each_batch_in_blocks():
    whole = take(TrainBatches(Numbers(31), 6, seed=0), 20)
    shares = [
        take(TrainBatches(Numbers(31), 6, seed=0, reading=Reading(2, 4, process, 3)), 20)
        for process in range(3)
    ]
    for step, batch in enumerate(whole):
        blocks = [share[step] for share in shares]
        assert batch["number"].tolist() == numbers(blocks)
    with pytest.raises(InputError, match=r"batch_size=6 .* 4 processes"):
        TrainBatches(Numbers(31), 6, seed=0, reading=Reading(2, 4, 0, 4))


def test_a_saved_position_goes_on_with_the_next_window():
    batches = TrainBatches(Numbers(31), 4, seed=0)
    take(batches, 9)
    state = batches.get_state()
    expected = take(batches, 10)
    resumed = TrainBatches(Numbers(31), 4, seed=0)
    resumed.set_state(state)
    for a, b in zip(expected, take(resumed, 10), strict=True):
        np.testing.assert_array_equal(a["number"], b["number"])
        np.testing.assert_array_equal(a["draw"], b["draw"])
    halves = []
    for process in range(2):
        half = TrainBatches(Numbers(31), 4, seed=0, reading=Reading(1, 2, process, 2))
        half.set_state(state)
        halves.append(take(half, 10))
    both = [numbers(pair) for pair in zip(*halves, strict=True)]
    assert both == [batch["number"].tolist() for batch in expected]


def test_random_places_and_changes_repeat_with_the_seed(data):
    def some(seed):
        source = ClipWindows(data, "train", VG)
        return take(TrainBatches(source, 2, seed, Augmentation(flip=0.5, colour=0.2)), 3)

    for a, b in zip(some(0), some(0), strict=True):
        np.testing.assert_array_equal(a["frames"], b["frames"])
    pairs = zip(some(0), some(1), strict=True)
    assert any(not np.array_equal(a["frames"], b["frames"]) for a, b in pairs)


@pytest.mark.parametrize(("batch_size", "limit"), [(4, 0), (3, 0), (16, 0), (2, 5)])
def test_held_out_windows_come_once_each_in_full_batches(batch_size, limit):
    seen = []
    for batch, count in held_out_batches(Numbers(11), batch_size, limit):
        assert len(batch["number"]) == batch_size
        seen += batch["number"][:count].tolist()
    assert seen == (list(range(11)) if not limit else [0, 2, 5, 8, 10])


def test_held_out_windows_are_shared_by_processes():
    seen = []
    for process in range(2):
        for batch, count in held_out_batches(Numbers(11), 4, 0, Reading(1, 2, process, 2)):
            seen += batch["number"][:count].tolist()
    assert sorted(seen) == list(range(11))


def test_all_clips_are_evaluated_at_fixed_places(data):
    source = ClipWindows(data, "validation", AT)
    first, second = (list(held_out_batches(source, 4)) for _ in range(2))
    assert sum(count for _, count in first) == sum(n // 16 for n in tiny_dataset.LENGTHS)
    for (a, _), (b, _) in zip(first, second, strict=True):
        np.testing.assert_array_equal(a["landmarks"], b["landmarks"])
    assert {source.clip_of(n) for n in range(len(source))} == {0, 1, 2, 3}


def test_short_clips_are_left_out_and_a_split_of_them_is_an_error(tmp_path):
    data = tiny_dataset.write(tmp_path / "short", lengths=(5, 16, 30), shards=1)
    assert ClipWindows(data, "train", VG).clips == 2
    source = ClipWindows(data, "train", AT)
    assert (source.clips, source.skipped) == (1, 2)
    with pytest.raises(InputError, match=r"none of the 3 clips.*'train'.*41 frames"):
        ClipWindows(data, "train", Windows("at_net", 40))


def test_balance_evens_out_the_shares_of_speakers(tmp_path):
    # Nine clips of two windows of one speaker, one of another.
    data = tiny_dataset.write(tmp_path / "data", (32,) * 10, shards=1, speakers="aaaaaaaaab")

    def windows_of(balance):
        source = ClipWindows(data, "train", Windows("vg_net"), balance)
        clips = [source.clip_of(number) for number in range(len(source))]
        return len(clips) - clips.count(9), clips.count(9)

    assert windows_of(0) == (18, 2)
    assert windows_of(0.5) == (18, 5)  # 15 by the square roots of 18 and 2, 1.67 rounded a clip
    assert windows_of(1) == (9, 10)
    with pytest.raises(InputError, match=r"config\.balance=2"):
        windows_of(2)


def test_clip_lengths_are_found_without_reading_the_pictures(data):
    records = ClipRecords(schema.data_files(data, "train"))
    lengths = [len(schema.deserialize(records[i])["frames"]) for i in range(len(records))]
    assert records.frames.tolist() == lengths
    assert sorted(lengths) == sorted(tiny_dataset.LENGTHS)


def test_cut_off_and_damaged_shards_are_named(tmp_path):
    data = tiny_dataset.write(tmp_path / "data", lengths=(20, 20), shards=1)
    (path,) = schema.data_files(data, "train")
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(InputError, match=f"{path.name} is cut off"):
        ClipWindows(data, "train", AT)
    damaged = bytearray(whole)
    damaged[12:40] = b"\xff" * 28
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"example"):
        next(TrainBatches(ClipWindows(data, "train", AT), 2, seed=0))
    path.unlink()
    with pytest.raises(InputError, match="no train data"):
        ClipWindows(data, "train", AT)


def test_mirroring_exchanges_left_and_right(data):
    clip = ClipRecords(schema.data_files(data, "train")).example(0)
    plain = cut(clip, VG, 0, 0)
    flipped = cut(clip, VG, 0, 0, Augmentation(flip=1.0), np.random.default_rng(0))
    np.testing.assert_array_equal(flipped["frames"], plain["frames"][:, :, ::-1])
    np.testing.assert_array_equal(flipped["example_image"], plain["example_image"][:, ::-1])
    a = landmarks.from_model(plain["landmarks"])
    b = landmarks.from_model(flipped["landmarks"])
    # iBUG numbers: jaw ends 0 and 16, mouth corners 48 and 54, eye corners 36 and 45, chin 8.
    for one, other in [(0, 16), (48, 54), (36, 45), (8, 8), (60, 64)]:
        np.testing.assert_allclose(b[:, one], a[:, other] * [-1, 1], atol=1e-6)


def test_colour_changes_all_frames_alike_and_nothing_where_it_is_off():
    rng = np.random.default_rng(0)
    frames = rng.integers(40, 200, (3, 8, 8, 3), np.uint8)
    frames[1] = frames[0]
    same = augment.augment_frames(frames, False, Augmentation(), np.random.default_rng(1))
    np.testing.assert_array_equal(same, frames)
    settings = Augmentation(colour=0.2)
    changed = augment.augment_frames(frames, False, settings, np.random.default_rng(1))
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, frames)
    np.testing.assert_array_equal(changed[0], changed[1])
    assert np.abs(changed.astype(int) - frames).max() < 0.7 * 255
    grey = np.repeat(rng.integers(0, 255, (1, 8, 8, 1), np.uint8), 3, axis=-1)
    changed = augment.augment_frames(grey, False, settings, np.random.default_rng(2))
    assert np.ptp(changed.astype(int), axis=-1).max() <= 1


def test_between_frames_sound_and_landmarks_move_on_together():
    """Rows that count 10 ms and points that move evenly tell the moment that a window is of."""
    frames = 24
    rows = np.arange(4 * frames + schema.CONTEXT_ROWS, dtype=np.float32)
    moment = np.arange(frames, dtype=np.float32)
    clip = {
        "landmarks": np.broadcast_to(moment[:, None, None], (frames, 68, 2)),
        "mfcc": np.repeat(rows[:, None], 13, axis=1),
    }
    rng, seen = np.random.default_rng(0), set()
    for start in [3, 2, 1] * 10:
        window = cut(clip, AT, start, 5, Augmentation(between=1.0), rng)
        times = landmarks.from_model(window["landmarks"])[:, 0, 0]
        later = times[0] - start
        np.testing.assert_allclose(times, start + later + np.arange(AT.frames), atol=1e-5)
        first_rows = window["mfcc"][:, 0, 0]
        np.testing.assert_allclose(first_rows, 4 * times, atol=1e-4)
        example = landmarks.from_model(window["example_landmark"])[0, 0]
        assert example == pytest.approx(5)
        seen.add(round(4 * float(later)))
    assert seen == {1, 2, 3}
    # No picture follows the last one to lie between them.
    last = cut(clip, AT, frames - AT.frames, 5, Augmentation(between=1.0), rng)
    np.testing.assert_array_equal(last["mfcc"], cut(clip, AT, frames - AT.frames, 5)["mfcc"])


def test_channel_and_noise_leave_energy_alone():
    rows = np.random.default_rng(0).standard_normal((88, 13)).astype(np.float32)
    settings = Augmentation(channel=2.0)
    shift = augment.augment_mfcc(rows, settings, np.random.default_rng(1)) - rows
    np.testing.assert_array_equal(shift[:, 0], 0)
    np.testing.assert_allclose(shift[:, 1:], np.broadcast_to(shift[0, 1:], (88, 12)), atol=1e-5)
    assert 0.5 < shift[0, 1:].std() < 4
    noise = augment.augment_mfcc(rows, Augmentation(noise=0.5), np.random.default_rng(1)) - rows
    assert noise[:, 1:].std() == pytest.approx(0.5, rel=0.1)


def test_a_gain_is_what_a_louder_recording_has():
    sound = np.random.default_rng(0).standard_normal(16000) * 0.05
    sound[8000:] = 0
    quiet = audio.mfcc(sound, 16000)
    loud = augment.augment_mfcc(quiet, Augmentation(gain=12.0), np.random.default_rng(1))
    decibels = 12 * np.random.default_rng(1).uniform(-1, 1)
    assert abs(decibels) > 0.1
    expected = audio.mfcc(sound * 10 ** (decibels / 20), 16000)
    np.testing.assert_allclose(loud, expected, atol=1e-3)
    # It moves the energy alone, which windows leave out.
    np.testing.assert_array_equal(loud[:, 1:], quiet[:, 1:])


def test_reading_and_training_import_neither_tensorflow_nor_dlib(data):
    # torch is not among them: tensorboardX imports it by itself wherever it is installed.
    program = f"""
import sys
import atvg_jax.train, atvg_jax.training.loop
from atvg_jax.data.pipeline import *
next(TrainBatches(ClipWindows({str(data)!r}, "train", Windows("vg_net")), 2, 0))
loaded = {{"tensorflow", "tensorflow_datasets", "dlib", "gradio"}} & set(sys.modules)
sys.exit(", ".join(sorted(loaded)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
