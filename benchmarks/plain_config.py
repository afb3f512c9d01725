"""Lets configs be read where `ml_collections` is not installed (a bare accelerator).

`import plain_config` before anything of `imas_jax`; where the library is installed it
does nothing. Only what a measurement needs is here: fields as attributes, and `update`.
"""

import importlib.util
import sys
import types
from collections.abc import Mapping
from typing import Any


class ConfigDict(dict):
    """A dict whose keys are attributes too."""

    def __init__(self, fields: Mapping[str, Any] | None = None):
        super().__init__()
        self.update(fields or {})

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no field {name}; known: {', '.join(self)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def update(self, fields: Mapping[str, Any]) -> None:
        """Set fields; a mapping given for a section sets that section's fields."""
        for name, value in fields.items():
            if isinstance(self.get(name), ConfigDict):
                self[name].update(value)
            else:
                self[name] = value


if importlib.util.find_spec("ml_collections") is None:
    stand_in = types.ModuleType("ml_collections")
    stand_in.ConfigDict = ConfigDict
    sys.modules["ml_collections"] = stand_in
