"""Videos on disk -> `Clip` and `Frame` records, checked before any work starts.

Every layout of `layouts.py` yields the same records, so nothing after this file knows
datasets. No annotation is read here. What is checked, and how odd input is treated:

- frame order: natural order of names, so unpadded numbers ("9" before "10") are fine;
- a gap in the numbering is a missing frame: refused, or with `data.partial` told and
  accepted (the pair across the gap stays a pair). Constant steps (0, 5, 10) are fine;
- two files for one frame (`1.jpg` and `01.jpg`, `1.jpg` and `1.png`) are refused; a
  frame that repeats the one before is kept, with a warning from the flow stage;
- frames of one clip must have one size; clips may differ, unless `data.size` is set;
- clips of one frame, sides under 16 px, empty, truncated, unreadable files: refused;
- hidden files and files that are no images are left alone; names may hold spaces and
  any Unicode, in 200 bytes of UTF-8; pipes, devices and broken links: refused;
- grey, RGBA, CMYK, 16-bit and EXIF-rotated images: see `images.py`; videos `video.py`.
"""

import concurrent.futures
import dataclasses
import hashlib
import itertools
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import UInt8
from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.data import clip_checks, images, layouts, video

USUAL_RATE = 24.0  # frames a second of what does not say
SLOWEST, FASTEST = 1.0, 240.0  # a rate beyond them is no rate but a damaged header


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        name: File stem ("00000"), or the padded number within a video file.
        path: The file, or None within a video file.
        index: Position in the file or folder, from 0.
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
        cuts: Positions in `frames` where something else begins; see `shots.py`.
    """

    name: str
    frames: tuple[Frame, ...]
    size: tuple[int, int]
    native_size: tuple[int, int]
    reader: video.VideoReader | None = dataclasses.field(
        default=None, repr=False, compare=False
    )
    cuts: tuple[int, ...] = ()

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
            image = self.reader.read(frame.index)
        if image.shape[:2] != self.native_size:
            raise errors.UserError(
                f"frame {frame.name} of {self.name} is {image.shape[:2]}",
                f"(h, w) = {self.native_size} as in the rest of the clip",
                "restore the frame's original file",
            )
        return images.resize(image, self.size)

    @property
    def rate(self) -> float:
        """Return the frames a second it is shown at: a video's own, else usual ones."""
        claimed = self.reader.rate() if self.reader else 0.0
        return claimed if SLOWEST <= claimed <= FASTEST else USUAL_RATE

    def fingerprint(self, index: int) -> str:
        """Return what changes with a frame's contents: a checksum, not a time stamp."""
        frame = self.frames[index]
        if frame.path is not None:
            return f"{zlib.crc32(frame.path.read_bytes()):08x}"
        assert self.reader is not None
        return f"{self.reader.fingerprint()}.{frame.index}"

    def contents(self) -> str:
        """Tell a clip from any other by what is in it, wherever it lies.

        Frames, names, sizes, cuts, the length of every file and the checksums of the
        first, middle and last: milliseconds a clip, where reading it all takes minutes
        a data set. (The flow stage compares every byte when it works.)
        """
        count = len(self.frames)
        paths = [f.path for f in self.frames if f.path is not None]
        parts = [
            [self.name, self.native_size, self.cuts],
            [(frame.name, frame.index) for frame in self.frames],
            [path.stat().st_size for path in paths],
            [self.fingerprint(t) for t in sorted({0, count // 2, count - 1})],
        ]
        text = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
        return f"{self.name}, {count} frames of {self.size[1]}x{self.size[0]} ({text})"


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two frames of one clip: clip number, and frame indices t and t + gap."""

    clip: int
    first: int
    second: int


def find_clips(
    data: ConfigDict, split: str | None = None, fewest: int = 2
) -> tuple[Clip, ...]:
    """Find and check every clip of a split.

    Args:
        data: `config.data`.
        split: Image set; None takes `data.split`, "" every sequence. Layouts without
            image sets ignore it.
        fewest: Frames a clip must have: motion needs two. (Video files always do.)

    Raises:
        UserError: One report of everything wrong, by file.
    """
    split = data.split if split is None else split
    listings = layouts.list_clips(data, split)
    problems, notes = errors.ProblemList(), errors.ProblemList()
    clip_checks.check_names(listings, problems)
    if layouts.resolve(data) in layouts.OF_FILMS:
        paths = [listing.paths[0] for listing in listings]
        return _video_clips(data, paths, problems)
    clip_checks.check_counts(listings, data, split, notes if data.partial else problems)
    found = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for listing in listings:
            size = clip_checks.check_listing(
                listing, pool, data.partial, fewest, problems, notes
            )
            present = [p for p in listing.paths if p.is_file()]
            frames = tuple(Frame(p.stem, p, i) for i, p in enumerate(present))
            found.append(Clip(listing.name, frames, working_size(data, size), size))
    for note in notes.problems:
        logging.warning("%s", note)
    problems.raise_if_any(
        f"data.root {data.root}",
        f"clips of {fewest} or more sound frames, numbered without gaps, of one size",
        "repair or remove what is named; for a copy with frames or sequences missing "
        "set --config.data.partial=True",
    )
    return tuple(found)


def pairs(clips: Sequence[Clip], gap: int = 1) -> tuple[Pair, ...]:
    """List all pairs (t, t + gap) of all clips, clip by clip; none crosses a cut."""
    return tuple(
        Pair(number, t, t + gap)
        for number, clip in enumerate(clips)
        for start, end in shots(clip)
        for t in range(start, end - gap)
    )


def shots(clip: Clip) -> Iterator[tuple[int, int]]:
    """Yield the first frame of each shot and the one behind its last."""
    yield from itertools.pairwise((0, *clip.cuts, len(clip.frames)))


def check_pixels(clips: Sequence[Clip]) -> None:
    """Decode every image of some clips, as work that takes hours should first.

    Raises:
        UserError: One list of all damaged files.
    """
    refuse_pixels(pixel_problems(clips))


def refuse_pixels(found: Sequence[str]) -> None:
    """Raise what `pixel_problems` found, if anything.

    Raises:
        UserError: One list of all damaged files.
    """
    problems = errors.ProblemList()
    problems.problems = list(found)
    problems.raise_if_any(
        "frames", "images that decode to their end", "copy them again from their source"
    )


def pixel_problems(clips: Sequence[Clip]) -> list[str]:
    """Decode every image of some clips; return what is wrong, a line a file.

    Neighbours that are the same file twice are worth a warning (nothing moves there),
    and so are JPEGs that decode with a contradiction.
    """
    problems = errors.ProblemList()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for clip in clips:
            paths = [frame.path for frame in clip.frames if frame.path is not None]
            looks = list(zip(paths, pool.map(_look, paths), strict=True))
            for path, look in looks:
                if look.problem:
                    problems.add(path, look.problem)
            for (before, a), (after, b) in itertools.pairwise(looks):
                if a.checksum == b.checksum and not a.problem:
                    logging.warning(
                        "%s repeats %s: no motion there", after, before.name
                    )
            if suspect := [path.name for path, look in looks if look.suspect]:
                logging.warning(
                    "%s: %d frame(s) may be damaged inside, although they decode: %s",
                    clip.name,
                    len(suspect),
                    ", ".join(suspect[:5]),
                )
    return problems.problems


@dataclasses.dataclass(frozen=True)
class _Look:
    """What one image file is worth."""

    problem: str
    checksum: int = 0
    suspect: bool = False


def _look(path: Path) -> _Look:
    problem = images.inspect(path, decode=True).problem
    if problem:
        return _Look(problem)
    checksum = zlib.crc32(path.read_bytes())
    return _Look("", checksum, images.conceals_damage(path))


def pair_of_frame(clip: Clip, index: int, gap: int = 1) -> Pair | None:
    """Return the pair a frame starts, else one it ends, else the nearest of its shot.

    None in a shot too short for any; the clip's number is left 0.
    """
    start, end = next(shot for shot in shots(clip) if shot[0] <= index < shot[1])
    if end - start <= gap:
        return None
    if index + gap < end:
        return Pair(0, index, index + gap)
    first = max(index - gap, start)
    return Pair(0, first, first + gap)


def _video_clips(
    data: ConfigDict, paths: Sequence[Path], problems: errors.ProblemList
) -> tuple[Clip, ...]:
    if len(paths) == 1 and not problems.problems:
        return (_video_clip(data, paths[0]),)
    found = []
    for path in paths:
        try:
            found.append(_video_clip(data, path))
        except errors.UserError as error:
            problems.add(path.name, error.found)
    problems.raise_if_any(
        f"data.root {data.root}",
        "videos that can be read",
        "remove or convert what is named",
    )
    return tuple(found)


def _video_clip(data: ConfigDict, path: Path) -> Clip:
    info = video.probe(path)
    if info.count < 2 or min(info.size) < clip_checks.SHORTEST_SIDE:
        raise errors.UserError(
            f"{path} holds {info.count} frame(s) of {info.size} (h, w)",
            f"at least 2 frames with sides of {clip_checks.SHORTEST_SIDE} px",
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
    size = working_size(data, info.size)
    return Clip(path.stem, frames, size, info.size, video.VideoReader(path))


def working_size(data: ConfigDict, native: tuple[int, int]) -> tuple[int, int]:
    """Return the (h, w) that frames of a native size are brought to."""
    h, w = data.size
    return (h, w) if h > 0 and w > 0 else native
