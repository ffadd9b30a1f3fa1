"""Pictures of every kind come out upright, 8-bit and RGB, or are refused in one line."""

import numpy as np
import pytest
from PIL import Image

from atvg_jax.errors import InputError
from atvg_jax.features import images


def quarters(height=40, width=60):
    """Red and green above blue and white."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = (255, 255, 255)
    return picture


def test_png_round_trip_is_exact(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    images.save_png(tmp_path / "new" / "a.png", picture)
    np.testing.assert_array_equal(images.read_image(tmp_path / "new" / "a.png"), picture)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_jpeg_round_trip_is_close_and_keeps_colour_edges():
    picture = quarters()
    data = images.encode_jpeg(picture)
    assert data[:2] == b"\xff\xd8"
    assert np.abs(images.decode_jpeg(data).astype(int) - picture).mean() < 1
    assert len(images.encode_jpeg(picture, quality=30)) < len(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    # The file holds the turned picture; a viewer who follows the tag sees `quarters`.
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](quarters())))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(images.read_image(tmp_path / "a.png"), quarters())


def test_transparent_is_white(tmp_path):
    rgba = np.dstack([quarters(), np.full((40, 60), 255, np.uint8)])
    rgba[:10, :, 3] = 0
    rgba[10:20, :, 3] = 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    read = images.read_image(tmp_path / "a.png")
    assert (read[:10] == 255).all()
    np.testing.assert_allclose(read[15, 0], (255, 127, 127), atol=1)
    np.testing.assert_array_equal(read[20:], quarters()[20:])


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "YCbCr"])
def test_other_colour_models(tmp_path, mode):
    suffix = {"CMYK": "tif", "YCbCr": "jpg"}.get(mode, "png")
    picture = Image.fromarray(quarters()).convert(mode)
    picture.save(tmp_path / f"a.{suffix}", quality=95)
    read = images.read_image(tmp_path / f"a.{suffix}")
    expected = np.asarray(picture.convert("RGB")).astype(int)
    assert read.shape == (40, 60, 3)
    assert np.abs(read - expected).mean() < 4


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 60).astype(np.uint16)
    Image.fromarray(np.repeat(ramp[None], 40, axis=0)).save(tmp_path / "a.png")
    read = images.read_image(tmp_path / "a.png")
    np.testing.assert_allclose(read[0, :, 0], ramp / 257, atol=1)


def test_first_picture_of_an_animation(tmp_path):
    first, second = Image.fromarray(quarters()), Image.fromarray(255 - quarters())
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert np.abs(images.read_image(tmp_path / "a.gif").astype(int) - quarters()).mean() < 3


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "cut", "svg"])
def test_unusable_files_are_named_in_one_line(tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        images.save_png(path, noise)
        whole = path.read_bytes()
        content = {"empty": b"", "text": b"hello", "cut": whole[: len(whole) // 2]}
        path.write_bytes(content.get(kind, b"<svg xmlns='http://www.w3.org/2000/svg'/>"))
    with pytest.raises(InputError) as caught:
        images.read_image(path)
    assert caught.value.reason == "unreadable"
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_picture_that_claims_to_be_huge_is_refused(tmp_path, monkeypatch):
    images.save_png(tmp_path / "a.png", quarters())
    monkeypatch.setattr(images, "LARGEST_PIXELS", 1000)
    with pytest.raises(InputError) as caught:
        images.read_image(tmp_path / "a.png")
    assert caught.value.reason == "too_large"


def test_a_small_file_that_unpacks_to_hundreds_of_megabytes_is_refused(tmp_path):
    Image.new("1", (11_000, 11_000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError) as caught:
        images.read_image(tmp_path / "bomb.png")
    assert caught.value.reason == "too_large"


def test_broken_jpeg_bytes():
    data = images.encode_jpeg(quarters())
    for broken in (b"", b"not a picture", data[: len(data) // 2]):
        with pytest.raises(InputError):
            images.decode_jpeg(broken)


def test_wrong_arrays_are_named(tmp_path):
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            images.encode_jpeg(wrong)
        with pytest.raises(ValueError, match="uint8"):
            images.save_png(tmp_path / "a.png", wrong)
    assert list(tmp_path.iterdir()) == []
