"""Faces for the synthetic corpus: the bundled portraits, reshaped and recoloured into people."""

import dataclasses
import functools
import json

import numpy as np
from PIL import Image
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates, zoom

from atvg_jax import assets
from atvg_jax.features.landmarks import MOUTH

SIZE = 512
"""Pixels a side of a bundled portrait."""

_GRID = 32
"""The reshaping is computed at every 1/32 of the picture and interpolated: it is smooth."""

JAW, BROWS, NOSE, NOSE_BASE = slice(0, 17), slice(17, 27), slice(27, 36), slice(31, 36)
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
"""Parts of the 68 iBUG points; left and right as seen in the picture."""

_MIRROR = np.array(
    [
        16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
        26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 27, 28, 29, 30, 35, 34, 33, 32, 31,
        45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
        54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
    ]
)  # fmt: skip
"""Which point becomes which when the picture is mirrored."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """How a bundled portrait is changed into another person. Shape values are fractions.

    Attributes:
        portrait: name of a bundled portrait.
        mirrored: left and right exchanged.
        face_width, jaw_width, chin, eye_size, eye_distance, nose_width, nose_length, mouth_width,
            lip_height, brow_height: how much larger (positive) or smaller; about -0.15 to 0.15.
        gains: factor on red, green and blue.
        gamma: above 1 darkens.
        saturation: 1 leaves colours as they are, 0 is grey.
        background: colour (red, green, blue) in 0..255 that the background is tinted with.
        background_strength: 0 to 1.
    """

    portrait: str = "astronaut"
    mirrored: bool = False
    face_width: float = 0.0
    jaw_width: float = 0.0
    chin: float = 0.0
    eye_size: float = 0.0
    eye_distance: float = 0.0
    nose_width: float = 0.0
    nose_length: float = 0.0
    mouth_width: float = 0.0
    lip_height: float = 0.0
    brow_height: float = 0.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    saturation: float = 1.0
    background: tuple[float, float, float] = (128.0, 128.0, 128.0)
    background_strength: float = 0.0


SHAPE_FIELDS = (
    "face_width", "jaw_width", "chin", "eye_size", "eye_distance", "nose_width", "nose_length",
    "mouth_width", "lip_height", "brow_height",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Portrait:
    """A still face with its mouth closed.

    Attributes:
        image: (512, 512, 3) uint8 RGB.
        landmarks: (68, 2) float64 pixels.
        seam: (N, 2) float64 pixels, from left to right: the line where the lips meet.
        glasses: whether it wears some; lids behind a frame cannot be drawn by warping.
        frame_scale: how large it is shown in a frame. dlib searches in steps of 1.2, and takes a
            face that lies between two of them for a larger one now and then, with wrong points.
    """

    image: np.ndarray
    landmarks: np.ndarray
    seam: np.ndarray
    glasses: bool = False
    frame_scale: float = 1.0

    @property
    def eye_distance(self) -> float:
        """Pixels between the centres of the eyes: the unit of length of a face."""
        eyes = self.landmarks[LEFT_EYE].mean(axis=0) - self.landmarks[RIGHT_EYE].mean(axis=0)
        return float(np.linalg.norm(eyes))


@functools.cache
def bundled(name: str) -> Portrait:
    """A bundled portrait as it is."""
    with Image.open(assets.portrait_path(name)) as picture:
        image = np.asarray(picture.convert("RGB"))
    facts = json.loads(assets.portrait_facts_path().read_text())[name]
    landmarks, seam = (np.array(facts[key], np.float64) for key in ("landmarks", "lip_seam"))
    return Portrait(image, landmarks, seam, bool(facts["glasses"]), float(facts["frame_scale"]))


def mirror(portrait: Portrait) -> Portrait:
    """The same face with left and right exchanged."""
    width = portrait.image.shape[1]
    flip = np.array([-1.0, 1.0])
    edge = np.array([width - 1.0, 0.0])
    landmarks = (portrait.landmarks * flip + edge)[_MIRROR]
    seam = (portrait.seam * flip + edge)[::-1]
    image = np.ascontiguousarray(portrait.image[:, ::-1])
    return dataclasses.replace(portrait, image=image, landmarks=landmarks, seam=seam)


def _reshaped_landmarks(points: np.ndarray, unit: float, identity: Identity) -> np.ndarray:
    """Where the 68 points (68, 2) go."""
    new = points.copy()
    middle = points[27:31, 0].mean()

    def grow(part: slice, x: float, y: float = 0.0) -> None:
        centre = new[part].mean(axis=0)
        new[part] = centre + (new[part] - centre) * (1 + x, 1 + y)

    for eye, side in ((LEFT_EYE, -1), (RIGHT_EYE, 1)):
        grow(eye, identity.eye_size, identity.eye_size)
        new[eye, 0] += side * 0.5 * identity.eye_distance * unit
    grow(NOSE_BASE, identity.nose_width)
    new[NOSE_BASE, 1] += identity.nose_length * 0.4 * unit
    grow(MOUTH, identity.mouth_width, identity.lip_height)
    new[BROWS, 1] -= identity.brow_height * 0.7 * unit
    lower = np.clip((points[:, 1] - points[27, 1]) / (points[8, 1] - points[27, 1]), 0, 1)
    new[JAW, 0] += (points[JAW, 0] - middle) * identity.jaw_width * lower[JAW]
    new[JAW, 1] += identity.chin * 0.8 * unit * lower[JAW] ** 2
    new[MOUTH, 1] += identity.chin * 0.3 * unit
    new[:, 0] += (points[:, 0] - middle) * identity.face_width
    return new


def reshape(portrait: Portrait, identity: Identity) -> Portrait:
    """Moves the features of a face by a thin-plate spline; picture borders stay where they are."""
    points, unit = portrait.landmarks, portrait.eye_distance
    new = _reshaped_landmarks(points, unit, identity)
    height, width = portrait.image.shape[:2]
    steps = np.linspace(0, 1, 7)
    border = np.concatenate(
        [np.stack([steps * (width - 1), np.full(7, edge)], axis=1) for edge in (0.0, height - 1.0)]
        + [
            np.stack([np.full(5, edge), steps[1:-1] * (height - 1)], axis=1)
            for edge in (0.0, width - 1.0)
        ]
    )
    fixed = np.concatenate([points, border])
    moved = np.concatenate([new, border])
    # Per axis thin-plate spline from where a point ends up to where it comes from; a little
    # smoothing, since two inner-lip points may coincide in a closed mouth.
    spline = RBFInterpolator(moved, fixed - moved, smoothing=1.0)
    rows = np.linspace(0, height - 1, _GRID + 1)
    columns = np.linspace(0, width - 1, _GRID + 1)
    nodes = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)
    coarse = spline(nodes).reshape(_GRID + 1, _GRID + 1, 2)
    shift = [
        zoom(coarse[..., k], (height / (_GRID + 1), width / (_GRID + 1)), order=1, grid_mode=False)
        for k in range(2)
    ]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    image = np.stack(
        [
            map_coordinates(
                portrait.image[..., k], [y + shift[1], x + shift[0]], order=1, mode="nearest"
            )
            for k in range(3)
        ],
        axis=-1,
    )
    forward = RBFInterpolator(fixed, moved - fixed, smoothing=1.0)
    return dataclasses.replace(
        portrait,
        image=image,
        landmarks=points + forward(points),
        seam=portrait.seam + forward(portrait.seam),
    )


def recolour(colours: np.ndarray, identity: Identity) -> np.ndarray:
    """Applies an identity's complexion and light to colours (..., 3) in 0..255; float32."""
    colours = np.asarray(colours, np.float32)
    grey = colours @ np.array([0.299, 0.587, 0.114], np.float32)
    colours = grey[..., None] + identity.saturation * (colours - grey[..., None])
    colours = np.clip(colours / 255, 0, 1) ** identity.gamma * 255
    return np.clip(colours * np.array(identity.gains, np.float32), 0, 255)


