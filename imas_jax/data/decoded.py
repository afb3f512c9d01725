"""Decoded frames and flow: one copy a host, on its disk, mapped by all its processes.

Decoding is work and a decoded set is large; with eight processes on a host (one a GPU)
both would be eightfold. Here one process decodes into a folder of the host's own disk,
the others wait, and all map the same pages: the system holds them once, and lets go of
them when memory is short. The next run, another seed or the next stage finds them.

An entry is the frames, or the flow, of one clip: a NumPy file named by a digest of all
that decides its values (format, decoders, sizes, pairs, and path, size and time of
every file that is read). It is written aside, renamed and sealed (`sealed.py`), so a
part is never taken for the whole, and what was damaged is made again. The folder may be
deleted at any time. What was not used for longest goes when it holds over `LARGEST`.
"""

import contextlib
import functools
import hashlib
import io
import itertools
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import PIL
from absl import logging
from jaxtyping import Float16, UInt8

from imas_jax import files
from imas_jax.data import clips as clips_lib
from imas_jax.data import sealed
from imas_jax.data import training_set as training_sets
from imas_jax.data.training_set import TrainingSet
from imas_jax.errors import UserError

VERSION = 1  # raise it when the same files give other values
OFF = "off"
LARGEST = 30 * 10**9  # bytes, beyond which what is not in use goes
SMALL = 10**9  # bytes that one process alone rather decodes into its own memory
FIX = (
    f"make room or correct its permissions, or name another folder with "
    f"--config.data.cache=DIR; --config.data.cache={OFF} keeps all in each process"
)


def folder(chosen: str, needed: int, processes: int) -> Path | None:
    """Return where decoded values are kept; None where each process holds its own.

    Args:
        chosen: `config.data.cache`: a folder, "" or `OFF`.
        needed: Bytes of the decoded set.
        processes: Of this run on this host.
    """
    if chosen == OFF or (not chosen and processes == 1 and needed < SMALL):
        return None
    return Path(chosen) if chosen else files.local_cache() / "decoded"


def read_frames(
    training_set: TrainingSet, kept: Path | None
) -> list[UInt8[np.ndarray, "_ h w 3"]]:
    """Return all frames of every clip, mapped from `kept`, or decoded where it is None.

    Raises:
        UserError: If a frame cannot be read, or the folder not be written to.
    """
    if kept is None:
        return training_sets.read_frames(training_set)
    h, w = training_set.size
    entries = [
        _Entry(
            kept / f"frames-{_frames_key(clip)}.npy",
            len(clip.frames),
            functools.partial(_frames_of, clip),
            len(clip.frames) * h * w * 3,
        )
        for clip in training_set.clips
    ]
    return _mapped(entries, kept, "frames")


def read_flows(
    training_set: TrainingSet, kept: Path | None
) -> list[Float16[np.ndarray, "2 hf wf 2"]]:
    """Return the flow of every pair, mapped from `kept`, or read where it is None.

    Raises:
        UserError: One report of every flow file that is wrong; or the folder cannot be
            written to.
    """
    if kept is None or training_set.flow is None:
        return training_sets.read_flows(training_set)
    clips = [indices for indices in training_set.indices_of_clip if indices]
    try:
        entries = [
            _Entry(
                kept / f"flow-{_flow_key(training_set, indices)}.npy",
                len(indices),
                functools.partial(_flows_of, training_set, indices),
                sum(p.stat().st_size for i in indices for p in training_set.paths(i)),
            )
            for indices in clips
        ]
        found = _mapped(entries, kept, "flow")
        sound = len({array.shape[1:] for array in found}) == 1
    except (FileNotFoundError, _Unsound):
        training_sets.check_flows(training_set)  # tells all that is wrong
        raise
    if not sound:
        training_sets.check_flows(training_set)
    flows: list[np.ndarray] = [np.empty(0)] * len(training_set.pairs)
    for indices, array in zip(clips, found, strict=True):
        for index, flow in zip(indices, array, strict=True):
            flows[index] = flow
    return flows


class _Unsound(UserError):
    """A flow file is not as it should be: others may not be either."""


