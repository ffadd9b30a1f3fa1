"""Command line: a data set, and speech without pictures beside it, for AT-net to learn from.

A regression learns from the data set's own training clips how landmarks follow what a pretrained
speech encoder hears, and labels the speech with what it makes of it (see ``pseudo_labels``).
"""

import itertools
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from atvg_jax.command_line import Parser, run
from atvg_jax.data import schema, wire
from atvg_jax.errors import InputError
from atvg_jax.features import audio, images, video
from atvg_jax.features.landmarks import LandmarkBasis, from_model
from atvg_jax.whole_files import folder_written_whole
from data_prep import corpora, face_boxes, sync_corpus
from data_prep.corpora.clip import Clip
from data_prep.prepare import SILENCE, PrepareSettings, mfcc_rows, sound
from data_prep.pseudo_labels import Labeller, Regression
from data_prep.shards import SHARD_BYTES, write_json
from data_prep.speech_encoder import SpeechEncoder, bundled_file

FloatArray = npt.NDArray[np.float32]

SUFFIXES = frozenset({".flac", ".g722", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav"})

REPORT = "speech.json"
"""What came of it; also what tells such a data set from one that took hours to prepare."""

_PAUSE = audio.SAMPLE_RATE // 4
_PIECE = PrepareSettings().longest * audio.SAMPLES_PER_FRAME
_SHORTEST = PrepareSettings().shortest * audio.SAMPLES_PER_FRAME
_PEAK = 0.5
_DESCRIPTION = "Landmarks and MFCC of speech, filmed or not, for AT-net; its pictures are black."


class Added(NamedTuple):
    """What came of it: examples copied and added, minutes of speech, recordings left out."""

    copied: int
    added: int
    minutes: float
    left_out: int


def add_speech(
    data: Path,
    clips: Iterable[Clip],
    speech: Path,
    out: Path,
    encoder: SpeechEncoder,
) -> Added:
    """Makes the data set.

    Args:
        data: a data set of ``data_prep.build``.
        clips: the corpus it was made of, with the offsets it was made with.
        speech: a folder of recordings; each folder in it with recordings counts as a speaker.
        out: the new data set's folder. One that this made before is replaced.
        encoder: what listens.

    Raises:
        InputError: the data set or the folder cannot be used, or they have nothing in common.
    """
    recordings = _recordings(speech)
    basis = LandmarkBasis.load(data / "basis.npz")
    with folder_written_whole(out, REPORT, "a data set of this command") as temporary:
        labeller, means = _learned(data, list(clips), basis, encoder)
        counts = {"copied": 0, "added": 0, "frames": 0, "left out": 0}
        rng = np.random.default_rng(0)
        black = images.encode_jpeg(np.zeros((schema.FRAME_SIZE,) * 2 + (3,), np.uint8), 50)

        def spoken() -> Iterator[schema.Example]:
            for example in _examples(data, "train"):
                counts["copied"] += 1
                yield _without_pictures(example, black)
            for name, speaker, waveform in _pieces(speech, recordings, counts):
                frames = audio.frame_count(len(waveform))
                change = labeller.label(encoder.rows(waveform, frames))
                shapes = from_model(basis.decode(means[rng.integers(len(means))] + change))
                counts["added"] += 1
                counts["frames"] += frames
                yield _example(shapes, mfcc_rows(waveform, 0, frames), speaker, name, black)

        folder = schema.version_folder(temporary)
        folder.mkdir(parents=True)
        splits = {"train": _write(folder, "train", spoken())}
        if any(schema.version_folder(data).glob(f"{schema.NAME}-validation.*")):
            held = (_without_pictures(example, black) for example in _examples(data, "validation"))
            splits["validation"] = _write(folder, "validation", held)
        write_json(folder / "features.json", schema.features_json())
        write_json(folder / "dataset_info.json", schema.dataset_info_json(splits, _DESCRIPTION))
        shutil.copyfile(data / "basis.npz", temporary / "basis.npz")
        minutes = round(counts["frames"] / audio.FRAME_RATE / 60, 1)
        added = Added(counts["copied"], counts["added"], minutes, counts["left out"])
        write_json(temporary / REPORT, added._asdict())
    return added


def _recordings(speech: Path) -> list[Path]:
    """Sound files below a folder, those of one folder after another."""
    if not speech.is_dir():
        raise InputError(f"{speech} is not a folder: give the folder that holds the recordings")
    found = sorted(path for path in speech.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{speech} holds no recordings (looked for {' '.join(sorted(SUFFIXES))})")
    return sorted(found, key=lambda path: path.parent)


def _examples(data: Path, split: str) -> Iterator[dict]:
    for path in schema.data_files(data, split):
        for record in wire.read_records(path):
            yield schema.deserialize(record, pictures=False)


def _learned(
    data: Path, clips: list[Clip], basis: LandmarkBasis, encoder: SpeechEncoder
) -> tuple[Labeller, FloatArray]:
    """The regression, and the mean components of each training clip."""
    known = {clip.clip_id: clip for clip in clips}
    frames: Counter[str] = Counter()
    placed = []  # clip, first frame, landmarks and speaker of each example
    for example in _examples(data, "train"):
        frames[example["speaker"]] += len(example["landmarks"])
        place = sync_corpus.part_of(example["clip_id"])
        placed.append((*place, example["landmarks"], example["speaker"]))
    placed.sort(key=lambda example: example[:2])
    regression, means = Regression(frames), []
    progress = tqdm(placed, desc="listening to clips", unit="example")
    for name, group in itertools.groupby(progress, key=lambda example: example[0]):
        if name not in known:
            raise InputError(
                f"{data} has a clip {name} that the corpus does not: give the --corpus and "
                "--source that it was made of"
            )
        parts = list(group)
        end = max(start + len(shapes) for _, start, shapes, _ in parts)
        rows = encoder.rows(_sound_of(known[name]), end)
        for _, start, shapes, speaker in parts:
            components = basis.encode(shapes)
            means.append(components.mean(axis=0))
            regression.add(rows[start : start + len(shapes)], components, speaker)
    return regression.fit(), np.asarray(means, np.float32)


def _sound_of(clip: Clip) -> FloatArray:
    return sound(clip, 0 if clip.boxes is None else face_boxes.read(clip.boxes).start)


def _pieces(
    speech: Path, recordings: list[Path], counts: dict[str, int]
) -> Iterator[tuple[str, str, FloatArray]]:
    """Name, speaker and 1 to 10 s of speech.

    Recordings of a folder follow each other, a quarter of a second between them: the encoder hears
    a word better among others, and a piece is as long as a clip.
    """
    waiting: list[FloatArray] = []
    for index, path in enumerate(tqdm(recordings, desc="listening to speech", unit="recording")):
        try:
            waveform = video.read_waveform(path)
        except InputError:
            waveform = np.zeros(0, np.float32)
        loudest = float(np.abs(waveform).max(initial=0))
        if SILENCE < loudest < np.inf:
            waiting += [waveform * np.float32(_PEAK / loudest), np.zeros(_PAUSE, np.float32)]
        else:
            counts["left out"] += 1
        last = index + 1 == len(recordings) or recordings[index + 1].parent != path.parent
        if not last and sum(map(len, waiting)) < _PIECE:
            continue
        whole = np.concatenate([*waiting, np.zeros(0, np.float32)])
        waiting = []
        speaker = path.parent.relative_to(speech).as_posix()
        for start in range(0, len(whole), _PIECE):
            piece = whole[start : start + _PIECE]
            if len(piece) >= _SHORTEST:
                yield f"{path.relative_to(speech).as_posix()}#{start}", f"speech/{speaker}", piece


def _without_pictures(example: dict, black: bytes) -> schema.Example:
    return _example(
        example["landmarks"], example["mfcc"], example["speaker"], example["clip_id"], black
    )


def _example(
    shapes: FloatArray, mfcc: FloatArray, speaker: str, name: str, black: bytes
) -> schema.Example:
    frames = len(shapes)
    return schema.Example(
        frames=[black] * frames,
        landmarks=np.asarray(shapes, np.float32),
        aligned_landmarks=np.zeros((frames, 68, 2), np.float32),
        mfcc=np.asarray(mfcc, np.float32),
        pose=np.zeros((frames, 3), np.float32),
        speaker=speaker,
        clip_id=name,
    )


def _write(folder: Path, split: str, examples: Iterable[schema.Example]) -> tuple[list[int], int]:
    """Writes a split's shards; how many examples are in each, and their bytes."""
    lengths: list[int] = []
    parts: list[Path] = []
    size = total = 0
    file = None
    try:
        for example in examples:
            if file is None or size > SHARD_BYTES:
                if file is not None:
                    file.close()
                parts.append(folder / f".{uuid.uuid4().hex}.part")
                file, size = open(parts[-1], "wb"), 0  # noqa: SIM115  closed below
                lengths.append(0)
            record = schema.serialize(example)
            file.write(wire.frame_record(record))
            size += len(record)
            total += len(record)
            lengths[-1] += 1
    finally:
        if file is not None:
            file.close()
    for index, part in enumerate(parts):
        os.replace(part, folder / schema.shard_name(split, index, len(parts)))
    return lengths, total


def main() -> None:
    """Reads the flags and runs."""
    parser = Parser(
        "python -m data_prep.add_speech",
        "Makes a data set for AT-net of another one and of speech that nobody filmed.",
        "python -m data_prep.add_speech --data=data/faces --corpus=folder --source=videos "
        "--speech=recordings --out=data/spoken",
    )
    parser.add_argument("--data", type=Path, required=True, help="data set of data_prep.build")
    parser.add_argument("--corpus", required=True, choices=list(corpora.CORPORA), help="it is of")
    parser.add_argument("--source", type=Path, required=True, help="folder that holds the corpus")
    parser.add_argument("--offsets", type=Path, help="what the data set was built with, if so")
    parser.add_argument(
        "--speech", type=Path, required=True, help="folder of recordings, a folder a speaker"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the new data set")
    parser.add_argument("--encoder", type=Path, help="ONNX or ORT file of Moonshine tiny's encoder")
    flags = parser.parse_args()
    if not (flags.data / "basis.npz").is_file():
        raise InputError(f"{flags.data} is no data set of data_prep.build: it has no basis.npz")
    clips = list(corpora.clips(flags.corpus, flags.source))
    if flags.offsets is not None:
        clips = sync_corpus.corrected(clips, flags.offsets)
    encoder = SpeechEncoder(flags.encoder or bundled_file())
    added = add_speech(flags.data, clips, flags.speech, flags.out, encoder)
    print(
        f"wrote {flags.out}: {added.copied} clips and {added.added} pieces of speech "
        f"({added.minutes:.0f} min); {added.left_out} recordings without sound left out"
    )


if __name__ == "__main__":
    run(main)
