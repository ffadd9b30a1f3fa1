"""Command line: a data set to pictures that tell in a minute whether it is sound."""

import html
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from atvg_jax.command_line import Parser, run
from atvg_jax.data import schema, wire
from atvg_jax.errors import InputError
from atvg_jax.features import audio
from atvg_jax.whole_files import written_whole
from data_prep import pictures
from data_prep.pictures import Glimpse

SHEET = 60
"""Examples on the contact sheet."""

SHOWN = {"train": 4, "validation": 2, "test": 2}
"""Examples of each split that are shown with landmarks and with their sound, each of another
person."""

MANY_REJECTS, MANY_OFF, FEW_KNOWN = 0.2, 0.05, 0.5
FLAT_BASIS, MUCH_OF_ONE, STILL_MOUTH, MANY_STILL = 0.8, 0.5, 0.04, 0.1
"""Shares (of clips, of variance, of the train split) and the mouth opening, widest in an example,
from which something is remarked upon."""


class Picture(NamedTuple):
    """A picture of the page."""

    name: str
    title: str
    meaning: str


PICTURES = (
    Picture(
        "contact_sheet.png",
        "Faces",
        "Middle frames, as many people as fit. Every one should be an upright face with the nose "
        "in the middle of the picture and the mouth inside.",
    ),
    Picture(
        "landmarks.png",
        "Landmarks",
        "From the most closed to the widest open mouth of an example. The yellow lines should lie "
        "on the lips, and the opening be that of the mouth.",
    ),
    Picture(
        "mouth_and_sound.png",
        "Mouth and sound",
        "Loudness above, mouth opening below. A closed mouth (p, b, m) should lie in a dip of the "
        "sound or just before its rise, and a mouth that talks should not lie in silence.",
    ),
    Picture(
        "sync.png",
        "Sync",
        "How late the sound is, by example. Most should be in the green band, which ends a frame "
        "and a half from 0; what is far off should be looked at and put right with audio_offset.",
    ),
    Picture(
        "distributions.png",
        "Poses, openings, lengths",
        "Yaw around 0; a few examples with a mouth that hardly opens are listeners.",
    ),
    Picture(
        "speakers.png",
        "Speakers",
        "Who talks how much. Blue is the train split, orange validation, green test.",
    ),
    Picture("rejects.png", "Left out", "Whole clips, and parts of clips that were kept."),
)


