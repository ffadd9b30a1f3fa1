"""The reader's benchmark: what it counts."""

import sys
import types

import pytest

from atvg_jax.data.pipeline import ClipWindows, Windows
from benchmarks import reader
from tests import tiny_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset.write(tmp_path_factory.mktemp("reader") / "data", (20, 29), 1)


def test_windows_are_counted_by_the_clock_and_by_the_core(data, monkeypatch):
    clock = iter([0.0, 0.5, 1.0, 2.0, 2.0])  # start, asked before each of three batches, end
    cpu = iter([0.0, 0.5])
    timer = types.SimpleNamespace(perf_counter=lambda: next(clock), process_time=lambda: next(cpu))
    monkeypatch.setattr(reader, "time", timer)
    source = ClipWindows(data, "train", Windows("at_net"))
    rate = reader.reading_rate(source, 2, threads=1, seconds=1.5)
    assert (rate.windows, rate.windows_a_core) == (2.0, 8.0)  # four windows in 2 s, 0.5 s of a core


def test_the_command_prints_the_rates(data, monkeypatch, capsys):
    flags = [f"--data={data}", "--threads=1", "--seconds=0.1", "--steps=0", "--batch_size=2"]
    monkeypatch.setattr(sys, "argv", ["reader", *flags])
    reader.main()
    shown = capsys.readouterr().out
    assert "vg_net: 2 clips, 5 windows of 8 frames" in shown
    assert "1 thread(s):" in shown
    assert "windows/s a core" in shown
