"""Facial landmarks that a user brings along, for a face that no detector finds."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from atvg_jax.errors import InputError

POINTS = 68
LARGEST_FILE_BYTES = 1_000_000


def read_landmarks(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads 68 points in iBUG order.

    Args:
        path: ``.npy`` of shape (68, 2), ``.csv`` of 68 lines ``x,y`` (one heading line may stand
            above them), or ``.json`` as a list of 68 pairs, bare or under the key ``landmarks``.

    Returns:
        ``(68, 2)`` float32 x, y in pixels of the picture.

    Raises:
        InputError: unreadable, of another kind, or not 68 finite points that spread out.
    """
    path = Path(path)
    readers = {".npy": _read_npy, ".csv": _read_csv, ".json": _read_json}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: landmarks are read from .npy, .csv or .json")
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise InputError(f"{path} is too large to hold 68 points")
        points = np.asarray(readers[path.suffix.lower()](path), np.float32)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except InputError:
        raise
    except (ValueError, TypeError, EOFError, RecursionError, OverflowError) as error:
        raise InputError(f"{path} does not hold 68 points x, y: {error}") from error
    if points.shape != (POINTS, 2):
        raise InputError(f"{path} holds an array of shape {points.shape}; 68 points are (68, 2)")
    if not np.isfinite(points).all():
        raise InputError(f"{path} holds coordinates that are not finite")
    if np.ptp(points, axis=0).min() < 1.0:
        raise InputError(
            f"{path}: the points spread over less than a pixel; coordinates are pixels of the "
            "picture, not fractions of it"
        )
    return points


def check_inside(landmarks: np.ndarray, image: np.ndarray, name: str) -> None:
    """Raises ``InputError`` where landmarks cannot belong to a picture.

    Args:
        landmarks: ``(68, 2)`` pixels.
        image: ``(H, W, 3)``.
        name: what the message calls the landmarks.
    """
    height, width = image.shape[:2]
    centre = landmarks.mean(axis=0)
    if not (0 <= centre[0] < width and 0 <= centre[1] < height):
        raise InputError(
            f"{name}: the face is centred on ({centre[0]:.0f}, {centre[1]:.0f}), outside the "
            f"picture of {width} x {height} pixels"
        )


def _read_npy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def _read_csv(path: Path) -> Any:
    lines = path.read_text(encoding="utf-8-sig").replace(";", ",").split("\n")
    rows = [line.strip().split(",") for line in lines if line.strip()]
    if len(rows) == POINTS + 1:
        rows = rows[1:]
    return [[float(cell) for cell in row] for row in rows]


def _read_json(path: Path) -> Any:
    content = json.loads(path.read_text(encoding="utf-8"))
    return content.get("landmarks") if isinstance(content, dict) else content
