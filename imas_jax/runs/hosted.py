"""A run inside somebody else's program: where it lies, and that it prints nothing."""

import contextlib
import itertools
import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from absl import logging as absl_logging

from imas_jax import progress
from imas_jax.errors import UserError

LOGGER = logging.getLogger("imas_jax")
LOGGER.addHandler(logging.NullHandler())
T = TypeVar("T")


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return a path that stands wherever the program goes."""
    return Path(path).expanduser().absolute()


class Folder:
    """A workdir; one that nobody named lasts as long as what refers to it."""

    def __init__(self, named: str | os.PathLike[str] | None):
        self._end: weakref.finalize | None = None
        if named is not None:
            self.path = absolute(named)
            return
        self.path = Path(tempfile.mkdtemp(prefix="imas-jax-"))
        self._end = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    @contextlib.contextmanager
    def kept_if_broken_off(self) -> Iterator[None]:
        """Keep what an interrupt or somebody else's exception leaves; say where."""
        try:
            yield
        except UserError:
            raise
        except BaseException as error:
            if self._end is not None and any(self.path.iterdir()):
                self._end.detach()
                error.add_note(
                    f"what is done is kept: the same call with workdir="
                    f"{str(self.path)!r} goes on"
                )
            raise


class _Forward(logging.Handler):
    """Hands the library's own lines to the logger "imas_jax"."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on one line."""
        if LOGGER.isEnabledFor(record.levelno) and progress.is_for_people(record):
            record.name = LOGGER.name
            LOGGER.handle(record)


@contextlib.contextmanager
def heard(listener: progress.Listener | None) -> Iterator[None]:
    """Print nothing in this block: progress goes to a function, words to a logger."""
    source, forward = absl_logging.get_absl_logger(), _Forward()
    before = source.propagate, source.level
    source.propagate = False
    source.addHandler(forward)
    source.setLevel(logging.INFO)
    try:
        with progress.told_to(listener or (lambda _: None)):
            yield
    finally:
        source.removeHandler(forward)
        source.propagate = before[0]
        source.setLevel(before[1])


def iterated(
    found: Iterator[T], listener: progress.Listener | None, total: int
) -> Iterator[T]:
    """Pass on what is found; between two of them the program's own settings hold."""
    for done in itertools.count(1):
        with heard(None):
            try:
                one = next(found)
            except StopIteration:
                return
        if listener is not None:
            listener(progress.Progress("masks", done, total, "frame"))
        yield one
