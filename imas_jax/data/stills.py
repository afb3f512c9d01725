"""Images to learn from by contrast: any clips or loose images, brought to one size.

A batch is a pure function of (seed, step), as in `pipeline.py`. The host reads, decodes
and resizes; what a view is, `views.py` decides on the device. No annotation is read.

Stored frames have one size: the short side asked for (never more than files have), and
the aspect that most have. An image of another aspect is resized to cover that and loses
what stands over at two sides. They are held in memory up to `HELD` bytes; beyond that
image files are decoded whenever a batch wants them, and videos, which can only be read
from their start, are decoded once to a file.
"""

import concurrent.futures
import dataclasses
import itertools
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import UInt8
from ml_collections import ConfigDict

from imas_jax import errors, files
from imas_jax.conventions import Batch
from imas_jax.data import clips as clips_lib
from imas_jax.data import images, layouts, pipeline
from imas_jax.data import order as order_lib

HELD = 4 << 30  # bytes of decoded frames that are kept in memory
# Layouts in which neighbours are the same scene a moment later.
LOOSE = "images"


@dataclasses.dataclass(frozen=True)
class Stills:
    """What is learned from.

    Attributes:
        clips: Clips, or images as clips of one frame.
        pairs: Frames that are views of one thing: a frame with itself, or a neighbour.
        size: (h, w) that all are brought to.
    """

    clips: tuple[clips_lib.Clip, ...]
    pairs: tuple[clips_lib.Pair, ...]
    size: tuple[int, int]

    @property
    def count(self) -> int:
        """Return the number of frames."""
        return sum(len(clip.frames) for clip in self.clips)

    def read(self, clip: int, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Read one frame at the common size."""
        return cover(self.clips[clip].read(index), self.size)


def find(data: ConfigDict, short_side: int, neighbours: int) -> Stills:
    """Find all images below `data.root`.

    Args:
        data: `config.data`; in layout auto, folders that hold images are read as loose
            images of any size, unless the root is a DAVIS folder.
        short_side: Of stored frames, pixels.
        neighbours: How many frames away the other view may be; 0 is none.

    Raises:
        UserError: One report of everything wrong, by file; or if there is one image
            alone, or neighbours are asked of loose images.
    """
    layout = layouts.resolve(data)
    if data.layout == "auto" and layout in ("folder", "folders"):
        layout = LOOSE
    if layout == LOOSE and neighbours:
        raise errors.UserError(
            f"pretrain.neighbours = {neighbours} for loose images",
            "videos, or folders with the frames of a clip each",
            "set --config.data.layout=folders if each folder is a clip, or "
            "--config.pretrain.neighbours=0",
        )
    located = data.copy_and_resolve_references().unlock()
    located.layout = layout
    found = clips_lib.find_clips(located, fewest=1)
    pairs = tuple(
        pair for gap in range(neighbours + 1) for pair in _both_ways(found, gap)
    )
    stills = Stills(found, pairs, common_size(found, short_side))
    if stills.count < 2:
        raise errors.UserError(
            f"{data.root} holds {stills.count} image(s)",
            "many: each is told from the others",
            "check --config.data.root and --config.data.layout",
        )
    return stills


def common_size(clips: Sequence[clips_lib.Clip], short_side: int) -> tuple[int, int]:
    """Choose the (h, w) that frames are brought to."""
    sizes = [clip.size for clip in clips for _ in clip.frames]
    aspect = statistics.median(w / h for h, w in sizes)
    short = min(short_side, int(statistics.median(map(min, sizes))))
    if aspect >= 1:
        return short, round(short * aspect)
    return round(short / aspect), short


def cover(
    image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Resize an image, aspect kept, to cover `size`; return the middle of it."""
    scale = max(size[0] / image.shape[0], size[1] / image.shape[1])
    h, w = (
        max(round(side * scale), least)
        for side, least in zip(image.shape, size, strict=False)
    )
    resized = images.resize(image, (h, w))
    top, left = (h - size[0]) // 2, (w - size[1]) // 2
    return np.ascontiguousarray(resized[top : top + size[0], left : left + size[1]])


class Source:
    """Batches of frame pairs; flow and targets there are none.

    Args:
        stills: What is learned from.
        order: Of the pairs.
        folder: Where videos are decoded to when they do not fit into memory.
    """

    def __init__(self, stills: Stills, order: order_lib.Order, folder: Path):
        self._stills, self._order = stills, order
        self._pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
        h, w = stills.size
        fits = stills.count * h * w * 3 <= HELD
        logging.info(
            "pretrain: %d frames of %dx%d (w x h), %s",
            stills.count,
            w,
            h,
            "in memory" if fits else "decoded for every batch",
        )
        self._held: dict[int, np.ndarray] = {}
        for number, clip in enumerate(stills.clips):
            if fits:
                self._held[number] = np.empty((len(clip.frames), h, w, 3), np.uint8)
            elif clip.reader is not None:
                self._held[number] = self._decoded(number, folder)
        if fits:
            list(self._pool.map(self._hold, range(len(stills.clips))))

    def batch(self, step: int) -> Batch:
        """Return this process's part of the batch of one step."""
        chosen = self._order.local(step)
        pairs = [self._stills.pairs[i] for i in chosen]
        frames = np.stack(list(self._pool.map(self._pair, pairs)))
        nothing = np.zeros((len(pairs), 2, 2, 2), np.float16)
        return Batch(frames, nothing, nothing, None, chosen)

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches from step `first` on, prepared by a thread."""
        batches = map(self.batch, itertools.count(first))
        return pipeline.prefetch(batches, pipeline.PREFETCH)

    def _pair(self, pair: clips_lib.Pair) -> np.ndarray:
        first = self._frame(pair.clip, pair.first)
        if pair.second == pair.first:
            return np.stack([first, first])
        return np.stack([first, self._frame(pair.clip, pair.second)])

    def _frame(self, clip: int, index: int) -> np.ndarray:
        if clip in self._held:
            return self._held[clip][index]
        return self._stills.read(clip, index)

    def _hold(self, number: int) -> None:
        for t in range(len(self._stills.clips[number].frames)):
            self._held[number][t] = self._stills.read(number, t)

    def _decoded(self, number: int, folder: Path) -> np.ndarray:
        """Decode a video to a file, once, and map it."""
        clip, (h, w) = self._stills.clips[number], self._stills.size
        named = f"{clip.name}-{clip.fingerprint(0)}-{w}x{h}.npy"
        path = folder / named
        if not path.is_file():
            logging.info("pretrain: decoding %s", clip.name)
            with files.aside(path) as draft:
                made = np.lib.format.open_memmap(
                    draft, "w+", np.uint8, (len(clip.frames), h, w, 3)
                )
                for t in range(len(clip.frames)):
                    made[t] = self._stills.read(number, t)
                made.flush()
        return files.read_npy(path, mmap_mode="r")


def _both_ways(clips: Sequence[clips_lib.Clip], gap: int) -> Iterator[clips_lib.Pair]:
    """Yield pairs of frames `gap` apart, each frame once as the first of two."""
    for pair in clips_lib.pairs(clips, gap):
        yield pair
        if gap:
            yield dataclasses.replace(pair, first=pair.second, second=pair.first)
