"""Command line: a corpus of videos to a data set in TFRecord files.

Finished work is kept in ``OUT/work`` (it may be deleted when no more clips are to come). The same
command goes on where it was stopped, and does only what is missing where something has changed.
"""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from atvg_jax.command_line import Parser, run
from atvg_jax.errors import InputError
from atvg_jax.features.landmarks import LandmarkBasis
from data_prep import beam, corpora, report, results, shards, sync_corpus
from data_prep.basis import merged
from data_prep.beam import BeamRunner
from data_prep.corpora.clip import SPLITS, Clip
from data_prep.prepare import PrepareSettings
from data_prep.results import Result
from data_prep.tasks import LocalRunner, PrepareTask, Runner


def build(
    corpus: str,
    source: Path | None,
    out: Path,
    worker_count: int,
    basis: Path | None = None,
    limit: int | None = None,
    clip_seconds: float = 120.0,
    clip_gigabytes: float = 4.0,
    runner: str = "local",
    beam_options: str = "",
    offsets: Path | None = None,
) -> dict[str, Any]:
    """Makes or completes a data set.

    Args:
        corpus: a key of ``corpora.CORPORA``.
        source: its folder; None where the corpus makes its own videos (they go to ``OUT/videos``).
        out: the data set's folder.
        worker_count: processes of this machine.
        basis: an existing basis to use; None: fit one to the train split.
        limit: the number of clips to take; None: all.
        clip_seconds: what a clip may take on the clock, beside a share for its size.
        clip_gigabytes: memory that a process may have.
        runner: ``local``, or one of ``beam.RUNNERS``.
        beam_options: Apache Beam's own flags.
        offsets: a copy of an earlier build's ``sync.jsonl``, to put sound right by.

    Returns:
        What ``report.json`` holds.

    Raises:
        InputError: the source, basis or runner cannot be used, another build is at work in
            ``out``, or not one clip could be prepared.
    """
    if source is None:
        if corpus not in corpora.MADE_HERE:
            raise InputError(f"--corpus={corpus} needs --source, the folder that holds it")
        source = out / "videos"
    if offsets is not None and offsets.resolve() == (out / "sync.jsonl").resolve():
        raise InputError(f"{offsets} is written anew by this build: copy it and give the copy")
    given = None if basis is None else LandmarkBasis.load(basis)
    settings = PrepareSettings() if given is None else PrepareSettings(normaliser=given.normaliser)
    work, memory = out / "work", int(clip_gigabytes * 2**30)
    here = LocalRunner(worker_count, memory)
    there: Runner = here
    if runner != "local":
        seen = (source, out)
        there = BeamRunner(runner, beam_options, worker_count, memory, work / "beam", seen)
    with _only_one(out):
        found = tqdm(corpora.clips(corpus, source), desc="looking", unit="clip", delay=2)
        clips = select(list(found), limit)
        if offsets is not None:
            clips = sync_corpus.corrected(clips, offsets)
        if corpus in corpora.MADE_HERE:
            corpora.make(corpus, clips, source, worker_count)
        done = _prepare_all(clips, PrepareTask(settings, work, clip_seconds), there)
        facts = {"corpus": corpus, "limit": limit}
        return _assemble(out, done, settings, given, facts, there, here)


@contextlib.contextmanager
def _only_one(out: Path) -> Iterator[None]:
    """Keeps two builds from working on one data set; the lock goes with the process."""
    try:
        (out / "work").mkdir(parents=True, exist_ok=True)
        lock = open(out / "work" / ".lock", "w")  # noqa: SIM115  closed by the with below
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}): choose another") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another build is at work in {out}: wait for it") from error
        for left in out.glob(".*.part*"):  # half-written by a build that was killed
            left.unlink()
        yield


def select(clips: list[Clip], limit: int | None) -> list[Clip]:
    """The clips to prepare: all, or a number of them from all over the corpus.

    One clip of each split comes first, then the splits share the rest as they share the corpus. A
    larger limit takes the same clips and more.

    Raises:
        InputError: two clips have the same id.
    """
    if len({clip.clip_id for clip in clips}) < len(clips):
        seen: set[str] = set()
        double = next(c.clip_id for c in clips if c.clip_id in seen or seen.add(c.clip_id))  # type: ignore[func-returns-value]
        raise InputError(f"two clips of the corpus have the id {double}")
    if limit is None:
        return clips
    ranked: list[tuple[float, int, Clip]] = []
    for index, split in enumerate(SPLITS):
        part = [clip for clip in clips if clip.split == split]
        part.sort(key=lambda clip: hashlib.sha256(clip.clip_id.encode()).digest())
        for rank, clip in enumerate(part):
            ranked.append(((rank + 0.5) / len(part) if rank else 0.0, index, clip))
    ranked.sort(key=lambda entry: entry[:2])
    return [clip for *_, clip in ranked[:limit]]


