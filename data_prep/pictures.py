"""Pictures of a data set for a person to judge it by. Matplotlib is imported where one is drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from atvg_jax.data.schema import CONTEXT_ROWS, SPLITS
from atvg_jax.errors import InputError
from atvg_jax.features import audio, drawing, images
from atvg_jax.features.landmarks import mouth_opening
from atvg_jax.whole_files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"train": "#3b6fa5", "validation": "#e08a2b", "test": "#4c9a57"}
REASON_COLOURS = (
    "#c44e52", "#8172b2", "#ccb974", "#64b5cd", "#937860", "#da8bc3", "#8c8c8c", "#55a868",
    "#dd8452", "#4c72b0",
)  # fmt: skip
KEPT_COLOUR = "#dfe5ea"
FACE_LINE, LIP_LINE = "#7fe0ff", "#ffd24a"

NAMED_SPEAKERS = 40
"""More are drawn as a curve."""

SHEET_COLUMNS = 12
LONGEST_SHOWN = 5.0
"""Seconds."""

DPI = 100


class Glimpse(NamedTuple):
    """What is kept of an example to draw it.

    Attributes:
        split: that it is in.
        example: of ``schema.deserialize``; ``frames`` is empty where only ``middle`` is drawn.
        middle: JPEG file of its middle frame.
    """

    split: str
    example: dict[str, Any]
    middle: bytes

    @property
    def opening(self) -> npt.NDArray[np.float32]:
        """(T,) mouth opening, see ``landmarks.mouth_opening``."""
        return mouth_opening(self.example["aligned_landmarks"])


def _figure(width: float, height: float) -> "Figure":
    """An empty picture; inches.

    Raises:
        InputError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise InputError(
            "pictures need the package matplotlib: install it with pip install -r requirements.txt"
        ) from error
    layout = ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.1)
    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def _save(figure: "Figure", path: Path) -> None:
    with written_whole(path) as temporary:
        figure.savefig(temporary)


def _plain(text: str, longest: int = 26) -> str:
    """Text as the font has it, with its end cut off: clip ids end in what tells them apart."""
    readable = text.encode("latin-1", "replace").decode("latin-1")
    return readable if len(readable) <= longest else "\u2026" + readable[1 - longest :]


def _tidy(axes: "Axes") -> None:
    """Less ink: no frame on top and to the right."""
    axes.spines[["top", "right"]].set_visible(False)


def speakers(path: Path, report: dict[str, Any]) -> None:
    """Seconds of each split, and clips of each speaker.

    Args:
        path: of the PNG file.
        report: ``report.json``.
    """
    splits = {name: part for name, part in report["splits"].items() if part["clips"]}
    people = sorted(
        ((count, name, split) for split, part in splits.items()
         for name, count in part["clips_by_speaker"].items()),
        key=lambda entry: (-entry[0], entry[1]),
    )  # fmt: skip
    named = len(people) <= NAMED_SPEAKERS
    figure = _figure(12, 2.2 + (0.2 * len(people) if named else 4))
    top, bottom = figure.subplots(
        2, 1, height_ratios=[1, max(2, 0.14 * len(people)) if named else 3]
    )
    names = list(splits)
    seconds = [splits[name]["seconds"] for name in names]
    top.barh(names, seconds, color=[COLOURS[name] for name in names])
    for index, name in enumerate(names):
        part = splits[name]
        text = f" {part['seconds']:.0f} s, {part['clips']} clips, {part['speakers']} speakers"
        top.text(seconds[index], index, text, va="center")
    top.set_xlim(0, 1.35 * max(seconds))
    top.invert_yaxis()
    top.set_title("Seconds of talking faces", loc="left")
    counts = [count for count, *_ in people]
    colours = [COLOURS[split] for *_, split in people]
    if named:
        bottom.barh(range(len(people)), counts, color=colours)
        bottom.set_yticks(
            range(len(people)), [_plain(name, 34) for _, name, _ in people], fontsize=8
        )
        bottom.invert_yaxis()
        bottom.set_ylim(len(people) - 0.4, -0.6)
    else:
        bottom.bar(range(len(people)), counts, width=1.0, color=colours)
        bottom.set_xlabel(f"{len(people)} speakers, the one with most clips first")
    if counts[0] > 20 * counts[-1]:
        (bottom.set_xscale if named else bottom.set_yscale)("log")
        (bottom.xaxis if named else bottom.yaxis).set_major_formatter("{x:g}")
    bottom.set_title("Clips of each speaker", loc="left")
    for axes in (top, bottom):
        _tidy(axes)
    _save(figure, path)


