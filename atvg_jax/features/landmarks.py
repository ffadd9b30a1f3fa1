"""Landmarks as numbers: normalisation (identity and pose out, speech kept) and the PCA basis.

Three units occur. Pixels of a picture; "normalised" (T, 68, 2), where the mean shape is centred
with Frobenius norm 1; and
"model units" (T, 136), normalised times ``LANDMARK_SCALE`` and flattened to x0, y0, x1, y1 ..,
which networks and bases work in. Point numbers are iBUG's, see ``faces``.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atvg_jax.errors import InputError
from atvg_jax.features.face_shape import (
    FLIP_PERMUTATION,
    POINTS,
    FaceShape,
    align_to,
    bundled_face_shape,
    check_shapes,
    neutral_shape,
    procrustes,
    without_pose,
)
from atvg_jax.whole_files import written_whole

__all__ = [
    "COMPONENTS", "FLIP_PERMUTATION", "LANDMARK_SCALE", "MOUTH", "LandmarkBasis",
    "LandmarkNormaliser", "bundled_face_shape", "from_model", "mouth_opening", "procrustes",
    "to_model",
]  # fmt: skip

FloatArray = npt.NDArray[np.float32]

LANDMARK_SCALE = 5.0  # published: landmarks are multiplied by 5 before use
COORDINATES = 2 * POINTS
MOUTH = slice(48, 68)  # outer lips, 48 to 59, and inner lips, 60 to 67
INNER_LIPS = (62, 66)  # the middles of the upper and of the lower one
COMPONENTS = 6  # published: AT-net predicts six
PUBLISHED_BOOST = (1.0, 2.2, 2.4, 2.6, 2.8, 3.0)
LAYOUT_VERSION = 1
_NORMALISER_ARRAYS = {
    "default": FaceShape._fields,
    "published": ("mean_shape_image", "mean_shape", "shape_basis"),
}
_WANTED = "give a basis.npz or the folder of the published basis files"

_OPEN_MOUTH_COMPONENT = (
    1  # of the published shape basis, and how much of it is a resting mouth's opening
)
_OPEN_MOUTH_AMOUNT = -0.06


def to_model(landmarks: npt.ArrayLike) -> FloatArray:
    """(..., 68, 2) normalised to (..., 136) model units, float32."""
    shapes = check_shapes(landmarks)
    flat = shapes.reshape(*shapes.shape[:-2], COORDINATES)
    return (flat * LANDMARK_SCALE).astype(np.float32)


def from_model(values: npt.ArrayLike) -> FloatArray:
    """(..., 136) model units to (..., 68, 2) normalised, float32."""
    flat = np.asarray(values, dtype=np.float64)
    if not flat.ndim or flat.shape[-1] != COORDINATES:
        raise ValueError(f"landmarks in model units are (..., 136), not {flat.shape}")
    return (flat.reshape(*flat.shape[:-1], POINTS, 2) / LANDMARK_SCALE).astype(np.float32)


def mouth_opening(landmarks: npt.ArrayLike) -> FloatArray:
    """Distance of the inner lips' middles (62, 66) over the distance of the eyes' centres.

    Args:
        landmarks: (..., 68, 2) in any unit.

    Returns:
        (...) float32; 0 is closed, a wide vowel about 0.3.
    """
    shapes = check_shapes(landmarks)
    eyes = shapes[..., 42:48, :].mean(axis=-2) - shapes[..., 36:42, :].mean(axis=-2)
    upper, lower = INNER_LIPS
    lips = shapes[..., lower, :] - shapes[..., upper, :]
    distance = np.maximum(np.linalg.norm(eyes, axis=-1), 1e-9)
    return np.asarray(np.linalg.norm(lips, axis=-1) / distance, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class LandmarkNormaliser:
    """Takes the landmarks of one clip, or of one portrait (T = 1), to normalised landmarks.

    Attributes:
        kind: ``default``, this project's own, or ``published``.
        arrays: what it needs, by name; see ``default`` and ``published``.
    """

    kind: str
    arrays: dict[str, npt.NDArray[np.float64]] = field(repr=False)

    @classmethod
    def default(cls) -> "LandmarkNormaliser":
        """This project's own normalisation: identity and pose go, the mouth's own opening stays.

        Each shape is brought onto the bundled mean shape by its upper-face points, which speech
        does not move; what turns and nods within the clip move is taken off. The clip's neutral
        shape, its face with lips just closed, is the mean of ``shape_t - gap_t *
        opening_direction``; the result is ``shape_t - neutral + mean_shape``. One definition serves
        a clip and a portrait.
        """
        return cls("default", bundled_face_shape()._asdict())

    @classmethod
    def published(
        cls, mean_shape_image: npt.ArrayLike, mean_shape: npt.ArrayLike, shape_basis: npt.ArrayLike
    ) -> "LandmarkNormaliser":
        """The published normalisation, whose reference frame is the clip's last.

        Args:
            mean_shape_image: (68, 2) mean shape in pixels, which shapes are Procrustes-aligned to.
            mean_shape: (68, 2) normalised mean shape, which is added in the end.
            shape_basis: (100, 68, 2) or (100, 136), S.
        """
        image, mean = check_shapes(mean_shape_image), check_shapes(np.reshape(mean_shape, (-1, 2)))
        basis = np.asarray(shape_basis, dtype=np.float64)
        basis = basis.reshape(len(basis), -1)
        if image.shape != (POINTS, 2) or mean.shape != (POINTS, 2):
            raise ValueError(f"mean shapes are (68, 2), not {image.shape} and {mean.shape}")
        if basis.shape[1] != COORDINATES or len(basis) <= _OPEN_MOUTH_COMPONENT:
            raise ValueError(f"the shape basis is (100, 136), not {basis.shape}")
        return cls(
            "published", {"mean_shape_image": image, "mean_shape": mean, "shape_basis": basis}
        )

    def normalise(self, landmarks: npt.ArrayLike) -> FloatArray:
        """Normalised landmarks of a clip.

        Args:
            landmarks: (T, 68, 2) pixels, T >= 1; T = 1 is a portrait.

        Returns:
            (T, 68, 2) float32 normalised.
        """
        shapes = check_shapes(landmarks)
        if shapes.ndim != 3 or not len(shapes):
            raise ValueError(f"the landmarks of a clip are (T, 68, 2), not {shapes.shape}")
        if self.kind == "published":
            return self._published(shapes).astype(np.float32)
        shape = FaceShape(**self.arrays)
        aligned = align_to(shapes, shape.mean_shape)
        steady = without_pose(aligned, shape.pose_cues, shape.pose_effects)
        neutral = neutral_shape(steady, shape.opening_direction)
        return (steady - neutral + shape.mean_shape).astype(np.float32)

    def _published(self, shapes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        basis = self.arrays["shape_basis"]  # (100, 136)
        aligned = procrustes(shapes, self.arrays["mean_shape_image"])
        projected = aligned.reshape(len(aligned), COORDINATES) @ basis.T  # (T, 100)
        # The mean shape cancels out between a frame and the reference frame.
        parameters = projected - projected[-1] - basis @ self._open_mouth()
        flat = parameters @ basis + self.arrays["mean_shape"].ravel()
        return flat.reshape(shapes.shape)

    def _open_mouth(self) -> npt.NDArray[np.float64]:
        """(136,) what every published clip is offset by: mouth points of one component of S."""
        offset = _OPEN_MOUTH_AMOUNT * self.arrays["shape_basis"][_OPEN_MOUTH_COMPONENT]
        offset[: 2 * 48] = 0.0
        return offset


@dataclass(frozen=True, eq=False)
class LandmarkBasis:
    """A linear basis of normalised landmarks, in model units.

    Attributes:
        mean: (136,) float32.
        components: (136, n) float32, orthonormal columns, most variance first.
        boost: (n,) float32; inference multiplies predicted components by it, ``decode`` does not.
        explained_variance: (n,) float32, share of the whole variance; NaN where unknown.
        normaliser: which the landmarks went through.
    """

    mean: FloatArray
    components: FloatArray
    boost: FloatArray
    explained_variance: FloatArray
    normaliser: LandmarkNormaliser = field(repr=False)

    def __post_init__(self) -> None:
        n = self.components.shape[-1]
        if self.mean.shape != (COORDINATES,) or self.components.shape != (COORDINATES, n):
            raise ValueError(
                f"a basis has a mean (136,) and components (136, n), not {self.mean.shape} "
                f"and {self.components.shape}"
            )
        if self.boost.shape != (n,) or self.explained_variance.shape != (n,):
            raise ValueError(f"boost and explained variance of {n} components must be ({n},)")

    @classmethod
    def fit(
        cls,
        landmarks: npt.ArrayLike | Iterable[npt.ArrayLike],
        count: int = COMPONENTS,
        normaliser: LandmarkNormaliser | None = None,
    ) -> "LandmarkBasis":
        """PCA of normalised landmarks.

        Args:
            landmarks: (N, 68, 2), or clips of them one by one, so that they need not fit into
                memory together.
            count: of components.
            normaliser: that made them; None: this project's own.
        """
        number, total = 0, np.zeros(COORDINATES)
        products = np.zeros((COORDINATES, COORDINATES))
        clips = [landmarks] if isinstance(landmarks, np.ndarray) else landmarks
        for clip in clips:  # type: ignore[union-attr]
            values = to_model(clip).astype(np.float64).reshape(-1, COORDINATES)
            number += len(values)
            total += values.sum(axis=0)
            products += values.T @ values
        return cls.from_moments(number, total, products, count, normaliser)

    @classmethod
    def from_moments(
        cls,
        number: int,
        total: npt.ArrayLike,
        products: npt.ArrayLike,
        count: int = COMPONENTS,
        normaliser: LandmarkNormaliser | None = None,
    ) -> "LandmarkBasis":
        """PCA from sums, which several processes can gather and add up.

        Args:
            number: of shapes x.
            total: (136,) sum of x in model units, float64.
            products: (136, 136) sum of x x^T, float64.
            count: of components.
            normaliser: that made them; None: this project's own.

        Raises:
            ValueError: for fewer than two shapes or more components than there can be.
        """
        if number < 2:
            raise ValueError(f"a basis takes at least two shapes, not {number}")
        if not 1 <= count <= COORDINATES:
            raise ValueError(f"a basis has 1 to {COORDINATES} components, not {count}")
        mean = np.asarray(total, dtype=np.float64) / number
        covariance = np.asarray(products, dtype=np.float64) / number - np.outer(mean, mean)
        values, vectors = np.linalg.eigh(covariance)
        order = np.argsort(values)[::-1]
        values, vectors = np.maximum(values[order], 0.0), vectors[:, order]
        components = vectors[:, :count]
        # An eigenvector's sign is arbitrary; its largest entry is made positive so that runs agree.
        largest = np.abs(components).argmax(axis=0)
        components = components * np.where(components[largest, np.arange(count)] < 0, -1.0, 1.0)
        share = values[:count] / max(values.sum(), 1e-300)
        return cls(
            mean.astype(np.float32),
            components.astype(np.float32),
            np.ones(count, np.float32),
            share.astype(np.float32),
            normaliser or LandmarkNormaliser.default(),
        )

    def encode(self, landmarks: npt.ArrayLike) -> FloatArray:
        """Components of landmarks.

        Args:
            landmarks: (..., 136) model units or (..., 68, 2) normalised.

        Returns:
            (..., n) float32.
        """
        values = np.asarray(landmarks)
        if values.shape[-2:] == (POINTS, 2):
            values = to_model(values)
        if not values.ndim or values.shape[-1] != COORDINATES:
            raise ValueError(f"landmarks are (..., 136) or (..., 68, 2), not {values.shape}")
        return ((values - self.mean) @ self.components).astype(np.float32)

    def decode(self, components: npt.ArrayLike) -> FloatArray:
        """(..., n) components to (..., 136) model units, float32."""
        values = np.asarray(components, dtype=np.float32)
        n = self.components.shape[1]
        if not values.ndim or values.shape[-1] != n:
            raise ValueError(f"this basis has (..., {n}) components, not {values.shape}")
        return values @ self.components.T + self.mean

    def boosted(self, boost: npt.ArrayLike) -> "LandmarkBasis":
        """The same basis with another boost.

        Args:
            boost: one factor for all components, or (n,), above 0.

        Raises:
            InputError: another number of factors, or one that is no positive number.
        """
        factors = np.asarray(boost, np.float32).reshape(-1)
        count = len(self.boost)
        if len(factors) not in (1, count):
            raise InputError(f"a boost is one number or {count}, not {len(factors)}")
        if not (np.isfinite(factors) & (factors > 0)).all():
            raise InputError(f"a boost is above 0, which {factors.tolist()} is not")
        return replace(self, boost=np.broadcast_to(factors, (count,)).copy())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the basis with its normaliser as an npz file, whole or not at all."""
        arrays: dict[str, Any] = {
            "layout_version": np.int64(LAYOUT_VERSION),
            "mean": self.mean,
            "components": self.components,
            "boost": self.boost,
            "explained_variance": self.explained_variance,
            "normaliser": np.str_(self.normaliser.kind),
        }
        arrays |= {f"normaliser/{name}": array for name, array in self.normaliser.arrays.items()}
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "LandmarkBasis":
        """Reads an npz file that ``save`` wrote, or the folder of the published basis files.

        The folder holds U_lrw1.npy, mean_lrw1.npy, mean_shape_img.npy, mean_shape_norm.npy and
        S.npy.

        Raises:
            InputError: ``unreadable`` if it is neither.
        """
        path = Path(path)
        try:
            return _load_published(path) if path.is_dir() else _load_own(path)
        except FileNotFoundError as error:
            raise InputError(
                f"{path}: no landmark basis ({Path(error.filename).name} is missing); {_WANTED}",
                reason="unreadable",
            ) from error
        except (OSError, KeyError, ValueError, EOFError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path}: not a landmark basis ({' '.join(str(error).split())}); {_WANTED}",
                reason="unreadable",
            ) from error


