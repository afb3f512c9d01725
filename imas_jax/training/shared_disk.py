"""A disk that several hosts share shows a file to some of them later than to others.

NFS keeps what it knew of a folder for up to a minute. What the first process has
written is waited for here by the others, and looked for again and again.
"""

import contextlib
import hashlib
import os
import socket
import time
from pathlib import Path

from imas_jax import progress
from imas_jax.errors import UserError
from imas_jax.training import exchange, parallel

LAG = 90.0  # seconds a disk may take: NFS's `acdirmax` is 60
_LOOK_EVERY = 0.5


def see(path: Path, lag: float = LAG) -> None:
    """Return when this process sees a file or folder as the first process does.

    Every process must call this, when the first has written it.

    Args:
        path: A small file, or a folder that came whole, by renaming.
        lag: Seconds to wait at most.

    Raises:
        UserError: If it does not come.
    """
    index, count = parallel.process()
    if count == 1:
        return
    wanted = exchange.gather(_content(path) if index == 0 else None)[0]
    if index == 0:
        return
    end = time.monotonic() + lag
    with progress.waiting():
        while _content(path) != wanted:
            if time.monotonic() > end:
                raise UserError(
                    f"process {index} of {count} on {socket.gethostname()} does not "
                    f"see {path} as process 0 does, {lag:g} s after it was written",
                    "one disk that all processes see, under the same path",
                    "put the workdir on a disk that every host mounts, and look why "
                    "this host lags",
                )
            time.sleep(_LOOK_EVERY)


def _content(path: Path) -> str:
    """Tell what lies there, as far as it must be the same for all; "" for nothing."""
    with contextlib.suppress(OSError):
        os.scandir(path.parent).close()  # lets NFS ask again
    try:
        if path.is_dir():
            return "a folder"
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
