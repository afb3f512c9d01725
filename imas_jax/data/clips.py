"""Videos on disk -> `Clip` and `Frame` records, checked before any work starts.

Every layout of `layouts.py` yields the same records, so nothing after this file knows
datasets. No annotation is read here. What is checked, and how odd input is treated:

- frame order: natural order of names, so unpadded numbers ("9" before "10") are fine;
- a gap in the numbering is a missing frame: refused, or with `data.partial` told and
  accepted (the pair across the gap stays a pair). Constant steps (0, 5, 10) are fine;
- two files for one frame (`1.jpg` and `01.jpg`, `1.jpg` and `1.png`) are refused;
- frames of one clip must have one size; clips may differ, unless `data.size` is set;
- clips of one frame, sides under 16 px, empty, truncated, unreadable files: refused;
- hidden files and files that are no images are left alone; names may hold spaces and
  any Unicode;
- grey, RGBA, CMYK, 16-bit and EXIF-rotated images: see `images.py`; videos `video.py`.
"""

import concurrent.futures
import dataclasses
import itertools
import os
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from absl import logging
from jaxtyping import UInt8
from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.data import images, layouts, video

SHORTEST_SIDE = 16  # px: below it no flow estimator works

# Sequences and frames as published (FACTS.md); checked where a copy claims to be one.
PUBLISHED_DAVIS = {"trainval": (50, 3455), "train": (30, 2079), "val": (20, 1376)}
PUBLISHED_DAVIS_RESOLUTIONS = ("480p", "1080p")
PUBLISHED = {
    ("segtrackv2", ""): (14, 976),
    ("fbms59", ""): (59, 13860),
    ("fbms59", "trainval"): (59, 13860),
    ("fbms59", "train"): (29, 0),
    ("fbms59", "val"): (30, 0),
    ("fbms59", "test"): (30, 0),
}


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        name: File stem ("00000"), or the padded number within a video file.
        path: The file, or None within a video file.
        index: Position in the clip, from 0.
    """

    name: str
    path: Path | None
    index: int


@dataclasses.dataclass(frozen=True)
class Clip:
    """One video.

    Attributes:
        name: Folder or file name, unique in the dataset.
        frames: In order.
        size: (h, w) of what `read` returns: `native_size`, or `data.size` where set.
        native_size: (h, w) of the files.
        reader: Decoder of a video file, or None.
    """

    name: str
    frames: tuple[Frame, ...]
    size: tuple[int, int]
    native_size: tuple[int, int]
    reader: video.VideoReader | None = dataclasses.field(
        default=None, repr=False, compare=False
    )

    def read(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Read frame `index` as upright RGB at `size` (area-averaged when shrunk).

        Raises:
            UserError: If the frame cannot be read or changed its size.
        """
        frame = self.frames[index]
        if frame.path is not None:
            image = images.read_image(frame.path)
        else:
            assert self.reader is not None
            image = self.reader.read(index)
        if image.shape[:2] != self.native_size:
            raise errors.UserError(
                f"frame {frame.name} of {self.name} is {image.shape[:2]}",
                f"(h, w) = {self.native_size} as in the rest of the clip",
                "restore the frame's original file",
            )
        return image if self.size == self.native_size else _resize(image, self.size)

    def fingerprint(self, index: int) -> str:
        """Return what changes with a frame's contents: a checksum, not a time stamp."""
        path = self.frames[index].path
        if path is not None:
            return f"{zlib.crc32(path.read_bytes()):08x}"
        assert self.reader is not None
        return f"{self.reader.fingerprint()}.{index}"


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two frames of one clip: clip number, and frame indices t and t + gap."""

    clip: int
    first: int
    second: int


def find_clips(
    data: ConfigDict, split: str | None = None, decode: bool = False
) -> tuple[Clip, ...]:
    """Find and check every clip of a split.

    Args:
        data: `config.data`.
        split: Image set; None takes `data.split`, "" every sequence. Layouts without
            image sets ignore it.
        decode: Decode every image too: finds damage inside files, 5 ms a 480p frame.

    Raises:
        UserError: One report of everything wrong, by file.
    """
    split = data.split if split is None else split
    if layouts.resolve(data) == "video":
        return (_video_clip(data),)
    listings = layouts.list_clips(data, split)
    problems, notes = errors.ProblemList(), errors.ProblemList()
    _check_counts(listings, data, split, notes if data.partial else problems)
    found = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for listing in listings:
            size = _check_listing(listing, pool, decode, data.partial, problems, notes)
            present = [p for p in listing.paths if p.exists()]
            frames = tuple(Frame(p.stem, p, i) for i, p in enumerate(present))
            found.append(Clip(listing.name, frames, _working(data, size), size))
    for note in notes.problems:
        logging.warning("%s", note)
    problems.raise_if_any(
        f"data.root {data.root}",
        "clips of at least two readable frames, numbered without gaps, of one size",
        "repair or remove what is named; for a copy with frames or sequences missing "
        "set --config.data.partial=True",
    )
    return tuple(found)


def pairs(clips: Sequence[Clip], gap: int = 1) -> tuple[Pair, ...]:
    """List all pairs (t, t + gap) of all clips, clip by clip."""
    return tuple(
        Pair(number, t, t + gap)
        for number, clip in enumerate(clips)
        for t in range(len(clip.frames) - gap)
    )


def pair_of_frame(clip: Clip, index: int) -> tuple[int, int]:
    """Return the pair that predicts a frame; the last frame reuses the last pair."""
    first = min(index, len(clip.frames) - 2)
    return first, first + 1


def _video_clip(data: ConfigDict) -> Clip:
    path = Path(data.root)
    if path.is_dir():
        raise errors.UserError(
            f"data.root {path} is a folder",
            "a video file, for data.layout = 'video'",
            "name the file, or set --config.data.layout=auto",
        )
    info = video.probe(path)
    if info.count < 2 or min(info.size) < SHORTEST_SIDE:
        raise errors.UserError(
            f"{path} holds {info.count} frame(s) of {info.size} (h, w)",
            f"at least 2 frames with sides of {SHORTEST_SIDE} px",
            "choose a longer or larger video",
        )
    if info.promised > info.count:
        logging.warning(
            "%s promises %d frames, %d decode: cut short?",
            path,
            info.promised,
            info.count,
        )
    frames = tuple(Frame(f"{i:05d}", None, i) for i in range(info.count))
    size = _working(data, info.size)
    return Clip(path.stem, frames, size, info.size, video.VideoReader(path))


def _working(data: ConfigDict, native: tuple[int, int]) -> tuple[int, int]:
    h, w = data.size
    return (h, w) if h and w else native


def _check_counts(
    listings: Sequence[layouts.Listing],
    data: ConfigDict,
    split: str,
    problems: errors.ProblemList,
) -> None:
    """Compare with the published numbers of sequences and frames."""
    if data.sequences:
        return
    layout = layouts.resolve(data)
    expected = PUBLISHED.get((layout, "" if layout == "segtrackv2" else split))
    if (
        layout == "davis"
        and layouts.davis_resolution(data) in PUBLISHED_DAVIS_RESOLUTIONS
    ):
        expected = PUBLISHED_DAVIS.get(split)
    if expected is None:
        return
    clips, frames = len(listings), sum(len(x.paths) for x in listings)
    if clips < expected[0] or frames < expected[1]:
        of = f"{expected[0]} sequences" + (
            f", {expected[1]} frames" * bool(expected[1])
        )
        problems.add(
            f"{layout} {split}".strip(),
            f"a partial copy: {clips} sequences, {frames} frames; published are {of}",
        )


def _check_listing(
    listing: layouts.Listing,
    pool: concurrent.futures.Executor,
    decode: bool,
    partial: bool,
    problems: errors.ProblemList,
    notes: errors.ProblemList,
) -> tuple[int, int]:
    """Check one clip's files; return the size most of its frames have."""
    missing = [p for p in listing.paths if not p.exists()]
    present = [p for p in listing.paths if p.exists()]
    gaps = notes if partial else problems
    for path in missing:
        gaps.add(path, "is listed in the image set but missing; copy it again")
    _check_numbering(listing.name, present, problems, gaps)
    if len(present) < 2:
        problems.add(
            listing.name, f"{len(present)} frame(s); motion needs two: remove the clip"
        )
    headers = list(pool.map(lambda p: images.inspect(p, decode), present))
    sizes = [x.size for x in headers if not x.problem]
    usual = max(sorted(set(sizes)), key=sizes.count) if sizes else (0, 0)
    for path, header in zip(present, headers, strict=True):
        if header.problem:
            problems.add(path, header.problem)
        elif header.size != usual:
            problems.add(
                path, f"is {header.size} (h, w), the clip is {usual}; resize or remove"
            )
    if sizes and min(usual) < SHORTEST_SIDE:
        problems.add(
            listing.name, f"frames are {usual}; no side may be under {SHORTEST_SIDE} px"
        )
    return usual


def _check_numbering(
    name: str,
    paths: Sequence[Path],
    problems: errors.ProblemList,
    gaps: errors.ProblemList,
) -> None:
    """Find two files for one frame, and holes in the numbers (last digits of stems)."""
    found = [re.search(r"(\d+)\D*$", p.stem) for p in paths]
    if not paths or any(x is None for x in found):
        return  # names without numbers say nothing about holes
    numbers = [int(x.group(1)) for x in found if x is not None]
    prefixes = {p.stem[: x.start()] for p, x in zip(paths, found, strict=True) if x}
    if len(prefixes) > 1:
        return  # e.g. dates: the last digits alone do not count frames
    order = sorted(range(len(paths)), key=lambda i: numbers[i])
    steps = [numbers[b] - numbers[a] for a, b in itertools.pairwise(order)]
    usual = min((s for s in steps if s > 0), default=1)
    for place, step in enumerate(steps):
        before, after = paths[order[place]], paths[order[place + 1]]
        if step == 0:
            problems.add(after, f"is the same frame as {before.name}; remove one")
        elif step > usual:
            lost = step // usual - 1
            gaps.add(
                f"{name}: between {before.name} and {after.name}",
                f"{lost} frame(s) missing; copy them again or renumber",
            )


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=method)
