"""NumPy's files, read by many threads at once.

NumPy parses the header of an array file with `ast`. Python 3.11 counts that parser's
recursion for all threads together, and a callback of the garbage collector (JAX
installs one) lets another thread in half-way. Now and then that ends in `SystemError:
AST constructor recursion depth mismatch`. Here headers are parsed one at a time; disks
are still read side by side.
"""

import io
import threading
from pathlib import Path
from typing import Literal

import numpy as np

_PARSING = threading.Lock()


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read every array of an `.npz`.

    Raises:
        OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error: If it
            is missing, damaged, or holds Python objects.
    """
    stream = io.BytesIO(path.read_bytes())
    with _PARSING, np.load(stream, allow_pickle=False) as arrays:
        return dict(arrays.items())


def read_npy(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """Read or map the array of an `.npy`.

    Raises:
        OSError, EOFError, ValueError: If it is missing, damaged, or holds Python
            objects.
    """
    with _PARSING:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
