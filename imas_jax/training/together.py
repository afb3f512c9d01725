"""Processes of one run end together, whatever ends one of them.

An error or a signal in one process is told to the others, which end with its reason
instead of waiting for it. A process that dies without a word (killed, out of memory,
power), or is stopped, is missed by JAX's runtime after `parallel.HEARTBEAT` seconds at
most; one that lives but does not get on is found by `peers.py`. Ending in the middle of
anything is safe: every stage can be killed at any moment.
"""

import contextlib
import ctypes
import itertools
import logging as python_logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from absl import logging

from imas_jax import progress
from imas_jax.errors import Stopped, last_words
from imas_jax.training import parallel, peers

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
def joined(distributed: str, patience: float = 0.0) -> Iterator[None]:
    """Join the other processes of a run; end all, with a message, if this block fails.

    What all processes agree on (`Stopped.agreed`) they end with by themselves. Without
    others nothing happens.

    Args:
        distributed: As `parallel.join` takes it.
        patience: Seconds without progress after which a process counts as hung, and all
            end; 0: never.
    """
    if not distributed:
        yield
        return
    over, known, beats = threading.Event(), peers.Peers(patience), _Beats()
    listener = threading.Thread(target=_listen, args=(over, known), daemon=True)
    try:
        parallel.join(distributed)
        _say_the_last_word(known)
        logging.get_absl_logger().addHandler(beats)
        listener.start()
        yield
    except BaseException as error:
        if not (isinstance(error, Stopped) and error.agreed):
            _leave_first(error, known)
        raise
    finally:
        logging.get_absl_logger().removeHandler(beats)
        over.set()
        if listener.ident is not None:
            listener.join()  # Python must not end while it is inside the runtime


class _Beats(python_logging.Handler):
    """Takes every line that is logged for a sign of progress."""

    def emit(self, record: python_logging.LogRecord) -> None:
        progress.beat(record.getMessage())


def _leave_first(error: BaseException, known: peers.Peers) -> NoReturn:
    """Tell the others why this process ends, and end it."""
    index, me = _name()
    text, code = last_words(error)
    if code == 1:
        time.sleep(2 * _GRACE)  # another may have ended first, and then knows better
        if any(word in str(error).lower() for word in _LOST):
            first = (str(error).splitlines() or [""])[0]
            who = _missed(known)
            text = f"another process has died ({who or first}); {_AGAIN}"
    if not _try_to_tell(text.splitlines()[0 if code == 2 else -1]) and code == 2:
        text = _shorter(text)
    if index == 0:  # the service is here: the others must have heard of it before
        time.sleep(3 * _GRACE)
    _leave(f"{me}: {text}", code)


def _shorter(text: str) -> str:
    """Return what this process says of bad input that another has told at length."""
    reason = text.splitlines()[0]
    with contextlib.suppress(Exception):
        told = parallel.service().key_value_try_get(_ENDED)
        who, _, first = told.partition(" ")
        if int(who) != _name()[0] and first.endswith(f": {reason}"):
            return f"ends with the same error as {first.removesuffix(f': {reason}')}"
    return text


def _try_to_tell(reason: str) -> bool:
    """Let the others know why this process ends; False if another was first.

    It is False too if nobody can be reached.
    """
    index, me = _name()
    try:
        parallel.service().key_value_set(_ENDED, f"{index} {me}: {reason}")
    except Exception:  # of the runtime, which names none
        return False
    return True


def _listen(over: threading.Event, known: peers.Peers) -> None:
    """End this process after another has ended, or hangs; say that this one lives."""
    index, me = _name()
    for count in itertools.count():
        hung = _look(count, known)
        if hung and _try_to_tell(hung):
            time.sleep(3 * _GRACE if index == 0 else 0.0)
            _leave(f"{me}: {hung}; {_AGAIN}", 1)
        if over.wait(_ASK_EVERY):
            return
        try:
            told = parallel.service().key_value_try_get(_ENDED)
        except Exception:  # nobody has ended, or who notices it says so
            continue
        who, _, reason = told.partition(" ")
        if int(who) != index:
            time.sleep(_GRACE)
            _leave(f"{me} ends as another has ended: {reason}\n{_AGAIN}", 1)


def _look(count: int, known: peers.Peers) -> str:
    """Tell of this process, hear of others; return who hangs, "" for nobody."""
    (index, me), service, folder = _name(), parallel.service(), peers.FOLDER
    own = f"{folder}{index}"
    with contextlib.suppress(Exception):  # not there yet, or not reached any more
        service.key_value_set(own, peers.told(count, me), allow_overwrite=True)
        if index == 0:
            said = service.key_value_dir_get(folder)
            known.hear({int(key.rpartition("/")[2]): text for key, text in said})
        else:
            known.hear({0: service.key_value_try_get(f"{folder}0")})
    return known.hung(parallel.place()[1])


def _missed(known: peers.Peers) -> str:
    """Name the processes that this one looks at and does not hear of any more."""
    index, count = parallel.place()
    return known.silent(1.5 * _GRACE, range(1, count) if index == 0 else (0,))


def _say_the_last_word(known: peers.Peers) -> None:
    """Let this process end with a message when JAX's runtime aborts it.

    It does so, with a stack trace of its own, when it misses another process. Python's
    handlers would never run (the abort comes from another thread), and the runtime's
    own callback fails in jaxlib 0.10 (std::bad_cast).
    """
    index, me = _name()

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def aborted(number: int) -> None:
        if index:  # the first may tell, and is heard of if it is not the one
            time.sleep(2 * _GRACE)
        who = _missed(known) or "or JAX has failed as said above"
        reason = f"another process has died or cannot be reached ({who})"
        if index == 0 and parallel.place()[1] > 2:
            # In a thread of its own: this one may hold what it needs.
            threading.Thread(target=_try_to_tell, args=(reason,), daemon=True).start()
            time.sleep(2 * _GRACE)
        _leave(f"{me}: {reason}; {_AGAIN}", 1)

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
