import csv

import numpy as np
import pytest
from PIL import Image

from atvg_jax.errors import InputError
from atvg_jax.evaluation import comparison, figures, judge, report
from atvg_jax.evaluation.judge import Scores


def test_spread_out():
    assert figures.spread_out(80, 8) == [5, 15, 25, 35, 45, 55, 65, 75]
    assert figures.spread_out(3, 8) == [0, 1, 2]
    assert figures.spread_out(1, 1) == [0]


@pytest.fixture
def pictures():
    return [np.full((16, 16, 3), 20 * n, np.uint8) for n in range(4)]


def test_figures_2_and_6(pictures, tmp_path):
    sound = np.sin(np.arange(16000) / 20)
    numbers = [3, 9, 15, 21]
    for ending in (".png", ".svg"):
        path = tmp_path / f"two{ending}"
        figures.how_frames_come_about(
            path, sound, 16000, {"motion": pictures, "frames": pictures}, numbers
        )
        assert path.stat().st_size > 1000
    people = {"anna": (pictures[0], pictures), "berta": (pictures[1], pictures)}
    figures.one_sentence(tmp_path / "six.png", sound, 16000, people, numbers)
    with Image.open(tmp_path / "six.png") as wide, Image.open(tmp_path / "two.png") as narrow:
        assert wide.width > narrow.width  # the portraits' column
    with pytest.raises(InputError, match="a figure ends in"):
        figures.one_sentence(tmp_path / "six.doc", sound, 16000, people, numbers)
    assert not (tmp_path / "six.doc").exists()


def write_frames(folder, rows):
    folder.mkdir(exist_ok=True)
    with (folder / "frames.csv").open("w", newline="") as file:
        names = ["system", "clip_id", "frame", *report.FRAME_COLUMNS]
        csv.DictWriter(file, names).writeheader()
        csv.DictWriter(file, names).writerows(rows)


def row(system, clip, ssim, moved, turned):
    return {
        "system": system, "clip_id": clip, "frame": 1, "psnr": 20, "ssim_gaussian": ssim,
        "landmark_distance_mouth": "", "landmarks_moved": moved, "head_turned": turned,
    }  # fmt: skip


def test_figure_5(tmp_path):
    # Quality falls with the landmarks' distance, 0 to 8 pixels, in bins of 1.
    rows = [
        row("model", f"clip {clip}", 1 - 0.1 * int(moved), moved + 0.5, 0)
        for moved in range(8)
        for clip in range(moved + 10)
    ]
    # One frame far out, which must not stretch the bins.
    rows += [row(judge.GROUND_TRUTH, "clip 0", 1, 1, 0)]
    rows += [row("model", "clip 0", 0.1, 80, 0)]
    write_frames(tmp_path / "scores", rows)
    table = figures.quality_against_distance(tmp_path / "five.png", tmp_path / "scores")
    assert (tmp_path / "five.png").stat().st_size > 1000
    with table.open(newline="") as file:
        bins = [b for b in csv.DictReader(file) if b["distance"] == "landmarks_moved"]
    assert {b["system"] for b in bins} == {"model"}
    assert sum(int(b["frames"]) for b in bins) == len(rows) - 1
    assert float(bins[-1]["high"]) < 9
    means = [float(b["ssim_gaussian"]) for b in bins if int(b["frames"])]
    assert means[0] == 1
    assert (np.diff(means) < 0).all()


def test_error_of_a_bin():
    """By hand: two clips of two frames; deviations +-1 add up within a clip."""
    clips = np.array(["a", "a", "b", "b"])
    mean, error = figures._mean_and_error(np.array([3.0, 3.0, 1.0, 1.0]), clips)
    assert mean == 2
    assert error == pytest.approx(np.sqrt(2 / 1 * (2**2 + 2**2)) / 4)
    # Where every frame is a clip of its own it is the usual standard error.
    values = np.array([1.0, 2.0, 4.0, 9.0])
    _, error = figures._mean_and_error(values, np.arange(4).astype(str))
    assert error == pytest.approx(values.std(ddof=1) / 2)


def test_frames_of_something_else(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        figures.quality_against_distance(tmp_path / "five.png", tmp_path)
    (tmp_path / "frames.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not the frames"):
        figures.quality_against_distance(tmp_path / "five.png", tmp_path)
    write_frames(tmp_path, [])
    with pytest.raises(InputError, match="no frames"):
        figures.quality_against_distance(tmp_path / "five.png", tmp_path)
    assert not (tmp_path / "five.png").exists()


def evaluation(folder, value, still=0.7):
    def scores(system, ssim):
        return Scores(system, "clip", "anna", 30, {"ssim_gaussian": ssim}, np.zeros(11))

    table = [scores(judge.STATIC_PORTRAIT, still), scores("model", value)]
    made = report.Report("one", {}, [report.Table("frames", "Frames", table)], [], {})
    report.write(folder, made)
    return folder


def test_comparison(tmp_path):
    folders = {name: evaluation(tmp_path / name, v) for name, v in (("full", 0.8), ("no_d", 0.75))}
    assert comparison.write(tmp_path / "table.md", folders) == 1
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert "## model (frames)" in lines
    assert "| full | 0.8000 [0.8000, 0.8000] | – |" in lines
    assert "| no_d | 0.7500 [0.7500, 0.7500] | – |" in lines
    assert "| static portrait | 0.7000 [0.7000, 0.7000] | – |" in lines


def test_comparison_of_different_clips(tmp_path):
    folders = {"a": evaluation(tmp_path / "a", 0.8), "b": evaluation(tmp_path / "b", 0.8, 0.699)}
    with pytest.raises(InputError, match="not made on the same clips"):
        comparison.write(tmp_path / "table.md", folders)
    assert not (tmp_path / "table.md").exists()
