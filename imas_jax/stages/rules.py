"""What a field of a config may be: rules, of which `fields.py` makes its table."""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from imas_jax.errors import UserError, suggestion


@runtime_checkable
class Rule(Protocol):
    """Tells what is wrong with a value."""

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or "" for a sound value."""


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number.

    Attributes:
        interval: E.g. "[0, 1)".
        whole: Whether only whole numbers are meant.
        also: Values outside the interval that have a meaning of their own.
    """

    interval: str
    whole: bool = False
    also: tuple[int, ...] = ()

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or ""."""
        kinds = (int,) if self.whole else (int, float)
        if isinstance(value, kinds) and not isinstance(value, bool):
            if value in self.also or _is_inside(value, self.interval):
                return ""
        also = "".join(f"{one} or " for one in self.also)
        return f"{also}a {'whole ' * self.whole}number in {self.interval}"


@dataclasses.dataclass(frozen=True)
class Word:
    """One of a few words (or numbers)."""

    words: tuple[str | int, ...]

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or ""."""
        # A list has no place among words; True is no 1.
        if isinstance(value, str | int) and not isinstance(value, bool):
            if value in self.words:
                return ""
        known = [str(word) for word in self.words if word != ""]
        blank = "'' or " if "" in self.words else ""
        return f"{blank}one of {', '.join(known)}; {suggestion(value, known)}"


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or False."""

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or ""."""
        return "" if isinstance(value, bool) else "True or False"


@dataclasses.dataclass(frozen=True)
class Text:
    """A name, a path, a list of them: what it names is looked for where it is used.

    Attributes:
        blank: Whether it may be empty.
        read: Raises `UserError` if the text means nothing, or None.
    """

    blank: bool = True
    read: Callable[[str], object] | None = None

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or ""."""
        if not isinstance(value, str):
            return "text in quotes"
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            return "text in UTF-8"
        if value == "~" or value.startswith("~/"):
            return "the path in full: shells leave ~ alone behind ="
        if not value.strip():
            return "" if self.blank and not value else "text that is not empty"
        if self.read is not None:
            try:
                self.read(value)
            except UserError as error:
                return f"{error.expected} ({error.found})"
        return ""


RELATIONS: dict[str, Callable[[Sequence[Any]], bool]] = {
    "no value twice": lambda values: len(set(values)) == len(values),
    "the lower one first": lambda values: list(values) == sorted(values),
    "both 0 or neither": lambda values: all(values) or not any(values),
}


@dataclasses.dataclass(frozen=True)
class Several:
    """A tuple of values of one kind.

    Attributes:
        rule: Of each value.
        least: How many there must be.
        most: How many there may be.
        relation: One of `RELATIONS`, or "".
    """

    rule: Rule
    least: int = 0
    most: float = math.inf
    relation: str = ""

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or ""."""
        few = isinstance(value, list | tuple) and self.least <= len(value) <= self.most
        if not few:
            more = "" if self.least == self.most else " or more"
            return f"a tuple of {self.least}{more}"
        for one in value:
            if told := self.rule.problem(one):
                return f"a tuple, each of it {told}"
        if self.relation and not RELATIONS[self.relation](value):
            return self.relation
        return ""


def _is_inside(value: float, interval: str) -> bool:
    """Tell whether a number is finite and in "[low, high)"; brackets as in maths."""
    low, high = map(float, interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    return abs(value) <= sys.float_info.max and above and below
