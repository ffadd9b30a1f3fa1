"""Command line: ``python -m atvg_jax.train``, trains AT-net or VG-net. See ``--help``."""

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from atvg_jax import allocator, command_line
from atvg_jax.errors import InputError

HELP = """usage: python -m atvg_jax.train --config=CONFIG[:WORDS] --workdir=DIR --config.data=DIR

Trains AT-net (configs/at_net.py) or VG-net (configs/vg_net.py). The same command again goes on from
the last complete checkpoint; with --config.steps raised it trains longer.

  --config=FILE[:WORDS]   the network's config; WORDS, with commas between: compact, smoke, ...
  --config.KEY=VALUE      any key of it, such as --config.steps=2000 --config.batch_size=8
  --config.data=DIR       the data set that python -m data_prep.build made
  --workdir=DIR           the run: checkpoints, config.json, samples, TensorBoard events
  --distributed           one of several processes that train together; the scripts in launch/ set
                          it, on SLURM, on a Cloud TPU pod and on one machine
  --help                  this text

Watch it with: tensorboard --logdir=DIR

example:
  python -m atvg_jax.train --config=configs/at_net.py:compact --workdir=runs/at \\
      --config.data=data/clips --config.steps=2000
"""


class Command(NamedTuple):
    """What a command line asks for: the config, the run's folder, and whether others train too."""

    config: Any
    workdir: Path
    distributed: bool


def parse(arguments: list[str]) -> Command:
    """What a command line asks for.

    Args:
        arguments: without the program's name.

    Raises:
        InputError: a flag, file, word, key or value that cannot be used.
    """
    # absl keeps flags globally; a set of its own lets tests call this more than once.
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    given = ["atvg_jax.train", *_with_config_file(arguments)]
    config_flags.DEFINE_config_file(
        "config", default=None, help_string="", flag_values=values, sys_argv=given
    )
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_boolean("distributed", False, "", flag_values=values)
    try:
        with warnings.catch_warnings():
            # ml_collections loads config files in a way that Python is giving up.
            warnings.filterwarnings("ignore", "the load_module", DeprecationWarning)
            rest = values(given)[1:]
    # absl for unknown flags, ml_collections for keys and values, and Python for a broken file.
    except (flags.Error, AttributeError, LookupError, TypeError, ValueError, ImportError) as error:
        raise _explained(error) from error
    if rest:
        raise InputError(f"what is {rest[0]!r}? Flags are --NAME=VALUE (see --help)")
    for name in ("config", "workdir"):
        if values[name].value in (None, ""):
            raise InputError(f"--{name} is missing (see --help)")
    config: Any = values["config"].value
    if not config.data:
        raise InputError("--config.data is missing: the data set that data_prep.build made")
    return Command(config, Path(str(values["workdir"].value)), bool(values["distributed"].value))


def _with_config_file(arguments: list[str]) -> list[str]:
    """The arguments, with the config file found here or beside the package, wherever this runs."""
    found: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, given = argument.partition("=")
        if name not in ("--config", "-config"):
            found.append(argument)
            continue
        file, colon, words = (given if equals else next(rest, "")).partition(":")
        beside = Path(__file__).resolve().parents[1] / file
        if not Path(file).is_file() and not beside.is_file():
            raise InputError(
                f"there is no config file {file!r}: give --config=configs/at_net.py or "
                "--config=configs/vg_net.py"
            )
        path = file if Path(file).is_file() else beside
        found.append(f"--config={path}{colon}{words}")
    return found


def _explained(error: BaseException) -> InputError:
    """What lies behind an error of the flag libraries, which wrap what a config raised."""
    if isinstance(error, AttributeError | KeyError):
        # ml_collections: "'lerning_rate'\nDid you mean ...", as a repr of a repr.
        text = str(error.args[0]) if error.args else str(error)
        lines = [line.strip("'\"\\ ") for line in text.replace("\\n", "\n").splitlines()]
        return InputError(f"the config has no key '{lines[0]}'. {' '.join(lines[1:])} (see --help)")
    if "Traceback" in str(error):  # of get_config, pasted into the text; its last line says it
        return InputError(str(error).strip().splitlines()[-1].partition("Error: ")[2])
    return InputError(f"{error} (see --help)")


def main() -> None:
    """Trains, and says what was made."""
    if any(argument in ("--help", "-h", "-help") for argument in sys.argv[1:]):
        print(HELP, end="")
        return
    config, workdir, distributed = parse(sys.argv[1:])
    started = time.perf_counter()
    allocator.keep_freed_memory()
    from atvg_jax.training import parallel
    from atvg_jax.training.loop import train_and_evaluate

    if distributed:
        parallel.connect()
    result = train_and_evaluate(config, workdir)
    if not parallel.first_process():
        return
    minutes = (time.perf_counter() - started) / 60
    figures = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items())
    how = "stopped on request at" if result.preempted else "at"
    print(
        f"{config.network} {how} step {result.step} in {os.path.join(workdir, 'checkpoints')} "
        f"after {minutes:.1f} min" + (f": {figures}" if figures else "")
    )


if __name__ == "__main__":
    command_line.run(main)
