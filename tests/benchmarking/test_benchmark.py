"""The benchmark's command line, its grid, and what it writes."""

import json
import sys

import pytest
from PIL import Image

from atvg_jax import benchmark
from atvg_jax.benchmarking import cases, measure, points, report, timing
from atvg_jax.errors import InputError


def test_points_vary_one_size_at_a_time():
    made = points.around("vg_net", 1.0, [2, 1], [16, 4], ["float32", "bfloat16"])
    assert [one[2:] for one in made] == [
        (2, 16, "float32"),
        (1, 16, "float32"),
        (2, 4, "float32"),
        (2, 16, "bfloat16"),
    ]
    assert made[0].made == 32
    # One portrait, float32.
    made = points.around("synthesis", 1.0, [2, 1], [16, 4], ["bfloat16", "float32"])
    assert [one[2:] for one in made] == [(1, 16, "float32"), (1, 4, "float32")]


def test_the_report_holds_every_number_and_what_failed(tmp_path):
    spread = timing.Spread(0.5, 0.4, 0.6, 3)
    point = points.Point("vg_net", 0.25, 2, 16, "float32")
    whole = measure.Measured(
        point, 32, 3.0, 1.0, spread, 9.0, timing.Spread(2.0, 1.9, 2.1, 3),
        timing.Spread(4.0, 3.9, 4.1, 3), 100.0, 300.0, 400.0,
    )  # fmt: skip
    alone = measure.Measured(point._replace(batch=4), 64, 4.0, 1.0, spread, peak_memory=500.0)
    failed = measure.Measured(point._replace(batch=8), 128, failed="killed")
    environment = {
        "device": "a device", "platform": "cpu", "cores": 2, "load_average": 0.5,
        "python": "3", "versions": {"jax": "1.2.3"},
    }  # fmt: skip
    lines = report.table([whole, alone, failed]).splitlines()
    assert (
        "500.0 [400.0-600.0]     64.0     2000.0 [1900.0-2100.0]        4.00 [3.90-4.10]"
        in lines[1]
    )
    assert "128.0" in lines[2]
    assert lines[3].endswith("killed")
    report.write(tmp_path / "out", environment, {"rounds": 3}, [whole, alone, failed])
    numbers = json.loads((tmp_path / "out" / report.NUMBERS_FILE).read_text())
    assert numbers["environment"]["versions"]["jax"] == "1.2.3"
    first = numbers["points"][0]
    assert (first["task"], first["frames"], first["frames_per_call"]) == ("vg_net", 16, 32)
    assert first["compiled"] == {"median": 0.5, "low": 0.4, "high": 0.6, "rounds": 3}
    assert first["peak_memory_eager"] == 400.0
    assert numbers["points"][2]["failed"] == "killed"
    with Image.open(tmp_path / "out" / report.PLOT_FILE) as plot:
        assert min(plot.size) > 300


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch=0"], "--batch=0: must be at least 1"),
        (["--frames", "4", "-1"], "--frames=-1"),
        (["--width=0"], "--width=0"),
        (["--rounds=0"], "--rounds=0"),
        (["--out=FILE"], "is a file"),
    ],
)
def test_wrong_flags_are_one_clear_line(flags, message, tmp_path):
    (tmp_path / "file").touch()
    flags = [flag.replace("FILE", str(tmp_path / "file")) for flag in flags]
    with pytest.raises(InputError, match=message):
        benchmark.checked(benchmark.parser().parse_args(["--out=x", *flags]))


def test_defaults_and_quick():
    full = benchmark.checked(benchmark.parser().parse_args(["--out=x"]))
    assert (full.width, full.batch[0], full.frames[0]) == (1.0, 2, 16)
    assert full.tasks == list(points.TASKS)
    quick = benchmark.checked(benchmark.parser().parse_args(["--out=x", "--quick", "--batch=3"]))
    assert (quick.width, quick.batch, quick.frames) == (0.25, [3], [4])


def test_measures_a_network_in_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    flags = ["--tasks=at_net", "--width=0.03125", "--batch=1", "--frames=1", "--rounds=2"]
    flags += ["--precision=float32", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *flags])
    benchmark.main()
    printed = capsys.readouterr().out
    assert f"wrote {tmp_path / report.NUMBERS_FILE}" in printed
    numbers = json.loads((tmp_path / report.NUMBERS_FILE).read_text())
    (point,) = numbers["points"]
    # No order among them: on a busy machine a network this small may do anything first.
    assert min(point["first_call"], point["first_call_cached"]) > 0
    for spread in (point["compiled"], point["eager"]):
        assert 0 < spread["low"] <= spread["median"] <= spread["high"]
    assert point["program_memory"] > 0
    assert point["peak_memory_eager"] >= point["peak_memory"] > 50
    assert numbers["environment"]["platform"] == "cpu"


def test_synthesis_is_measured_from_portrait_and_sound():
    case = cases.build(points.Point("synthesis", 1 / 32, 1, 2, "float32"))
    case()
    assert measure.program_memory(case) > 0
