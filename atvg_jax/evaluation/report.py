"""What an evaluation leaves on disk: JSON, CSV, a Markdown table and an HTML page with videos.

OUT/scores.json    settings, every system's means with confidence intervals, what failed
OUT/scores.md      the same as tables
OUT/clips.csv      every clip's values
OUT/frames.csv     single frames, for figures
OUT/index.html     tables and videos, side by side
OUT/videos/        what the page shows
"""

import csv
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atvg_jax.errors import InputError
from atvg_jax.evaluation import protocol, side_by_side
from atvg_jax.evaluation.catalogue import METRICS
from atvg_jax.evaluation.judge import Scores
from atvg_jax.evaluation.protocol import Estimate, Problem, Summary
from atvg_jax.whole_files import written_whole

LAYOUT_VERSION = 1
SCORES_FILE, CLIPS_FILE, FRAMES_FILE = "scores.json", "clips.csv", "frames.csv"
MARKDOWN_FILE, PAGE_FILE, VIDEOS_FOLDER = "scores.md", "index.html", "videos"
FRAME_COLUMNS = (
    "psnr", "ssim_gaussian", "landmark_distance_mouth", "landmarks_moved", "head_turned",
)  # fmt: skip
ABOUT = (
    "Means over people of their mean over clips (over clips where people are unknown), and in "
    "brackets the 95 % interval of a bootstrap over people and their clips."
)


@dataclass(frozen=True)
class Table:
    """Scores that belong together.

    Attributes:
        name: key in ``scores.json``: ``frames`` or ``landmarks``.
        title: heading.
        scores: of every system and clip.
        of_all: by system and metric, what is measured of all clips together.
    """

    name: str
    title: str
    scores: Sequence[Scores]
    of_all: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A finished evaluation.

    Attributes:
        title: heading.
        settings: what was evaluated and how, for whoever repeats it.
        tables: of scores.
        problems: clips that are in no mean.
        videos: by clip, its file in ``OUT/videos``.
    """

    title: str
    settings: Mapping[str, Any]
    tables: Sequence[Table]
    problems: Sequence[Problem]
    videos: Mapping[str, str]


def write(folder: Path, report: Report) -> dict[str, dict[str, Summary]]:
    """Writes all files; returns the summaries by table."""
    summaries = {
        table.name: protocol.summarise(table.scores, table.of_all) for table in report.tables
    }
    content = {
        "layout_version": LAYOUT_VERSION,
        "title": report.title,
        "settings": dict(report.settings),
        "tables": {name: protocol.as_numbers(own) for name, own in summaries.items()},
        "problems": [vars(problem) for problem in report.problems],
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    _write(folder / SCORES_FILE, text)
    _write(folder / MARKDOWN_FILE, markdown(report, summaries))
    _write(folder / PAGE_FILE, page(report, summaries))
    with written_whole(folder / CLIPS_FILE) as path, path.open("w", newline="") as file:
        csv.writer(file).writerows(clip_rows(report.tables))
    with written_whole(folder / FRAMES_FILE) as path, path.open("w", newline="") as file:
        csv.writer(file).writerows(frame_rows(report.tables))
    return summaries


def _write(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def clip_rows(tables: Iterable[Table]) -> Iterable[list[Any]]:
    """``clips.csv``: heading, then one row for each system and clip; empty where NaN."""
    tables = list(tables)
    names = [n for n in METRICS if any(n in s.values for table in tables for s in table.scores)]
    yield ["table", "system", "clip_id", "speaker", "frames", *names]
    for table in tables:
        for one in table.scores:
            values = [_number(one.values.get(name, math.nan)) for name in names]
            yield [table.name, one.system, one.clip_id, one.speaker, one.frames, *values]


def frame_rows(tables: Iterable[Table]) -> Iterable[list[Any]]:
    """``frames.csv``: heading, then one row for each scored frame of each system."""
    yield ["system", "clip_id", "frame", *FRAME_COLUMNS]
    for table in tables:
        for one in table.scores:
            if "frame" not in one.by_frame:
                continue
            for number, frame in enumerate(one.by_frame["frame"]):
                values = [
                    _number(float(one.by_frame[name][number])) if name in one.by_frame else ""
                    for name in FRAME_COLUMNS
                ]
                yield [one.system, one.clip_id, int(frame), *values]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def heading(name: str) -> str:
    """A metric's column heading, with its unit and an arrow to where better is."""
    metric = METRICS[name]
    arrow = {"higher": " ↑", "lower": " ↓"}.get(metric.better, "")
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"{metric.title}{unit}{arrow}"


