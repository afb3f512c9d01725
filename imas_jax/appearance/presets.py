"""`name:field=value,...`: a preset and the numbers that differ, in one config field."""

import dataclasses
from typing import TypeVar

from imas_jax.errors import UserError

Settings = TypeVar("Settings")


def read(text: str, presets: dict[str, Settings], what: str) -> Settings:
    """Read a preset by name, with numbers of its fields changed.

    Args:
        text: E.g. "gwm" or "gwm:iterations=5,bilateral_srgb=7".
        presets: Frozen dataclasses by name.
        what: For messages, e.g. "CRF preset".

    Raises:
        UserError: If the name, a field or a number is not known.
    """
    name, _, changes = text.partition(":")
    if name not in presets:
        raise UserError(
            f"unknown {what} {name!r}",
            "one of " + ", ".join(presets),
            "name one of them, with ':field=value,...' behind it to change numbers",
        )
    fields = {
        field.name: getattr(presets[name], field.name)
        for field in dataclasses.fields(presets[name])  # type: ignore[arg-type]
    }
    for change in filter(None, changes.split(",")):
        field, _, value = change.partition("=")
        try:
            fields[field] = type(fields[field])(value)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{what} {text!r}: cannot read {change!r}",
                "field=value with a field of " + ", ".join(fields),
                "correct the field's name or its number",
            ) from error
    return type(presets[name])(**fields)
