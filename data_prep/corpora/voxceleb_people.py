"""Who is in which set of VoxCeleb, from its table of people, its folders, or by name."""

from pathlib import Path

from atvg_jax.errors import InputError
from data_prep.corpora.splits import split_by_speaker

SETS = ("dev", "test")


def splits(source: Path, table: str, people: set[tuple[Path, str]]) -> dict[str, str]:
    """The split of each person.

    Args:
        source: the corpus's folder; the table may be in it or in the one above.
        table: the name of the table's file.
        people: the folder of a set (or, without sets, the source) and a person in it.

    Raises:
        InputError: the table is there and not what it should be.
    """
    named = {person for _, person in people}
    sets = {}
    if len({root for root, _ in people}) > 1:
        sets = {person: root.name for root, person in sorted(people)}  # in both: held out
    sets |= _read_table(source, table)
    if not sets:
        return split_by_speaker(named)
    test = {person for person in named if sets.get(person) == "test"}
    return split_by_speaker(named - test, test=False) | dict.fromkeys(test, "test")


def _read_table(source: Path, name: str) -> dict[str, str]:
    """``{person: set}`` of the table; empty where there is none."""
    path = next((p / name for p in (source, source.parent) if (p / name).is_file()), None)
    if path is None:
        return {}
    try:
        head, *lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no text with a line a person: {error}") from error
    # VoxCeleb2's cells are set apart by commas and padded, VoxCeleb1's set apart by tabs.
    comma = "," if "," in head else "\t"
    names = [cell.strip().lower() for cell in head.split(comma)]
    person = next((n for n, cell in enumerate(names) if cell.startswith("voxceleb")), None)
    if person is None or "set" not in names:
        raise InputError(
            f"{path} has the columns {', '.join(names)}: VoxCeleb ID and Set are needed; "
            "get it again, or take it away to hold people out by a hash of their names"
        )
    kind = names.index("set")
    found = {}
    for number, line in enumerate(lines, start=2):
        cells = [cell.strip() for cell in line.split(comma)]
        if not line.strip():
            continue
        if len(cells) != len(names) or cells[kind] not in SETS:
            raise InputError(f"{path}, line {number}: {line.strip()!r} has no set dev or test")
        found[cells[person]] = cells[kind]
    return found
