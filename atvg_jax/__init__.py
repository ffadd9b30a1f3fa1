"""ATVGnet in JAX and Flax: a portrait and a sound in, a talking face out."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["TalkingFace", "__version__"]


def __getattr__(name: str) -> Any:
    # Imported when first asked for, so that `import atvg_jax` costs nothing and a subpackage
    # (features in a data preparation worker, say) does not start JAX.
    if name == "TalkingFace":
        from atvg_jax.inference.talking_face import TalkingFace

        return TalkingFace
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
