"""A portrait that speaks: its mouth, jaw, eyelids and head moved by warping.

Every warp is written as a map from output to source pixels, so that nothing tears: above the lip
line pixels come from the upper lip and the face above it, below from the lower lip and the jaw, and
the gap between the two is painted (dark, teeth, tongue). Lengths are in eye distances.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFilter
from scipy.interpolate import PchipInterpolator

from data_prep.corpora.portraits import LEFT_EYE, RIGHT_EYE, Identity, person, recolour
from data_prep.corpora.visemes import MouthTrack

FRAME_SIZE = 256
"""Pixels a side of a rendered frame."""
_WORK_SIZE = 320
"""Pixels a side of the picture that the head moves in: frames never show its border."""
_MESH = 32
"""Pixels a side of a cell of the mesh by which the head moves."""

MAX_OPENING = 0.33
"""Gap between the inner lips, in eye distances, at an opening of 1: "father" said clearly."""
_UPPER_SHARE = 0.2
"""Of an opening, what the upper lip makes; the rest is the lower lip and the jaw."""
_JAW_SHARE = 0.85
"""How far the chin goes down with the lower lip."""

_DARK, _TONGUE, _TEETH = (34.0, 13.0, 13.0), (132.0, 62.0, 60.0), (236.0, 224.0, 203.0)


@dataclasses.dataclass(frozen=True)
class HeadTrack:
    """How the head moves, one value a frame: arrays (T,).

    Attributes:
        x, y: shift in pixels of the frame.
        roll: degrees, clockwise in the picture.
        scale: factor.
        yaw, pitch: shift of the nose against the rest of the face, in eye distances.
        blink: 0 (open) to 1 (shut).
    """

    x: np.ndarray
    y: np.ndarray
    roll: np.ndarray
    scale: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    blink: np.ndarray


def random_head_track(frames: int, rng: np.random.Generator) -> HeadTrack:
    """Slow, small movements and a blink every few seconds, as of somebody who talks to a camera."""
    time = np.arange(frames) / 25.0

    def sway(size: float) -> np.ndarray:
        rates = rng.uniform(0.08, 0.55, 3)
        phases = rng.uniform(0, 2 * np.pi, 3)
        sizes = rng.uniform(0.2, 1.0, 3)
        waves = np.sin(2 * np.pi * rates * time[:, None] + phases) * (sizes / sizes.sum())
        return size * waves.sum(axis=1)

    blink = np.zeros(frames)
    at = rng.uniform(0.4, 3.0)
    while at < frames / 25.0:
        blink = np.maximum(blink, 1.25 - np.abs(time - at) / 0.09)
        at += rng.uniform(1.8, 4.5)
    return HeadTrack(
        x=sway(4.0),
        y=sway(3.0),
        roll=sway(3.5),
        scale=1 + sway(0.025),
        yaw=sway(0.06),
        pitch=sway(0.035),
        blink=np.clip(blink, 0, 1),
    )


def _smooth(value: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, and a smooth way between."""
    value = np.clip(value, 0, 1)
    return value * value * (3 - 2 * value)