def _tint_background(portrait: Portrait, identity: Identity) -> np.ndarray:
    """The picture (H, W, 3) float32 with all that is far from the head drawn towards a colour."""
    height, width = portrait.image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre, unit = portrait.landmarks[27], portrait.eye_distance
    # An ellipse that holds head and hair; the body below belongs to it.
    down = np.maximum(y - centre[1], 0) * 0.25 + np.maximum(centre[1] - y, 0)
    distance = np.hypot((x - centre[0]) / (1.55 * unit), down / (1.9 * unit))
    amount = identity.background_strength * np.clip((distance - 1.0) / 0.35, 0, 1)
    image = portrait.image.astype(np.float32)
    return image + amount[..., None] * (np.array(identity.background, np.float32) - image)


def person(identity: Identity) -> Portrait:
    """The portrait of an identity."""
    portrait = bundled(identity.portrait)
    if identity.mirrored:
        portrait = mirror(portrait)
    if any(getattr(identity, field) for field in SHAPE_FIELDS):
        portrait = reshape(portrait, identity)
    image = recolour(_tint_background(portrait, identity), identity)
    return dataclasses.replace(portrait, image=np.round(image).astype(np.uint8))


def random_identity(portrait: str, rng: np.random.Generator, strength: float = 1.0) -> Identity:
    """Draws a person: shape, complexion, light and background.

    Args:
        portrait: name of the bundled portrait to start from.
        rng: source of randomness.
        strength: 0 leaves the portrait as it is; 1 is about as far as a face can go.
    """
    limits = dict.fromkeys(SHAPE_FIELDS, 0.11)
    limits |= {"face_width": 0.07, "chin": 0.16, "mouth_width": 0.13, "lip_height": 0.2}
    shape = {name: float(strength * rng.uniform(-top, top)) for name, top in limits.items()}
    warm = strength * rng.uniform(-0.1, 0.06)
    light = 1 + strength * rng.uniform(-0.12, 0.1)
    return Identity(
        portrait=portrait,
        mirrored=bool(strength and rng.random() < 0.5),
        gains=(light * (1 + warm), light, light * (1 - warm)),
        gamma=float(np.exp(strength * rng.uniform(-0.25, 0.55))),
        saturation=float(1 + strength * rng.uniform(-0.5, 0.15)),
        background=tuple(float(value) for value in rng.uniform(20, 220, 3)),  # type: ignore[arg-type]
        background_strength=float(strength * rng.uniform(0.3, 0.85)),
        **shape,
    )
