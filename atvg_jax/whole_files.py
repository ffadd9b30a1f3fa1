"""Files that appear under their name only when they are whole."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from atvg_jax.errors import InputError


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary name in the same folder; in the end its file takes the place of ``path``.

    Folders are made. If the body fails, the temporary file goes and what was at ``path`` stays. The
    name ends as ``path`` does, for writers that go by the ending.

    Raises:
        InputError: ``unwritable`` if ``path`` is a folder or its folder cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file", reason="unwritable")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".part{path.suffix}", dir=path.parent
        )
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose another place",
            reason="unwritable",
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def folder_written_whole(path: str | os.PathLike[str], mark: str, kind: str) -> Iterator[Path]:
    """Gives a temporary folder beside ``path``; in the end it takes the place of ``path``.

    Args:
        path: the folder to make. One of its kind that is there already is replaced; anything else
            that is there is left alone.
        mark: the file that tells a folder of this kind.
        kind: what to call it, such as "a model directory".

    Raises:
        InputError: ``path`` is something else, or cannot be written.
    """
    path = Path(path)
    occupied = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if occupied and not (path / mark).is_file():
        raise InputError(f"{path} exists and is not {kind}; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        _replace_folder(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(source: Path, target: Path) -> None:
    # A folder cannot be renamed over one that is not empty: the old one steps aside first.
    if target.is_dir() and any(target.iterdir()):
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        os.replace(target, aside / "old")
        try:
            os.replace(source, target)
        except OSError:
            os.replace(aside / "old", target)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(source, target)
