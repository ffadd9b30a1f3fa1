"""Pictures as ``docs/examples/onnx_talking_face.py`` reads them: as Pillow does, to the bit.

A single level of 255 would do for a portrait, but it sends an encoder another way, and the videos
of two programs could not be compared.
"""

import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atvg_jax import assets
from atvg_jax.features import images

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ORIENTATION = 0x0112  # EXIF's tag


@pytest.fixture
def read(monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("onnx_talking_face").read_picture


@pytest.mark.parametrize("name", ["astronaut", "hopper"])
def test_bundled_portraits(read, name):
    path = assets.portrait_path(name)
    assert path.suffix == ".jpg"
    np.testing.assert_array_equal(read(path), images.read_image(path))


@pytest.mark.parametrize("size", [(96, 80), (101, 83), (100, 83)])
@pytest.mark.parametrize("settings", [
    {"subsampling": 0},
    {"subsampling": 1, "quality": 40},
    {"subsampling": 2},
    {"subsampling": 2, "quality": 100, "optimize": True},
    {"subsampling": 2, "restart_marker_blocks": 5},
    {"subsampling": 0, "progressive": True},
    {"subsampling": 2, "progressive": True, "restart_marker_blocks": 3},
])  # fmt: skip
def test_every_kind_of_jpeg(read, tmp_path, size, settings):
    portrait = Image.open(assets.portrait_path("astronaut")).crop((150, 20, 350, 180)).resize(size)
    path = tmp_path / "a.jpg"
    portrait.save(path, **settings)
    np.testing.assert_array_equal(read(path), np.asarray(Image.open(path)))
    grey = portrait.convert("L")
    grey.save(path, **{name: value for name, value in settings.items() if name != "subsampling"})
    np.testing.assert_array_equal(read(path), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_pictures_are_turned_as_their_camera_was(read, tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    portrait = Image.open(assets.portrait_path("hopper")).resize((70, 50))
    portrait.save(tmp_path / "a.jpg", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.jpg"), images.read_image(tmp_path / "a.jpg"))


def test_other_pictures(read, tmp_path):
    portrait = Image.open(assets.portrait_path("hopper")).resize((70, 50))
    portrait.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), np.asarray(portrait))
    portrait.save(tmp_path / "rgb.jpg", keep_rgb=True)  # FFmpeg's own, which may round otherwise
    found = read(tmp_path / "rgb.jpg").astype(int)
    assert np.abs(found - np.asarray(Image.open(tmp_path / "rgb.jpg"))).max() <= 2
