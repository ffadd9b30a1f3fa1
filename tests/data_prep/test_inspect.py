"""Pictures of a data set: there, readable, and with the right things said beside them."""

import json

import numpy as np
import pytest
from PIL import Image

from atvg_jax.errors import InputError
from data_prep import inspect, pictures
from tests import tiny_dataset


def report(**changes):
    """A report as ``data_prep.build`` writes it."""

    def split(clips, speakers):
        return {
            "clips": clips, "examples": clips, "frames": 75 * clips, "seconds": 3.0 * clips,
            "speakers": len(speakers), "clips_by_speaker": speakers,
        }  # fmt: skip

    sync = {"examples": 2, "known": 2, "beyond_three_frames": 0.0}
    content = {
        "splits": {
            "train": split(8, {"a": 3, "b": 3, "c": 2}),
            "validation": split(2, {"d": 2}),
            "test": split(1, {"e": 1}),
        },
        "speakers_in_several_splits": [],
        "rejects_by_reason": {"no_face": 1},
        "dropped_frames_of_kept_clips": {"too_short": 12, "pose": 30},
        "basis": {"explained_variance_in_all": 0.95},
        "sync": {"common_offset": 0.01, "splits": dict.fromkeys(("train", "test"), sync)},
    }
    return content | changes


@pytest.fixture
def data(tmp_path):
    """A data set of numbers with its report and sync."""
    folder = tiny_dataset.write(tmp_path / "data", lengths=(20, 29))
    (folder / "report.json").write_text(json.dumps(report()))
    lines = [
        {"clip_id": "train-0", "split": "train", "offset": 0.2, "confidence": 0.99},
        {"clip_id": "train-1", "split": "train", "offset": None, "confidence": 0.2},
    ]
    (folder / "sync.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_every_picture_is_on_the_page(data, tmp_path):
    out = tmp_path / "out"
    inspect.inspect(data, out, 100)
    page = (out / "index.html").read_text()
    assert {path.name for path in out.iterdir()} == {
        "index.html", *(picture.name for picture in inspect.PICTURES),
    }  # fmt: skip
    for picture in inspect.PICTURES:
        assert f'src="{picture.name}"' in page
        with Image.open(out / picture.name) as opened:
            grey = np.asarray(opened.convert("L"), dtype=float)
        assert min(grey.shape) > 150
        assert grey.std() > 5


def test_older_data_sets_have_no_sync(data, tmp_path):
    (data / "sync.jsonl").unlink()
    (data / "report.json").write_text(json.dumps(report(sync=None)))
    remarks = inspect.inspect(data, tmp_path / "out", 1)
    assert "nothing of sync" in remarks[0]
    assert not (tmp_path / "out" / "sync.png").exists()


def test_examples_are_taken_from_every_shard(data):
    assert sorted(g.example["clip_id"] for g in inspect.look(data, 1)) == [
        "train-0", "train-1", "validation-0", "validation-1",
    ]  # fmt: skip


def test_names_of_any_kind_can_be_drawn(data, tmp_path):
    (glimpse, *_) = inspect.look(data, 1)
    strange = glimpse._replace(
        example=glimpse.example | {"clip_id": "$a_{$ 你好 <b>&amp;.mp4", "text": "$\\frac{ 好"}
    )
    pictures.contact_sheet(tmp_path / "sheet.png", [strange])
    pictures.mouth_and_sound(tmp_path / "sound.png", [strange], {})
    pictures.landmarks(tmp_path / "landmarks.png", [strange])
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_hundreds_of_speakers_and_no_rejects(tmp_path):
    people = {f"person {number}": 1 + 1000 // (number + 1) for number in range(300)}
    many = report(rejects_by_reason={}, dropped_frames_of_kept_clips={})
    many["splits"]["train"]["clips_by_speaker"] = people
    pictures.speakers(tmp_path / "speakers.png", many)
    pictures.rejects(tmp_path / "rejects.png", many)
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as opened:
            assert max(opened.size) < 2000


class TestRemarks:
    def said(self, **changes):
        opening = {"aligned_landmarks": np.zeros((10, 68, 2), np.float32)}
        opening["aligned_landmarks"][:, 42:48, 0] = 50.0
        opening["aligned_landmarks"][:, 66, 1] = 10.0  # a fifth of the eyes' distance
        return list(
            inspect.remarkable(report(**changes), [pictures.Glimpse("train", opening, b"")])
        )

    def test_a_sound_data_set_needs_none(self):
        assert self.said() == []

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"speakers_in_several_splits": ["x", "y"]}, "2 speakers are in several splits: x, y"),
            ({"rejects_by_reason": {"no_face": 9, "pose": 2}}, "11 of 22 clips are left out, 9"),
            ({"basis": {"explained_variance_in_all": 0.5}}, "50% of the variance"),
        ],
    )
    def test_what_stands_out_is_said(self, changes, expected):
        (remark,) = self.said(**changes)
        assert expected in remark

    def test_sync(self):
        part = {"examples": 50, "known": 10, "beyond_three_frames": 0.3}
        sync = {"common_offset": -0.2, "splits": {"train": part}}
        said = self.said(sync=sync)
        assert "0.20 s early" in said[0]
        assert "only 10 of 50" in said[1]
        assert "30% of the train examples" in said[2]

    def test_one_speaker_and_an_empty_split(self):
        splits = report()["splits"]
        splits["train"]["clips_by_speaker"] = {"a": 9, "b": 1}
        splits["test"]["clips"] = 0
        said = self.said(splits=splits)
        assert said[0] == "There are no clips in test."
        assert "9 of 10 train clips are of one speaker, a" in said[1]


class TestWrongData:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(InputError, match=r"report.json is not there"):
            inspect.inspect(tmp_path, tmp_path / "out", 10)
        (tmp_path / "report.json").write_text(json.dumps(report()))
        with pytest.raises(InputError, match="has no train data"):
            inspect.inspect(tmp_path, tmp_path / "out", 10)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("name", ["report.json", "sync.jsonl"])
    def test_damaged(self, data, tmp_path, name):
        (data / name).write_text("[3]")
        with pytest.raises(InputError, match=name):
            inspect.inspect(data, tmp_path / "out", 10)
