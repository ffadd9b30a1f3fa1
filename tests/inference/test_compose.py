import numpy as np
import pytest

from atvg_jax.features import faces
from atvg_jax.inference.compose import WholePortrait


@pytest.fixture(scope="module")
def face(portrait, aligned):
    return WholePortrait(portrait, aligned.matrix)


def distance_inside(aligned, shape):
    """(H, W) how far inside the crop a picture pixel lies, in crop pixels; negative outside."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    u, v = np.moveaxis(faces.apply(aligned.matrix, np.stack([x, y], axis=-1)), -1, 0)
    return np.minimum(np.minimum(u, 127 - u), np.minimum(v, 127 - v))


def test_no_attention_is_the_portrait_bit_for_bit(face, portrait):
    red = np.full((128, 128, 3), (255, 0, 0), np.uint8)
    np.testing.assert_array_equal(face.frame(np.zeros((128, 128), np.float32), red), portrait)


def test_full_attention_stays_inside_the_crop_and_fades(face, portrait, aligned):
    green = np.full((128, 128, 3), (0, 255, 0), np.uint8)
    made = face.frame(np.ones((128, 128), np.float32), green).astype(int)
    inside = distance_inside(aligned, portrait.shape)
    np.testing.assert_array_equal(made[inside < -1], portrait[inside < -1])
    assert (made[inside > 24] == (0, 255, 0)).all()
    # A crop pixel at the border takes at most a few grey levels over: no edge is visible.
    edge = np.abs(inside) < 1
    assert np.abs(made - portrait)[edge].max() <= 4


def test_the_crop_itself_fits_where_it_came_from(face, portrait, aligned):
    """Motion that equals the portrait moves nothing, to the sharpness lost by the crop."""
    made = face.frame(np.ones((128, 128), np.float32), aligned.crop).astype(int)
    inside = distance_inside(aligned, portrait.shape) > 24
    error = np.abs(made - portrait)[inside].mean()
    shifted = np.abs(np.roll(made, 4, axis=1) - portrait)[inside].mean()
    assert error < 4
    assert shifted > 1.5 * error


def test_a_dot_lands_on_its_pixel(face, portrait, aligned):
    attention = np.zeros((128, 128), np.float32)
    attention[70:75, 50:55] = 1  # centred on crop pixel (52, 72)
    made = face.frame(attention, np.zeros((128, 128, 3), np.uint8)).astype(int)
    changed = np.abs(made - portrait).sum(axis=-1).astype(float)
    y, x = np.mgrid[: portrait.shape[0], : portrait.shape[1]]
    brightness = portrait.astype(float).sum(axis=-1)
    weight = changed / np.maximum(brightness, 1)
    centre = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
    wanted = faces.apply(faces.invert(aligned.matrix), (52.0, 72.0))
    np.testing.assert_allclose(centre, wanted, atol=0.5)


def test_a_face_that_leaves_the_picture(portrait, aligned):
    cut = portrait[:, 230:]
    matrix = aligned.matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ (230, 0)
    made = WholePortrait(cut, matrix).frame(
        np.ones((128, 128), np.float32), np.zeros((128, 128, 3), np.uint8)
    )
    assert made.shape == cut.shape
    assert (made == 0).any()
