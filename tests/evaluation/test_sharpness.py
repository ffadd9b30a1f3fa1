import numpy as np
import pytest
import skimage.data
from scipy.ndimage import gaussian_filter

from atvg_jax.evaluation import metrics, sharpness


def steps(width: int, low: int = 60, high: int = 160) -> np.ndarray:
    """(128, 128) grey: bars 32 pixels wide whose edges are ramps of ``width`` steps."""
    ramp = np.linspace(low, high, width + 1)
    row = np.full(128, float(low))
    for start, rising in ((8, True), (40, False), (72, True), (104, False)):
        values = ramp if rising else ramp[::-1]
        row[start : start + width + 1] = values
        row[start + width + 1 :] = values[-1]
    return np.tile(row.round().astype(np.uint8), (128, 1))


@pytest.mark.parametrize("width", [2, 3, 5, 6, 8])
def test_widths_of_ramps(width):
    """A ramp of n steps is n pixels wide wherever on it one asks."""
    image = steps(width).astype(float)
    edges = sharpness.vertical_edges(image)
    edges[[0, -1]] = False  # the outermost rows are not measured
    assert edges.any()
    assert set(sharpness.edge_widths(image)[edges].tolist()) == {width}


def test_published_widths():
    """The upper left corner of LIVE's img1, and what the authors' MATLAB code measures in it.

    Numbers from the test data of the public port by 0x64746b (python-cpbd, reference_img1_*).
    """
    image = np.array(
        [
            [60, 82, 89, 91, 92, 93, 95, 95, 95, 95, 95, 96, 96],
            [66, 89, 97, 100, 103, 106, 110, 113, 114, 114, 114, 115, 115],
            [66, 90, 99, 103, 109, 115, 120, 125, 129, 129, 129, 130, 131],
            [66, 90, 99, 106, 116, 123, 127, 132, 137, 139, 138, 136, 136],
            [66, 90, 100, 108, 122, 132, 135, 136, 139, 143, 143, 139, 136],
            [66, 90, 100, 108, 124, 137, 141, 140, 141, 143, 143, 141, 137],
            [66, 90, 100, 108, 124, 137, 141, 140, 141, 143, 143, 141, 137],
        ],
        float,
    )
    widths = sharpness.edge_widths(image)
    assert widths[1:6, 1].tolist() == [8, 8, 9, 9, 6]
    assert widths[4, 4] == 9
    assert widths[5, 1:5].tolist() == [6, 6, 6, 6]


@pytest.mark.parametrize(
    ("high", "width", "expected"),
    [
        # Contrast 100: up to 3 pixels look sharp, for 1 - exp(-(3 / 3)^3.6) = 0.632.
        (160, 3, 1.0),
        (160, 4, 0.0),
        # Contrast 50 and below: up to 5.
        (110, 5, 1.0),
        (110, 6, 0.0),
        (111, 5, 0.0),
    ],
)
def test_just_noticeable_blur(high, width, expected):
    assert metrics.cpbd(steps(width, high=high)) == expected


def test_half_of_the_edges():
    """Sharp edges to the left, blurred ones to the right, in different blocks."""
    image = np.concatenate([steps(2)[:, :64], steps(8)[:, 64:]], axis=1)
    edges = sharpness.vertical_edges(image.astype(float))[1:-1]
    sharp, blurred = edges[:, :64].sum(), edges[:, 64:].sum()
    assert metrics.cpbd(image) == pytest.approx(sharp / (sharp + blurred))


def test_falls_with_blur():
    """Known Gaussian blur of photographs: more of it, less of CPBD, down to nothing."""
    for picture in (skimage.data.camera(), skimage.data.astronaut()):
        axes = (0, 1)
        values = [
            metrics.cpbd(gaussian_filter(picture, sigma, axes=axes))
            for sigma in (0, 0.5, 1, 1.5, 2, 3)
        ]
        assert (np.diff(values) < 0).all()
        assert values[0] > 0.4
        assert values[-1] < 0.02


def test_pictures_without_edges():
    assert metrics.cpbd(np.full((128, 128, 3), 77, np.uint8)) == 0
    # Edges that run from left to right are not measured.
    assert metrics.cpbd(steps(2).T.copy()) == 0


def test_grey():
    """ITU-R BT.601, as Pillow converts."""
    from PIL import Image

    picture = skimage.data.astronaut()
    expected = np.asarray(Image.fromarray(picture).convert("L"))
    np.testing.assert_array_equal(sharpness.grey(picture), expected)
    assert metrics.cpbd(picture) == metrics.cpbd(expected)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="smaller than a block"):
        metrics.cpbd(np.zeros((63, 100, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        metrics.cpbd(np.zeros((100, 100, 3)))
