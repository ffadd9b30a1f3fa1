"""What every command line of this project shares: one-line errors, exit status 2, quiet Ctrl-C."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from atvg_jax.errors import InputError

USAGE_STATUS = 2


def fail(message: str) -> NoReturn:
    """Prints ``message`` as one line on standard error and exits with status 2."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(USAGE_STATUS)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and which shows an example under ``--help``."""

    def __init__(self, prog: str, description: str, example: str):
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Reports a wrong flag in one line instead of argparse's usage block."""
        fail(f"{message} (see {self.prog} --help)")


def run(main: Callable[[], None]) -> None:
    """Calls ``main``; an ``InputError`` becomes one line and status 2, Ctrl-C status 130."""
    try:
        main()
    except InputError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
