"""Weights as a config names them: by the path of a file, or by a name of the table.

A path that exists always wins, and a published file is known by its content wherever
it lies: a name and the path of the same file are the same weights, refused alike.
"""

import re
from pathlib import Path

from imas_jax import errors, files
from imas_jax.models import fetching
from imas_jax.models.published import TABLE, Published
from imas_jax.models.segmenter import BACKBONES


def find(
    text: str,
    field: str,
    network: str,
    allow_supervised: bool = False,
    backbone: str = "model.backbone",
) -> Path:
    """Return the file that a field names, by path or by name; fetch it if need be.

    Args:
        text: A path, or a name of `published.TABLE`. What exists as a path is one.
        field: The config's, for messages, e.g. "model.weights".
        network: What it must be of, a name of `BACKBONES` or `published.RAFT`. Of a
            path the loader sees whether it is.
        allow_supervised: Take what learned from human labels.
        backbone: The field that names the network, for messages.

    Raises:
        UserError: If there is no such file or name, it is of another network, learned
            from human labels, or cannot be fetched.
    """
    path, entry = Path(text), entry_of(text)
    _check_supervision(entry, f"{field} = {text!r}", allow_supervised)
    if path.exists():
        return path
    if entry is None:
        raise unknown(text, field)
    if entry.network != network:
        raise _of_another(text, entry, field, backbone, network)
    return fetching.fetch(text)


def present(text: str) -> Path | None:
    """Return the file of a path or a name if it is there; fetch nothing."""
    path = Path(text)
    if not path.exists() and text in TABLE:
        path = fetching.place(text)
    return path if path.exists() else None


def entry_of(text: str) -> Published | None:
    """Return what the table has of a name, or of a file by its content."""
    path = Path(text)
    if not path.exists():
        return TABLE.get(text)
    try:
        told = f"sha256:{files.digest(path)}"
    except OSError:  # a folder, or not to be read: whoever opens it says so
        return None
    return next((one for one in TABLE.values() if told in one.hashes), None)


def supervision(text: str) -> str:
    """Say how weights learned from human labels, or that it is not known; else ""."""
    entry = entry_of(text)
    if entry is None:
        return f"{Path(text).name}, of which it is not known how it was trained"
    if entry.supervision != "human labels":
        return ""
    return f"{entry.title}, trained on {entry.trained_on}"


def unknown(text: str, field: str) -> errors.UserError:
    """Say that something is neither a file nor a name."""
    names = _fitting(field)
    if is_name(text):
        return errors.UserError(
            f"{field} = {text!r} is no file, and no weights have that name",
            f"a path, or one of {', '.join(names)}",
            errors.suggestion(text, names),
        )
    return errors.UserError(
        f"{field}: no file {text}",
        f"a path, or one of {', '.join(names)}",
        "check the path; python -m imas_jax.weights tells what the names are",
    )


def is_name(text: str) -> bool:
    """Tell whether a text looks like a name rather than a path."""
    return bool(re.fullmatch(r"[\w-]+", text))


def _check_supervision(entry: Published | None, told: str, allowed: bool) -> None:
    if entry is not None and entry.supervision == "human labels" and not allowed:
        raise errors.UserError(
            f"{told} learned from human labels: {entry.title}, {entry.trained_on}",
            "weights that saw no annotation: the method is one without",
            "take others (python -m imas_jax.weights lists them), or set "
            "--config.model.allow_supervised=True; every table and report then says so",
        )


def _of_another(
    name: str, entry: Published, field: str, backbone: str, network: str
) -> errors.UserError:
    """Say that weights are of another network, and which would do."""
    told = f"{field} = {name!r} is {entry.title}"
    if _is_flow(field) or entry.is_flow:
        return errors.UserError(
            f"{told}: it computes {'flow' if entry.is_flow else 'features'}",
            f"one of {', '.join(_fitting(field))}",
            f"set --config.{field} to one of these",
        )
    fix = f"--config.{backbone}={entry.network}"
    if backbone == "model.backbone":
        record = BACKBONES[entry.network]
        fix += f" --config.model.width={record.width}"
        fix += f" --config.model.output_stride={record.strides[0]}"
    return errors.UserError(
        f"{told}, but {backbone} = {network!r}",
        f"{backbone} = {entry.network!r} for these weights",
        f"set {fix}, or name other weights",
    )


def _fitting(field: str) -> list[str]:
    """Return the names that a field may have without further ado."""
    return [
        name
        for name, one in TABLE.items()
        if one.is_flow == _is_flow(field) and one.supervision != "human labels"
    ]


def _is_flow(field: str) -> bool:
    return field.startswith("flow.")
