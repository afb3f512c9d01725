"""Large files that are checksummed once, and then trusted by size and time.

Beside a sealed file lies a hidden one, `.seal`, with its size, its time of change and
its CRC-32. As long as the first two are what they were, nobody has touched the file and
it is not read again; where the time differs (a copy, a hand) it is, once.
"""

import contextlib
import json
import zlib
from pathlib import Path

from imas_jax import files
from imas_jax.errors import UserError

CHUNK = 1 << 22  # bytes read at a time


def seal(path: Path, checksum: int | None = None) -> None:
    """Note a file that is whole.

    Args:
        path: The file.
        checksum: CRC-32 of its bytes, where it is known; else the file is read.

    Raises:
        OSError: If it cannot be read, or the seal not be written.
    """
    checksum = crc(path) if checksum is None else checksum
    status = path.stat()
    told = {"size": status.st_size, "time": status.st_mtime_ns, "crc32": checksum}
    files.write_text(seal_of(path), json.dumps(told))


def is_sealed(path: Path) -> bool:
    """Tell whether a file has a seal."""
    return seal_of(path).is_file()


def is_whole(path: Path) -> bool:
    """Tell whether a file is there and as it was when it was sealed.

    One of another size is not; one of another time is read, and sealed again where the
    folder can be written to.
    """
    try:
        told = json.loads(seal_of(path).read_text())
        status = path.stat()
        if status.st_size != told["size"]:
            return False
        if status.st_mtime_ns == told["time"]:
            return True
        found = crc(path)
        if found != told["crc32"]:
            return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    with contextlib.suppress(OSError, UserError):  # else it is read again next time
        seal(path, found)
    return True


class Remembered:
    """CRC-32 of files that are others': remembered by path, size and time.

    Args:
        note: JSON file in which it is kept; read here, written by `keep`.
    """

    def __init__(self, note: Path):
        self._note, self._new = note, False
        self._told: dict[str, list[int]] = {}
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(note.read_text(encoding="utf-8"))
            self._told = told if isinstance(told, dict) else {}

    def crc(self, path: Path) -> int:
        """Return a file's CRC-32; it is read if it is new or changed.

        Raises:
            OSError: If it cannot be read.
        """
        status, name = path.stat(), str(path.absolute())
        match self._told.get(name):
            case [status.st_size, status.st_mtime_ns, int(known)]:
                return known
        found = crc(path)
        self._told[name] = [status.st_size, status.st_mtime_ns, found]
        self._new = True
        return found

    def keep(self) -> None:
        """Write down what is new, or all where the note is gone."""
        if self._told and (self._new or not self._note.is_file()):
            files.write_text(self._note, json.dumps(self._told))
            self._new = False


def crc(path: Path) -> int:
    """Return the CRC-32 of a file's bytes."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def seal_of(path: Path) -> Path:
    """Return where a file's seal lies; no pattern of the file's name finds it."""
    return path.with_name(f".{path.name.replace('.', '-')}.seal")
