import json
import sys

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from atvg_jax import command_line, synthesize
from atvg_jax.errors import InputError
from atvg_jax.features import drawing, video
from atvg_jax.inference import model_directory, visualise
from atvg_jax.inference.landmark_file import read_landmarks


@pytest.fixture(scope="module")
def folder(model, portrait, speech, tmp_path_factory):
    """Inputs: a portrait, two sounds, a picture without a face, a model."""
    folder = tmp_path_factory.mktemp("inputs")
    Image.fromarray(portrait).save(folder / "face.png")
    Image.new("RGB", (200, 200), (90, 120, 60)).save(folder / "meadow.png")
    soundfile.write(folder / "long.wav", speech, 16000)
    soundfile.write(folder / "short.wav", np.repeat(speech[:8000, None], 2, axis=1), 22050)
    model_directory.write(folder / "model", model)
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    def call(*flags: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["synthesize", *flags])
        status = 0
        try:
            command_line.run(synthesize.main)
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def probe(file):
    with av.open(str(file)) as container:
        picture, sound = container.streams.video[0], container.streams.audio[0]
        pictures = sum(1 for _ in container.decode(picture))
        assert (picture.codec.name, picture.pix_fmt, sound.codec.name) == (
            "h264",
            "yuv420p",
            "aac",
        )
        assert container.metadata["comment"] == "synthesized with atvg_jax"
        seconds = float(sound.duration * sound.time_base)
        return picture.width, picture.height, pictures, seconds


def test_video(run, tmp_path):
    out = tmp_path / "new" / "talk.mp4"
    status, said, _ = run("--image=face.png", "--audio=long.wav", f"--out={out}", "--model=model")
    assert status == 0
    assert said.startswith(f"wrote {out}: 38 frames, 1.52 s, in ")
    width, height, pictures, seconds = probe(out)
    assert (width, height, pictures) == (128, 128, 38)
    assert abs(seconds - 1.5) <= 1 / 25
    assert [file.name for file in out.parent.iterdir()] == ["talk.mp4"]
    # The sound is in it, where it was.
    original, written = (video.read_waveform(file) for file in ("long.wav", out))
    overlap = np.correlate(written[2000:14000], original[1000:15000], mode="full")
    assert abs(int(overlap.argmax()) - (len(original[1000:15000]) - 1 - 1000)) < 80


def test_visualise(run, tmp_path):
    out = tmp_path / "talk.mp4"
    flags = ("--image=face.png", "--audio=short.wav", f"--out={out}", "--model=model")
    status, _, _ = run(*flags, "--visualise")
    assert status == 0
    width, height, pictures, _ = probe(out)
    assert (width, height) == (5 * 256, 256 + visualise.CAPTION_HEIGHT)
    assert pictures == 10  # 8000 / 22050 * 25 = 9.07


def test_full_size(run, tmp_path):
    out = tmp_path / "talk.mp4"
    flags = ("--image=face.png", "--audio=short.wav", f"--out={out}", "--model=model")
    assert run(*flags, "--full_size")[0] == 0
    assert probe(out)[:3] == (512, 512, 10)


def test_one_video_each_pair(run, tmp_path):
    flags = ["--image", "face.png", "--audio", "long.wav", "short.wav", "--model=model"]
    status, said, _ = run(*flags, f"--out={tmp_path / 'videos'}")
    assert status == 0
    assert "2 videos" in said
    names = sorted(file.name for file in (tmp_path / "videos").iterdir())
    assert names == ["face_long.mp4", "face_short.mp4"]
    assert probe(tmp_path / "videos" / "face_short.mp4")[2] == 10


def test_landmarks_only(run, tmp_path):
    flags = ("--image=face.png", "--audio=short.wav", "--model=model", "--landmarks_only")
    assert run(*flags, f"--out={tmp_path / 'points.npy'}")[0] == 0
    assert np.load(tmp_path / "points.npy").shape == (10, 68, 2)
    assert run(*flags, f"--out={tmp_path / 'drawn.mp4'}")[0] == 0
    assert probe(tmp_path / "drawn.mp4")[:3] == (256, 256, 10)


