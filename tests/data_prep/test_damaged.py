"""Damaged files: no crash, no hang, no reject without a reason, and no wrong clip."""

import hashlib

from .damage import make
from .damaged import UNEXPLAINED, run

ALWAYS = {
    "sound/8_bit_8000.avi", "sound/float_96000.mkv", "pictures/no_frames.mp4",
    "pictures/1_frame.mp4", "pictures/slow.mp4", "absurd/stsz_count_7fffffff.mp4",
    "absurd/avc1_picture_ffffffff.mp4",
}  # fmt: skip


def few(path: str) -> bool:
    """One of twelve files, always the same ones, and those that are asked for by name."""
    return path in ALWAYS or hashlib.sha256(path.encode()).digest()[0] % 12 == 0


def test_damaged_files(tmp_path):
    """``python -m tests.data_prep.damaged`` does this with ten times as many."""
    cases = make(tmp_path / "source", formats=("mp4", "mkv", "avi"), pick=few)
    report, wrong = run(tmp_path, cases, tmp_path / "source")
    assert len(cases) >= 45
    assert wrong == {}
    assert report["rejected_clips"] > 20
    assert not set(UNEXPLAINED) & set(report["rejects_by_reason"])