def rows(summary: Mapping[str, Summary], intervals: bool = True) -> list[list[str]]:
    """A table of summaries, heading first: a line for each metric, a column for each system."""
    table = [["", *summary], ["clips", *(str(own.clips) for own in summary.values())]]
    for name in _shown([summary]):
        estimates = [own.estimates.get(name) for own in summary.values()]
        table.append([heading(name), *(cell(name, value, intervals) for value in estimates)])
        if name == "mouth_lag":
            lags = [own.best_lag for own in summary.values()]
            shown = ["–" if math.isnan(lag) else f"{lag:.0f}" for lag in lags]
            table.append(["best lag over all clips (frames)", *shown])
    return table


def cell(name: str, value: Estimate | None, interval: bool = True) -> str:
    """A metric's mean, with its 95 % interval in brackets."""
    if value is None or math.isnan(value.mean):
        return "–"
    decimals = METRICS[name].decimals
    text = f"{value.mean:.{decimals}f}"
    if interval and not math.isnan(value.low):
        text += f" [{value.low:.{decimals}f}, {value.high:.{decimals}f}]"
    return text


def markdown(report: Report, summaries: Mapping[str, Mapping[str, Summary]]) -> str:
    """``scores.md``."""
    lines = [f"# {report.title}", ""]
    for table in report.tables:
        lines += [f"## {table.title}", "", *markdown_table(rows(summaries[table.name])), ""]
    lines += [
        ABOUT,
        "",
        *(f"- {heading(n)}: {METRICS[n].meaning}" for n in _shown(summaries.values())),
        "",
    ]
    if report.problems:
        lines += ["## Not scored, and in no mean", ""]
        lines += [f"- {p.clip_id} ({p.reason}): {p.message}" for p in report.problems] + [""]
    return "\n".join(lines)


def markdown_table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, heading first."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    return [lines[0], "|" + " --- |" * len(cells[0]), *lines[1:]]


def plain_table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table for a terminal, in columns."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return [
        "  ".join(
            text.rjust(width) if column else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]


def _shown(summaries: Iterable[Mapping[str, Summary]]) -> list[str]:
    every = [own for summary in summaries for own in summary.values()]
    return [name for name in METRICS if any(name in own.estimates for own in every)]


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1400px; padding: 0 1em; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid #ccc; padding: .3em .6em; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.clips { display: flex; flex-wrap: wrap; gap: 1em; }
figure { margin: 0; } video { display: block; max-width: 100%; background: #101014; }
"""


def page(report: Report, summaries: Mapping[str, Mapping[str, Summary]]) -> str:
    """``index.html``: needs no other file than the videos, and nothing from elsewhere."""
    escape = html.escape
    parts = [
        "<!doctype html>", '<html lang="en"><meta charset="utf-8">',
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(report.title)}</h1>",
    ]  # fmt: skip
    for table in report.tables:
        parts.append(f"<h2>{escape(table.title)}</h2><table>")
        for number, row in enumerate(rows(summaries[table.name])):
            tag = "td" if number else "th"
            parts.append("<tr>" + "".join(f"<{tag}>{escape(c)}</{tag}>" for c in row) + "</tr>")
        parts.append("</table>")
    parts.append(f"<p>{ABOUT}</p><ul>")
    parts += [
        f"<li>{escape(heading(name))}: {escape(METRICS[name].meaning)}</li>"
        for name in _shown(summaries.values())
    ]
    parts.append("</ul>")
    if report.problems:
        parts.append("<h2>Not scored, and in no mean</h2><ul>")
        parts += [
            f"<li>{escape(f'{p.clip_id} ({p.reason}): {p.message}')}</li>" for p in report.problems
        ]
        parts.append("</ul>")
    if report.videos:
        parts.append('<h2>Clips</h2><div class="clips">')
        for clip_id, name in report.videos.items():
            source = escape(f"{VIDEOS_FOLDER}/{name}", quote=True)
            parts.append(
                f'<figure><video src="{source}" controls loop preload="metadata"></video>'
                f"<figcaption>{escape(clip_id)}</figcaption></figure>"
            )
        parts.append("</div>")
    return "\n".join(parts) + "\n"


def videos_in(folder: Path | None, clip_ids: Iterable[str]) -> dict[str, str]:
    """By clip, the file of its video, for those that have one in ``folder``."""
    if folder is None:
        return {}
    names = {clip_id: side_by_side.file_name(clip_id) for clip_id in clip_ids}
    return {clip_id: name for clip_id, name in names.items() if (folder / name).is_file()}


def read(folder: Path) -> dict[str, Any]:
    """``scores.json`` of an evaluation.

    Raises:
        InputError: it is not there, or of another layout.
    """
    path = folder / SCORES_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["layout_version"]
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds no evaluation ({SCORES_FILE} is missing); give the --out of one"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no evaluation's ({error}); make it again") from error
    if version != LAYOUT_VERSION:
        raise InputError(f"{path} has layout {version}, not {LAYOUT_VERSION}; make it again")
    return content
