import json
import sys

import numpy as np
import pytest

from atvg_jax import command_line, evaluate, evaluate_model
from atvg_jax.data import schema
from atvg_jax.data.records import ClipRecords
from atvg_jax.evaluation import judge, protocol, report
from atvg_jax.evaluation.protocol import Problem
from atvg_jax.features import images
from atvg_jax.features.landmarks import LandmarkBasis
from atvg_jax.inference import model_directory
from atvg_jax.inference.prepared import PreparedFace
from tests import tiny_dataset
from tests.inference.conftest import random_variables


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset.write(tmp_path_factory.mktemp("data") / "tiny", lengths=(20, 17), shards=1)


@pytest.fixture(scope="module")
def model(data):
    settings = {"width": 1 / 16}
    names = ("at_net", "vg_net")
    return model_directory.Model(
        networks={name: model_directory.NetworkConfig(name, settings) for name in names},
        variables={n: random_variables(n, settings, seed) for seed, n in enumerate(names)},
        basis=LandmarkBasis.load(data / "basis.npz"),
    )


@pytest.fixture(scope="module")
def model_folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "random"
    model_directory.write(folder, model)
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*flags: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate", *flags])
        status = 0
        try:
            command_line.run(evaluate.main)
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def test_model(run, model_folder, data, tmp_path):
    out = tmp_path / "scores"
    status, said, _ = run(
        f"--model={model_folder}", f"--data={data}", "--split=validation", f"--out={out}",
        f"--baseline_train={data}", "--no_identity", "--no_cpbd", "--workers=1", "--videos=1",
    )  # fmt: skip
    assert status == 0
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"wrote {out / 'index.html'}: 2 clips of 35 frames scored, in ")
    content = json.loads((out / "scores.json").read_text())
    assert content["problems"] == []
    frames, landmarks = content["tables"]["frames"], content["tables"]["landmarks"]
    references = [judge.GROUND_TRUTH, judge.STATIC_PORTRAIT]
    assert list(frames) == [*references, evaluate_model.MODEL, evaluate_model.TRUE_LANDMARKS]
    assert list(landmarks) == [
        *references, evaluate_model.AT_NET, evaluate_model.RIDGE, evaluate_model.IN_BASIS,
    ]  # fmt: skip
    assert "cpbd" not in frames[evaluate_model.MODEL]["metrics"]
    # The mouth of this data set follows its sound linearly: ridge regression finds that.
    found = {name: own["metrics"]["mouth_correlation"]["mean"] for name, own in landmarks.items()}
    assert found[evaluate_model.RIDGE] > 0.5 > abs(found[evaluate_model.AT_NET])
    assert found[evaluate_model.IN_BASIS] > 0.9
    assert len(list((out / "videos").iterdir())) == 1
    assert "videos/validation-0.mp4" in (out / "index.html").read_text()


def test_made_clips(model, data):
    """Calls carry their state on, whatever their size: a shorter clip begins a longer one."""
    example = ClipRecords(schema.data_files(data, "validation")).example(1)
    face = PreparedFace(model)
    portrait = images.decode_jpeg(example["frames"][0])
    shapes = np.repeat(example["landmarks"], 2, axis=0)
    longer = face.from_landmarks(portrait, shapes[0], shapes)
    shorter = face.from_landmarks(portrait, shapes[0], shapes[:20])
    # Calls of 32 and of 16 frames round differently.
    unlike = np.abs(longer.frames[:20].astype(int) - shorter.frames)
    assert unlike.max() <= 1
    assert np.count_nonzero(unlike) < 0.01 * unlike.size
    assert longer.frames.shape == (34, 128, 128, 3)
    np.testing.assert_allclose(shorter.landmarks, shapes[:20], atol=1e-6)


def scores_of(number: int) -> dict[str, list[judge.Scores]] | Problem:
    """Features around 0 and, of the system, around 3 and twice as far apart."""
    if number < 0:
        return Problem(f"clip {number}", "short", "it is short")
    spread = np.array([[-1.0], [1.0]])
    made = [(judge.GROUND_TRUTH, spread), ("model", 3 + 2 * spread)]
    scores = [
        judge.Scores(name, f"clip {number}", "", 9, {"psnr": 20.0}, features=features)
        for name, features in made
    ]
    return {"frames": scores}


def test_fid_of_all_clips():
    judged = evaluate.run_all(scores_of, [1, -1, 2, 3], 4, workers=1)
    assert [problem.clip_id for problem in judged.problems] == ["clip -1"]
    assert all(one.features is None for one in judged.tables["frames"])
    # Six features of variance 6 / 5 and 4 times that: 3^2 + (1 - 2)^2 x 6 / 5.
    assert judged.fid[judge.GROUND_TRUTH] == pytest.approx(0, abs=1e-9)
    assert judged.fid["model"] == pytest.approx(9 + 6 / 5)
    (table,) = evaluate.tables_of(judged)
    summary = protocol.summarise(table.scores, table.of_all)
    assert report.rows(summary)[-1] == ["FID ↓", "0.00", "10.20"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model=m"], "--data missing"),
        (["--real=r"], "--generated missing"),
        ([], "--model and --data missing"),
        (["--model=m", "--data=d", "--real=r", "--generated=g"], "--model, --data cannot be used"),
        (["--model=m", "--data=d", "--image=i"], "--image cannot be used"),
        (["--figure=5"], "--scores missing"),
        (["--figure=5", "--scores=s", "--model=m"], "--model cannot be used"),
        (["--figure=2", "--data=d"], "--data cannot be used: this is --figure=2"),
        (["--figure=2"], "a figure ends in"),
        (["--model=m", "--data=d", "--lpips=alex.pth"], "read from .safetensors or .npz"),
        (["--real=r", "--generated=g", "--fid=nowhere.npz"], "cannot read nowhere.npz"),
        (["--model=m", "--data=d", "--lse=syncnet_v2.model"], "SyncNet, syncnet_v2 are read from"),
        (["--compare", "one"], "give NAME=DIR"),
        (["--compare", "one=a", "one=b"], "one is there already"),
        (["--compare", "one=a"], "--compare writes Markdown"),
        (["--model=m", "--data=d", "--limit=0"], "at least 1"),
        (["--model=nowhere", "--data=nowhere"], "nowhere has no test data"),
        (["--real=nowhere", "--generated=nowhere"], "no folder nowhere"),
    ],
)
def test_wrong_flags(run, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    status, said, complaint = run(*flags, "--out=scores")
    assert status == 2
    assert said == ""
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1
    assert words in complaint
    assert not (tmp_path / "scores").exists()


def test_nothing_to_score(run, tmp_path):
    for name in ("real", "made"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clip.mp4").write_bytes(b"no video")
    status, _, complaint = run(
        f"--real={tmp_path / 'real'}", f"--generated={tmp_path / 'made'}",
        f"--out={tmp_path / 'scores'}", "--workers=1",
    )  # fmt: skip
    assert status == 2
    assert "none of 1 clips could be scored" in complaint.splitlines()[-1]
    assert not (tmp_path / "scores").exists()
