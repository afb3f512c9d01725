"""Signals that ask a run to stop: training saves first, all else stops at once.

Ctrl-C sends SIGINT; clusters send SIGTERM before they take a machine away, and what
people ask them to (SLURM's `--signal`, often USR1 or USR2) ahead of a time limit.
Whatever stops, the same command continues it.
"""

import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from absl import logging

from imas_jax.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
# Seconds after which a signal is raised again that was lost where nothing can be.
_AGAIN = 0.01


def raise_when_asked() -> None:
    """Let the first signal raise `Stopped` wherever the main thread then is."""
    for number in SIGNALS:
        signal.signal(number, _raise)
    sys.unraisablehook = _lost


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    _hear_no_more()
    raise Stopped(number, "stopped; run the same command again: it continues")


def _lost(unraisable: Any) -> None:
    """Raise a signal once more that came while nothing could be raised.

    Python drops exceptions in destructors and in callbacks of the garbage collector,
    of which JAX has one; the run would go on, and be killed when time is up.
    """
    error = unraisable.exc_value
    if not isinstance(error, Stopped):
        sys.__unraisablehook__(unraisable)
        return
    signal.signal(signal.SIGALRM, lambda *_: _raise(error.number, None))
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)


def _hear_no_more() -> None:
    """Let nothing disturb what is being saved but a second Ctrl-C: it kills."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class StopRequest:
    """Turns the first signal into a wish that training asks for after every step.

    Attributes:
        number: The signal, 0 for none.
        agreed: Whether every process of the run has heard of it.
    """

    def __init__(self) -> None:
        self.number, self.agreed = 0, False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        _hear_no_more()
        self.number = number
        logging.warning("stopping at a checkpoint; Ctrl-C again stops at once")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
