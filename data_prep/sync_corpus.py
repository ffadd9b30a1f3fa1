"""Sync of a whole data set: which clips the regression is made of, what is said of all."""

import abc
import dataclasses
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from atvg_jax.data import schema, wire
from atvg_jax.errors import InputError
from atvg_jax.features import audio
from data_prep import sync, workers
from data_prep.corpora.clip import Clip
from data_prep.shards import Shard, temporary_folder, write_text
from data_prep.tasks import Runner, Task

REVISION = 1
"""Raise it when a change here or in ``sync`` gives clips other offsets."""

FIT_EXAMPLES = 4000
"""Examples of the train split that the regression is made of, the first ones of its shards: as
good as any, for their order is random. More do not make it better."""

SECONDS = 3600.0
"""Time for a shard, far more than it takes."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_OFF = 30
"""Clips that the report names; ``sync.jsonl`` lists all."""

CORRECTED_FROM = 0.06
"""Seconds: a frame and a half. What is less may be the estimate's own error."""

LEAST_CORRELATION = 0.1
"""Of mouth opening and loudness, below which nothing is said of all clips together."""


@dataclasses.dataclass(frozen=True)
class _SyncTask(abc.ABC):
    """What both tasks share: an item is the name and digest of a shard, and how much to take of it.

    Attributes:
        shards: folder of the shards.
        folder: where files are left.
        by_speaker: whether whole speakers are left out, or single clips.
        weights: (FOLDS, 364, 54) regressions; None: there are none yet.
    """

    shards: Path
    folder: Path
    by_speaker: bool
    weights: npt.NDArray[np.float64] | None

    @abc.abstractmethod
    def path(self, item: str) -> Path:
        """The item's file."""

    def examples(self, item: str) -> Iterable[dict[str, Any]]:
        """The examples to take."""
        name, _, take = json.loads(item)
        records = wire.read_records(self.shards / name)
        for _, record in zip(range(take), records, strict=False):
            yield schema.deserialize(record, pictures=False)

    def fold(self, example: dict[str, Any]) -> int:
        """The fold of an example; stretches of one clip are in the same."""
        if self.by_speaker:
            return sync.fold(example["speaker"])
        return sync.fold(_clip_of(example["clip_id"]))

    def seconds(self, item: str) -> float:
        """The same for all."""
        return SECONDS

    def done(self, item: str) -> bool:
        """Whether the item's file is there."""
        return self.path(item).is_file()

    def died(self, item: str, died: workers.Died) -> None:
        """Nothing in a shard can end a process, so this machine is to blame."""
        raise InputError(f"{json.loads(item)[0]}: its sync could not be judged: {died.message}")


class FitTask(_SyncTask):
    """Shards to sums that the regression is made of."""

    def path(self, item: str) -> Path:
        """The sums."""
        stage = "first" if self.weights is None else "second"
        return self.folder / f"{json.loads(item)[1]}.{stage}.npz"

    def make(self, item: str) -> None:
        """Adds up the examples of a shard, moved by what is known of their offsets."""
        moments = sync.Moments()
        for example in self.examples(item):
            track, part, lag = sync.track(example), self.fold(example), 0
            if self.weights is not None:
                found = sync.estimate(track, self.weights[part])
                if found.confidence >= sync.CONFIDENT:
                    lag = round(found.offset / sync.ROW_SECONDS)
            moments.add(track, part, lag)
        temporary = self.folder / f".{uuid.uuid4().hex}.part"
        with open(temporary, "wb") as file:
            np.savez(file, **vars(moments))
        temporary.replace(self.path(item))

    def moments(self, items: list[str]) -> sync.Moments:
        """The sums over all items, added in their order."""
        whole = sync.Moments()
        for item in items:
            part = sync.Moments()
            with np.load(self.path(item), allow_pickle=False) as file:
                vars(part).update(file)
            whole.merge(part)
        return whole


class EstimateTask(_SyncTask):
    """Shards to the offsets of their examples."""

    def path(self, item: str) -> Path:
        """The offsets."""
        return self.folder / f"{json.loads(item)[1]}.json"

    def make(self, item: str) -> None:
        """Judges the examples of a shard."""
        assert self.weights is not None
        found: list[list[Any]] = []
        energy = np.zeros((3, len(sync.LAGS)))
        for example in self.examples(item):
            one = sync.estimate(sync.track(example), self.weights[self.fold(example)])
            found.append([example["clip_id"], *one])
            if one.confidence >= sync.CONFIDENT:
                energy += sync.energy_sums(example, round(one.offset / sync.ROW_SECONDS))
        write_text(self.path(item), json.dumps([found, energy.tolist()]))


def judge(out: Path, shards: list[Shard], runner: Runner, here: Runner) -> dict[str, Any]:
    """Judges the sync of all examples of a data set.

    Args:
        out: the data set's folder; gets ``sync.jsonl``, a line for each example.
        shards: written, and perhaps not finished; what is done of them stays done.
        runner: where all examples are judged.
        here: where the regression is made, which takes few of them.

    Returns:
        What the report says of sync.
    """
    speakers = {
        clip.speaker for shard in shards if shard.split == "train" for clip, _, _ in shard.entries
    }
    by_speaker = len(speakers) >= sync.FEW_SPEAKERS
    fitted = _first(shards)
    digest = hashlib.sha256(json.dumps([REVISION, by_speaker, fitted]).encode()).hexdigest()[:40]
    folder, work = temporary_folder(out), out / "work"
    place = work / "sync" / digest
    place.mkdir(parents=True, exist_ok=True)
    weights = None
    with tqdm(total=2 * len(fitted) + len(shards), desc="judging sync", unit="shard") as progress:
        for _ in range(2):
            task = FitTask(folder, place, by_speaker, weights)
            _run(here, task, fitted, progress)
            weights = task.moments(fitted).fit()
        last = EstimateTask(folder, place, by_speaker, weights)
        items = [json.dumps([s.name, s.digest(), len(s.entries)]) for s in shards]
        _run(runner, last, items, progress)
    rows, energy = [], np.zeros((3, len(sync.LAGS)))
    for shard, item in zip(shards, items, strict=True):
        found, sums = json.loads(last.path(item).read_text())
        energy += np.array(sums)
        rows += [(name, shard.split, sync.Estimate(*numbers)) for name, *numbers in found]
    for other in (work / "sync").iterdir():
        if other != place:
            shutil.rmtree(other)
    common = common_offset(energy)
    rows = [(name, split, _moved(one, common or 0.0)) for name, split, one in sorted(rows)]
    write_text(out / "sync.jsonl", "".join(_line(*row) for row in rows))
    return {"common_offset": common, **summary(rows)}


