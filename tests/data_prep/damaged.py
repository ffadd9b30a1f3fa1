"""What the build makes of damaged video files: ``python -m tests.data_prep.damaged --out=DIR``.

A damaged file must be set aside with a reason, or what is taken of it must be what the whole file
shows and says at the same times. ``test_damaged.py`` does the same with some of the files.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from atvg_jax.data import schema, wire
from atvg_jax.features import images
from atvg_jax.features.landmarks import LandmarkBasis
from data_prep.build import build

from .damage import Case, make

PIXELS, POINTS, ROW, ROWS = 24.0, 2.5, 3.0, 0.3
"""How near what is taken of a damaged file must be to the whole one, frame by frame: mean
difference of pixels (of 255), of landmarks (pixels) and of MFCC (of which speech spans tens), which
a part of the rows may miss. Some formats (VP8, raw sound) have nothing by which damage could be
seen: blocks of a picture may be wrong, or a moment of sound. The same face mirrored differs by 50,
another person's by 74."""

LATE = 4.0
"""Frames by which a picture may be late or early, told by its light: as many may be missing at the
end of a file before it counts as cut off."""

UNEXPLAINED = ("error", "crashed", "timeout", "unusable")
"""Reasons that no file should need."""

STEP = 4
"""Rows (one frame) that the sound may be out of step by: in some formats its times are counted by
its blocks, of which one may be lost. 36 ms leave 0.13 of the rows apart, 60 ms 0.48."""


def judge(out: Path, cases: list[Case]) -> dict[str, str]:
    """What is wrong with a data set built of the files: ``{path: what}``, empty if nothing."""
    rejects = {}
    for line in (out / "rejects.jsonl").read_text().splitlines():
        reject = json.loads(line)
        rejects[reject["clip_id"]] = reject
    kept: dict[str, list[dict]] = {}
    for split in schema.SPLITS:
        if any(schema.version_folder(out).glob(f"*-{split}.tfrecord*")):
            for path in schema.data_files(out, split):
                for record in wire.read_records(path):
                    example = schema.deserialize(record)
                    kept.setdefault(example["clip_id"].split("@")[0], []).append(example)
    wrong = {}
    for case in cases:
        reject = rejects.get(case.path)
        if (reject is None) == (case.path not in kept):
            wrong[case.path] = "neither in the data set nor set aside, or both"
        elif reject is not None:
            if case.expected == "kept":
                wrong[case.path] = f"set aside: {reject}"
            elif reject["reason"] in UNEXPLAINED:
                wrong[case.path] = f"no reason that anybody thought of: {reject}"
            elif "\n" in reject["message"] or case.path.split("/")[-1] not in reject["message"]:
                wrong[case.path] = f"not one line that names the file: {reject}"
        elif case.expected == "rejected":
            wrong[case.path] = "not set aside"
        elif case.like:
            differs = [_difference(example, kept[case.like][0]) for example in kept[case.path]]
            if any(differs):
                wrong[case.path] = "; ".join(filter(None, differs))
    return wrong


def _difference(found: dict, whole: dict) -> str:
    """How an example differs from the whole file's at the same times; "" if it does not."""
    begun = found["clip_id"].partition("@")[2]
    start, count = int(begun or 0), len(found["frames"])
    if start + count > len(whole["frames"]) + 4:  # what the ends of files may differ by
        return f"frames {start} to {start + count} of {len(whole['frames'])}"
    count = min(count, len(whole["frames"]) - start)
    here, there = slice(0, count), slice(start, start + count)
    one, two = (
        np.stack([images.decode_jpeg(frame) for frame in frames]).astype(np.float32)
        for frames in (found["frames"][here], whole["frames"][there])
    )
    pixels = np.abs(one - two).mean(axis=(1, 2, 3)).max()
    step = np.median(np.diff(two, axis=0))  # a pixel's, from frame to frame
    late = np.abs(np.median(one - two, axis=(1, 2, 3))).max() / step
    name = "aligned_landmarks"
    points = np.linalg.norm(found[name][here] - whole[name][there], axis=-1).mean(axis=-1).max()
    apart = _sounds_apart(found["mfcc"], whole["mfcc"][4 * start :])
    if pixels <= PIXELS and points <= POINTS and late <= LATE and apart <= ROWS:
        return ""
    return f"pixels {pixels:.1f}, points {points:.2f}, late {late:.1f}, sound {apart:.2f}"


def _sounds_apart(found: np.ndarray, whole: np.ndarray) -> float:
    """Part of the rows of two stretches of MFCC that differ, at the step where most agree."""
    # Silence before and after, where the spectrum is the codec's noise, is left out.
    count = min(len(found), len(whole)) - 24 - 2 * STEP
    rows = found[12 + STEP : 12 + STEP + count, 1:]
    numbers = np.arange(len(whole))
    apart = []
    for low in np.arange(12, 12 + 2 * STEP + 0.1, 0.25):
        at = low + np.arange(count)
        moved = np.stack([np.interp(at, numbers, column) for column in whole[:, 1:].T], axis=1)
        apart.append(float((np.abs(rows - moved).mean(axis=1) > ROW).mean()))
    return min(apart)


def run(out: Path, cases: list[Case], source: Path) -> tuple[dict, dict[str, str]]:
    """Builds a data set of the files and judges it: its report, and what is wrong."""
    # A basis that is there already: none is to be fitted to damaged files.
    basis = out / "basis.npz"
    LandmarkBasis.fit(np.random.default_rng(0).normal(size=(50, 68, 2))).save(basis)
    report = build("folder", source, out / "data", 1, basis=basis, clip_seconds=60.0)
    return report, judge(out / "data", cases)


def main() -> None:
    """Reads the flags and runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    began = time.monotonic()
    flags.out.mkdir(parents=True)
    cases = make(flags.out / "source", flags.seed)
    report, wrong = run(flags.out, cases, flags.out / "source")
    kept = sum(split["clips"] for split in report["splits"].values())
    print(f"{len(cases)} files: {kept} kept, {report['rejects_by_reason']}")
    print("kept of each kind:", dict(Counter(_kinds(flags.out / "data", cases))))
    for path, what in wrong.items():
        print(f"WRONG {path}: {what}")
    print(f"{len(wrong)} wrong, in {time.monotonic() - began:.0f} s")
    raise SystemExit(bool(wrong))


def _kinds(out: Path, cases: list[Case]) -> Iterator[str]:
    """The kind of each file that was kept."""
    rejects = {json.loads(line)["clip_id"] for line in (out / "rejects.jsonl").open()}
    for case in cases:
        if case.path not in rejects:
            yield case.path.split("/")[0]


if __name__ == "__main__":
    main()
