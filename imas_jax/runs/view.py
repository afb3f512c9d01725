"""The part of a config that a stage declares: it can read nothing else.

So what is declared is what is read, and what a field decides (`Stage.sections`) can be
told from the list of stages alone.
"""

from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

# Of the run itself, which every stage may read.
OF_THE_RUN = ("workdir", "stage", "restore", "restore_until", "overwrite")


class View(ConfigDict):
    """A config that says what to do when a field is asked for that it lacks."""

    def __getitem__(self, key: str) -> Any:
        """Return a field.

        Raises:
            KeyError: If it is not declared (as an attribute: AttributeError).
        """
        try:
            return super().__getitem__(key)
        except KeyError:
            there = ", ".join(map(str, self.keys()))
            raise KeyError(
                f"{key!r} is not declared by the stage that reads it (there is: "
                f"{there}): add it to the stage's `sections` if it changes the result, "
                "else to its `reads`"
            ) from None


def narrow(config: ConfigDict, declared: Collection[str]) -> View:
    """Return the declared sections and single fields of a config, locked.

    Args:
        config: The whole config.
        declared: Sections, `section.field`s, and fields outside any section.
    """
    view = View()
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            part = View()
            for name, one in value.items():
                if key in declared or f"{key}.{name}" in declared:
                    part[name] = one
            if part:
                view[key] = part
        elif key in declared or key in OF_THE_RUN:
            view[key] = value
    view.lock()
    return view
