"""Stage-2 targets on disk: one file a sequence, with all that it was made from.

A file that exists is complete. One made from anything else than is asked for is never
used.
"""

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import UInt8

from imas_jax import array_files
from imas_jax.errors import UserError

Provenance = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class SequenceStatistics:
    """What happened to the masks of one sequence.

    Attributes:
        frames: Number of frames.
        changed_by_crf: Share of pixels whose label differs from the unary term's.
        changed_by_constraint: Share of pixels the constraint removed.
        discarded: Frames whose match was too large, so that the constraint was dropped.
        empty: Frames with an empty target.
    """

    frames: int
    changed_by_crf: float
    changed_by_constraint: float
    discarded: int
    empty: int


def read(
    folder: Path, name: str, provenance: Provenance | None = None
) -> UInt8[np.ndarray, "t h w"]:
    """Read one sequence's targets, 0..255 for [0, 1].

    Args:
        folder: As given to `targets.make_targets`.
        name: Sequence.
        provenance: What they must have been made from (`targets.full_provenance`);
            None takes what is there.

    Raises:
        UserError: If they are missing, unreadable, or made from something else.
    """
    file = _file(folder, name)
    try:
        stored = array_files.read_npz(file)
        target, told = stored["target"], json.loads(str(stored["provenance"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"no usable targets of {name} at {file} ({error})",
            "a file written by stage align",
            "run --config.stage=align again",
        ) from error
    if provenance is not None and told != plain(provenance):
        different = [key for key in told if told[key] != plain(provenance).get(key)]
        raise UserError(
            f"targets of {name} were made from something else: {', '.join(different)}",
            "targets of this run's checkpoint, channels and settings",
            "run --config.stage=align again",
        )
    return target


def read_finished(
    folder: Path, name: str, provenance: Provenance
) -> SequenceStatistics | None:
    """Return the statistics of targets made from the same, else None."""
    file = _file(folder, name)
    if not file.exists():
        return None
    try:
        stored = array_files.read_npz(file)
        told = json.loads(str(stored["provenance"]))
        statistics = json.loads(str(stored["statistics"]))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        logging.warning("%s is not readable (%s): made again", file, error)
        return None
    if told != plain(provenance):
        logging.info("%s was made from something else: made again", file)
        return None
    return SequenceStatistics(**statistics)


def write(
    folder: Path,
    name: str,
    targets: list[np.ndarray],
    statistics: SequenceStatistics,
    provenance: Provenance,
) -> None:
    """Write aside, then rename: a file that exists is complete."""
    file = _file(folder, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    with aside.open("wb") as stream:
        np.savez_compressed(
            stream,
            target=np.stack(targets),
            provenance=json.dumps(plain(provenance)),
            statistics=json.dumps(dataclasses.asdict(statistics)),
        )
    os.replace(aside, file)


def plain(values: Provenance) -> dict[str, Any]:
    """Bring values to the form they have after a trip through a file."""
    return json.loads(json.dumps(dict(values)))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.npz"
