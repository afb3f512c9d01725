"""The motion evidence of every frame of a clip, read off a run's flow files.

`flow/evidence.py` knows one frame; here its neighbours are brought together, a few at a
time: memory does not grow with the clip. Where flow was computed at several gaps, each
frame believes most the gap at which things move by about `BEST`: less is mostly the
flow's error, more is beyond what flow follows (measured in docs/experiments.md).
"""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Float

from imas_jax.data import clips as clips_lib
from imas_jax.flow import evidence, files, steady

REACH = max(evidence.OFFSETS)
BEST = 3.0  # px at a short side of 240: 98th percentile of the flow less camera motion
SPREAD = 0.5  # of the logarithm of that motion about BEST


def of_clip(
    network: evidence.Network,
    flow: files.FlowFolder,
    clip: clips_lib.Clip,
    gaps: Sequence[int],
) -> Iterator[Float[np.ndarray, "h w"]]:
    """Yield how likely each pixel moves on its own, [0, 1], frame by frame in order.

    Frames of a shot too short for a pair have no motion: zeros.

    Args:
        network: From `evidence.load`.
        flow: Holds the flow of every pair of every gap.
        clip: The clip, with its cuts.
        gaps: Frames between the two of a pair; neighbours are that far apart.
    """
    for start, end in clips_lib.shots(clip):
        fitting = [gap for gap in sorted(gaps) if gap < end - start]
        if not fitting:
            yield from np.zeros((end - start, *clip.size), np.float32)
            continue
        found = (_at_gap(network, flow, clip, gap, start, end) for gap in fitting)
        for looks in zip(*found, strict=True):
            weights = weigh([scale for _, scale in looks])
            likely = np.sum(
                [w * one for w, (one, _) in zip(weights, looks, strict=True)],
                axis=0,
                dtype=np.float32,
            )
            yield cv2.resize(likely, clip.size[::-1], interpolation=cv2.INTER_LINEAR)


def steadied(
    flow: files.FlowFolder,
    clip: clips_lib.Clip,
    gap: int,
    likely: Iterator[Float[np.ndarray, "h w"]],
    kept: float,
) -> Iterator[Float[np.ndarray, "h w"]]:
    """Steady the probabilities of a clip's frames along its flow, on the flow's grid.

    Frames of a shot with no pair of that gap stay as they are.

    Args:
        flow: Holds the flow of every pair of that gap.
        clip: The clip, with its cuts.
        gap: Frames between the two of a pair.
        likely: Of every frame, in order; of one size.
        kept: Share of the weight that a step leaves, in [0, 1].
    """
    for start, end in clips_lib.shots(clip):
        shot = itertools.islice(likely, end - start)
        if end - start <= gap:
            yield from shot
            continue
        sizes: deque[tuple[int, ...]] = deque()
        entries = _entries(flow, clip, gap, range(start, end), shot, sizes)
        for small in steady.steady(entries, gap, kept):
            yield cv2.resize(small, sizes.popleft(), interpolation=cv2.INTER_LINEAR)


def _entries(
    flow: files.FlowFolder,
    clip: clips_lib.Clip,
    gap: int,
    shot: range,
    likely: Iterator[np.ndarray],
    sizes: deque[tuple[int, ...]],
) -> Iterator[steady.Entry]:
    """Yield a shot's frames with the motion to their neighbours; note their sizes."""
    grid = evidence.grid_size(clip.size)[::-1]
    behind: dict[int, evidence.Motion] = {}
    for t, one in zip(shot, likely, strict=True):
        ahead = None
        if t + gap in shot:
            ahead, behind[t + gap] = _read_pair(flow, clip, t, gap)
        sizes.append(one.shape[::-1])
        small = cv2.resize(one, grid, interpolation=cv2.INTER_AREA)
        yield steady.Entry(small, 1.0, ahead, behind.pop(t, None))


