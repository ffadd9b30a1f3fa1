"""GRID: people who say sentences such as "bin blue at f two now"; speakers are held out.

Cooke, Barker, Cunningham and Shao, "An audio-visual corpus for speech perception and automatic
speech recognition", JASA 2006. 75 frames at 25 frames/s, 360 x 288 or 720 x 576, sound inside.

A video's speaker is the folder ``sN`` that it lies in, however deep: ``sN/*.mpg``,
``sN/video/*.mpg`` and ``sN/video/mpg_6000/*.mpg`` are all in use. ``.align`` files, which tell the
words and their times, may be anywhere below in folders of the same names (``align/sN/``,
``sN/align/``, ``alignments/sN/``), or all in one folder where there is one speaker. Without them
the sentence is read from the name of the video, which spells it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.corpora.clip import Clip, Word
from data_prep.corpora.layouts import is_video, walk, wrong_corpus
from data_prep.corpora.splits import split_by_speaker

UNITS_PER_SECOND = 25_000
"""Times in ``.align`` files are thousandths of a frame."""
SILENCES = frozenset({"sil", "sp"})
"""What ``.align`` files have for pauses."""

_SPEAKER = re.compile(r"s\d+")
_SENTENCE = re.compile(r"[blps][bgrw][abiw][a-z][z1-9][anps]")
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_WORDS: tuple[dict[str, str], ...] = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {},  # a letter is its own name
    dict(zip("z123456789", _DIGITS, strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
"""What the six characters of a video's name stand for."""


def clips(source: Path) -> Iterator[Clip]:
    """The clips of GRID, by path.

    Args:
        source: the folder that holds ``sN`` folders, at any depth, or one of them.

    Raises:
        InputError: there is no video in a folder ``sN``.
    """
    source = Path(source)
    videos, alignments = _walk(source)
    if not videos:
        wanted = "sN/*.mpg or sN/video/*.mpg (s1, s2, ...) in it"
        raise wrong_corpus(source, "grid", "GRID", wanted)
    speakers = {speaker for speaker, _ in videos}
    splits = split_by_speaker(speakers)
    for (speaker, name), path in sorted(videos.items(), key=lambda item: item[1]):
        align = alignments.get((speaker, name))
        if align is None and len(speakers) == 1:
            align = alignments.get(("", name))
        words = () if align is None else read_alignment(align)
        yield Clip(
            clip_id=path.relative_to(source).as_posix(),
            video=path,
            speaker=speaker,
            split=splits[speaker],
            text=" ".join(word.text for word in words) or sentence(name),
            words=words,
        )


def sentence(name: str) -> str:
    """What is said in a video with this name (``bbaf2n``); "" for a name of another kind."""
    if not _SENTENCE.fullmatch(name):
        return ""
    return " ".join(words.get(letter, letter) for words, letter in zip(_WORDS, name, strict=True))


def _walk(source: Path) -> tuple[dict[tuple[str, str], Path], dict[tuple[str, str], Path]]:
    """Videos of speakers, and alignments, each by speaker ("" for none) and name."""
    videos: dict[tuple[str, str], Path] = {}
    alignments: dict[tuple[str, str], Path] = {}
    for path in walk(source):
        parts = (source.name, *path.relative_to(source).parts[:-1])
        speaker = next((part for part in reversed(parts) if _SPEAKER.fullmatch(part)), "")
        if path.suffix.lower() == ".align":
            alignments.setdefault((speaker, path.stem), path)
        elif is_video(path) and speaker:
            # The corpus comes in two sizes: whoever has both wants the larger one, once.
            other = videos.get((speaker, path.stem))
            if other is None or other.stat().st_size < path.stat().st_size:
                videos[speaker, path.stem] = path
    return videos, alignments


def read_alignment(path: Path) -> tuple[Word, ...]:
    """The words of an ``.align`` file, pauses left out; none where it is not one."""
    words = []
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            start, end, text = line.split()
            if text not in SILENCES:
                seconds = int(start) / UNITS_PER_SECOND, int(end) / UNITS_PER_SECOND
                words.append(Word(text, *seconds))
    except (OSError, ValueError):
        return ()
    return tuple(words)
