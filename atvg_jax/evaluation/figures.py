"""The paper's figures, from arrays and from the files that an evaluation leaves.

matplotlib is imported at the point of use: scoring does without it.
"""

import csv
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atvg_jax.errors import InputError
from atvg_jax.evaluation import report
from atvg_jax.evaluation.judge import GROUND_TRUTH
from atvg_jax.whole_files import written_whole

Frames = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]

SUFFIXES = (".png", ".pdf", ".svg")
BINS = 8
FEWEST_IN_BIN = 10
"""Frames below which a bin's mean is not drawn; the count still is in the table."""

DISTANCES = {
    "landmarks_moved": "landmarks: mean distance from the portrait's (px)",
    "head_turned": "head: yaw and pitch away from the portrait's (degrees)",
}
QUALITIES = ("ssim_gaussian", "psnr")


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "figures need matplotlib: pip install matplotlib", reason="missing_package"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out={path}: a figure ends in {', '.join(SUFFIXES)}")
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=200)


def spread_out(count: int, columns: int) -> list[int]:
    """Numbers of ``columns`` of ``count`` frames, evenly spread, each in the middle of its part."""
    taken = (np.arange(columns) + 0.5) * count / columns
    return sorted({min(int(number), count - 1) for number in taken})


def _draw_sound(axis: Any, waveform: FloatArray, rate: float, times: Sequence[float]) -> None:
    seconds = np.arange(len(waveform)) / rate
    axis.plot(seconds, waveform, color="0.35", linewidth=0.4)
    for time in times:
        axis.axvline(time, color="tab:red", linewidth=0.8)
    axis.set_xlim(0, max(seconds[-1], 1 / 25))
    axis.set_yticks([])
    axis.set_xlabel("seconds", fontsize=8)
    axis.tick_params(labelsize=8)


def _draw_rows(
    figure: Any, grid: Any, rows: Mapping[str, Sequence[Frames]], titles: Sequence[str]
) -> None:
    columns = max(len(pictures) for pictures in rows.values())
    axes = figure.add_subfigure(grid).subplots(len(rows), columns, squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture, interpolation="bilinear")
            axis.set_xticks([])
            axis.set_yticks([])
        # A row is about 15 letters high: longer names go on in another line.
        line[0].set_ylabel(textwrap.fill(name.replace("_", " "), 15), fontsize=9)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)


def how_frames_come_about(
    path: Path,
    waveform: npt.ArrayLike,
    sample_rate: float,
    rows: Mapping[str, Sequence[Frames]],
    numbers: Sequence[int],
    frame_rate: float = 25.0,
) -> None:
    """Fig. 2: the sound, and under it what was made at some moments.

    Args:
        path: of the figure, .png, .pdf or .svg.
        waveform: (N,) the sound.
        sample_rate: Hz.
        rows: by name, one (h, w, 3) uint8 picture for each moment: attention, motion, frames ...
        numbers: of the frames shown.
        frame_rate: Hz.
    """
    times = [number / frame_rate for number in numbers]
    figure = _figure(1.3 * len(numbers) + 0.4, 1.3 * len(rows) + 1.2)
    grid = figure.add_gridspec(2, 1, height_ratios=[0.7, len(rows)])
    _draw_sound(figure.add_subplot(grid[0]), np.asarray(waveform), sample_rate, times)
    _draw_rows(figure, grid[1], rows, [f"{time:.2f} s" for time in times])
    _save(figure, path)


def one_sentence(
    path: Path,
    waveform: npt.ArrayLike,
    sample_rate: float,
    people: Mapping[str, tuple[Frames, Sequence[Frames]]],
    numbers: Sequence[int],
    frame_rate: float = 25.0,
) -> None:
    """Fig. 6: many faces say one sentence.

    Args:
        path: of the figure, .png, .pdf or .svg.
        waveform: (N,) the sound.
        sample_rate: Hz.
        people: by name, the aligned portrait and its frames at the moments.
        numbers: of the frames shown.
        frame_rate: Hz.
    """
    times = [number / frame_rate for number in numbers]
    rows = {name: [portrait, *frames] for name, (portrait, frames) in people.items()}
    figure = _figure(1.3 * (len(numbers) + 1) + 0.4, 1.3 * len(rows) + 1.2)
    grid = figure.add_gridspec(2, 1, height_ratios=[0.7, len(rows)])
    _draw_sound(figure.add_subplot(grid[0]), np.asarray(waveform), sample_rate, times)
    _draw_rows(figure, grid[1], rows, ["portrait", *(f"{time:.2f} s" for time in times)])
    _save(figure, path)


@dataclass(frozen=True)
class Bin:
    """Frames that are about as far from the portrait.

    Attributes:
        system: whose.
        distance: by what.
        low: from here,
        high: to here; the last bin holds all beyond it too.
        frames: how many.
        means: by quality, the mean; NaN where there are no frames.
        errors: by quality, the standard error of the mean, clips taken as the independent units.
    """

    system: str
    distance: str
    low: float
    high: float
    frames: int
    means: dict[str, float]
    errors: dict[str, float]