def look(data: Path, examples: int) -> list[Glimpse]:
    """Examples of each split, from all its shards: any are as good as any, for they are shuffled.

    Args:
        data: a data set.
        examples: of each split at most, about.

    Raises:
        InputError: there are none, or one is damaged.
    """
    shards = [
        (split, path, len(paths))
        for split in schema.SPLITS
        if (paths := _files(data, split))
        for path in paths
    ]
    if not shards:
        schema.data_files(data, "train")  # says what was looked for
    glimpses: list[Glimpse] = []
    whole: Counter[str] = Counter()
    met: set[str] = set()
    for split, path, count in tqdm(shards, desc="looking", unit="shard"):
        for record in itertools.islice(wire.read_records(path), -(-examples // count)):
            example = schema.deserialize(record)
            middle = example["frames"][len(example["frames"]) // 2]
            if example["speaker"] in met or whole[split] == SHOWN[split]:
                example["frames"] = []
            else:
                whole[split] += 1
            met.add(example["speaker"])
            # The arrays are views into the record, frames and all.
            kept = {
                name: np.array(v) if isinstance(v, np.ndarray) else v for name, v in example.items()
            }
            glimpses.append(Glimpse(split, kept, middle))
    return glimpses


def _files(data: Path, split: str) -> list[Path]:
    """The shards of a split; none where it is empty."""
    try:
        return schema.data_files(data, split)
    except InputError as error:
        if error.reason == "missing" and not list(
            schema.version_folder(data).glob(f"{schema.NAME}-{split}.*")
        ):
            return []
        raise


def inspect(data: Path, out: Path, examples: int) -> list[str]:
    """Draws the pictures of a data set and the page that shows them.

    Args:
        data: a data set.
        out: folder of the pictures.
        examples: to look at in each split, about.

    Returns:
        What is remarkable, in sentences.

    Raises:
        InputError: there is no data set, or it is damaged.
    """
    report = _read_report(data / "report.json")
    sync = _read_lines(data / "sync.jsonl")
    glimpses = look(data, examples)
    by_name = {line["clip_id"]: line for line in sync}
    whole = [glimpse for glimpse in glimpses if glimpse.example["frames"]]
    draw = {
        "speakers.png": lambda path: pictures.speakers(path, report),
        "rejects.png": lambda path: pictures.rejects(path, report),
        "contact_sheet.png": lambda path: pictures.contact_sheet(path, _varied(glimpses)[:SHEET]),
        "landmarks.png": lambda path: pictures.landmarks(path, whole),
        "mouth_and_sound.png": lambda path: pictures.mouth_and_sound(path, whole, by_name),
        "distributions.png": lambda path: pictures.distributions(path, glimpses),
    }
    if sync:
        draw["sync.png"] = lambda path: pictures.sync_distribution(path, sync)
    for name, picture in tqdm(draw.items(), desc="drawing", unit="picture"):
        picture(out / name)
    remarks = list(remarkable(report, glimpses))
    shown = [picture for picture in PICTURES if picture.name in draw]
    with written_whole(out / "index.html") as temporary:
        temporary.write_text(page(data, report, remarks, shown), encoding="utf-8")
    return remarks


def _varied(glimpses: Sequence[Glimpse]) -> list[Glimpse]:
    """The same with the first example of each speaker first, then the second of each."""
    turns: Counter[str] = Counter()
    ranked = []
    for index, glimpse in enumerate(glimpses):
        ranked.append((turns[glimpse.example["speaker"]], index, glimpse))
        turns[glimpse.example["speaker"]] += 1
    return [glimpse for *_, glimpse in sorted(ranked, key=lambda entry: entry[:2])]


def _read_report(path: Path) -> dict[str, Any]:
    """``report.json`` of a data set.

    Raises:
        InputError: it is not there or not one.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        for part in report["splits"].values():
            _ = part["clips"], part["seconds"], part["frames"], part["clips_by_speaker"]
        _ = report["rejects_by_reason"], report["dropped_frames_of_kept_clips"]
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there: --data is the --out of data_prep.build") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no report of a data set ({error}): build it again") from error
    return report


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of ``sync.jsonl``; none where a data set is older than that."""
    if not path.is_file():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            _ = line["clip_id"], line["split"], line["offset"], float(line["confidence"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): build the data set again") from error
    return lines


def remarkable(report: dict[str, Any], glimpses: Sequence[Glimpse]) -> Iterator[str]:
    """What a person should know first, in sentences."""
    splits = report["splits"]
    empty = [name for name, part in splits.items() if not part["clips"]]
    if empty:
        yield f"There are no clips in {' and '.join(empty)}."
    shared = report.get("speakers_in_several_splits", [])
    if shared:
        yield f"{len(shared)} speakers are in several splits: {', '.join(shared[:5])}."
    kept = sum(part["clips"] for part in splits.values())
    left_out = Counter(report["rejects_by_reason"])
    if left_out.total() > MANY_REJECTS * (kept + left_out.total()):
        reason, count = left_out.most_common(1)[0]
        yield (
            f"{left_out.total()} of {kept + left_out.total()} clips are left out, {count} of them "
            f"for {reason}: rejects.jsonl lists them."
        )
    by_speaker = Counter(splits["train"]["clips_by_speaker"])
    if len(by_speaker) > 1:
        name, count = by_speaker.most_common(1)[0]
        if count > MUCH_OF_ONE * by_speaker.total():
            yield f"{count} of {by_speaker.total()} train clips are of one speaker, {name}."
    yield from _remarkable_sync(report.get("sync"))
    shares = (report.get("basis") or {}).get("explained_variance_in_all")
    if shares is not None and shares < FLAT_BASIS:
        yield f"The basis holds {shares:.0%} of the variance of the landmarks, which is little."
    still = np.mean([np.quantile(glimpse.opening, 0.98) < STILL_MOUTH for glimpse in glimpses])
    if still > MANY_STILL:
        yield f"In {still:.0%} of the examples looked at the mouth hardly opens."


def _remarkable_sync(sync: dict[str, Any] | None) -> Iterator[str]:
    """What the report says of sync and a person should know."""
    if sync is None:
        yield "The report says nothing of sync: build the data set again to have it judged."
        return
    common = sync["common_offset"]
    if common is not None and abs(common) > 1 / audio.FRAME_RATE:
        yield (
            f"The sound of all clips together is {abs(common):.2f} s "
            f"{'late' if common > 0 else 'early'}."
        )
    known = sum(part["known"] for part in sync["splits"].values())
    judged = sum(part["examples"] for part in sync["splits"].values())
    if known < FEW_KNOWN * judged:
        yield f"Sync could be told of only {known} of {judged} examples."
    for name, part in sync["splits"].items():
        if part["known"] and part["beyond_three_frames"] > MANY_OFF:
            yield (
                f"In {part['beyond_three_frames']:.0%} of the {name} examples sound and picture "
                "are more than three frames apart: sync.jsonl lists them."
            )


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em; }
table { border-collapse: collapse; }
th, td { border: 1px solid #ccc; padding: .3em .6em; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; border: 1px solid #ddd; }
.remarks { background: #fff6e0; padding: .6em 1em .6em 2em; }
"""


def page(
    data: Path, report: dict[str, Any], remarks: Sequence[str], shown: Sequence[Picture]
) -> str:
    """``index.html``: needs no other file than the pictures."""
    escape = html.escape
    rows = [["split", "clips", "examples", "seconds", "speakers"]]
    rows += [
        [name, *(f"{part[key]:g}" for key in rows[0][1:])]
        for name, part in report["splits"].items()
    ]
    parts = [
        "<!doctype html>", '<html lang="en"><meta charset="utf-8">',
        f"<title>{escape(str(data))}</title><style>{_STYLE}</style>",
        f"<h1>{escape(str(data))}</h1>",
    ]  # fmt: skip
    if remarks:
        items = "".join(f"<li>{escape(remark)}</li>" for remark in remarks)
        parts.append(f'<ul class="remarks">{items}</ul>')
    else:
        parts.append("<p>Nothing stands out by its numbers; the pictures tell the rest.</p>")
    parts.append("<table>")
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        parts.append("<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>")
    parts.append("</table>")
    for picture in shown:
        parts.append(
            f"<h2>{escape(picture.title)}</h2><p>{escape(picture.meaning)}</p>"
            f'<img src="{picture.name}" alt="{escape(picture.title, quote=True)}">'
        )
    return "\n".join(parts) + "\n"


def main() -> None:
    """Reads the flags and runs."""
    parser = Parser(
        "python -m data_prep.inspect",
        "Draws pictures of a data set: faces, landmarks, mouth and sound, sync, poses, speakers, "
        "rejects. Open index.html in the folder that it makes.",
        "python -m data_prep.inspect --data=data/faces --out=data/pictures",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument(
        "--examples", type=int, default=600, help="examples of each split to look at (600)"
    )
    flags = parser.parse_args()
    if flags.examples < 1:
        parser.error(f"--examples must be more than 0, not {flags.examples}")
    began = time.monotonic()
    remarks = inspect(flags.data, flags.out, flags.examples)
    print(
        f"wrote {flags.out / 'index.html'}: {len(remarks)} remarks, in "
        f"{time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    run(main)
