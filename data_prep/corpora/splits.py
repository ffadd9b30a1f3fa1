"""Who is held out, where a corpus has no splits of its own."""

import hashlib
from collections.abc import Iterable

VALIDATION_FROM, TEST_FROM = 0.8, 0.9
"""Of the range [0, 1) that the hash of a name falls in: about 80, 10 and 10 % of the people."""


def _place(speaker: str) -> float:
    """Where in [0, 1) a name falls: the same on every machine and day."""
    return int.from_bytes(hashlib.sha256(speaker.encode()).digest()[:8], "big") / 2**64


def split_by_speaker(speakers: Iterable[str], test: bool = True) -> dict[str, str]:
    """Holds people out: all clips of one person are in one split.

    A person's split depends on nothing but the name, so it stays when others join. Only where a
    small corpus would have nobody to train on, or (from three and four people on) nobody to
    validate or test with, is one person moved there.

    Args:
        speakers: names; repeats do no harm.
        test: whether to hold some out for the test split; False where the corpus has one already.

    Returns:
        ``{speaker: split}``.
    """
    ordered = sorted(set(speakers), key=lambda speaker: (_place(speaker), speaker))
    splits = {}
    for speaker in ordered:
        place = _place(speaker)
        splits[speaker] = "train"
        if place >= TEST_FROM:
            splits[speaker] = "test" if test else "train"
        elif place >= VALIDATION_FROM:
            splits[speaker] = "validation"
    if ordered and "train" not in splits.values():
        splits[ordered[0]] = "train"
    for split, least in (("validation", 3), ("test", 4))[: 1 + test]:
        train = [speaker for speaker in ordered if splits[speaker] == "train"]
        if len(ordered) >= least and split not in splits.values() and len(train) > 1:
            splits[train[-1]] = split
    return splits