def common_offset(energy: npt.NDArray[np.float64]) -> float | None:
    """How late the sound is of what the regression takes to be in sync, in seconds.

    Args:
        energy: of ``sync.energy_sums``, added up over examples.

    Returns:
        None where too little is known of the clips to say so.
    """
    peak = sync.energy_peak(energy)
    if peak is None or peak[1] < LEAST_CORRELATION:
        return None
    return round(peak[0] - sync.ENERGY_PEAK, 2)


def _moved(found: sync.Estimate, common: float) -> sync.Estimate:
    """An estimate against true sync, of one against the other clips."""
    return found._replace(offset=round(found.offset + common, 2))


def corrected(clips: list[Clip], path: Path) -> list[Clip]:
    """Clips with their sound put right by what an earlier build has found.

    Args:
        clips: of the corpus, or some of them.
        path: a ``sync.jsonl``. Of a clip with several examples the median counts.

    Raises:
        InputError: the file cannot be used, or is of another corpus.
    """
    found: dict[str, list[float]] = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            content = json.loads(line)
            offsets = found.setdefault(_clip_of(content["clip_id"]), [])
            if content["offset"] is not None:
                offsets.append(float(content["offset"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} cannot be used ({error}): give the sync.jsonl of a build"
        ) from error
    known = {clip.clip_id for clip in clips}
    if found and not found.keys() & known:
        raise InputError(
            f"{path} names no clip of this corpus: give the sync.jsonl of a build of it"
        )
    moved = []
    for clip in clips:
        offset = float(np.median(found.get(clip.clip_id) or [0.0]))
        if abs(offset) > CORRECTED_FROM:
            clip = dataclasses.replace(clip, audio_offset=round(clip.audio_offset + offset, 3))
        moved.append(clip)
    return moved


def part_of(example: str) -> tuple[str, int]:
    """The id of the clip that an example is of, and the example's first frame."""
    clip, _, start = example.rpartition("@")
    return (clip, int(start)) if clip and start.isdigit() else (example, 0)


def _clip_of(example: str) -> str:
    return part_of(example)[0]


def _first(shards: list[Shard]) -> list[str]:
    """The items of the shards of the train split that the regression is made of."""
    items: list[str] = []
    left = FIT_EXAMPLES
    for shard in shards:
        if shard.split == "train" and left > 0:
            take = min(left, len(shard.entries))
            items.append(json.dumps([shard.name, shard.digest(), take]))
            left -= take
    return items


def _run(runner: Runner, task: Task, items: list[str], progress: tqdm) -> None:
    """Runs what is not done."""
    missing = [item for item in items if not task.done(item)]
    progress.update(len(items) - len(missing))
    for _ in runner.run(task, missing):
        progress.update()


def _line(name: str, split: str, found: sync.Estimate) -> str:
    """The line of one example; an offset that is not known is null."""
    known = found.confidence >= sync.CONFIDENT
    content = {"clip_id": name, "split": split, **found._asdict()}
    return (
        json.dumps(content | {"offset": found.offset if known else None}, ensure_ascii=False) + "\n"
    )


def summary(rows: list[tuple[str, str, sync.Estimate]]) -> dict[str, Any]:
    """What the report says of sync.

    Args:
        rows: the id, split and estimate of each example.
    """
    frame = 1 / audio.FRAME_RATE
    splits = {}
    for split in schema.SPLITS:
        found = [estimate for _, where, estimate in rows if where == split]
        offsets = np.array([e.offset for e in found if e.confidence >= sync.CONFIDENT])
        counted, _ = np.histogram(np.round(offsets / frame), np.arange(-13, 14) - 0.5)
        splits[split] = {
            "examples": len(found),
            "known": len(offsets),
            "quantiles": {f"{q:g}": round(float(np.quantile(offsets, q)), 3) for q in QUANTILES}
            if len(offsets)
            else None,
            "beyond_one_frame": _share(offsets, frame),
            "beyond_three_frames": _share(offsets, 3 * frame),
            "histogram": {
                f"{index * frame:g}": int(n)
                for index, n in zip(range(-13, 13), counted, strict=True)
                if n
            },
        }
    known = [row for row in rows if row[2].confidence >= sync.CONFIDENT]
    known.sort(key=lambda row: (-abs(row[2].offset), row[0]))
    return {
        "splits": splits,
        "most_off": [
            {"clip_id": name, "offset": found.offset, "confidence": found.confidence}
            for name, _, found in known[:MOST_OFF]
            if abs(found.offset) > frame
        ],
    }


def _share(offsets: npt.NDArray[np.float64], limit: float) -> float | None:
    """The share of offsets beyond a limit; None of none."""
    # A hundredth of a row on top, for the rounding of decimal fractions.
    return round(float(np.mean(np.abs(offsets) > limit + 1e-4)), 4) if len(offsets) else None
