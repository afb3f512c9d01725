"""One flow field on disk, with all that is needed to trust it; and where it lies.

A file is an uncompressed `.npz` (`np.load` reads it anywhere) of

- `flow` (hf, wf, 2) float16, half the frame's resolution, values in its pixels;
- `homography` (3, 3), the camera motion (`motion.fit_background`);
- `meta`, JSON: `FlowMeta` and the quality signals.

Measured with DIS on DAVIS at 854x480 (`benchmarks/flow_storage.py`), storage adds a
mean error of 0.032 px (median 0.004, 95th percentile 0.15, all at motion borders;
float16 alone 0.002) and takes 0.82 MB a pair both ways: 2.8 GB for DAVIS16's 3,455
pairs. Deflate gained 22 %, fixed point with row differences 65 % at ten times the
reading time: neither was worth it.

Zip's checksums tell a damaged file; files are written aside and renamed, so a killed
run leaves no half file. A folder is named by a digest of the settings, and each file
carries a fingerprint of its two frames: changed settings or frames never reuse a file.
"""

import dataclasses
import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Float16

from imas_jax import errors, files

VERSION = 1  # of the file format; part of every digest
Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, Direction] = ("forward", "backward")


@dataclasses.dataclass(frozen=True)
class FlowMeta:
    """What a flow field is of.

    Attributes:
        sequence: Clip name.
        frame: Index t of the pair (t, t + gap), whatever the direction.
        direction: "forward" lives on frame t's grid, "backward" on frame t + gap's.
        gap: Frames between the two.
        frame_size: (h, w) whose pixels the values count.
        estimator: "dis", "raft" or "import".
        digest: All that estimator and settings contributed.
        frames: Fingerprint of the two frames' files.
        version: Of the format.
    """

    sequence: str
    frame: int
    direction: Direction
    gap: int
    frame_size: tuple[int, int]
    estimator: str
    digest: str
    frames: str = ""
    version: int = VERSION


@dataclasses.dataclass(frozen=True)
class FlowField:
    """A flow field as read back.

    Attributes:
        flow: Pixels of the frame, on a grid that may be coarser.
        meta: What it is of.
        homography: Camera motion in pixel indices of the frame.
        quality: Signals of `motion.quality`, by name.
    """

    flow: Float16[np.ndarray, "hf wf 2"]
    meta: FlowMeta
    homography: Float[np.ndarray, "3 3"]
    quality: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class FlowFolder:
    """Names the files of one set of settings: `<root>/<digest>/<clip>/...`.

    Attributes:
        root: Folder of all settings.
        digest: Of the settings, see `settings_digest`.
    """

    root: Path
    digest: str

    def path(self, clip: str, frame: int, direction: Direction, gap: int = 1) -> Path:
        """Return where the flow of pair (frame, frame + gap) lies."""
        name = f"{frame:05d}_{direction}_gap{gap}.npz"
        return self.root / self.digest / clip / name

    def read(
        self, clip: str, frame: int, direction: Direction, gap: int = 1
    ) -> FlowField:
        """Read one field and check that it is the one asked for.

        Raises:
            UserError: If it is missing, damaged, or another pair's.
        """
        path = self.path(clip, frame, direction, gap)
        field = read_flow(path)
        found = (field.meta.sequence, field.meta.frame, field.meta.direction)
        if found != (clip, frame, direction) or field.meta.gap != gap:
            raise errors.UserError(
                f"{path} holds the flow of {found}, gap {field.meta.gap}",
                f"{(clip, frame, direction)}, gap {gap}",
                "remove the file and run --config.stage=flow again",
            )
        return field


def settings_digest(*parts: object) -> str:
    """Return 12 hex digits that change with any part or with the file format."""
    text = json.dumps([VERSION, *map(str, parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def half_resolution(
    flow: Float[np.ndarray, "h w 2"],
) -> Float[np.ndarray, "hf wf 2"]:
    """Average 2x2 pixels; values stay in pixels of the frame, odd sides round up."""
    h, w = flow.shape[:2]
    size = ((w + 1) // 2, (h + 1) // 2)
    return cv2.resize(flow, size, interpolation=cv2.INTER_AREA)


def write_flow(
    path: Path,
    flow: Float[np.ndarray, "hf wf 2"],
    meta: FlowMeta,
    homography: Float[np.ndarray, "3 3"] | None = None,
    quality: Mapping[str, float] | None = None,
) -> None:
    """Write one field, whole or not at all.

    Args:
        path: Where; folders are made.
        flow: In pixels of the frame; stored as float16 on the grid given.
        meta: What it is of.
        homography: Camera motion; None stores "no camera motion".
        quality: Signals by name.
    """
    text = json.dumps({"meta": dataclasses.asdict(meta), "quality": quality or {}})
    with files.aside(path) as draft, draft.open("wb") as file:
        np.savez(
            file,
            flow=flow.astype(np.float16),
            homography=np.eye(3) if homography is None else homography,
            meta=np.frombuffer(text.encode(), np.uint8),
        )


def read_flow(path: Path) -> FlowField:
    """Read and check one field.

    Raises:
        UserError: If the file is missing, truncated, damaged or of another format.
    """
    try:
        arrays = files.read_npz(path)
        said = json.loads(arrays["meta"].tobytes())
        meta = said["meta"] | {"frame_size": tuple(said["meta"]["frame_size"])}
        if meta["version"] != VERSION:
            raise ValueError(f"format version {meta['version']}, not {VERSION}")
        return FlowField(
            arrays["flow"], FlowMeta(**meta), arrays["homography"], said["quality"]
        )
    except FileNotFoundError as error:
        raise errors.UserError(
            f"flow file {path} is missing",
            "one file a pair and direction, written by the flow stage",
            "run the same command with --config.stage=flow",
        ) from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise _damaged(path, error) from error
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> errors.UserError:
    return errors.UserError(
        f"flow file {path} is truncated or damaged ({error})",
        "a file the flow stage wrote to its end",
        "run --config.stage=flow again: it recomputes damaged files",
    )
