"""Artifacts run where this package is not and compute what the model does.

What they are held to is the Flax networks' own output, made in this process; every ``write`` here
starts a process that cannot import this package.
"""

import dataclasses
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from atvg_jax import assets, export
from atvg_jax.errors import InputError
from atvg_jax.exporting import artifacts, fresh_process, onnx_networks, parity, saved_model
from atvg_jax.exporting.pieces import PIECES, pieces, weights
from atvg_jax.features import audio, images, video
from atvg_jax.inference import model_directory
from benchmarks import exports as speed
from tests.inference.conftest import WIDTH
from tests.reference_weights import random_variables

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@pytest.fixture(scope="session")
def onnx_folder(model, tmp_path_factory):
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    folder = tmp_path_factory.mktemp("onnx") / "onnx"
    artifacts.write(model, "onnx", folder)
    return folder


def assert_described(folder, form):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == form
    assert set(manifest["pieces"]) == set(PIECES)
    on_disk = {
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and file.name != "manifest.json"
    }
    assert set(manifest["files"]) == on_disk
    for name, described in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert described["bytes"] == len(content)
        assert described["sha256"] == hashlib.sha256(content).hexdigest()
    step = manifest["pieces"]["step"]
    assert step["inputs"]["mfcc"]["shape"] == ["b", "t", 28, 12]
    assert step["inputs"]["gru_state"]["shape"] == step["outputs"]["next_gru_state"]["shape"]
    assert step["outputs"]["frames"]["shape"] == ["b", "t", 128, 128, 3]
    differences = manifest["parity"]["largest_difference"]
    assert set(differences) == {*PIECES, "fewer"}
    assert max(differences.values()) < 1e-4
    assert all(manifest["versions"]["proved_on"].values())
    return manifest


def test_onnx(onnx_folder):
    import onnx
    import onnxruntime

    manifest = assert_described(onnx_folder, "onnx")
    for name, piece in manifest["pieces"].items():
        onnx.checker.check_model(onnx.load(onnx_folder / piece["file"]), full_check=True)
        session = onnxruntime.InferenceSession(
            onnx_folder / piece["file"], providers=["CPUExecutionProvider"]
        )
        for side, tensors in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
            wanted = {key: tensor["shape"] for key, tensor in piece[side].items()}
            assert {tensor.name: tensor.shape for tensor in tensors} == wanted, name


def proved(form, at_net, vg_net, basis, folder):
    """The manifest of artifacts of networks with random weights, which must agree with them."""
    configs = {
        slot: model_directory.NetworkConfig(name, {"width": WIDTH, **settings})
        for slot, (name, settings) in {"at_net": at_net, "vg_net": vg_net}.items()
    }
    variables = {
        slot: random_variables(config.name, dict(config.settings), seed)
        for seed, (slot, config) in enumerate(configs.items())
    }
    other = model_directory.Model(configs, variables, basis.boosted([1, 2.2, 2.4, 2.6, 2.8, 3]))
    manifest = artifacts.write(other, form, folder)
    assert max(manifest["parity"]["largest_difference"].values()) < 1e-4
    return manifest


