"""Recipes by name or path: the config files that runs start from.

Those of `configs/` come with the package and are found by name from everywhere; in a
checkout `imas_jax/configs` is a link to that folder, in a wheel a copy.
"""

import ast
import difflib
import importlib.util
import traceback
from pathlib import Path

from ml_collections import ConfigDict

from imas_jax.errors import UserError

FOLDER = Path(__file__).parents[1] / "configs"


def names() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("[!_]*.py")))


def find(argument: str) -> tuple[Path, str]:
    """Return the file and the variant that `NAME[:VARIANT]` or `FILE[:VARIANT]` means.

    A bare name is a recipe of the package, whatever else lies where the command runs.

    Raises:
        UserError: If there is neither such a recipe nor such a file.
    """
    name, _, variant = argument.partition(":")
    if name in names():
        return FOLDER / f"{name}.py", variant
    path = Path(name)
    if path.is_file():
        return path, variant
    near = difflib.get_close_matches(path.stem, names(), n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else "choose one of these"
    raise UserError(
        f"config {name!r} is no recipe, and no such file exists",
        f"a path to a config file, or one of {', '.join(names())}",
        f"{hint} They lie in {FOLDER}",
    )


def load(argument: str) -> ConfigDict:
    """Build the config of `NAME[:VARIANT]` or `FILE[:VARIANT]`.

    Raises:
        UserError: If the file is not there, fails, or does not know the variant.
    """
    path, variant = find(argument)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(
            f"config file {str(path)!r}", "a Python file", "name a file in .py"
        )
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


def page(argument: str) -> str:
    """Return what a recipe says of itself, and where its file is.

    Raises:
        UserError: As `load`.
    """
    load(argument)  # says what is wrong with it
    path, _ = find(argument)
    said = ast.get_docstring(ast.parse(path.read_bytes())) or "(it says nothing)"
    return f"{said}\n\nThe file: {path}"


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
