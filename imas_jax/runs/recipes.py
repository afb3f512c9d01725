"""Recipes by name or path: the config files that runs start from.

Those of `configs/` come with the package and are found by name from everywhere; in a
checkout `imas_jax/configs` is a link to that folder, in a wheel a copy.
"""

import ast
import difflib
import importlib.util
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from imas_jax.errors import ProblemList, UserError, bullet

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


def flat_fields(overrides: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `{"section.field": value}` of overrides, which may be nested."""
    flat: dict[str, Any] = {}
    for name, value in overrides.items():
        if isinstance(value, Mapping):
            flat |= flat_fields(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def override(config: ConfigDict, overrides: Mapping[str, Any]) -> None:
    """Set fields, by dotted names or nested; all that cannot be set are told at once.

    Raises:
        UserError: For unknown fields, with the nearest known ones, and wrong types.
    """
    flat, known = flat_fields(overrides), values_of(config)
    check_known(list(flat), known)
    problems = ProblemList()
    for field, value in flat.items():
        if isinstance(known[field], tuple) and isinstance(value, str):
            value = (value,)
        try:
            config.update_from_flattened_dict({field: value})
        except (TypeError, ValueError) as error:
            problems.add(field, f"{value!r} ({error})")
    problems.raise_if_any(
        "overrides", "values of the fields' types, as in configs/davis.py", "correct it"
    )


def check_known(fields: Sequence[str], known: Collection[str]) -> None:
    """Refuse fields that a config does not have, with the nearest that it has.

    Raises:
        UserError: With all of them.
    """
    problems = []
    for field in fields:
        if field in known:
            continue
        near = difflib.get_close_matches(field, known, n=3, cutoff=0.5)
        last = field.split(".")[-1]
        near += [k for k in known if k.split(".")[-1] == last and k not in near]
        hint = f"; did you mean {', '.join(near[:4])}?" if near else ""
        problems.append(f"config.{field}{hint}")
    if problems:
        raise UserError(
            "no such field:\n" + bullet(problems),
            "fields of the config file",
            "correct the name; every field is listed with a comment in "
            "configs/davis.py",
        )


def values_of(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Return sections and fields by their dotted names."""
    values: dict[str, Any] = {}
    for key, value in config.items():
        values[prefix + key] = value
        if isinstance(value, ConfigDict):
            values |= values_of(value, f"{prefix}{key}.")
    return values


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
