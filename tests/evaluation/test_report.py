import csv
import json
import math

import numpy as np
import pytest

from atvg_jax.errors import InputError
from atvg_jax.evaluation import report
from atvg_jax.evaluation.judge import Scores
from atvg_jax.evaluation.protocol import Problem


@pytest.fixture
def made() -> report.Report:
    by_lag = np.zeros(11)
    by_lag[4] = 0.5
    by_frame = {"frame": np.array([1.0, 2.0]), "psnr": np.array([20.0, 21.0])}
    frames = [
        Scores("a|b <i>", "c1", "anna", 2, {"psnr": 20.5, "mouth_lag": -1.0}, by_lag, by_frame),
        Scores("a|b <i>", "c2", "berta", 9, {"psnr": 22.5, "mouth_lag": math.nan}, by_lag),
        Scores("still", "c1", "anna", 2, {"psnr": 18.0, "mouth_lag": math.nan}, np.zeros(11)),
    ]
    landmarks = [Scores("AT-net", "c1", "anna", 2, {"landmark_distance_eyes": 3.25})]
    return report.Report(
        "model on data & more",
        {"split": "test"},
        [
            report.Table("frames", "Frames", frames),
            report.Table("landmarks", "Landmarks", landmarks),
        ],
        [Problem("c3", "short", "c3.mp4 has 3 <frames>")],
        {"c1": "c1.mp4"},
    )


@pytest.fixture
def folder(made, tmp_path):
    report.write(tmp_path / "out", made)
    return tmp_path / "out"


def test_json(folder):
    content = json.loads((folder / "scores.json").read_text())
    own = content["tables"]["frames"]["a|b <i>"]
    assert own["metrics"]["psnr"]["mean"] == 21.5
    assert own["metrics"]["mouth_lag"] == {
        "mean": -1.0, "low": -1.0, "high": -1.0, "mean_over_clips": -1.0, "clips": 1,
    }  # fmt: skip
    assert own["best_lag"] == -1
    assert own["people"] == 2
    assert content["tables"]["frames"]["still"]["metrics"]["mouth_lag"]["mean"] is None
    assert content["tables"]["landmarks"]["AT-net"]["clips"] == 1
    assert content["problems"] == [
        {"clip_id": "c3", "reason": "short", "message": "c3.mp4 has 3 <frames>"}
    ]
    assert report.read(folder) == content


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv(folder):
    rows = read_csv(folder / "clips.csv")
    assert [row["system"] for row in rows] == ["a|b <i>", "a|b <i>", "still", "AT-net"]
    assert [row["psnr"] for row in rows] == ["20.5", "22.5", "18", ""]
    assert [row["mouth_lag"] for row in rows] == ["-1", "", "", ""]
    frames = read_csv(folder / "frames.csv")
    assert [(row["frame"], row["psnr"], row["head_turned"]) for row in frames] == [
        ("1", "20", ""),
        ("2", "21", ""),
    ]


def test_markdown(folder):
    text = (folder / "scores.md").read_text()
    assert "| | a\\|b <i> | still |".replace("| |", "|  |") in text
    assert "| mouth lag (frames) | -1.0 [-1.0, -1.0] | – |" in text
    assert "| best lag over all clips (frames) | -1 | – |" in text
    assert "c3 (short): c3.mp4 has 3 <frames>" in text
    assert "| mouth distance (% of eye distance) ↓ | 3.25 [3.25, 3.25] |" in text


def test_page(folder):
    text = (folder / "index.html").read_text()
    assert "<th>a|b &lt;i&gt;</th>" in text
    assert "model on data &amp; more" in text
    assert '<video src="videos/c1.mp4"' in text
    assert "3 &lt;frames&gt;" in text
    assert "http" not in text


def test_reading_something_else(tmp_path):
    with pytest.raises(InputError, match="holds no evaluation"):
        report.read(tmp_path)
    (tmp_path / "scores.json").write_text("[1]")
    with pytest.raises(InputError, match="is no evaluation's"):
        report.read(tmp_path)
    (tmp_path / "scores.json").write_text('{"layout_version": 99}')
    with pytest.raises(InputError, match="layout 99"):
        report.read(tmp_path)
