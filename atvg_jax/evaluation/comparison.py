"""Several evaluations in one table: ablations, or checkpoints, on the same clips."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atvg_jax.errors import InputError
from atvg_jax.evaluation import report
from atvg_jax.evaluation.catalogue import METRICS
from atvg_jax.evaluation.judge import GROUND_TRUTH, STATIC_PORTRAIT
from atvg_jax.whole_files import written_whole

REFERENCES = (GROUND_TRUTH, STATIC_PORTRAIT)

_SAME_SSIM = 5e-6  # of the static portrait: what machines differ by, and no two sets of clips


def write(path: Path, folders: Mapping[str, Path]) -> int:
    """Writes a Markdown file: for every system a table with a line for each evaluation.

    Args:
        path: of the .md file.
        folders: evaluations (their ``--out``) by the name that they get in the table.

    Returns:
        How many tables.

    Raises:
        InputError: one is no evaluation, or they were not made on the same clips.
    """
    contents = {name: report.read(folder) for name, folder in folders.items()}
    _check_same_clips(contents, folders)
    lines = ["# " + ", ".join(contents), ""]
    tables = 0
    first = next(iter(contents.values()))
    for table, systems in first["tables"].items():
        for system in systems:
            if system in REFERENCES:
                continue
            own = {name: systems[name] for name in REFERENCES if name in systems}
            for name, content in contents.items():
                if system in content["tables"].get(table, {}):
                    own[name] = content["tables"][table][system]
            lines += [f"## {system} ({table})", "", *report.markdown_table(_rows(own)), ""]
            tables += 1
    lines += [report.ABOUT, ""]
    with written_whole(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    return tables


def _rows(systems: Mapping[str, Any]) -> list[list[str]]:
    names = [n for n in METRICS if any(n in own["metrics"] for own in systems.values())]
    table = [["", *(report.heading(name) for name in names), "best lag (frames)"]]
    for system, own in systems.items():
        cells = [_cell(name, own["metrics"].get(name)) for name in names]
        lag = own["best_lag"]
        table.append([system, *cells, "–" if lag is None else f"{lag:.0f}"])
    return table


def _cell(name: str, value: Mapping[str, float] | None) -> str:
    if value is None or value["mean"] is None:
        return "–"
    decimals = METRICS[name].decimals
    text = f"{value['mean']:.{decimals}f}"
    if value["low"] is not None:
        text += f" [{value['low']:.{decimals}f}, {value['high']:.{decimals}f}]"
    return text


def _check_same_clips(contents: Mapping[str, Any], folders: Mapping[str, Path]) -> None:
    """What the static portrait scores depends on the clips alone, so it must be the same."""
    expected: tuple[float, int] | None = None
    for name, content in contents.items():
        try:
            still = content["tables"]["frames"][STATIC_PORTRAIT]
            own = float(still["metrics"]["ssim_gaussian"]["mean"]), int(still["frames"])
        except (KeyError, TypeError) as error:
            raise InputError(f"{folders[name]} is no evaluation of this layout") from error
        expected = expected or own
        if own[1] != expected[1] or not math.isclose(own[0], expected[0], abs_tol=_SAME_SSIM):
            raise InputError(
                f"{folders[name]} was not made on the same clips as "
                f"{next(iter(folders.values()))}; evaluate both with the same --data and --split"
            )