class TalkingPortrait:
    """Renders frames of one person. What does not change from frame to frame is computed once."""

    def __init__(self, identity: Identity):
        portrait = person(identity)
        self.identity = identity
        # Sharper, since every frame is interpolated twice.
        sharp = Image.fromarray(portrait.image).filter(ImageFilter.UnsharpMask(1.6, 70, 0))
        self._source = np.asarray(sharp, np.float32).reshape(-1, 3)
        self._source_size = portrait.image.shape[0]
        factor = _WORK_SIZE / self._source_size
        self.unit = portrait.eye_distance * factor
        self._to_source = 1 / factor
        y, x = np.mgrid[:_WORK_SIZE, :_WORK_SIZE].astype(np.float32)
        self.still = np.round(self._sample(y, x)).astype(np.uint8)
        # Pixel centres: x in the source is (x + 0.5) * factor - 0.5 in the work picture.
        self.landmarks = (portrait.landmarks + 0.5) * factor - 0.5
        self._prepare_mouth((portrait.seam + 0.5) * factor - 0.5)
        eyes = () if portrait.glasses else (LEFT_EYE, RIGHT_EYE)
        self._eyes = [self._prepare_eye(part) for part in eyes]
        colours = recolour(np.array([_DARK, _TONGUE, _TEETH]), identity)
        self._dark, self._tongue, self._teeth = colours
        self.frame_scale = portrait.frame_scale
        self.head_centre = self.landmarks[27:36].mean(axis=0)

    def _prepare_mouth(self, seam: np.ndarray) -> None:
        unit, marks = self.unit, self.landmarks
        self.mouth_centre = (seam[0] + seam[-1]) / 2
        self.half_width = (seam[-1, 0] - seam[0, 0]) / 2
        self.chin = marks[8, 1]
        centre_x = self.mouth_centre[0]
        self.left = int(centre_x - 1.25 * unit)
        self.top = int(self.mouth_centre[1] - 0.58 * unit)
        right = int(centre_x + 1.25 * unit)
        bottom = min(_WORK_SIZE, int(self.chin + 1.0 * unit))
        self.y, self.x = np.mgrid[self.top : bottom, self.left : right].astype(np.float32)
        line = PchipInterpolator(seam[:, 0], seam[:, 1])
        columns = np.arange(-_WORK_SIZE, 2 * _WORK_SIZE) / 1.0
        self._line = line(np.clip(columns, seam[0, 0], seam[-1, 0])).astype(np.float32)
        # How much of the jaw's movement a column has: all between the mouth corners and beyond,
        # nothing outside of the face.
        jaw_half = (marks[12, 0] - marks[4, 0]) / 2
        jaw_x = (self.x - (marks[12, 0] + marks[4, 0]) / 2) / jaw_half
        self.jaw_columns = 1 - _smooth((np.abs(jaw_x) - 0.45) / 0.8)
        self.jaw_rows = 1 - _smooth((self.y - self.chin) / (0.95 * unit))
        dx = (self.x - centre_x) / (1.2 * unit)
        dy = self.y - self.mouth_centre[1]
        dy = dy / np.where(dy < 0, 0.56 * unit, 0.9 * unit)
        self.around = np.clip(1 - dx * dx - dy * dy, 0, 1) ** 2

    def _prepare_eye(self, part: slice) -> tuple:
        marks = self.landmarks[part]
        centre = marks.mean(axis=0)
        half = (marks[:, 0].max() - marks[:, 0].min()) / 2
        left, right = int(centre[0] - 1.35 * half), int(centre[0] + 1.35 * half) + 1
        top, bottom = int(centre[1] - 0.42 * self.unit), int(centre[1] + 0.25 * self.unit)
        y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
        upper = np.polynomial.Polynomial.fit(marks[[0, 1, 2, 3], 0], marks[[0, 1, 2, 3], 1], 2)
        lower = np.polynomial.Polynomial.fit(marks[[0, 5, 4, 3], 0], marks[[0, 5, 4, 3], 1], 2)
        inside = np.clip(x[0], marks[0, 0], marks[3, 0])
        lid = upper(inside).astype(np.float32) - 0.02 * self.unit
        height = np.maximum(0, lower(inside) + 0.01 * self.unit - lid).astype(np.float32)
        return y, x, lid, height, top, left

    def _sample(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The portrait at positions of the work picture, bilinearly; (H, W, 3) float32."""
        limit = self._source_size - 1.001
        y = np.clip((y + 0.5) * self._to_source - 0.5, 0, limit)
        x = np.clip((x + 0.5) * self._to_source - 0.5, 0, limit)
        row, column = y.astype(np.int32), x.astype(np.int32)
        y, x = (y - row)[..., None], (x - column)[..., None]
        at = row * self._source_size + column
        upper, right = self._source.take(at, axis=0), self._source.take(at + 1, axis=0)
        at += self._source_size
        lower, lower_right = self._source.take(at, axis=0), self._source.take(at + 1, axis=0)
        # In place: this is where rendering spends its time.
        right -= upper
        right *= x
        upper += right
        lower_right -= lower
        lower_right *= x
        lower += lower_right
        lower -= upper
        lower *= y
        upper += lower
        return upper

    def mouth(
        self, opening: float, width: float, rounding: float, press: float, bite: float
    ) -> np.ndarray:
        """The lower face (h, w, 3) float32 in a mouth shape; arguments as in ``Target``."""
        unit = self.unit
        # Horizontally: narrower or wider around the middle of the mouth.
        stretch = 1 + self.around * (0.13 * max(width, 0) + 0.12 * min(width, 0) - 0.23 * rounding)
        x = self.mouth_centre[0] + (self.x - self.mouth_centre[0]) / stretch
        across = (x - self.mouth_centre[0]) / self.half_width
        seam = self._line[
            (np.clip(x, -_WORK_SIZE, 2 * _WORK_SIZE - 1) + 0.5).astype(int) + _WORK_SIZE
        ]
        # The lips part along a profile that ends in the corners.
        inside = np.clip(1 - (across / 0.95) ** 2, 0, 1)
        profile = inside ** (0.8 - 0.2 * rounding)
        gap = opening * MAX_OPENING * unit
        up = (_UPPER_SHARE * gap + 0.045 * bite * unit) * profile
        down = ((1 - _UPPER_SHARE) * gap + 0.012 * bite * unit) * profile
        upper, lower = seam - up, seam + down
        above = self.y < 0.5 * (upper + lower)
        # Above the gap: the upper lip is lifted, less so towards the nose.
        reach = 0.5 * unit
        height = upper - self.y
        fade = np.clip(1 - np.maximum(height, 0) / reach, 0, 1) ** 2
        lips = np.clip(1.3 - (across / 1.3) ** 2, 0, 1)  # columns that have any
        thickness = 0.16 * unit
        lip = height / thickness
        plump = (0.22 * rounding - 0.3 * press) * lips
        y_above = self.y + up * fade + plump * height * np.exp(-lip * lip)
        # Below it: the lower lip goes with the jaw; under the chin the neck takes it up.
        depth = np.maximum(self.y - lower, 0)
        jaw = _JAW_SHARE * (1 - _UPPER_SHARE) * gap * self.jaw_columns
        near = np.exp(-((depth / (0.34 * unit)) ** 2))
        lip = depth / (1.3 * thickness)
        tucked = (0.3 * rounding - 0.35 * press - 0.5 * bite) * lips
        y_below = (
            self.y
            - (jaw + (down - jaw) * near) * self.jaw_rows
            - tucked * depth * np.exp(-lip * lip)
        )
        picture = self._sample(np.where(above, y_above, y_below), x)
        cover = np.minimum(self.y + 0.5, lower) - np.maximum(self.y - 0.5, upper)
        cover = np.clip(cover, 0, 1)[..., None]
        if cover.any():
            rows, columns = np.nonzero(cover[..., 0])
            box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            painted = self._interior(
                self.y[box], across[box], seam[box], upper[box], lower[box], bite
            )
            picture[box] += cover[box] * (painted - picture[box])
        return picture

    def _interior(
        self,
        y: np.ndarray,
        across: np.ndarray,
        seam: np.ndarray,
        upper: np.ndarray,
        lower: np.ndarray,
        bite: float,
    ) -> np.ndarray:
        """What is seen between the lips: teeth that stay, tongue and lower teeth that go along."""
        unit = self.unit
        height = np.maximum(lower - upper, 1e-3)
        down = (y - upper) / height
        colour = np.broadcast_to(self._dark, (*y.shape, 3)).astype(np.float32)
        open_enough = np.clip(height / (0.16 * unit), 0, 1)
        tongue = _smooth((down - 0.55 - 0.35 * across**2) / 0.3) * open_enough
        colour = colour + (0.75 * tongue)[..., None] * (self._tongue - colour)
        # Teeth in perspective: the arch recedes and darkens towards the corners.
        edge = seam + unit * (0.055 - 0.05 * across**2 + 0.03 * bite)
        teeth = np.clip(edge - y + 0.5, 0, 1) * _smooth((0.8 - np.abs(across)) / 0.2)
        gaps = 1 - 0.13 * np.abs(np.cos(np.pi * across * 3.2)) ** 12
        shade = (1 - 0.55 * across**2) * gaps * (0.72 + 0.28 * _smooth((y - upper) / (0.06 * unit)))
        teeth *= np.clip(height / (0.09 * unit), 0.35, 1)  # in shadow while the gap is narrow
        colour = colour + teeth[..., None] * (self._teeth * shade[..., None] * 0.93 - colour)
        lower_edge = lower - unit * (0.035 - 0.03 * across**2) * open_enough
        lower_teeth = np.clip(y - lower_edge + 0.5, 0, 1) * _smooth((0.62 - np.abs(across)) / 0.2)
        lower_teeth = (0.6 * lower_teeth * open_enough)[..., None]
        return colour + lower_teeth * (self._teeth * (0.8 * shade)[..., None] - colour)

    def _blink(self, picture: np.ndarray, amount: float) -> None:
        """Draws the upper lids down in place: the skin above an eye is stretched over it."""
        for y, x, lid, height, top, left in self._eyes:
            edge = lid + amount * height
            skin = 0.11 * self.unit
            shift = edge - lid
            fade = np.clip(1 - (edge - y) / (skin + shift), 0, 1)
            source = np.where(y < edge, y - shift * fade, y)
            h, w = y.shape
            picture[top : top + h, left : left + w] = self._sample(source, x)

    def frame(self, mouth: np.ndarray, head: np.ndarray) -> np.ndarray:
        """One frame.

        Args:
            mouth: (5,) opening, width, rounding, press, bite.
            head: (7,) x, y, roll, scale, yaw, pitch, blink.

        Returns:
            (256, 256, 3) uint8 RGB.
        """
        picture = self.still.copy()
        if head[6] > 0:
            eyes = picture.astype(np.float32)
            self._blink(eyes, float(head[6]))
            picture = np.round(eyes).astype(np.uint8)
        low = self.mouth(*(float(value) for value in mouth))
        h, w = low.shape[:2]
        picture[self.top : self.top + h, self.left : self.left + w] = np.round(low)
        return np.asarray(
            Image.fromarray(picture).transform(
                (FRAME_SIZE, FRAME_SIZE),
                Image.Transform.MESH,
                self._head_mesh(*(float(value) for value in head[:6])),
                Image.Resampling.BILINEAR,
            )
        )

    def _head_mesh(
        self, x: float, y: float, roll: float, scale: float, yaw: float, pitch: float
    ) -> list:
        """Cells of the frame and where in the work picture their corners lie."""
        edges = np.arange(0, FRAME_SIZE + 1, _MESH, dtype=np.float64)
        gx, gy = np.meshgrid(edges, edges)
        dx, dy = gx - FRAME_SIZE / 2 - x, gy - FRAME_SIZE / 2 - y
        turn, scale = np.deg2rad(roll), scale * self.frame_scale
        sx = (np.cos(turn) * dx + np.sin(turn) * dy) / scale
        sy = (-np.sin(turn) * dx + np.cos(turn) * dy) / scale
        centre = self.head_centre + 0.5
        sx, sy = sx + centre[0], sy + centre[1]
        from_nose = ((sx - centre[0]) / (1.15 * self.unit)) ** 2 + (
            (sy - centre[1]) / (1.3 * self.unit)
        ) ** 2
        nearness = np.exp(-from_nose)
        sx = sx - yaw * self.unit * nearness
        sy = sy - pitch * self.unit * nearness
        corners = np.stack([sx, sy], axis=-1)
        quads = np.concatenate(
            [corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]], axis=-1
        )
        count = len(edges) - 1
        return [
            (
                (_MESH * j, _MESH * i, _MESH * (j + 1), _MESH * (i + 1)),
                tuple(quads[i, j].tolist()),
            )
            for i in range(count)
            for j in range(count)
        ]


def render(identity: Identity, mouth: MouthTrack, head: HeadTrack) -> Iterator[np.ndarray]:
    """Yields the frames (256, 256, 3) uint8 of a person who speaks."""
    portrait = TalkingPortrait(identity)
    mouths = np.stack([mouth.opening, mouth.width, mouth.rounding, mouth.press, mouth.bite], axis=1)
    heads = np.stack(
        [head.x, head.y, head.roll, head.scale, head.yaw, head.pitch, head.blink], axis=1
    )
    for one_mouth, one_head in zip(mouths, heads, strict=True):
        yield portrait.frame(one_mouth, one_head)
