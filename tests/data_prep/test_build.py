"""The whole command: the same data set however it comes about, and what is not in it and why."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from atvg_jax.data import schema, wire
from atvg_jax.errors import InputError
from atvg_jax.features.landmarks import LandmarkBasis
from data_prep import build as command
from data_prep import tasks
from data_prep.corpora.clip import Clip

from .conftest import talk


def contents(out):
    """Digests of everything in a data set but the kept work."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and "work" not in path.relative_to(out).parts
    }


def read(out, split):
    return [
        schema.deserialize(record)
        for path in schema.data_files(out, split)
        for record in wire.read_records(path)
    ]


def build(source, out, workers=1, corpus="folder", **settings):
    return command.build(corpus, source, out, workers, **settings)


@pytest.fixture(scope="module")
def made(people, tmp_path_factory):
    """A data set of the four people, and its report."""
    out = tmp_path_factory.mktemp("made") / "data"
    return out, build(people, out)


class TestDataSet:
    def test_what_is_there(self, made):
        out, report = made
        assert {path.split("/")[0] for path in contents(out)} == {
            "atvg_clips", "basis.npz", "report.json", "rejects.jsonl", "sync.jsonl",
        }  # fmt: skip
        assert json.loads((out / "report.json").read_text()) == report

    def test_every_good_clip_is_in_its_split_once(self, made):
        out, report = made
        found = {}
        for split in schema.SPLITS:
            if report["splits"][split]["clips"]:
                for example in read(out, split):
                    found[example["clip_id"]] = (split, example["speaker"], len(example["frames"]))
        assert {name: (who, frames) for name, (_, who, frames) in found.items()} == {
            "ada/one.mp4": ("ada", 26),
            "ada/two.mp4": ("ada", 27),
            "ben/one.mp4": ("ben", 27),
            "cleo/one.mp4": ("cleo", 28),
            "dan/one.mp4": ("dan", 29),
        }
        assert found["ada/one.mp4"][0] == found["ada/two.mp4"][0]

    def test_the_report_counts(self, made):
        _, report = made
        splits = report["splits"].values()
        assert sum(split["clips"] for split in splits) == 5
        assert sum(split["frames"] for split in splits) == 26 + 27 + 27 + 28 + 29
        assert sum(split["seconds"] for split in splits) == pytest.approx(137 / 25)
        assert report["rejects_by_reason"] == {"unreadable": 1}
        assert report["speakers_in_several_splits"] == []
        assert report["versions"]["numpy"] == np.__version__

    def test_rejects_are_listed(self, made):
        out, _ = made
        (line,) = (out / "rejects.jsonl").read_text().splitlines()
        reject = json.loads(line)
        assert (reject["clip_id"], reject["reason"]) == ("gus/broken.mp4", "unreadable")
        assert "broken.mp4" in reject["message"]

    def test_metadata_tells_what_the_shards_hold(self, made):
        out, _ = made
        folder = schema.version_folder(out)
        info = json.loads((folder / "dataset_info.json").read_text())
        for split in info["splits"]:
            paths = schema.data_files(out, split["name"])
            records = [list(wire.read_records(path)) for path in paths]
            assert split["shardLengths"] == [str(len(part)) for part in records]
            assert split["numBytes"] == str(sum(len(r) for part in records for r in part))

    def test_the_basis_is_the_pca_of_the_train_split(self, made):
        out, report = made
        basis = LandmarkBasis.load(out / "basis.npz")
        shapes = np.concatenate([e["landmarks"] for e in read(out, "train")]).astype(float) * 5
        shapes = shapes.reshape(len(shapes), 136)
        centred = shapes - shapes.mean(axis=0)
        _, values, vectors = np.linalg.svd(centred, full_matrices=False)
        np.testing.assert_allclose(basis.mean, shapes.mean(axis=0), atol=1e-5)
        overlap = np.abs(np.sum(vectors[:3].T * basis.components[:, :3], axis=0))
        np.testing.assert_allclose(overlap, 1.0, atol=1e-3)
        shares = values**2 / np.sum(values**2)
        found = report["basis"]["explained_variance"]
        np.testing.assert_allclose(found, shares[: len(found)], atol=1e-3)


