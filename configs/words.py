"""The words after the colon of ``--config=configs/NETWORK.py:WORD,WORD``: small changes."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from atvg_jax.errors import InputError

Change = Callable[[ConfigDict], None]


def apply(config: ConfigDict, words: str | None, changes: Mapping[str, Change]) -> ConfigDict:
    """Applies the named changes, in the order in which ``changes`` has them, and locks the config.

    Args:
        config: the complete base config.
        words: comma-separated names, or nothing.
        changes: what each name does.

    Raises:
        InputError: a word that means nothing here.
    """
    wanted = [word.strip() for word in (words or "").split(",") if word.strip()]
    for word in wanted:
        if word not in changes:
            raise InputError(
                f"configs/{config.network}.py knows no {word!r} after the colon: "
                f"it knows {', '.join(changes)}"
            )
    for name, change in changes.items():
        if name in wanted:
            change(config)
    return config.lock()
