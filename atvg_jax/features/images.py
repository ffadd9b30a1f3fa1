"""Pictures in and out: always (H, W, 3) uint8 RGB, upright."""

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from atvg_jax.errors import InputError
from atvg_jax.whole_files import written_whole

Frame = npt.NDArray[np.uint8]

LARGEST_PIXELS = 100_000_000  # 300 MB as RGB; a file that claims more is a mistake or an attack


def read_image(path: str | os.PathLike[str]) -> Frame:
    """Reads a picture file of any kind that Pillow knows.

    The camera's EXIF rotation is applied, transparency is laid over white, grey, palette, CMYK and
    16-bit pictures become 8-bit RGB, and of an animation the first picture counts.

    Returns:
        (H, W, 3) uint8.

    Raises:
        InputError: ``unreadable`` if the file is missing, empty, broken, cut short or not a
        picture, ``too_large``
            above 100 million pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such picture file; check the path", reason="unreadable")
    try:
        with warnings.catch_warnings():
            # The size is judged here, against our own limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.width * picture.height > LARGEST_PIXELS:
                    raise _too_large(path, f"{picture.width} x {picture.height} pixels")
                picture.load()
                return _to_rgb(_upright(picture))
    except Image.DecompressionBombError:
        raise _too_large(path, "its size") from None
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, OverflowError) as error:
        raise InputError(
            f"{path}: cannot be read as a picture ({_first_line(error)}); use a JPEG or PNG file",
            reason="unreadable",
        ) from error


def opencv() -> Any:
    """OpenCV, which does what has to be done for every frame in half of Pillow's time or less."""
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            "pictures of faces need OpenCV: pip install opencv-python-headless",
            reason="missing_package",
        ) from error
    return cv2


def encode_jpeg(frame: npt.ArrayLike, quality: int = 95) -> bytes:
    """(H, W, 3) uint8 as the bytes of a JPEG file with full-resolution colour (4:4:4)."""
    cv2 = opencv()
    picture = cv2.cvtColor(check_frame(frame), cv2.COLOR_RGB2BGR)
    full_colour = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    _, encoded = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, quality, *full_colour))
    return encoded.tobytes()


def decode_jpeg(data: bytes) -> Frame:
    """(H, W, 3) uint8 of the bytes of a JPEG file.

    Raises:
        InputError: ``unreadable`` if they are not a whole JPEG picture.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(
            f"{len(data)} bytes that should be a JPEG picture are not ({_first_line(error)})",
            reason="unreadable",
        ) from error


def save_png(path: str | os.PathLike[str], frame: npt.ArrayLike) -> None:
    """Writes (H, W, 3) uint8 as a PNG file, under its final name only when it is whole."""
    picture = Image.fromarray(check_frame(frame))
    with written_whole(path) as temporary:
        picture.save(temporary, "PNG")


def check_frame(frame: npt.ArrayLike) -> Frame:
    """The picture itself, if it is (H, W, 3) uint8.

    Raises:
        ValueError: naming what it is instead.
    """
    array = np.asarray(frame)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise ValueError(f"a picture is (H, W, 3) uint8, not {array.shape} {array.dtype}")
    return np.ascontiguousarray(array)


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # a picture with damaged EXIF data is still a picture
        return picture


def _to_rgb(picture: Image.Image) -> Frame:
    if picture.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F"):
        return _deep_grey_to_rgb(np.asarray(picture).astype(np.float64))
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, coloured)
    return np.array(picture.convert("RGB"))


def _deep_grey_to_rgb(grey: npt.NDArray[Any]) -> Frame:
    """Grey of more than 8 bits; Pillow's own conversion would clip at 255 instead of scaling."""
    grey = np.nan_to_num(grey)
    top = grey.max(initial=0.0)
    if top <= 1.0:
        scale = 255.0  # floating point in [0, 1]
    elif top <= 255.0:
        scale = 1.0
    elif top <= 65535.0:
        scale = 255.0 / 65535.0
    else:
        scale = 255.0 / top
    eight_bit = np.clip(np.rint(grey * scale), 0, 255).astype(np.uint8)
    return np.repeat(eight_bit[..., None], 3, axis=2)


def _too_large(path: Path, what: str) -> InputError:
    limit = f"at most {LARGEST_PIXELS // 10**6} million pixels"
    return InputError(f"{path}: too large ({what}); use a picture of {limit}", reason="too_large")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
