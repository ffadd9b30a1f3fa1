"""The 68 points of faces as line drawings."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Line = tuple[int, int, bool]

# First and last iBUG point of each line, and whether it closes.
FACE: tuple[Line, ...] = (
    (0, 16, False),  # jaw
    (17, 21, False),  # brows
    (22, 26, False),
    (27, 30, False),  # nose
    (31, 35, False),
    (36, 41, True),  # eyes
    (42, 47, True),
)
LIPS: tuple[Line, ...] = ((48, 59, True), (60, 67, True))

FACE_ZOOM = 2.0
"""Of normalised landmarks, which are centred and about 0.35 wide: a face fills the picture."""
BACKGROUND: Colour = (16, 16, 20)


def draw(
    strokes: Sequence[tuple[npt.ArrayLike, Sequence[Line], Colour]],
    size: int,
    zoom: float = FACE_ZOOM,
    centre: npt.ArrayLike = (0.0, 0.0),
) -> npt.NDArray[np.uint8]:
    """Draws faces, or parts of them, on one square picture.

    Args:
        strokes: points (68, 2), x to the right and y down, which of their lines, and a colour.
        size: side of the picture in pixels.
        zoom: sides of the picture that a unit of the points takes.
        centre: the place, in units of the points, that is in the middle of the picture.

    Returns:
        (size, size, 3) uint8.
    """
    # Drawn at twice the size and shrunk: Pillow's lines are not antialiased.
    picture = Image.new("RGB", (2 * size, 2 * size), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for points, lines, colour in strokes:
        places = ((np.asarray(points, float) - np.asarray(centre)) * zoom + 0.5) * 2 * size
        # A network that has not learned yet may draw anywhere; Pillow wants sane numbers.
        places = np.clip(np.nan_to_num(places), -size, 3 * size)
        for first, last, closes in lines:
            line = [tuple(place) for place in places[first : last + 1]]
            pen.line(line + line[:1] * closes, fill=colour, width=max(2, size // 64), joint="curve")
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX))
