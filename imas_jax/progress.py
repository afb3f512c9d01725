"""Progress of long work: one live line on a terminal, plain lines in a log.

A program that imports this one hears it by a function of its own (`told_to`), and then
nothing is printed.
"""

import contextlib
import contextvars
import dataclasses
import logging as python_logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from absl import logging
from tqdm import tqdm

T = TypeVar("T")
LOG_EVERY = 15.0  # seconds between plain lines


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far some work is.

    Attributes:
        what: The work, e.g. "flow", "discover", "masks".
        done: Units done, from 1.
        total: Units in all.
        unit: E.g. "pair", "step", "frame".
        said: What it gave, e.g. "loss 0.41"; mostly "".
    """

    what: str
    done: int
    total: int
    unit: str
    said: str = ""


@dataclasses.dataclass
class Pulse:
    """Signs that this process gets on, for who looks whether it hangs.

    Attributes:
        beats: How often it has got on.
        waits: Whether it only waits for other processes or a device.
        doing: What it did last, for people.
    """

    beats: int = 0
    waits: bool = False
    doing: str = "started"


PULSE = Pulse()


def beat(doing: str = "") -> None:
    """Note that this process gets on, and with what."""
    PULSE.beats += 1
    PULSE.doing = doing or PULSE.doing


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Note that in this block others are waited for."""
    before, PULSE.waits = PULSE.waits, True
    try:
        yield
    finally:
        PULSE.waits = before
        PULSE.beats += 1


Listener = Callable[[Progress], None]
_LISTENER: contextvars.ContextVar[Listener | None] = contextvars.ContextVar(
    "listener", default=None
)


@contextlib.contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Tell a function, in place of people, how far work in this block is."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def is_for_people(record: python_logging.LogRecord) -> bool:
    """Tell whether a line is ours, or a library's warning.

    Orbax would otherwise say a dozen lines about every checkpoint.
    """
    ours = Path(record.pathname).is_relative_to(Path(__file__).parent)
    return ours or record.levelno > python_logging.INFO


def progress(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    """Yield the items and show count, rate and time left.

    Args:
        items: What is worked on.
        total: How many there are.
        what: Name of the work, e.g. "flow".
        unit: What one item is, e.g. "pair".
    """
    line = ItemLine(what, unit, total)
    try:
        for done, item in enumerate(items, start=1):
            yield item
            beat(f"{what}, {done} {unit}")
            line.show(done, total)
    finally:
        line.close()


class ItemLine:
    """Counted work: a function's to hear, one live line on a terminal, or plain lines.

    Args:
        what: Name of the work, e.g. "flow".
        unit: What is counted, e.g. "pair".
        total: How many there are, as far as it is known.
    """

    def __init__(self, what: str, unit: str, total: int):
        self._what, self._unit = what, unit
        self._start = self._last = time.monotonic()
        self._listener = _LISTENER.get()
        self._bar: tqdm | None = None
        if self._listener is None and sys.stderr.isatty():
            self._bar = tqdm(desc=what, total=total, unit=unit, dynamic_ncols=True)

    def show(self, done: int, total: int) -> None:
        """Say how far the work is; plain lines come now and then only."""
        if self._listener is not None:
            self._listener(Progress(self._what, done, total, self._unit))
            return
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        since = now - self._start
        if now - self._last >= LOG_EVERY or (done == total and since >= LOG_EVERY):
            self._last = now
            line = progress_line(self._what, self._unit, done, total, since)
            logging.info("%s", line)

    def close(self) -> None:
        """Leave the terminal's line as it is."""
        if self._bar is not None:
            self._bar.close()


class ByteLine:
    """A download as `pooch` tells of it: one live line on a terminal, plain lines else.

    Args:
        what: Name of the file.

    Attributes:
        total: Bytes that the server announced, 0 if it did not; set from outside.
    """

    def __init__(self, what: str):
        self.total = 0
        self._what, self._done = what, 0
        self._start = self._last = time.monotonic()
        self._bar: tqdm | None = None

    def update(self, count: int) -> None:
        """Note that more bytes have come, at most `count`."""
        self._done += count
        beat(self._what)
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(
                    desc=self._what,
                    total=self.total or None,
                    unit="B",
                    unit_scale=True,
                    dynamic_ncols=True,
                )
            self._bar.update(min(count, (self.total or self._done) - self._bar.n))
            return
        now = time.monotonic()
        if now - self._last >= LOG_EVERY:
            self._last = now
            logging.info("%s", self._line(now - self._start))

    def reset(self) -> None:
        """Begin to count anew; `pooch` does so once everything has come."""
        self._done = 0

    def close(self) -> None:
        """Leave the terminal's line as it is."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, seconds: float) -> str:
        rate = self._done / max(seconds, 1e-9)
        told = f"{self._what} {self._done / 1e6:.1f}"
        if self.total:
            left = duration(max(self.total - self._done, 0) / max(rate, 1e-9))
            told += f"/{self.total / 1e6:.1f}"
            return f"{told} MB  {rate / 1e6:.3g} MB/s  eta {left}"
        return f"{told} MB  {rate / 1e6:.3g} MB/s"


class StepLine:
    """Training on a terminal is one live line, in a log plain lines.

    Args:
        what: Name of the stage.
        total: Steps in all.
        first: Steps done before: rate and time left are of what is done now.
    """

    def __init__(self, what: str, total: int, first: int):
        self._what, self._total, self._first = what, total, first
        self._start = time.monotonic()
        self._bar: tqdm | None = None
        self._listener = _LISTENER.get()
        if self._listener is None and sys.stderr.isatty():
            self._bar = tqdm(
                desc=what, total=total, initial=first, unit="it", dynamic_ncols=True
            )

    def show(self, step: int, said: str, aside: str) -> None:
        """Say how far training is.

        Args:
            step: Steps done.
            said: What they gave, e.g. "loss 0.41".
            aside: What is of less interest; a terminal's line leaves it out.
        """
        if self._listener is not None:
            self._listener(Progress(self._what, step, self._total, "step", said))
            return
        if self._bar is not None:
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        rate = (step - self._first) / max(time.monotonic() - self._start, 1e-9)
        left = duration((self._total - step) / max(rate, 1e-9))
        logging.info(
            "%s step %d  %s  %.2f it/s  %s  eta %s",
            self._what,
            step,
            said,
            rate,
            aside,
            left,
        )

    def close(self) -> None:
        """Leave the terminal's line as it is."""
        if self._bar is not None:
            self._bar.close()


def progress_line(what: str, unit: str, done: int, total: int, seconds: float) -> str:
    """Format one plain line, e.g. `flow 120/600 pair  8.0 pair/s  eta 1 min 00 s`."""
    rate = done / max(seconds, 1e-9)
    left = duration((total - done) / max(rate, 1e-9))
    return f"{what} {done}/{total} {unit}  {rate:.3g} {unit}/s  eta {left}"


def duration(seconds: float) -> str:
    """Say a time span as people do: `2 h 14 min`, `3 min 05 s`, `12 s`."""
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    if seconds >= 60:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds} s"