def _prepare_all(clips: list[Clip], task: PrepareTask, runner: Runner) -> list[tuple[Clip, Result]]:
    """The result of every clip, kept or made now."""
    summary = {**task.settings.summary(), "versions": report.versions()}
    items = [task.item(clip, results.key(clip, summary)) for clip in clips]
    done: dict[str, Result] = {}
    for item in items:
        result = results.read(task.path(item))
        if result is not None:
            done[item] = result
    wanted = {task.path(item) for item in items}
    for left in results.sweep(task.folder, {path.parent.name + path.name for path in wanted}):
        if left.name.endswith(".part"):
            left.unlink(missing_ok=True)

    rejects = sum(result.reject is not None for result in done.values())
    missing = [item for item in items if item not in done]
    with tqdm(total=len(clips), initial=len(done), desc="preparing", unit="clip") as progress:
        for item in runner.run(task, missing):
            path = task.path(item)
            result = results.read(path)
            if result is None:
                raise InputError(f"{path} cannot be read back: is there room on the disk?")
            done[item] = result
            rejects += result.reject is not None
            progress.set_postfix(rejects=rejects, refresh=False)
            progress.update()
    return [(clip, done[item]) for clip, item in zip(clips, items, strict=True)]


def _assemble(
    out: Path,
    clips: list[tuple[Clip, Result]],
    settings: PrepareSettings,
    given: LandmarkBasis | None,
    facts: dict[str, Any],
    there: Runner,
    here: Runner,
) -> dict[str, Any]:
    """Writes the data set, its basis and its report from the results of all clips."""
    counted = report.count(clips)
    report.write_rejects(out / "rejects.jsonl", clips)
    report.write_words(out / "words.jsonl", clips)
    if not any(split["examples"] for split in counted["splits"].values()):
        raise InputError(
            f"none of {len(clips)} clips could be prepared ({counted['rejects_by_reason']}): "
            f"see {out / 'rejects.jsonl'}"
        )
    if given is None and not counted["splits"]["train"]["examples"]:
        raise InputError(
            "no clip of the train split could be prepared, so there is nothing to fit a landmark "
            "basis to: have speakers in the train split, or give a basis with --basis"
        )
    planned = shards.plan(clips)
    written = shards.write(out, out / "work", planned, there)
    if given is None:
        train = [
            known.moments
            for shard, known in zip(planned, written, strict=True)
            if shard.split == "train"
        ]
        basis = merged(train).fit(settings.normaliser)
    else:
        basis = given
    synced = sync_corpus.judge(out, planned, there, here)
    shards.finish(out, planned, written)
    basis.save(out / "basis.npz")
    content = {
        **facts,
        **counted,
        "basis": report.describe_basis(basis, fitted=given is None),
        "sync": synced,
        "settings": settings.summary(),
        "versions": report.versions(),
    }
    shards.write_json(out / "report.json", content)
    return content


def main() -> None:
    """Reads the flags and runs."""
    parser = Parser(
        "python -m data_prep.build",
        "Makes a data set of talking faces from a corpus of videos. Run it again to go on where it "
        "was stopped.",
        "python -m data_prep.build --corpus=folder --source=videos --out=data/faces",
    )
    parser.add_argument("--corpus", required=True, choices=list(corpora.CORPORA))
    parser.add_argument("--source", type=Path, help="folder that holds the corpus")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (all cores)"
    )
    parser.add_argument(
        "--runner",
        choices=("local", *beam.RUNNERS),
        default="local",
        help="this machine's processes (local), or Apache Beam: here (direct) or on a cluster",
    )
    parser.add_argument("--beam_options", default="", help="Apache Beam's own flags, in quotes")
    parser.add_argument(
        "--basis", type=Path, help="use this basis.npz (or the published folder), do not fit one"
    )
    parser.add_argument(
        "--offsets",
        type=Path,
        help="copy of a build's sync.jsonl: put the sound of clips right by it",
    )
    parser.add_argument("--limit", type=int, help="prepare only so many clips")
    parser.add_argument(
        "--clip_seconds", type=float, default=120.0, help="time for a clip, more for large ones"
    )
    parser.add_argument("--clip_gigabytes", type=float, default=4.0, help="memory for a process")
    flags = parser.parse_args()
    for name in ("workers", "limit", "clip_seconds", "clip_gigabytes"):
        value = getattr(flags, name)
        if value is not None and not value > 0:
            parser.error(f"--{name} must be more than 0, not {value}")
    if flags.beam_options and flags.runner == "local":
        parser.error("--beam_options is for --runner=" + ", ".join(beam.RUNNERS))
    began = time.monotonic()
    content = build(
        flags.corpus,
        flags.source,
        flags.out,
        flags.workers,
        flags.basis,
        flags.limit,
        flags.clip_seconds,
        flags.clip_gigabytes,
        flags.runner,
        flags.beam_options,
        flags.offsets,
    )
    splits = {name: split for name, split in content["splits"].items() if split["clips"]}
    counts = ", ".join(f"{split['clips']} {name}" for name, split in splits.items())
    spoken = sum(split["seconds"] for split in splits.values())
    print(
        f"wrote {flags.out}: {counts} clips ({spoken:.0f} s of talking faces), "
        f"{content['rejected_clips']} rejected, in {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    run(main)