def read_frames(path: Path) -> dict[str, dict[str, Any]]:
    """``frames.csv`` by system: columns of numbers, and ``clip_id``.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    columns = (*DISTANCES, *QUALITIES)
    systems: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                own = systems[row["system"]]
                own["clip_id"].append(row["clip_id"])
                for name in columns:
                    own[name].append(float(row[name]))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not the frames of an evaluation ({error})") from error
    if not systems:
        raise InputError(f"{path} holds no frames")
    return {
        name: {key: np.asarray(values) for key, values in own.items()}
        for name, own in systems.items()
    }


def binned(systems: Mapping[str, Mapping[str, Any]]) -> list[Bin]:
    """Quality against how far the true frame is from the portrait.

    Bins are equally wide, up to the distance that 99 % of all frames stay below.
    """
    bins = []
    for distance in DISTANCES:
        every = np.concatenate([own[distance] for own in systems.values()])
        top = float(np.quantile(every, 0.99))
        edges = np.linspace(0, top if top > 0 else 1.0, BINS + 1)
        for system, own in systems.items():
            places = np.clip(np.searchsorted(edges, own[distance], side="right") - 1, 0, BINS - 1)
            for place in range(BINS):
                taken = places == place
                clips = own["clip_id"][taken]
                values = {name: _mean_and_error(own[name][taken], clips) for name in QUALITIES}
                bins.append(
                    Bin(
                        system,
                        distance,
                        float(edges[place]),
                        float(edges[place + 1]),
                        int(np.count_nonzero(taken)),
                        {quality: value[0] for quality, value in values.items()},
                        {quality: value[1] for quality, value in values.items()},
                    )
                )
    return bins


def _mean_and_error(values: FloatArray, clips: npt.NDArray[Any]) -> tuple[float, float]:
    """Mean of frames, and its standard error where frames of one clip go together."""
    if not len(values):
        return float("nan"), float("nan")
    mean = float(values.mean())
    _, members = np.unique(clips, return_inverse=True)
    count = members.max() + 1
    if count < 2:
        return mean, float("nan")
    # Cluster-robust: deviations are summed within a clip before they are squared.
    sums = np.bincount(members, values - mean)
    return mean, float(np.sqrt(count / (count - 1) * np.square(sums).sum()) / len(values))


def quality_against_distance(path: Path, folder: Path) -> Path:
    """Fig. 5: quality of frames against how far they are from the portrait, in landmarks and pose.

    Args:
        path: of the figure, .png, .pdf or .svg; the bins go beside it as .csv.
        folder: an evaluation.

    Returns:
        Where the bins went.

    Raises:
        InputError: there is no evaluation.
    """
    systems = read_frames(folder / report.FRAMES_FILE)
    systems.pop(GROUND_TRUTH, None)  # equal to itself at any distance
    bins = binned(systems)
    figure = _figure(9, 7)
    axes = figure.subplots(
        3, len(DISTANCES), sharex="col", gridspec_kw={"height_ratios": [2, 2, 1]}
    )
    for column, (distance, label) in zip(axes.T, DISTANCES.items(), strict=True):
        for number, system in enumerate(systems):
            own = [b for b in bins if b.distance == distance and b.system == system]
            shown = [b for b in own if b.frames >= FEWEST_IN_BIN]
            # A hair beside each other, so that no interval hides another.
            share = 0.5 + 0.06 * (number - (len(systems) - 1) / 2)
            places = [b.low + share * (b.high - b.low) for b in shown]
            for axis, quality in zip(column, QUALITIES, strict=False):
                axis.errorbar(
                    places,
                    [b.means[quality] for b in shown],
                    [1.96 * b.errors[quality] for b in shown],
                    marker="o", markersize=4, capsize=2, linewidth=1.2, label=system,
                )  # fmt: skip
                axis.set_ylabel(report.heading(quality))
        # The true frames are the same for every system.
        column[-1].bar(
            [b.low for b in own], [b.frames for b in own], [b.high - b.low for b in own],
            align="edge", color="0.8", edgecolor="0.5",
        )  # fmt: skip
        column[-1].bar_label(column[-1].containers[0], fontsize=7)
        column[-1].margins(y=0.2)
        column[-1].set_ylabel("frames")
        column[-1].set_xlabel(label)
    axes[0, 0].legend(fontsize=8)
    _save(figure, path)
    table = path.with_suffix(".csv")
    with written_whole(table) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file)
        names = [f"{q}{kind}" for q in QUALITIES for kind in ("", "_error")]
        rows.writerow(["system", "distance", "low", "high", "frames", *names])
        for b in bins:
            values = [v for q in QUALITIES for v in (b.means[q], b.errors[q])]
            cells = ["" if np.isnan(v) else f"{v:.6g}" for v in values]
            place = [f"{b.low:.6g}", f"{b.high:.6g}"]
            rows.writerow([b.system, b.distance, *place, b.frames, *cells])
    return table
