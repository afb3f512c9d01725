"""Processes of one run end together, whatever ends one of them.

An error or a signal in one process is told to the others, which end with its reason
instead of waiting for it. A process that dies without a word (killed, out of memory,
power) is missed by JAX's runtime after `parallel.HEARTBEAT` seconds at most. Ending in
the middle of anything is safe: every stage can be killed at any moment.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from absl import logging

from imas_jax.errors import Stopped, last_words
from imas_jax.training import parallel

# Where the first process to end says why.
_ENDED = "imas_jax/ended"
_ASK_EVERY = 1.0  # seconds
# Seconds a process has for words of its own before it ends with another's.
_GRACE = 2.0
# How libraries of collectives say that they lost another process.
_LOST = ("gloo", "nccl", "coordination", "barrier", "unavailable", "socket closed")
_AGAIN = "run the same command again in all processes: it continues"
# The handler that C knows must live as long as the program.
_KEPT: list[Any] = []


@contextlib.contextmanager
def joined(distributed: str) -> Iterator[None]:
    """Join the other processes of a run; end all, with a message, if this block fails.

    What all processes agree on (`Stopped.agreed`) they end with by themselves. Without
    others nothing happens.

    Args:
        distributed: As `parallel.join` takes it.
    """
    if not distributed:
        yield
        return
    over = threading.Event()
    listener = threading.Thread(target=_listen, args=(over,), daemon=True)
    try:
        parallel.join(distributed)
        _say_the_last_word()
        listener.start()
        yield
    except BaseException as error:
        if not (isinstance(error, Stopped) and error.agreed):
            _leave_first(error)
        raise
    finally:
        over.set()
        if listener.ident is not None:
            listener.join()  # Python must not end while it is inside the runtime


def _leave_first(error: BaseException) -> NoReturn:
    """Tell the others why this process ends, and end it."""
    index, me = _name()
    text, code = last_words(error)
    if code == 1:
        time.sleep(2 * _GRACE)  # another may have ended first, and then knows better
        if any(word in str(error).lower() for word in _LOST):
            first = (str(error).splitlines() or [""])[0]
            text = f"another process has died ({first}); {_AGAIN}"
    with contextlib.suppress(Exception):  # another was first, or all are gone
        reason = text.splitlines()[0 if code == 2 else -1]
        parallel.service().key_value_set(_ENDED, f"{index} {me}: {reason}")
    if index == 0:  # the service is here: the others must have heard of it before
        time.sleep(3 * _GRACE)
    _leave(f"{me}: {text}", code)


def _listen(over: threading.Event) -> None:
    """End this process after another has ended."""
    index, me = _name()
    while not over.wait(_ASK_EVERY):
        try:
            told = parallel.service().key_value_try_get(_ENDED)
        except Exception:  # nobody has ended, or who notices it says so
            continue
        who, _, reason = told.partition(" ")
        if int(who) != index:
            time.sleep(_GRACE)
            _leave(f"{me} ends as another has ended: {reason}\n{_AGAIN}", 1)


def _say_the_last_word() -> None:
    """Let this process end with a message when JAX's runtime aborts it.

    It does so, with a stack trace of its own, when it misses another process. Python's
    handlers would never run (the abort comes from another thread), and the runtime's
    own callback fails in jaxlib 0.10 (std::bad_cast).
    """
    _, me = _name()

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def aborted(number: int) -> None:
        _leave(
            f"{me}: another process has died or cannot be reached, or JAX has failed "
            f"as said above; {_AGAIN}",
            1,
        )

    _KEPT.append(aborted)
    ctypes.CDLL(None).signal(signal.SIGABRT, aborted)


def _name() -> tuple[int, str]:
    """Return this process's index, and what it is called."""
    index, count = parallel.place()
    return index, f"process {index} of {count}"


def _leave(text: str, code: int) -> NoReturn:
    """End at once: a regular exit would wait for the others for minutes."""
    logging.flush()
    sys.stdout.flush()
    os.write(sys.stderr.fileno(), f"{text}\n".encode())
    os._exit(code)
