"""Corpora: each module's ``clips(source)`` yields the same description of a clip.

A new corpus is a new module with ``clips(source: Path) -> Iterator[Clip]``, named in ``CORPORA``.
``clips`` yields clips in a fixed order and raises ``InputError`` where ``source`` is not the corpus
that it should be, with what was looked for and what was found. It opens no video.
"""

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep.corpora.clip import Clip

CORPORA = {
    "folder": "data_prep.corpora.folder",
    "grid": "data_prep.corpora.grid",
    "lrw": "data_prep.corpora.lrw",
    "synthetic": "data_prep.corpora.synthetic",
    "voxceleb1": "data_prep.corpora.voxceleb1",
    "voxceleb2": "data_prep.corpora.voxceleb2",
}

MADE_HERE = frozenset({"synthetic"})
"""Corpora that need no ``--source``: ``clips(source)`` describes what can be made, ``make`` makes
the videos that are wanted, and leaves finished ones as they are."""


def clips(corpus: str, source: Path) -> Iterator[Clip]:
    """The clips of a corpus, in a fixed order.

    Args:
        corpus: a key of ``CORPORA``.
        source: its folder.
    """
    return importlib.import_module(CORPORA[corpus]).clips(source)


def make(corpus: str, wanted: Iterable[Clip], source: Path, workers: int) -> None:
    """Makes the videos of the wanted clips of a corpus of ``MADE_HERE`` that are not there yet."""
    importlib.import_module(CORPORA[corpus]).make(wanted, source, workers)