def test_networks_of_every_kind_in_onnx(basis, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    # What the published checkpoints may be: no LSTM, no recurrence; and frames without attention.
    vg_net = "vg_net", {"recurrence": "none", "attention": False}
    manifest = proved("onnx", ("at_single", {}), vg_net, basis, tmp_path / "onnx")
    assert not any(name.endswith("_state") for name in manifest["pieces"]["step"]["inputs"])


@pytest.mark.parametrize("form", ["onnx", "stablehlo"])
def test_the_mean_of_three_at_nets(form, basis, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    at_net = "at_mean", {"members": 3}
    manifest = proved(form, at_net, ("vg_net", {}), basis, tmp_path / form)
    # Three LSTMs of sixteen units, one behind another.
    assert manifest["pieces"]["step"]["inputs"]["lstm_state"]["shape"] == ["b", 3, 2, 48]


def test_int8_by_the_command_line(model, onnx_folder, tmp_path, monkeypatch, capsys):
    model_directory.write(tmp_path / "model", model)
    out = tmp_path / "onnx"
    flags = [f"--model={tmp_path / 'model'}", "--format=onnx", "--precision=int8", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", ["export", *flags])
    export.main()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("portrait: differs from the model by ")
    assert said[-1].startswith(f"wrote {out}: onnx in int8, frames at ")
    manifest, whole = (
        json.loads((folder / "manifest.json").read_text()) for folder in (out, onnx_folder)
    )
    size, wanted = (m["files"]["step.onnx"]["bytes"] for m in (manifest, whole))
    assert size < 0.4 * wanted
    # 8 bits, in a network that neither damps nor magnifies their rounding by much.
    assert 25 < manifest["parity"]["frames_psnr_db"] < whole["parity"]["frames_psnr_db"]
    assert manifest["parity"]["tolerance"] is None


@pytest.mark.parametrize(("precision", "bits"), [("float16", 11), ("bfloat16", 8), ("int8", 7)])
def test_smaller_weights_are_rounded_and_no_more(model, precision, bits):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    made = pieces(model)["portrait"]
    given = parity.inputs(model)
    outputs = []
    for kind in ("float32", precision):
        content = onnx_networks.build(model, "portrait", made, kind).SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        inputs = {"image": given["image"], "landmarks": given["shape"]}
        outputs.append(dict(zip(made.outputs, session.run(None, inputs), strict=True)))
    whole, rounded = outputs
    # The basis is no weight of a network and stays as it is.
    np.testing.assert_array_equal(rounded["components"], whole["components"])
    # Five layers of weights rounded to so many bits.
    error = np.linalg.norm(rounded["deep"] - whole["deep"]) / np.linalg.norm(whole["deep"])
    assert 0 < error < 5 * 2.0**-bits


def test_stablehlo_and_its_example(model, tmp_path):
    folder = tmp_path / "stablehlo"
    artifacts.write(model, "stablehlo", folder)
    assert_described(folder, "stablehlo")
    from jax import export as jax_export

    step = jax_export.deserialize((folder / "step.stablehlo").read_bytes())
    assert step.platforms == ("cpu", "cuda", "tpu")

    given = parity.inputs(model)
    image = np.round((given["image"][0] + 1) * 127.5).astype(np.uint8)
    # As many frames as a call that the proof compiled had, from the first portrait.
    heard = {"landmarks": given["shape"][0], "mfcc": given["mfcc"][0, : fresh_process.FEWER]}
    np.savez(tmp_path / "inputs.npz", image=image, **heard)
    source = EXAMPLES / "stablehlo_frames.py"
    assert len(source.read_text().splitlines()) <= 30
    subprocess.run(
        [sys.executable, "-I", source, folder, tmp_path / "inputs.npz", tmp_path / "frames.npy"],
        check=True,
        timeout=600,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    wanted = parity.expected(model, given)["fewer/frames"][0]
    frames = np.load(tmp_path / "frames.npy")
    assert frames.dtype == np.uint8
    assert np.abs(frames - (wanted + 1) * 127.5).max() < 0.51


def test_saved_model(model, tmp_path):
    tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    # The smallest piece alone, in this process: TensorFlow takes long to start and to compile. The
    # command proves all four in a process without JAX, whenever it makes them.
    made = {"landmarks": pieces(model)["landmarks"]}
    folder = saved_model.write(tmp_path, made, weights(model))
    assert folder == tmp_path / "atvg" / "1"  # as TF Serving looks for it
    signature = tf.saved_model.load(str(folder)).signatures["landmarks"]
    given = parity.inputs(model)
    components = model.basis.encode(given["shape"])
    wanted = parity.expected(model, given)["landmarks/landmarks"]
    for batch, frames in ((2, 4), (1, 3)):
        windows = given["mfcc"][:batch, :frames]
        spoken = signature(components=components[:batch], mfcc=windows)["landmarks"]
        np.testing.assert_allclose(spoken, wanted[:batch, :frames], atol=1e-5)


def test_the_onnx_example_makes_the_frames_that_synthesize_makes(
    onnx_folder, talking_face, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(EXAMPLES)  # as for a program that is run from there
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / "onnx_talking_face.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    facts = json.loads(assets.portrait_facts_path().read_text())["astronaut"]
    points = np.asarray(facts["landmarks"], np.float32)
    image = images.read_image(assets.portrait_path("astronaut"))
    speech = video.read_waveform(assets.speech_path())[: 18 * audio.SAMPLES_PER_FRAME + 1]
    wanted = talking_face.synthesize(image, speech, audio.SAMPLE_RATE, points).frames

    images.save_png(tmp_path / "face.png", image)
    np.savetxt(tmp_path / "points.csv", points, delimiter=",")
    soundfile.write(tmp_path / "speech.wav", speech, audio.SAMPLE_RATE, subtype="FLOAT")
    made = []
    talk = example.talk
    monkeypatch.setattr(
        example, "talk", lambda *given: (made.append(frame) or frame for frame in talk(*given))
    )
    files = {"image": "face.png", "landmarks": "points.csv", "audio": "speech.wav", "out": "t.mp4"}
    flags = [f"--{name}={tmp_path / file}" for name, file in files.items()]
    monkeypatch.setattr(sys, "argv", ["example", f"--model={onnx_folder}", *flags])
    example.main()

    # Before the encoder: a rounded bit would send it another way through pictures of noise.
    assert np.abs(np.stack(made).astype(int) - wanted).max() <= 1
    assert np.mean(np.stack(made) != wanted) < 0.001
    info = video.probe(tmp_path / "t.mp4")
    assert (info.frames, info.width, info.height, info.has_audio) == (19, 128, 128, True)


def test_the_speed_table(model, onnx_folder, tmp_path, monkeypatch, capsys):
    model_directory.write(tmp_path / "model", model)
    flags = [f"--model={tmp_path / 'model'}", f"--onnx={onnx_folder}", "--rounds=1"]
    monkeypatch.setattr(sys, "argv", ["exports", *flags])
    speed.main()
    table = [line.split("|") for line in capsys.readouterr().out.strip().splitlines()]
    assert [row[1].strip() for row in table[2:]] == ["synthesize", "onnx"]
    assert all(float(cell) > 0 for cell in table[3][2:6])


def test_a_difference_is_found_and_nothing_is_left(model, onnx_folder, tmp_path, monkeypatch):
    changed = dataclasses.replace(model, basis=model.basis.boosted(1.01))
    with pytest.raises(InputError, match=r"differ from the model by more than 0\.0001.*landmarks"):
        parity.prove(changed, "onnx", onnx_folder, pieces(model), "float32")
    # And one that is found while writing leaves no folder behind.
    (tmp_path / "there").mkdir()

    def unlike(*_: object) -> None:
        raise InputError("differ from the model")

    monkeypatch.setattr(parity, "prove", unlike)
    with pytest.raises(InputError, match="differ from the model"):
        artifacts.write(model, "onnx", tmp_path / "there" / "onnx")
    assert not list((tmp_path / "there").iterdir())


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("stablehlo", ["atvg_jax"]),
        ("savedmodel", ["atvg_jax", "jax"]),
        ("onnx", ["atvg_jax", "jax", "tensorflow"]),
    ],
)
def test_the_proof_cannot_import_what_the_format_does_without(monkeypatch, form, names):
    for name in names:
        monkeypatch.setitem(sys.modules, name, sys)  # as if it were there to be had
    fresh_process.forbid(form)
    for name in names:
        with pytest.raises(ImportError):
            importlib.import_module(name)


def test_artifacts_that_do_not_run(model, tmp_path):
    with pytest.raises(InputError, match="the onnx artifacts do not run: KeyError"):
        parity.run("onnx", tmp_path, parity.inputs(model), pieces(model))


def test_other_folders_and_precisions_are_refused(model, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("words")
    with pytest.raises(InputError, match="is not a folder of artifacts"):
        artifacts.write(model, "onnx", tmp_path / "thesis")
    with pytest.raises(InputError, match="stablehlo is written in float32, bfloat16, not in int8"):
        artifacts.write(model, "stablehlo", tmp_path / "new", "int8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis"]


@pytest.mark.parametrize(
    ("form", "package", "extra"),
    [("onnx", "onnx", "onnx"), ("savedmodel", "tensorflow", "tensorflow")],
)
def test_a_package_that_is_missing_is_named(model, tmp_path, monkeypatch, form, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf'pip install "atvg_jax\[{extra}\]"'):
        artifacts.write(model, form, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--format=onnx"], "--format=onnx takes --model"),
        (["--at=a"], "--format=checkpoint takes --vg"),
        (["--at=a", "--vg=b", "--model=c"], "--format=checkpoint does not take --model"),
        (["--format=onnx", "--model=m", "--boost=2"], "--format=onnx does not take --boost"),
    ],
)
def test_flags_that_do_not_go_together(monkeypatch, capsys, flags, message):
    monkeypatch.setattr(sys, "argv", ["export", *flags, "--out=out"])
    with pytest.raises(SystemExit) as caught:
        export.main()
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