def test_landmarks_given(run, folder, talking_face, portrait, tmp_path):
    from atvg_jax.features import faces

    points = faces.predict_landmarks(portrait, faces.detect(portrait)[0].box)
    np.save(folder / "points.npy", points)
    flags = ("--image=face.png", "--audio=short.wav", f"--out={tmp_path / 'talk.mp4'}")
    assert run(*flags, "--model=model", "--landmarks=points.npy")[0] == 0
    assert probe(tmp_path / "talk.mp4")[2] == 10


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image=meadow.png"], "meadow.png: no face"),
        (["--image=nobody.png"], "no file nobody.png"),
        (["--image=long.wav"], "long.wav"),
        (["--audio=face.png"], "face.png"),
        (["--audio=nothing.wav"], "no file nothing.wav"),
        (["--model=nowhere"], "nowhere"),
        (["--model=."], "not a model directory"),
        (["--face=3"], "no number 3"),
        (["--face=-1"], "--face=-1"),
        (["--face=x"], "--face"),
        (["--landmarks=long.wav"], "landmarks are read from"),
        (["--landmarks", "a.npy", "b.npy"], "one each"),
        (["--landmarks=face.png", "--face=1"], "--face"),
        (["--out=talk.avi"], "should end in .mp4"),
        (["--out=talk.npy"], "--landmarks_only"),
        (["--out=face.png/talk.mp4"], "cannot write"),
        (["--audio", "long.wav", "short.wav"], "do not fit"),
        (["--audio", "long.wav", "long.wav", "--out=videos"], "two of the videos"),
        (["--landmarks_only", "--visualise"], "leave one out"),
        (["--full_size", "--visualise"], "leave one out"),
        (["--speed=2"], "--speed"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run, folder, flags, message):
    defaults = {"image": "face.png", "audio": "long.wav", "out": "talk.mp4", "model": "model"}
    given = {flag.lstrip("-").split("=")[0] for flag in flags}
    rest = [f"--{name}={value}" for name, value in defaults.items() if name not in given]
    before = sorted(folder.rglob("*"))
    status, said, error = run(*flags, *rest)
    assert status == 2
    assert said == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert sorted(folder.rglob("*")) == before


def test_sounds_and_pictures_that_do_not_pair(run):
    flags = ["--image", "face.png", "face.png", "--audio", *["long.wav"] * 3, "--out=videos"]
    status, _, error = run(*flags)
    assert status == 2
    assert "2 images and 3 sounds" in error


def points_as(path):
    points = np.random.default_rng(0).uniform(10, 90, (68, 2)).astype(np.float32)
    rows = points.tolist()
    if path.suffix == ".npy":
        np.save(path, points)
    elif path.suffix == ".json":
        path.write_text(json.dumps({"landmarks": rows} if "keyed" in path.name else rows))
    else:
        text = "\n".join(f"{x!r}, {y!r}" for x, y in rows)
        path.write_text(("x,y\n" if "headed" in path.name else "") + text + "\n")
    return points


@pytest.mark.parametrize("name", ["p.npy", "p.json", "keyed.json", "p.csv", "headed.csv"])
def test_landmark_files(tmp_path, name):
    points = points_as(tmp_path / name)
    np.testing.assert_allclose(read_landmarks(tmp_path / name), points, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"", "npy, .csv or .json"),
        ("p.npy", b"", "68 points"),
        ("p.npy", b"\x93NUMPY\x01\x00", "68 points"),
        ("p.csv", b"1,2\n3,4\n", "shape"),
        ("p.csv", b"a,b\n" * 68, "68 points"),
        ("p.csv", b"nan,1\n" * 68, "finite"),
        ("p.csv", b"0.5,0.5\n" * 68, "fractions"),
        ("p.json", b"{}", "68"),
        ("p.json", b"[" * 100000, "68"),
        ("p.json", b"\xff", "68"),
    ],
)
def test_landmark_files_that_are_none(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_landmarks(tmp_path / name)


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "p.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError):
        read_landmarks(tmp_path / "p.npy")


def test_attention_goes_from_dark_to_bright():
    ramp = visualise.attention_picture(np.linspace(0, 1, 16)[None])
    brightness = ramp.astype(int).sum(axis=-1)[0]
    assert (np.diff(brightness) > 0).all()


def test_drawn_landmarks_are_where_the_points_are():
    shape = np.zeros((68, 2))
    shape[48:60] = (0.1, 0.2) + 0.02 * np.random.default_rng(0).standard_normal((12, 2))
    drawn = visualise.draw_landmarks(shape, size=200)
    mouth = np.argwhere(drawn[..., 0] > 200)
    wanted = (np.array([0.2, 0.1]) * drawing.FACE_ZOOM + 0.5) * 200
    assert np.abs(mouth.mean(axis=0) - wanted).max() < 8
