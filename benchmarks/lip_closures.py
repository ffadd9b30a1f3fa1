"""Whether lips close on p, b and m and open on wide vowels, where GRID's alignments tell the time.

``python -m benchmarks.lip_closures --data=DATA --alignments=GRID/align [--model=MODEL]`` speaks the
clips of a prepared split that have an alignment and compares how far the inner lips are apart, in
per cent of the distance between the eyes, at the start of words that begin with closed lips, in
words with a wide vowel, and at any other moment of speech. It does so for the real landmarks and
for AT-net's, so that what a speaker does himself stands beside it.
"""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from atvg_jax.command_line import Parser, run
from atvg_jax.data import schema
from atvg_jax.data.records import ClipRecords
from atvg_jax.errors import InputError
from atvg_jax.features import audio, images
from atvg_jax.features.landmarks import mouth_opening
from atvg_jax.inference import model_directory
from atvg_jax.inference.prepared import PreparedFace
from atvg_jax.inference.talking_face import BUNDLED_MODEL
from data_prep.corpora.clip import Word
from data_prep.corpora.grid import read_alignment

CLOSED = re.compile(r"[bpm]")
"""Words that begin with closed lips."""

WIDE = {"a", "i", "by", "five", "nine", "white", "now", "again"}
"""Words of GRID with /a/, /ai/ or /au/ in them."""

AROUND = 2  # frames before and after a word's start within which lips may close


def moments(words: tuple[Word, ...], frames: int) -> dict[str, list[tuple[int, int]]]:
    """Stretches of frames (first, end) of each kind: ``closed``, ``wide`` and ``any``."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for word in words:
        start, end = (round(at * audio.FRAME_RATE) for at in (word.start, word.end))
        if CLOSED.match(word.text) and AROUND <= start < frames - AROUND:
            found["closed"].append((start - AROUND, start + AROUND + 1))
        if word.text in WIDE and start + 1 < end <= frames:
            found["wide"].append((start, end))
    if words:
        first, last = (round(at * audio.FRAME_RATE) for at in (words[0].start, words[-1].end))
        length = 2 * AROUND + 1
        found["any"] = [(t, t + length) for t in range(first, min(last, frames) - length)]
    return found


def openings(face: PreparedFace, example: dict) -> dict[str, np.ndarray]:
    """(T,) of the real lips and of AT-net's, which gets a boost if the model has one."""
    crop = images.decode_jpeg(example["frames"][0])
    windows = audio.windows_from_mfcc(example["mfcc"])
    made = face.from_sound(crop, example["aligned_landmarks"][0], windows, landmarks_only=True)
    return {"real": mouth_opening(example["landmarks"]), "AT-net": mouth_opening(made.landmarks)}


def report(data: Path, alignments: Path, model: Path, split: str) -> None:
    """Prints the table.

    Raises:
        InputError: no clip of the split has an alignment.
    """
    face = PreparedFace(model_directory.read(model))
    records = ClipRecords(schema.data_files(data, split))
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    clips = 0
    for number in range(len(records)):
        example = records.example(number)
        clip = Path(example["clip_id"])
        path = alignments / clip.parent.name / f"{clip.stem}.align"
        if not path.is_file():
            continue
        found = moments(read_alignment(path), len(example["landmarks"]))
        clips += 1
        for name, opening in openings(face, example).items():
            for kind, stretches in found.items():
                for first, end in stretches:
                    least, most = opening[first:end].min(), opening[first:end].max()
                    values[name, f"{kind}, least"].append(100 * least)
                    values[name, f"{kind}, most"].append(100 * most)
    if not clips:
        raise InputError(f"{alignments}: has no .align file of a clip of {data}'s {split} split")
    print(f"{clips} clips of {split}; opening in per cent of the eyes' distance, mean (count)")
    for kind in ("closed, least", "any, least", "wide, most", "any, most"):
        real, made = (values[name, kind] for name in ("real", "AT-net"))
        print(f"  {kind:14} real {np.mean(real):5.2f}  AT-net {np.mean(made):5.2f}  ({len(real)})")


def main() -> None:
    """Reads the flags and runs."""
    parser = Parser(
        "python -m benchmarks.lip_closures",
        "Compares how far lips are open where they have to be closed or wide.",
        "python -m benchmarks.lip_closures --data=DATA --alignments=GRID/align",
    )
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set with GRID")
    parser.add_argument("--alignments", type=Path, required=True, help="folder of sN/*.align")
    parser.add_argument("--model", type=Path, default=BUNDLED_MODEL, help="default: the bundled")
    parser.add_argument("--split", default="test", choices=schema.SPLITS)
    flags = parser.parse_args()
    report(flags.data, flags.alignments, flags.model, flags.split)


if __name__ == "__main__":
    run(main)
