"""The tiny model and its compilation cache are those of the tests of inference."""

from tests.inference.conftest import basis, compiled, model, talking_face

__all__ = ["basis", "compiled", "model", "talking_face"]
