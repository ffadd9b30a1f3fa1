"""The description of one clip, the same whatever corpus it comes from."""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

from atvg_jax.errors import InputError

SPLITS = ("train", "validation", "test")

MAX_AUDIO_OFFSET = 60.0
"""Seconds. More is a mistake of units (milliseconds, frames) and not a late sound track."""


class Word(NamedTuple):
    """A word and when it is heard, in seconds since the clip's first picture."""

    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """One video of somebody talking: where it is and what is known of it before it is opened.

    Small, immutable and picklable, so that it can be sent to a worker process or cluster node.

    Attributes:
        clip_id: its name, unique in the corpus; part of the data set, so never a path of this
            machine. By convention the path inside the corpus, with forward slashes.
        video: the video file.
        speaker: who talks. The same person has the same name in all of the corpus, and is in one
            split only unless the corpus's own splits say otherwise.
        split: ``train``, ``validation`` or ``test``.
        audio: a separate sound file that starts together with the clip's first picture; None
            where the sound is inside the video.
        audio_offset: seconds that the sound is late against the picture (negative: early).
        text: what is said, where known.
        boxes: a text file of VoxCeleb with the place of the face in some frames of the video: the
            clip is these frames and that face. None: the clip is the whole video.
        words: the same word by word, where the corpus tells when each is said.
    """

    clip_id: str
    video: Path
    speaker: str
    split: str
    audio: Path | None = None
    audio_offset: float = 0.0
    text: str = ""
    boxes: Path | None = None
    words: tuple[Word, ...] = ()

    def __post_init__(self):
        if self.split not in SPLITS:
            raise InputError(f"{self.clip_id}: split {self.split!r} is none of {', '.join(SPLITS)}")
        if not self.clip_id or not self.clip_id.isprintable():
            raise InputError(f"a clip id must be printable and not empty: {self.clip_id!r}")
        if not self.speaker:
            raise InputError(f"{self.clip_id}: the speaker has no name")
        if not math.isfinite(self.audio_offset) or abs(self.audio_offset) > MAX_AUDIO_OFFSET:
            raise InputError(
                f"{self.clip_id}: audio_offset {self.audio_offset} is not a number of seconds "
                f"between -{MAX_AUDIO_OFFSET:g} and {MAX_AUDIO_OFFSET:g}"
            )

    def words_within(self, start: float, end: float) -> tuple[Word, ...]:
        """The words that are mostly said in a part of the clip, from ``start`` to ``end`` seconds.

        Their times are counted from ``start``, and ``audio_offset`` is put right.
        """
        begin, length = start + self.audio_offset, end - start
        return tuple(
            Word(word.text, round(word.start - begin, 4), round(word.end - begin, 4))
            for word in self.words
            if 0 <= (word.start + word.end) / 2 - begin < length
        )