def _load_own(path: Path) -> LandmarkBasis:
    import zipfile

    try:
        # Opened here, because np.load leaves a file open that turns out to be no zip.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error
    version = int(arrays["layout_version"])
    if version > LAYOUT_VERSION:
        raise ValueError(f"its layout is {version}, this code reads up to {LAYOUT_VERSION}")
    kind = str(arrays["normaliser"])
    if kind not in _NORMALISER_ARRAYS:
        raise ValueError(f"its normaliser is {kind!r}")
    prefix = "normaliser/"
    own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
    wrong = sorted(set(own) ^ set(_NORMALISER_ARRAYS[kind]))
    if wrong:
        raise ValueError(f"its normaliser lacks or should not have {', '.join(wrong)}")
    return LandmarkBasis(
        arrays["mean"],
        arrays["components"],
        arrays["boost"],
        arrays["explained_variance"],
        LandmarkNormaliser(kind, own),
    )


def _load_published(folder: Path) -> LandmarkBasis:
    def read(name: str) -> npt.NDArray[np.float64]:
        return np.asarray(np.load(folder / f"{name}.npy", allow_pickle=False), dtype=np.float64)

    vectors = read("U_lrw1")
    if vectors.ndim != 2 or vectors.shape[0] != COORDINATES:
        raise ValueError(f"U_lrw1 is (136, 136), not {vectors.shape}")
    normaliser = LandmarkNormaliser.published(
        read("mean_shape_img"), read("mean_shape_norm"), read("S")
    )
    return LandmarkBasis(
        read("mean_lrw1").reshape(-1).astype(np.float32),
        vectors[:, :COMPONENTS].astype(np.float32),
        np.array(PUBLISHED_BOOST, np.float32),
        np.full(COMPONENTS, np.nan, np.float32),
        normaliser,
    )
