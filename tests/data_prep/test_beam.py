"""The same data set over Apache Beam, from several worker processes."""

import os
import sys

import pytest

from atvg_jax.errors import InputError
from data_prep import beam, workers
from data_prep import build as command
from data_prep.beam import BeamRunner

from .probe_task import Probe
from .test_build import contents

pytest.importorskip("apache_beam")


IN_THIS_PROCESS = "--direct_running_mode=in_memory --direct_num_workers=1"
"""Without the seconds that Beam's own worker processes take to start."""


@pytest.fixture
def environment(monkeypatch):
    """Beam workers change their environment for good; here it is this process's own."""
    for name in workers.THREAD_VARIABLES:
        monkeypatch.setenv(name, os.environ.get(name, "2"))


def runner(tmp_path, **settings):
    settings = {"runner": "direct", "options": "", "count": 2, "memory": 2**32} | settings
    return BeamRunner(folder=tmp_path / "lists", **settings)


def test_items_are_done_by_several_processes_which_load_little(tmp_path):
    items = [f"fine {number}" for number in range(12)] + ["crash 1"]
    assert sorted(runner(tmp_path).run(Probe(tmp_path), items)) == sorted(items)
    assert (tmp_path / "crash 1").read_text() == "died crashed"
    said = [(tmp_path / item).read_text().split(" ") for item in items[:12]]
    assert len({worker for worker, _ in said}) == 2
    assert {loaded for _, loaded in said} == {""}
    assert list((tmp_path / "lists").iterdir()) == []


@pytest.mark.parametrize(
    ("item", "message"),
    [("mistake 1", "failed: .*a mistake in the program"), ("nothing 1", "1 of 1 files")],
)
def test_what_fails_is_said_in_a_line(tmp_path, environment, item, message):
    here = runner(tmp_path, options=IN_THIS_PROCESS)
    with pytest.raises(InputError, match=message) as caught:
        list(here.run(Probe(tmp_path), [item]))
    assert "\n" not in str(caught.value)


def test_workers_that_see_other_files(tmp_path, environment):
    here = runner(tmp_path, options=IN_THIS_PROCESS, seen=(tmp_path / "elsewhere",))
    with pytest.raises(InputError, match="elsewhere is not there for a worker"):
        list(here.run(Probe(tmp_path), ["fine 1"]))


def test_a_cluster_needs_whole_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="for --runner=flink give the whole path"):
        command.build("folder", tmp_path, tmp_path.relative_to(tmp_path), 1, runner="flink")


def test_without_beam(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(InputError, match="needs the package apache-beam"):
        runner(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--flink_mister=x:8081", "Apache Beam knows no --flink_mister"),
        ("--direct_num_workers=many", "--direct_num_workers: invalid int value"),
        ("--project='x", "No closing quotation"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, message):
    with pytest.raises(InputError, match=message) as caught:
        runner(tmp_path, options=options)
    assert "\n" not in str(caught.value)


def test_every_item_is_in_one_group(tmp_path):
    items = [f"item {number}" * (number % 3 + 1) for number in range(3000)]
    listing = tmp_path / "x.items"
    groups = beam._write(listing, items)
    text = listing.read_bytes()
    found = [text[at : at + length].decode().splitlines() for at, length in groups]
    assert [item for group in found for item in group] == items
    assert {len(group) for group in found[:-1]} == {3000 // beam.GROUPS}
    assert len(beam._write(listing, items[:5])) == 1


def test_the_same_data_set(people, tmp_path):
    """Byte for byte what this machine's own processes make of the same clips."""
    for name in ("local", "direct"):
        command.build("folder", people, tmp_path / name, 2, runner=name)
    assert contents(tmp_path / "direct") == contents(tmp_path / "local")
