"""What of a clip is trained on: shots between scene cuts, and not too many frames.

A clip stays one clip with one numbering. Places where a frame does not follow the one
before, by a cut in the film or because frames in between are left out, are kept in
`Clip.cuts`, and no pair of frames reaches across them.

Cuts are found by the rule of PySceneDetect's AdaptiveDetector: a change is a cut where
it is large in itself and many times its neighbours'; fast motion changes every frame.
Written here on thumbnails, in ten lines, because that package would bring a second
reader of videos. On 30 sequences of DAVIS: no false cut, and 864 of the 870 cuts from
one sequence to another; the others follow a camera that turns by half a frame at a time
(`benchmarks/cuts.py`).
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from absl import logging
from jaxtyping import Bool, Float, UInt8
from ml_collections import ConfigDict

from imas_jax import errors
from imas_jax.data import clips as clips_lib

THUMBNAIL = (32, 18)  # (w, h): motion within a shot hardly shows
LEAST = 15.0  # grey levels of mean change below which nothing is a cut
RATIO = 2.5  # times the mean of the neighbouring changes
NEIGHBOURS = 2  # of these on either side
RUN = 8  # pairs of each run of frames that a thinned clip keeps


def for_training(
    clips: Sequence[clips_lib.Clip], config: ConfigDict
) -> tuple[clips_lib.Clip, ...]:
    """Find cuts and thin clips as `data.cuts` and `data.frames` say.

    Flow computed elsewhere is taken as it is: its clips come back unchanged.

    Raises:
        UserError: If `data.cuts` is unknown.
    """
    if config.data.cuts not in ("off", "find"):
        raise errors.UserError(
            f"data.cuts = {config.data.cuts!r}", "off or find", "correct the field"
        )
    if config.flow.estimator == "import":
        return tuple(clips)
    if config.data.cuts == "find":
        clips = [dataclasses.replace(clip, cuts=cuts_of(clip)) for clip in clips]
    gap = max(config.flow.gaps)
    return tuple(thin(clip, config.data.frames, gap) for clip in clips)


def cuts_of(clip: clips_lib.Clip) -> tuple[int, ...]:
    """Find a clip's cuts; the answer is remembered until its files change."""
    if clip.reader is not None:
        return _cuts_of(clip, clip.reader.fingerprint())
    changed = (f.path.stat().st_mtime_ns for f in clip.frames if f.path is not None)
    return _cuts_of(clip, str(sum(changed)))


def find_cuts(frames: Iterable[UInt8[np.ndarray, "h w 3"]]) -> tuple[int, ...]:
    """Return the positions of frames that begin a new shot."""
    changes = np.array(list(_changes(frames)), np.float64)
    return tuple(int(t) + 1 for t in np.flatnonzero(sudden(changes)))


def sudden(changes: Float[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
    """Tell which changes are cuts: large, and many times their neighbours' mean."""
    found = np.zeros(len(changes), bool)
    for t, change in enumerate(changes):
        before = changes[max(t - NEIGHBOURS, 0) : t]
        around = np.concatenate([before, changes[t + 1 : t + 1 + NEIGHBOURS]])
        usual = float(around.mean()) if len(around) else 0.0
        found[t] = change >= LEAST and change >= RATIO * usual
    return found


def thin(clip: clips_lib.Clip, most: int, gap: int) -> clips_lib.Clip:
    """Keep at most `most` frames, in runs of neighbours that are evenly spread.

    Args:
        clip: Any clip.
        most: Frames; 0 keeps all.
        gap: Of the widest pairs; a run has `RUN` pairs of it.
    """
    count, length = len(clip.frames), RUN + gap
    if not most or count <= max(most, length):
        return clip
    starts = np.linspace(0, count - length, max(most // length, 1)).round().astype(int)
    kept = [t for start in starts for t in range(start, start + length)]
    cuts = tuple(
        place
        for place, (before, t) in enumerate(itertools.pairwise(kept), start=1)
        if before + 1 != t or t in clip.cuts
    )
    frames = tuple(clip.frames[t] for t in kept)
    return dataclasses.replace(clip, frames=frames, cuts=cuts)


@functools.lru_cache(maxsize=64)
def _cuts_of(clip: clips_lib.Clip, contents: str) -> tuple[int, ...]:
    del contents  # part of the key only
    found = find_cuts(clip.read(t) for t in range(len(clip.frames)))
    if found:
        names = ", ".join(clip.frames[t].name for t in found[:8])
        logging.warning(
            "%s: %d scene cut(s), before frame %s%s: no pair of frames reaches across",
            clip.name,
            len(found),
            names,
            ", ..." if len(found) > 8 else "",
        )
    return found


def _changes(frames: Iterable[np.ndarray]) -> Iterator[float]:
    """Yield how much each frame differs from the one before, in grey levels."""
    before: np.ndarray | None = None
    for frame in frames:
        small = cv2.resize(frame, THUMBNAIL, interpolation=cv2.INTER_AREA)
        now = small.astype(np.float32)
        if before is not None:
            yield float(np.abs(now - before).mean())
        before = now