@pytest.fixture
def copied(made, tmp_path):
    """A copy of the data set with its kept work, to damage."""
    shutil.copytree(made[0], tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def asked(monkeypatch):
    """The clips that worker processes are given."""
    clips = []
    run = tasks.LocalRunner.run

    def note(self, task, items):
        if isinstance(task, tasks.PrepareTask):
            clips.extend(task.read(item)[0].clip_id for item in items)
        return run(self, task, items)

    monkeypatch.setattr(tasks.LocalRunner, "run", note)
    return clips


def kept(out):
    """The files that hold results of single clips, largest first: rejects come last."""
    return sorted((out / "work").glob("??/[!.]*"), key=lambda path: -path.stat().st_size)


class TestTheSameDataSet:
    def test_whatever_the_number_of_workers(self, people, made, tmp_path):
        build(people, tmp_path / "data", workers=2)
        assert contents(tmp_path / "data") == contents(made[0])

    def test_run_again_there_is_nothing_to_prepare(self, people, made, copied, asked):
        build(people, copied)
        assert asked == []
        assert contents(copied) == contents(made[0])

    def test_only_what_is_missing_or_damaged_is_prepared(self, people, made, copied, asked):
        one, two, *_ = kept(copied)
        one.unlink()
        two.write_bytes(two.read_bytes()[:-3])
        (copied / "report.json").unlink()
        (copied / ".basis.k3x9.part.npz").write_bytes(b"half of it")
        unfinished = schema.version_folder(copied).with_name(".1.0.0.part")
        schema.version_folder(copied).rename(unfinished)
        build(people, copied)
        assert len(asked) == 2
        assert contents(copied) == contents(made[0])

    def test_damage_inside_a_result_is_found(self, people, made, copied, asked):
        shutil.rmtree(schema.version_folder(copied))  # or it would not be looked at
        path = kept(copied)[1]
        broken = bytearray(path.read_bytes())
        broken[len(broken) // 3] ^= 1
        path.write_bytes(bytes(broken))
        with pytest.raises(InputError, match="run the same command again"):
            build(people, copied)
        assert not schema.version_folder(copied).exists()
        build(people, copied)
        assert len(asked) == 1
        assert contents(copied) == contents(made[0])

    def test_killed_and_run_again(self, people, made, tmp_path):
        """Killed at its first clip and at moments ever later, then left to finish."""
        out = tmp_path / "data"
        flags = [f"--source={people}", f"--out={out}", "--corpus=folder", "--workers=2"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}

        def start():
            return subprocess.Popen(
                [sys.executable, "-m", "data_prep.build", *flags],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )

        unfinished = schema.version_folder(out).parent
        moments = [
            (lambda: len(kept(out)) >= 1, os.kill),
            (lambda: len(kept(out)) >= 4, os.killpg),  # its workers are killed, too
            (lambda: (out / "rejects.jsonl").exists(), os.kill),
            (lambda: any(unfinished.glob(".*/*.tfrecord*")), os.killpg),
            (lambda: schema.version_folder(out).exists(), os.kill),
        ]
        for come, kill in moments:
            process = start()
            while not come() and process.poll() is None:
                time.sleep(0.001)
            assert process.poll() is None
            assert not (out / "report.json").exists()
            kill(process.pid, signal.SIGKILL)
            process.communicate()
        process = start()
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert "1 rejected" in said
        assert contents(out) == contents(made[0])

    def test_shards_that_have_not_changed_stay(self, people, made, copied):
        """The same files, not copies, though the folder is another."""
        before = {path: path.stat().st_ino for path in schema.version_folder(copied).iterdir()}
        build(people, copied)
        after = {path: path.stat().st_ino for path in schema.version_folder(copied).iterdir()}
        assert {p.name for p in before if before[p] == after[p]} == {
            path.name for path in before if ".tfrecord-" in path.name
        }
        assert contents(copied) == contents(made[0])

    def test_where_files_have_one_name_only_shards_are_written_again(
        self, people, made, copied, asked, monkeypatch
    ):
        monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError("no links")))
        build(people, copied)
        assert asked == []
        assert contents(copied) == contents(made[0])

    def test_a_changed_video_is_prepared_again(self, tmp_path):
        path = talk(tmp_path / "in" / "ada" / "x.mp4", frames=26)
        build(tmp_path / "in", tmp_path / "out")
        talk(path, frames=30)
        report = build(tmp_path / "in", tmp_path / "out")
        assert report["splits"]["train"]["frames"] == 30