@dataclass(frozen=True)
class _Entry:
    """What lies, or will lie, in one file.

    Attributes:
        path: The file.
        count: Length of its first axis.
        make: Yields its parts in order.
        size: About how many bytes.
    """

    path: Path
    count: int
    make: Callable[[], Iterator[np.ndarray]]
    size: int

    def open(self) -> np.ndarray | None:
        """Map it; None if it is not there, or not whole."""
        if not sealed.is_whole(self.path):
            return None
        try:
            mapped = files.read_npy(self.path, mmap_mode="r")
        except (OSError, EOFError, ValueError):
            return None
        with contextlib.suppress(OSError):  # somebody else's folder
            os.utime(sealed.seal_of(self.path))  # what is not used for longest goes
        # Slices of a memmap are slow to make, those of the array below it are not.
        return np.asarray(mapped) if len(mapped) == self.count else None

    def write(self) -> None:
        """Decode into the file, part by part."""
        checksum = 0
        with files.aside(self.path) as draft, draft.open("wb") as file:
            parts = self.make()
            first = next(parts)
            head = io.BytesIO()
            about = {
                "shape": (self.count, *first.shape),
                "fortran_order": False,
                "descr": np.lib.format.dtype_to_descr(first.dtype),
            }
            np.lib.format.write_array_header_1_0(head, about)
            checksum = _write(file, head.getvalue(), checksum)
            # Not by mapping the draft: a full disk would kill the process.
            for part in itertools.chain([first], parts):
                if part.shape != first.shape:
                    raise _Unsound(
                        f"arrays of {part.shape} and {first.shape} in one clip",
                        "one size",
                        "run --config.stage=flow again",
                    )
                checksum = _write(file, part.tobytes(), checksum)
        sealed.seal(self.path, checksum)


def _write(file: IO[bytes], data: bytes, checksum: int) -> int:
    """Write data; return the checksum of all so far."""
    file.write(data)
    return zlib.crc32(data, checksum)


def _mapped(entries: Sequence[_Entry], kept: Path, what: str) -> list[np.ndarray]:
    """Map entries; make those that are missing, unless another process does."""
    found = [entry.open() for entry in entries]
    if any(one is None for one in found):
        busy = f"another process of this host decodes into {kept}"
        try:
            with files.alone(kept / ".lock", busy):
                _make(entries, kept, what)
                found = [entry.open() for entry in entries]
        except OSError as error:
            raise UserError(
                f"{what} cannot be kept in {kept}: {error}",
                "a folder of this host with room, that can be written to",
                FIX,
            ) from error
    lost = [e.path for e, one in zip(entries, found, strict=True) if one is None]
    if lost:
        raise UserError(
            f"{lost[0]} is not what was just written to it"
            + (f", and {len(lost) - 1} more" if lost[1:] else ""),
            "a disk that keeps what is written",
            FIX,
        )
    return [one for one in found if one is not None]


def _make(entries: Sequence[_Entry], kept: Path, what: str) -> None:
    todo = [entry for entry in entries if entry.open() is None]
    if not todo:
        return
    needed = sum(entry.size for entry in todo)
    _trim(kept, {entry.path for entry in entries}, needed)
    instead = f", or --config.data.cache={OFF} to keep all in each process"
    files.check_room(kept, needed, f"decoded {what}", "data.cache", instead)
    logging.info(
        "decoding the %s of %d clip(s), %.2f GB, into %s: once for this host",
        what,
        len(todo),
        needed / 1e9,
        kept,
    )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_Entry.write, todo))


def _trim(kept: Path, used: set[Path], more: int) -> None:
    """Remove what was not used for longest until there is room for `more` bytes."""
    found = []
    for path in kept.glob("*.npy"):
        with contextlib.suppress(OSError):
            seal = sealed.seal_of(path)
            last = (seal if seal.is_file() else path).stat().st_mtime
            found.append((last, path, path.stat().st_size))
    total = sum(size for _, _, size in found)
    for _, path, size in sorted(found):
        full = more > shutil.disk_usage(kept).free
        if total + more <= LARGEST and not full:
            return
        if path not in used:  # who has mapped it keeps it until it ends
            path.unlink(missing_ok=True)
            sealed.seal_of(path).unlink(missing_ok=True)
            total -= size


def _frames_of(clip: clips_lib.Clip) -> Iterator[np.ndarray]:
    return map(clip.read, range(len(clip.frames)))


def _flows_of(training_set: TrainingSet, indices: Sequence[int]) -> Iterator[Any]:
    try:
        yield from map(training_set.flow_of, indices)
    except UserError as error:
        raise _Unsound(error.found, error.expected, error.fix) from error


def _frames_key(clip: clips_lib.Clip) -> str:
    read: list[Any] = []
    if clip.reader is not None:
        read.append(_stamp(clip.reader.path))
    for frame in clip.frames:
        read.append([frame.index, frame.path and _stamp(frame.path)])
    versions = [np.__version__, cv2.__version__, PIL.__version__]
    return _key("frames", versions, clip.size, clip.native_size, read)


def _flow_key(training_set: TrainingSet, indices: Sequence[int]) -> str:
    clip = training_set.clips[training_set.pairs[indices[0]].clip]
    read = [_stamp(path) for i in indices for path in training_set.paths(i)]
    versions = [np.__version__, cv2.__version__]
    return _key("flow", versions, clip.size, training_set.background, read)


def _stamp(path: Path) -> list[Any]:
    status = path.stat()
    return [str(path.absolute()), status.st_size, status.st_mtime_ns]


def _key(*parts: Any) -> str:
    text = json.dumps([VERSION, *parts])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
