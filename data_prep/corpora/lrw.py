"""Lip Reading in the Wild: ``lipreading_mp4/WORD/{train,val,test}/WORD_00001.mp4`` and ``.txt``.

Chung and Zisserman, "Lip Reading in the Wild", ACCV 2016. 29 frames of 256 x 256 at 25 frames/s,
sound inside. The corpus's own splits are kept; it does not say who speaks. The word is said in the
middle of the clip, for the seconds that the text file's line ``Duration:`` gives.
"""

from collections.abc import Iterator
from pathlib import Path

from data_prep.corpora.clip import Clip, Word
from data_prep.corpora.layouts import files, folders, wrong_corpus

ROOT = "lipreading_mp4"
SPLITS = {"train": "train", "val": "validation", "test": "test"}
SPEAKER = "unknown"
SECONDS = 29 / 25
"""How long every clip is."""


def clips(source: Path) -> Iterator[Clip]:
    """The clips of LRW, by word, split and number.

    Args:
        source: the folder that holds ``lipreading_mp4``, or that folder itself.

    Raises:
        InputError: it holds neither.
    """
    source = Path(source)
    root = source / ROOT if (source / ROOT).is_dir() else source
    found = False
    for word in folders(root):
        for folder, split in SPLITS.items():
            part = root / word / folder
            names = files(part)
            texts = {name for name in names if name.endswith(".txt")}
            for name in names:
                if name.startswith(f"{word}_") and name.endswith(".mp4"):
                    found = True
                    text = name.removesuffix(".mp4") + ".txt"
                    yield Clip(
                        clip_id=f"{word}/{folder}/{name}",
                        video=part / name,
                        speaker=SPEAKER,
                        split=split,
                        text=word,
                        words=_timed(word, part / text) if text in texts else (),
                    )
    if not found:
        wanted = f"{ROOT}/WORD/train/WORD_00001.mp4 in it (also val, test)"
        raise wrong_corpus(source, "lrw", "LRW", wanted)


def _timed(word: str, path: Path) -> tuple[Word, ...]:
    """When the word is said; nothing where the file does not tell."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        (line,) = (line for line in lines if line.startswith("Duration:"))
        seconds = float(line.split()[1])
    except (OSError, ValueError, IndexError):
        return ()
    if not 0 < seconds <= SECONDS:
        return ()
    middle = SECONDS / 2
    return (Word(word, round(middle - seconds / 2, 4), round(middle + seconds / 2, 4)),)