class TestSettings:
    def test_a_basis_that_is_given_is_used(self, people, copied, asked, tmp_path):
        other = LandmarkBasis.fit(np.random.default_rng(0).normal(size=(50, 68, 2)))
        other.save(tmp_path / "basis.npz")
        report = build(people, copied, basis=tmp_path / "basis.npz")
        used = LandmarkBasis.load(copied / "basis.npz")
        assert asked == []  # its normaliser is this project's own, which made them
        np.testing.assert_array_equal(used.components, other.components)
        assert report["basis"]["fitted"] is False

    def test_offsets_of_an_earlier_build_are_put_right(self, people, copied, asked, tmp_path):
        line = {"clip_id": "ben/one.mp4", "offset": 0.2}
        (tmp_path / "offsets.jsonl").write_text(json.dumps(line) + "\n")
        info = (schema.version_folder(copied) / "dataset_info.json").read_text()
        splits = [split["name"] for split in json.loads(info)["splits"]]
        before = {e["clip_id"]: e["mfcc"] for split in splits for e in read(copied, split)}
        build(people, copied, offsets=tmp_path / "offsets.jsonl")
        after = {e["clip_id"]: e["mfcc"] for split in splits for e in read(copied, split)}
        assert asked == ["ben/one.mp4"]
        np.testing.assert_array_equal(after["ada/one.mp4"], before["ada/one.mp4"])
        # 200 ms are 20 rows; 12 rows of silence came first.
        np.testing.assert_array_equal(after["ben/one.mp4"][14:50], before["ben/one.mp4"][34:70])
        with pytest.raises(InputError, match="give the copy"):
            build(people, copied, offsets=copied / "sync.jsonl")

    def test_the_published_basis_is_accepted_as_it_is(self, reference, tmp_path):
        talk(tmp_path / "in" / "ada" / "x.mp4", frames=26)
        report = build(tmp_path / "in", tmp_path / "out", basis=reference / "basics")
        basis = LandmarkBasis.load(tmp_path / "out" / "basis.npz")
        published = np.load(reference / "basics" / "U_lrw1.npy")[:, :6]
        np.testing.assert_allclose(basis.components, published, atol=1e-6)
        assert report["basis"] == report["basis"] | {"fitted": False, "normaliser": "published"}
        # The published normalisation brings the last frame of every clip to the same shape.
        (example,) = read(tmp_path / "out", "train")
        only = basis.normaliser.normalise(example["aligned_landmarks"][-1:])
        np.testing.assert_allclose(example["landmarks"][-1:], only, atol=1e-6)

    def test_two_builds_do_not_work_on_one_data_set(self, people, tmp_path):
        with (
            command._only_one(tmp_path / "out"),
            pytest.raises(InputError, match="another build"),
        ):
            build(people, tmp_path / "out")

    def test_a_place_that_cannot_be_written(self, people, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot be written"):
            build(people, tmp_path / "file" / "out")

    def test_nothing_usable(self, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "x.mp4").write_bytes(b"x")
        with pytest.raises(InputError, match=r"none of 1 clips .*unreadable.*rejects.jsonl"):
            build(tmp_path / "in", tmp_path / "out")
        assert not schema.version_folder(tmp_path / "out").exists()

    def test_no_train_clips(self, tmp_path):
        talk(tmp_path / "in" / "x.mp4")
        (tmp_path / "in" / "clips.csv").write_text("path,split\nx.mp4,test\n")
        with pytest.raises(InputError, match="--basis"):
            build(tmp_path / "in", tmp_path / "out")
        assert not schema.version_folder(tmp_path / "out").exists()

    def test_lrw(self, tmp_path):
        for split in ("train", "val"):
            talk(tmp_path / "lipreading_mp4" / "ABOUT" / split / "ABOUT_00001.mp4", frames=29)
        told = tmp_path / "lipreading_mp4" / "ABOUT" / "val" / "ABOUT_00001.txt"
        told.write_text("Duration: 0.40 seconds\n")
        build(tmp_path, tmp_path / "out", corpus="lrw")
        (example,) = read(tmp_path / "out", "validation")
        assert (example["text"], len(example["frames"])) == ("ABOUT", 29)
        (line,) = (tmp_path / "out" / "words.jsonl").read_text().splitlines()
        assert json.loads(line) == {
            "clip_id": "ABOUT/val/ABOUT_00001.mp4",
            "words": [["ABOUT", 0.38, 0.78]],
        }

    @pytest.mark.parametrize(
        ("flags", "named"),
        [
            (["--corpus=folder", "--source=/nowhere", "--out=OUT"], "/nowhere is not a folder"),
            (["--corpus=folder", "--out=OUT"], "needs --source"),
            (["--corpus=films", "--out=OUT"], "films"),
            (["--corpus=folder", "--source=.", "--out=OUT", "--workers=0"], "--workers"),
            (["--corpus=folder", "--source=.", "--out=OUT", "--basis=none.npz"], "none.npz"),
        ],
    )
    def test_wrong_flags_give_one_line(self, tmp_path, monkeypatch, capsys, flags, named):
        out = str(tmp_path / "out")
        monkeypatch.setattr(sys, "argv", ["build", *(f.replace("OUT", out) for f in flags)])
        with pytest.raises(SystemExit) as caught:
            command.run(command.main)
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert named in error


def clip(number, split):
    return Clip(f"{split} {number}", Path("x"), f"{split} {number}", split)


class TestSelect:
    def corpus(self):
        parts = (("train", 80), ("validation", 10), ("test", 10))
        return [clip(number, split) for split, count in parts for number in range(count)]

    def test_few_clips_are_of_every_split(self):
        assert {c.split for c in command.select(self.corpus(), 3)} == set(schema.SPLITS)
        assert command.select(self.corpus(), 1)[0].split == "train"

    def test_many_share_as_the_corpus_does(self):
        taken = [c.split for c in command.select(self.corpus(), 50)]
        assert 37 <= taken.count("train") <= 42

    def test_a_larger_limit_takes_the_same_and_more(self):
        few, many = (command.select(self.corpus(), limit) for limit in (20, 60))
        assert many[:20] == few
        assert len(many) == 60
        assert len(command.select(self.corpus(), 1000)) == 100

    def test_two_clips_of_one_name_are_refused(self):
        with pytest.raises(InputError, match="train 1"):
            command.select([clip(1, "train"), clip(2, "train"), clip(1, "train")], None)


def test_a_clip_that_hangs_is_rejected_in_time(tmp_path, monkeypatch):
    """A clip with no time at all: its process is ended, and the others are not touched."""
    talk(tmp_path / "in" / "ada" / "good.mp4")
    talk(tmp_path / "in" / "ada" / "slow.mp4")
    monkeypatch.setattr(
        tasks.PrepareTask,
        "seconds",
        lambda self, item: 0.01 if "slow" in self.read(item)[0].clip_id else 60.0,
    )
    began = time.monotonic()
    report = build(tmp_path / "in", tmp_path / "out")
    assert report["rejects_by_reason"] == {"timeout": 1}
    assert report["splits"]["train"]["clips"] == 1
    assert time.monotonic() - began < 60
