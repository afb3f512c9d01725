"""What stages write down of themselves: configs as flat fields, digests, JSON files."""

import hashlib
import importlib.metadata
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import cv2
from ml_collections import ConfigDict

from imas_jax import files
from imas_jax.errors import UserError
from imas_jax.training import parallel

# Of `config.json`: raise it when workdirs of before can no longer be continued.
FORMAT = 2
PACKAGES = ("imas_jax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
ABSENT = "(no such field)"
MOST_LINES = 12  # of a list of differences


def flatten(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Return all fields as `{"section.field": value}`."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say which fields differ, and how.

    Values are compared as they are written down, so NaN is NaN. Of long lists of names
    only what came and went is told.
    """
    told = []
    for key in sorted(was.keys() | now.keys()):
        old, new = was.get(key, ABSENT), now.get(key, ABSENT)
        if json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True):
            continue
        if _is_names(old) and _is_names(new) and set(old) != set(new):
            lines = [f"{key}: was {one}" for one in old if one not in new]
            lines += [f"{key}: is {one}" for one in new if one not in old]
            told += lines[:MOST_LINES]
            if len(lines) > MOST_LINES:
                told.append(f"{key}: and {len(lines) - MOST_LINES} more")
        else:
            told.append(f"{key}: was {old!r}, is {new!r}")
    return told


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def digest(value: Any) -> str:
    """Hash plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def typed() -> str:
    """Return the command line of this process, as people type it."""
    program, arguments = Path(sys.argv[0]), sys.argv[1:]
    if program.parts[-2:] == ("imas_jax", "main.py"):
        return shlex.join(["python", "-m", "imas_jax.main", *arguments])
    if program.name == "imas-jax":
        return shlex.join([program.name, *arguments])
    return shlex.join(["python", *sys.argv])  # a program that imports this one


def versions() -> dict[str, str]:
    """Return the versions of what decides numbers."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {**found, "opencv": cv2.__version__}  # one of several packages brings it


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Args:
        path: The file.
        needed: Keys it must have.

    Raises:
        UserError: If it is not there or damaged.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict) or not value.keys() >= set(needed):
            raise ValueError(f"not a record with {', '.join(needed) or 'names'}")
    except (OSError, ValueError) as error:
        lost = path if path.name == "result.json" else f"the folder {path.parent}"
        raise UserError(
            f"{path} cannot be read ({error})",
            "a file this program wrote",
            f"remove {lost}; its stage goes on from what is whole",
        ) from error
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write whole or not at all; one process writes for all.

    Raises:
        UserError: If the folder cannot be written to.
    """
    if parallel.process()[0] != 0:
        return
    try:
        files.write_text(path, json.dumps(value, indent=1, sort_keys=True))
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    """Say what to do about a file of the workdir that cannot be written."""
    return UserError(
        f"cannot write {path}: {error}",
        "a workdir with write permission and room",
        "choose another folder with --config.workdir=DIR",
    )
