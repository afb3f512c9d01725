"""How files come to disk whole, and how NumPy's are read by many threads at once.

Every result is written under another name in the same folder and renamed when it is
complete and on the disk: a file that has its name is whole, whatever was killed, full
or switched off. `aside` is the only place that does so.

NumPy parses the header of an array file with `ast`. Python 3.11 counts that parser's
recursion for all threads together, and a callback of the garbage collector (JAX
installs one) lets another thread in half-way. Now and then that ends in `SystemError:
AST constructor recursion depth mismatch`. Here headers are parsed one at a time; disks
are still read side by side.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import io
import math
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

import filelock
import numpy as np
from absl import logging

from imas_jax.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST_NAME = 255  # bytes, on every file system in use
HARMLESS = 1 << 30  # bytes that any archive may unpack to
PACKED = 20  # times its own size that a larger one may; flow and weights pack 2 to 10

_PARSING = threading.Lock()


class BusyError(UserError):
    """Another process is writing the same file."""


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Lend a name beside `path` to write to; what lies there becomes `path`.

        with files.aside(path) as draft:
            draft.write_text(text)

    Only when the block ends well, and the bytes are on the disk. When it does not (a
    full disk, an interrupt), the draft is removed and what had the name before stays.
    A draft that a killed run left is written over: there is one name for each file.

    Args:
        path: The file; its folder is made. The draft's name ends like it, since some
            writers choose a format by the suffix.

    Raises:
        BusyError: If another process is writing the same file.
        OSError: As the disk has it; `DISK_FULL` lists the numbers of a full one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_name(path)
    with draft.open("ab") as held:
        _hold(held, draft)
        try:
            yield draft
            with draft.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    _sync(path.parent)


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Lend an empty folder beside `path`; it becomes `path` when the block ends well.

    Raises:
        OSError: As the disk has it, and if `path` is there and is not an empty folder.
    """
    draft = draft_name(path)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft
        os.replace(draft, path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _sync(path.parent)


@contextlib.contextmanager
def alone(path: Path, busy: str) -> Iterator[None]:
    """Keep other processes from what a lock file stands for, while the block runs.

    Args:
        path: The lock file; its folder is made, and it stays.
        busy: Is told when another process has it and this one waits.

    Raises:
        OSError: As the disk has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        logging.info("%s; waiting", busy)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def check_room(
    folder: Path, needed: int, what: str, field: str = "workdir", instead: str = ""
) -> None:
    """Refuse to begin what cannot end well.

    Args:
        folder: Where it will lie.
        needed: Bytes it takes.
        what: It is.
        field: Of the config, which names the folder.
        instead: What does without the room, if anything does.

    Raises:
        UserError: If the disk of `folder` has less than `needed` bytes left.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{free / 1e6:.0f} MB free at {folder}",
            f"{needed / 1e6:.0f} MB for {what}",
            f"make room, or set --config.{field} to a larger disk{instead}",
        )


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, whole or not at all; raises as `aside` does."""
    with aside(path) as draft:
        draft.write_text(text, encoding="utf-8")


def tells_full(error: Exception) -> bool:
    """Tell whether a library's own exception quotes the system about a full disk."""
    return any(os.strerror(number) in str(error) for number in DISK_FULL)


def draft_name(path: Path) -> Path:
    """Return the one name under which `path` is written."""
    name = f".partial-{path.name}"
    if len(os.fsencode(name)) > LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()
        name = f".partial-{digest}{path.suffix}"
    return path.with_name(name)


def digest(path: Path, kind: str = "sha256") -> str:
    """Return a file's hash in hex; read once as long as the file stays as it is.

    Raises:
        OSError: If it cannot be read.
    """
    status = path.stat()
    return _digest(path.absolute(), kind, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest(path: Path, kind: str, size: int, changed: int) -> str:
    del size, changed  # parts of the key only
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def user_cache() -> Path:
    """Return this project's folder in the user's cache (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The standard says that a relative path is to be taken for none.
    home = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    return home / "imas_jax"


def local_cache() -> Path:
    """Return this project's folder for what is large and only good on this machine.

    Below TMPDIR where that is set, as clusters do for each job on the disk of the node
    (homes there are often far away and small); else the user's cache.
    """
    base = os.environ.get("TMPDIR", "")
    if Path(base).is_absolute():
        return Path(base) / f"imas_jax-{os.getuid()}"
    return user_cache()


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an `.npz`; memory is reserved for what the file holds.

    Raises:
        OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error: If it
            is missing, damaged, unpacks to far more than its size, or holds Python
            objects.
    """
    stream = io.BytesIO(path.read_bytes())
    arrays = {}
    with zipfile.ZipFile(stream) as archive:
        check_unpacked(archive, stream.getbuffer().nbytes)
        for member in archive.infolist():
            with archive.open(member) as file:
                shape, order, dtype = _header(file, member.file_size)
                data = bytearray(file.read())
            flat = np.frombuffer(data, dtype, math.prod(shape))
            arrays[member.filename.removesuffix(".npy")] = flat.reshape(
                shape, order=order
            )
    return arrays


def check_unpacked(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive of `size` bytes that unpacks to far more, before it does.

    No member unpacks to more than it claims: reading it fails there.

    Raises:
        ValueError: With both sizes.
    """
    check_total(sum(member.file_size for member in archive.infolist()), size)


def check_total(total: int, size: int) -> None:
    """Refuse a file of `size` bytes that becomes `total` bytes, far more, in memory.

    Raises:
        ValueError: With both sizes.
    """
    if total > max(HARMLESS, PACKED * size):
        raise ValueError(f"unpacks to {total / 1e6:.0f} MB from {size} bytes")


def read_npy(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Read or map the array of an `.npy`.

    Raises:
        OSError, EOFError, ValueError: If it is missing, damaged, or holds Python
            objects.
    """
    with path.open("rb") as file:
        _header(file, path.stat().st_size)
    with _PARSING:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)


def _header(
    file: IO[bytes] | io.BufferedIOBase, size: int
) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Read the shape, order and type of an array file of `size` bytes.

    NumPy itself reserves memory for what a header claims before it reads further.
    """
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"an array file of version {version}")
    with _PARSING:
        shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are not loaded (allow_pickle)")
    claimed = math.prod(shape) * dtype.itemsize
    if not 0 <= claimed <= size:
        raise ValueError(f"claims {claimed} bytes, the file has {size}")
    return shape, "F" if fortran else "C", dtype


def _hold(held: IO[bytes], draft: Path) -> None:
    """Keep others from a draft until it is closed; death lets go of it too."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.fstat(held.fileno()).st_ino == draft.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        mine = False  # another's, or renamed by it since it was opened here
    except OSError:
        return  # a file system without locks: as good as it gets
    if not mine:
        raise BusyError(
            f"{draft} is being written by another process",
            "one run at a time for each file",
            "wait until the other run has finished, or give this one folders of its "
            "own (--config.workdir, --config.flow.root)",
        )


def _sync(folder: Path) -> None:
    """Bring a folder's names to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
