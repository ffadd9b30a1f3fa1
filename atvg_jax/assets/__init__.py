"""Bundled pictures and sound; README.md beside them says where they come from."""

from pathlib import Path

from atvg_jax.errors import InputError

_FOLDER = Path(__file__).resolve().parent

PORTRAITS = ("astronaut", "hopper")


def portrait_path(name: str = "astronaut") -> Path:
    """A bundled portrait: 512 x 512 pixels, one frontal face, mouth closed.

    Args:
        name: one of ``PORTRAITS``.

    Raises:
        InputError: there is no such portrait.
    """
    if name not in PORTRAITS:
        raise InputError(f"no bundled portrait {name!r}; choose from {', '.join(PORTRAITS)}")
    return _FOLDER / f"{name}.jpg"


def portrait_facts_path() -> Path:
    """JSON: by portrait name, ``landmarks`` (68, 2) and ``lip_seam`` (N, 2), both in pixels."""
    return _FOLDER / "portraits.json"


def speech_path() -> Path:
    """A few seconds of English speech: 16 kHz, mono."""
    return _FOLDER / "speech.flac"
