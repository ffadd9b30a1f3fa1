"""Line drawings of landmarks, against what a drawing must be."""

import numpy as np

from atvg_jax.features import drawing

RED, GREEN = (255, 0, 0), (0, 255, 0)


def points(**places):
    """68 points, those not named far outside of the picture."""
    shape = np.full((68, 2), 50.0)
    for name, place in places.items():
        shape[int(name[1:])] = place
    return shape


def test_a_line_is_drawn_where_its_points_are():
    # From the middle to three quarters of the width: a unit is the whole picture at zoom 1.
    picture = drawing.draw([(points(p0=(0, 0), p1=(0.25, 0)), ((0, 1, False),), RED)], 64, zoom=1)
    assert picture.shape == (64, 64, 3)
    rows, columns = np.nonzero(picture[..., 0] > 100)
    assert set(rows) <= {31, 32}
    assert 31 <= columns.min() <= 32
    assert 47 <= columns.max() <= 48
    assert (picture[:16] == drawing.BACKGROUND).all()


def test_centre_and_zoom_move_the_view():
    line = ((0, 1, False),)
    shape = points(p0=(2.0, 1.0), p1=(2.1, 1.0))
    seen = drawing.draw([(shape, line, RED)], 64, zoom=1, centre=(2.0, 1.0))
    moved = drawing.draw([(shape - (2.0, 1.0), line, RED)], 64, zoom=1)
    np.testing.assert_array_equal(seen, moved)
    near = drawing.draw([(shape, line, RED)], 64, zoom=4, centre=(2.0, 1.0))
    assert (near[..., 0] > 100).any(axis=0).sum() > 3 * (seen[..., 0] > 100).any(axis=0).sum()


def test_what_comes_later_lies_above_and_closed_lines_close():
    # A triangle of 36, 37, 38: its third side is there only when the line closes.
    corners = points(p36=(-0.4, 0.4), p37=(0.0, -0.4), p38=(0.4, 0.4))
    base = (int(0.9 * 64), 32)
    closed = drawing.draw([(corners, ((36, 38, True),), RED)], 64, zoom=1)
    opened = drawing.draw([(corners, ((36, 38, False),), RED)], 64, zoom=1)
    assert closed[base][0] > 100
    assert opened[base][0] < 100
    both = drawing.draw(
        [(corners, ((36, 38, True),), RED), (corners, ((36, 38, True),), GREEN)], 64, zoom=1
    )
    assert both[base][1] > 100
    assert both[base][0] < 100


def test_points_that_are_no_places_are_survived():
    shape = np.full((68, 2), np.nan)
    shape[3] = np.inf
    picture = drawing.draw([(shape, drawing.FACE + drawing.LIPS, RED)], 32)
    assert picture.dtype == np.uint8
    assert picture.shape == (32, 32, 3)


def test_every_point_is_on_a_line():
    lines = drawing.FACE + drawing.LIPS
    assert sorted(p for first, last, _ in lines for p in range(first, last + 1)) == list(range(68))
