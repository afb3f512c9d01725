"""What the command line says to people: help, nearest names, one-line messages."""

import difflib
import importlib.util
import logging as python_logging
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict

from imas_jax.errors import UserError, bullet


class PlainFormatter(python_logging.Formatter):
    """Time, and for warnings their rank; no file names, no thread numbers."""

    def format(self, record: python_logging.LogRecord) -> str:
        """Format one line."""
        clock = self.formatTime(record, "%H:%M:%S")
        rank = "" if record.levelno <= python_logging.INFO else record.levelname + ": "
        return f"{clock} {rank}{record.getMessage()}"


def is_for_people(record: python_logging.LogRecord) -> bool:
    """Tell whether a line is ours, or a library's warning.

    Orbax would otherwise say a dozen lines about every checkpoint.
    """
    ours = Path(record.pathname).is_relative_to(Path(__file__).parent)
    return ours or record.levelno > python_logging.INFO


def start_logging() -> None:
    """Show our own lines plainly, and of libraries their warnings."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().setFormatter(PlainFormatter())
    logging.get_absl_handler().addFilter(is_for_people)


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parse flags as absl does, but say what is wrong without a trace.

    Raises:
        UserError: For an unknown flag, a value of the wrong type, an unknown field.
    """
    if any(arg in ("--help", "-h", "--helpfull", "-help") for arg in argv[1:]):
        sys.stdout.write(f"{sys.modules['__main__'].__doc__}\n")
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except (flags.Error, KeyError, AttributeError, ValueError, TypeError) as error:
        raise UserError(
            f"the command line cannot be read: {error}",
            "--config=FILE and --config.FIELD=VALUE of the field's type",
            "see --help, and the config file for its fields",
        ) from error


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse unknown fields before anything runs, with the nearest known ones.

    Args:
        arguments: The command line without the program.

    Raises:
        UserError: If the config file is not there, or a field is not one of its own.
    """
    named = [a for a in arguments if re.match(r"--?config=", a)]
    if not named:
        return
    config = load(named[-1].split("=", 1)[1])
    known = list(_fields(config))
    problems = []
    for argument in arguments:
        match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if match is None or match[1] in known:
            continue
        near = difflib.get_close_matches(match[1], known, n=3, cutoff=0.5)
        last = match[1].split(".")[-1]
        near += [k for k in known if k.split(".")[-1] == last and k not in near]
        hint = f"; did you mean {', '.join(near[:4])}?" if near else ""
        problems.append(f"config.{match[1]}{hint}")
    if problems:
        raise UserError(
            "no such field:\n" + bullet(problems),
            "fields of the config file",
            "correct the name; every field is listed with a comment in "
            "configs/davis.py",
        )


def load(argument: str) -> ConfigDict:
    """Build the config of `FILE[:VARIANT]`.

    Raises:
        UserError: If the file is not there, fails, or does not know the variant.
    """
    name, _, variant = argument.partition(":")
    path = Path(name)
    if not path.is_file():
        folder = Path("configs")
        there = sorted(str(p) for p in folder.glob("[!_]*.py"))
        raise UserError(
            f"config file {name!r} does not exist",
            "one of " + ", ".join(there) if there else "a path to a config file",
            "name the file from the project's folder",
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"config file {name!r}", "a Python file", "name a file in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(variant) if variant else module.get_config()
    except ValueError as error:
        raise UserError(
            f"config {argument!r}: {error}", "a variant the file knows", "correct it"
        ) from error
    except Exception as error:  # it is the user's own program
        raise UserError(
            f"config {argument!r} fails{_line(path, error)} with "
            f"{type(error).__name__}: {error}",
            "a Python file with a function get_config, as configs/davis.py",
            "correct the file",
        ) from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"config {argument!r}: get_config returns {type(config).__name__}",
            "an ml_collections.ConfigDict",
            "begin with davis.get_config(), and return it changed",
        )
    return config


def _line(path: Path, error: Exception) -> str:
    """Say at which line of a config file an error came up, if it was there."""
    numbers = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    if isinstance(error, SyntaxError):
        numbers.append(error.lineno)
    return f" at line {numbers[-1]}" if numbers else ""


def _fields(config: ConfigDict, prefix: str = "") -> list[str]:
    fields = []
    for key, value in config.items():
        fields.append(prefix + key)
        if isinstance(value, ConfigDict):
            fields += _fields(value, f"{prefix}{key}.")
    return fields