def weigh(scales: Sequence[float]) -> np.ndarray:
    """Return how far to believe each gap, `(n,)`, summing to 1.

    Args:
        scales: By gap, the narrowest first: how far things move, pixels.
    """
    away = np.log(np.asarray(scales) / BEST) / SPREAD
    away[0] = min(away[0], 0)  # no narrower gap would be better
    # Of the nearest one the weight is 1 before they are brought to a sum of 1.
    weights = np.exp((np.square(away).min() - np.square(away)) / 2)
    return weights / weights.sum()


def _at_gap(
    network: evidence.Network,
    flow: files.FlowFolder,
    clip: clips_lib.Clip,
    gap: int,
    start: int,
    end: int,
) -> Iterator[tuple[Float[np.ndarray, "h w"], float]]:
    """Yield what a shot's frames show at one gap, and how far things move at it."""
    window = _Window(flow, clip, gap, start, end)
    scales: deque[float] = deque()

    def entries() -> Iterator[steady.Entry]:
        for t in range(start, end):
            entry = window.entry(network, t)
            scales.append(entry.scale)
            yield entry

    for likely in steady.steady(entries(), gap):
        yield likely, scales.popleft()


class _Window:
    """The frames and motions around a frame that walks through a shot."""

    def __init__(
        self,
        flow: files.FlowFolder,
        clip: clips_lib.Clip,
        gap: int,
        start: int,
        end: int,
    ):
        self._flow, self._clip, self._gap = flow, clip, gap
        self._shot = range(start, end)
        self._frames: dict[int, np.ndarray] = {}
        self._ahead: dict[int, evidence.Motion] = {}
        self._behind: dict[int, evidence.Motion] = {}

    def entry(self, network: evidence.Network, t: int) -> steady.Entry:
        """Return what the network says of a frame, and where its neighbours lie."""
        seen = self.observe(t)
        motions = self._ahead.get(t), self._behind.get(t)
        return steady.Entry(network(seen), float(seen.scales[0]), *motions)

    def observe(self, t: int) -> evidence.Observation:
        """Gather what the network is given of a frame."""
        gap = self._gap
        reach = range(max(t - REACH * gap, self._shot.start), self._shot.stop)
        reach = reach[: t + REACH * gap + 1 - reach.start]
        for frame in reach:
            if frame not in self._frames:
                self._frames[frame] = evidence.shrink(self._clip.read(frame))
            if frame + gap in reach and frame not in self._ahead:
                self._read_pair(frame)
        for held in (self._frames, self._ahead, self._behind):
            for frame in [frame for frame in held if frame < reach.start]:
                del held[frame]
        # Steps of `gap` frames from t, counted in steps.
        steps = range(-REACH, REACH + 1)
        ahead = {
            s: self._ahead[t + s * gap] for s in steps if t + s * gap in self._ahead
        }
        behind = {
            s: self._behind[t + s * gap] for s in steps if t + s * gap in self._behind
        }
        motions = evidence.neighbours(0, ahead, behind)
        looks = [
            None if motion is None else (motion, self._frames[t + offset * gap])
            for offset, motion in zip(evidence.OFFSETS, motions, strict=True)
        ]
        return evidence.observe(self._frames[t], looks)

    def _read_pair(self, first: int) -> None:
        ahead, behind = _read_pair(self._flow, self._clip, first, self._gap)
        self._ahead[first], self._behind[first + self._gap] = ahead, behind


def _read_pair(
    flow: files.FlowFolder, clip: clips_lib.Clip, first: int, gap: int
) -> tuple[evidence.Motion, evidence.Motion]:
    """Return the motion from a pair's first frame, and from its second."""
    there, back = (
        flow.read(clip.name, first, direction, gap) for direction in files.DIRECTIONS
    )
    return (
        evidence.to_grid(there.flow, back.flow, there.homography, clip.size),
        evidence.to_grid(back.flow, there.flow, back.homography, clip.size),
    )