def rejects(path: Path, report: dict[str, Any]) -> None:
    """Why clips, and frames of kept clips, are not in the data set.

    Args:
        path: of the PNG file.
        report: ``report.json``.
    """
    kept = sum(part["clips"] for part in report["splits"].values())
    frames = sum(part["frames"] for part in report["splits"].values())
    figure = _figure(12, 4.6)
    parts = (
        ("Clips", kept, report["rejects_by_reason"]),
        ("Frames of kept clips", frames, report["dropped_frames_of_kept_clips"]),
    )
    reasons = sorted({reason for _, _, counts in parts for reason in counts})
    palette = {
        reason: REASON_COLOURS[index % len(REASON_COLOURS)] for index, reason in enumerate(reasons)
    }
    for axes, (title, good, counts) in zip(figure.subplots(1, 2), parts, strict=True):
        whole = good + sum(counts.values())
        shares = [("kept", good, KEPT_COLOUR)]
        shares += [
            (reason, count, palette[reason])
            for reason, count in sorted(counts.items(), key=lambda item: -item[1])
        ]
        wedges, *_ = axes.pie(
            [count for _, count, _ in shares],
            colors=[colour for *_, colour in shares],
            startangle=90,
            counterclock=False,
            wedgeprops={"edgecolor": "white", "linewidth": 1},
        )
        labels = [f"{name}: {count} ({count / whole:.1%})" for name, count, _ in shares]
        axes.legend(wedges, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        axes.set_title(title)
    _save(figure, path)


def contact_sheet(path: Path, glimpses: Sequence[Glimpse]) -> None:
    """The middle frames of examples, framed in the colour of their split."""
    columns = min(SHEET_COLUMNS, len(glimpses))
    rows = -(-len(glimpses) // columns)
    figure = _figure(1.25 * columns, 1.45 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for axes, glimpse in zip(grid, glimpses, strict=False):
        axes.imshow(images.decode_jpeg(glimpse.middle))
        axes.spines[:].set(visible=True, color=COLOURS[glimpse.split], linewidth=3)
        axes.set_title(_plain(glimpse.example["clip_id"], 17), fontsize=7, parse_math=False)
    figure.suptitle(_legend({glimpse.split for glimpse in glimpses}), fontsize=9)
    _save(figure, path)


def _legend(splits: set[str]) -> str:
    names = {"train": "blue", "validation": "orange", "test": "green"}
    return "frame: " + ", ".join(f"{names[split]} {split}" for split in SPLITS if split in splits)


def landmarks(path: Path, glimpses: Sequence[Glimpse]) -> None:
    """The points over frames from the most closed to the widest open mouth of each example."""
    shown = (0.0, 0.33, 0.67, 1.0)
    across = min(2, len(glimpses))
    rows = -(-len(glimpses) // across)
    figure = _figure(8.2 * across, 2.5 * rows)
    parts = figure.subfigures(rows, across, squeeze=False, wspace=0.03).ravel()
    for part, glimpse in zip(parts, glimpses, strict=False):
        row = part.subplots(1, len(shown))
        opening = glimpse.opening
        order = np.argsort(opening)
        for axes, place in zip(row, shown, strict=True):
            axes.axis("off")
            frame = order[round(place * (len(order) - 1))]
            axes.imshow(images.decode_jpeg(glimpse.example["frames"][frame]))
            points = glimpse.example["aligned_landmarks"][frame]
            for lines, colour in ((drawing.FACE, FACE_LINE), (drawing.LIPS, LIP_LINE)):
                for first, last, closes in lines:
                    line = points[first : last + 1]
                    line = np.concatenate([line, line[:1]]) if closes else line
                    axes.plot(line[:, 0], line[:, 1], color=colour, linewidth=1)
            axes.set(xlim=(-0.5, 127.5), ylim=(127.5, -0.5))
            axes.set_title(f"frame {frame}: open {opening[frame]:.2f}", fontsize=8)
        row[0].text(
            2, 124, _plain(glimpse.example["clip_id"]), fontsize=8, color="white", parse_math=False,
            bbox={"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0},
        )  # fmt: skip
    _save(figure, path)


def mouth_and_sound(
    path: Path, glimpses: Sequence[Glimpse], sync: dict[str, dict[str, Any]]
) -> None:
    """Loudness as a waveform looks, and below it the mouth's opening.

    Args:
        path: of the PNG file.
        glimpses: of examples.
        sync: lines of ``sync.jsonl`` by clip id.
    """
    longest = max(len(glimpse.opening) for glimpse in glimpses) / audio.FRAME_RATE
    figure = _figure(14, 1.9 * len(glimpses) + 0.3)
    for axes, glimpse in zip(
        figure.subplots(len(glimpses), 1, squeeze=False).ravel(), glimpses, strict=True
    ):
        example = glimpse.example
        opening = glimpse.opening
        frames = min(len(opening), round(LONGEST_SHOWN * audio.FRAME_RATE))
        own = slice(CONTEXT_ROWS // 2, CONTEXT_ROWS // 2 + 4 * frames)
        # Coefficient 0 is the logarithm of the energy, whose root is the amplitude.
        level = np.exp(np.asarray(example["mfcc"], dtype=np.float64)[:, 0] / 2)
        amplitude = level[own] / max(level.max(), 1e-30)
        seconds = (np.arange(len(amplitude)) + 1.25) / (4 * audio.FRAME_RATE)
        axes.fill_between(seconds, 1 + amplitude, 1 - amplitude, color="#9aa7b3", linewidth=0)
        span = max(float(opening.max()), 0.05)
        picture_times = (np.arange(frames) + 0.5) / audio.FRAME_RATE
        height = -1.15 + opening[:frames] / span
        axes.fill_between(
            picture_times, -1.15, height, color=COLOURS[glimpse.split], alpha=0.3, linewidth=0
        )
        axes.plot(picture_times, height, color=COLOURS[glimpse.split], linewidth=1.5)
        axes.set(xlim=(0, min(longest, LONGEST_SHOWN)), ylim=(-1.2, 2.05))
        axes.set_yticks([1.0, -0.65], ["sound", f"mouth\n0 to {span:.2f}"], fontsize=8)
        title = f"{_plain(example['clip_id'], 40)} ({glimpse.split})"
        title += _offset_words(sync.get(example["clip_id"]))
        if example["text"]:
            title += f': "{_plain(example["text"], 60)}"'
        axes.set_title(title, loc="left", fontsize=9, parse_math=False)
        axes.set_xticks(np.arange(0, min(longest, LONGEST_SHOWN) + 0.01, 0.2))
        axes.grid(axis="x", alpha=0.4)
        axes.tick_params(labelsize=8)
        _tidy(axes)
    axes.set_xlabel("seconds")
    _save(figure, path)


def _offset_words(line: dict[str, Any] | None) -> str:
    """What is known of an example's offset."""
    if line is None:
        return ""
    if line["offset"] is None:
        return ", offset unknown"
    return f", sound {abs(line['offset']):.2f} s {'late' if line['offset'] > 0 else 'early'}"


def sync_distribution(path: Path, sync: Sequence[dict[str, Any]]) -> None:
    """How late sound is in each split, and how sure that is.

    Args:
        path: of the PNG file.
        sync: the lines of ``sync.jsonl``.
    """
    figure = _figure(12, 4)
    left, right = figure.subplots(1, 2)
    known = [line for line in sync if line["offset"] is not None]
    edges = (np.arange(-13, 14) - 0.5) / audio.FRAME_RATE
    by_split = {
        split: [line["offset"] for line in known if line["split"] == split] for split in SPLITS
    }
    by_split = {split: offsets for split, offsets in by_split.items() if offsets}
    if by_split:
        left.hist(
            list(by_split.values()),
            bins=list(edges),
            stacked=True,
            color=[COLOURS[split] for split in by_split],
            label=[f"{split}: {len(offsets)} known" for split, offsets in by_split.items()],
        )
        left.legend(frameon=False, fontsize=9)
    left.axvspan(-1.5 / audio.FRAME_RATE, 1.5 / audio.FRAME_RATE, color="#4c9a57", alpha=0.12)
    left.set(xlabel="seconds that sound is late (a bar is a frame)", ylabel="examples")
    left.set_title("Offset, where known", loc="left")
    right.hist([line["confidence"] for line in sync], bins=np.linspace(0, 1, 21), color="#9aa7b3")
    right.axvline(0.7, color="#c44e52", linewidth=1)
    right.set(xlabel="confidence", ylabel="examples")
    right.set_title("How sure (unknown left of the line)", loc="left")
    for axes in (left, right):
        _tidy(axes)
    _save(figure, path)


def distributions(path: Path, glimpses: Sequence[Glimpse]) -> None:
    """Head pose, mouth opening and length of the examples looked at."""
    figure = _figure(14, 3.4)
    panels: list[tuple[str, Any]] = [
        ("yaw, degrees (median)", lambda g: float(np.median(g.example["pose"][:, 0]))),
        ("pitch", lambda g: float(np.median(g.example["pose"][:, 1]))),
        ("roll", lambda g: float(np.median(g.example["pose"][:, 2]))),
        ("mouth opening, widest", lambda g: float(np.quantile(g.opening, 0.98))),
        ("length, seconds", lambda g: len(g.opening) / audio.FRAME_RATE),
    ]
    for axes, (title, measure) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        by_split = {split: [measure(g) for g in glimpses if g.split == split] for split in SPLITS}
        by_split = {split: values for split, values in by_split.items() if values}
        axes.hist(
            list(by_split.values()), bins=24, stacked=True,
            color=[COLOURS[split] for split in by_split], label=list(by_split),
        )  # fmt: skip
        axes.set_title(title, loc="left", fontsize=10)
        axes.tick_params(labelsize=8)
        _tidy(axes)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)
