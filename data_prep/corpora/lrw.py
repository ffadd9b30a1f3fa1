"""Lip Reading in the Wild: ``lipreading_mp4/WORD/{train,val,test}/WORD_00001.mp4`` and ``.txt``.

Chung and Zisserman, "Lip Reading in the Wild", ACCV 2016. 29 frames of 256 x 256 at 25 frames/s,
sound inside. The corpus's own splits are kept; it does not say who speaks.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from atvg_jax.errors import InputError
from data_prep.corpora.clip import Clip

ROOT = "lipreading_mp4"
SPLITS = {"train": "train", "val": "validation", "test": "test"}
SPEAKER = "unknown"


def clips(source: Path) -> Iterator[Clip]:
    """The clips of LRW, by word, split and number.

    Args:
        source: the folder that holds ``lipreading_mp4``, or that folder itself.

    Raises:
        InputError: it holds neither.
    """
    source = Path(source)
    root = source / ROOT if (source / ROOT).is_dir() else source
    words = _folders(root)
    found = False
    for word in words:
        for folder, split in SPLITS.items():
            part = root / word / folder
            if not part.is_dir():
                continue
            for name in sorted(os.listdir(part)):
                if name.startswith(f"{word}_") and name.endswith(".mp4"):
                    found = True
                    yield Clip(
                        clip_id=f"{word}/{folder}/{name}",
                        video=part / name,
                        speaker=SPEAKER,
                        split=split,
                        text=word,
                    )
    if not found:
        seen = ", ".join(words[:5]) or "no folders"
        raise InputError(
            f"{source} is not LRW: looked for {ROOT}/WORD/train/WORD_00001.mp4 in it "
            f"(also val, test), found {seen}{', ...' if len(words) > 5 else ''}"
        )


def _folders(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted; none where it is not there."""
    if not root.is_dir():
        return []
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
