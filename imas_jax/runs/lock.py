"""One command at a time in a workdir.

The lock is the system's own on an open file: whatever ends a process, kill -9 included,
ends its lock, and nothing has to be cleaned up. Of several processes of one run the
first holds it for all.
"""

import contextlib
import datetime
import fcntl
import os
import shlex
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from imas_jax.errors import UserError
from imas_jax.runs import records
from imas_jax.training import parallel

NAME = ".lock"

# Workdirs this process holds, and how often. Locks of `lockf` belong to a process, so
# asking twice would grant twice, and closing the file once would let go of both.
_HELD: dict[Path, int] = {}
_COUNTING = threading.Lock()


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Keep a workdir to this process; within it holding again is granted.

    Raises:
        UserError: If another process has it, or the folder cannot be written to.
    """
    if parallel.process()[0] != 0:
        yield
        return
    folder = workdir.resolve()
    with _COUNTING:
        count = _HELD.get(folder, 0)
        file = None if count else _take(folder)
        _HELD[folder] = count + 1
    try:
        yield
    finally:
        with _COUNTING:
            _HELD[folder] -= 1
            if file is not None:
                _HELD.pop(folder)
                (folder / NAME).unlink(missing_ok=True)
                os.close(file)


def _take(folder: Path) -> int:
    """Open and lock the file; return it."""
    path = folder / NAME
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise records.unwritable(path, error) from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.read(file, 4096).decode(errors="replace")
            os.close(file)
            raise UserError(
                f"{folder} is in use by {holder or 'another process'}",
                "one command at a time in a workdir",
                "wait for it to end, stop it, or choose another --config.workdir",
            ) from None
        except OSError as error:
            logging.warning("%s: this disk grants no locks (%s)", folder, error)
        if _is_still(path, file):
            break
        os.close(file)  # the one before removed it while this one waited
    now = datetime.datetime.now().isoformat(" ", timespec="seconds")
    who = f"process {os.getpid()} on {socket.gethostname()} since {now}"
    os.truncate(file, 0)
    os.write(file, f"{who}: {shlex.join(sys.argv)}".encode())
    return file


def _is_still(path: Path, file: int) -> bool:
    """Tell whether an open file is the one that lies there."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
