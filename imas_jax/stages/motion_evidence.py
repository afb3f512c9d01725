"""The motion evidence of every frame of a clip, read off a run's flow files.

`flow/evidence.py` knows one frame; here its neighbours are brought together, a few at a
time: memory does not grow with the clip.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float

from imas_jax.data import clips as clips_lib
from imas_jax.flow import evidence, files, steady

REACH = max(evidence.OFFSETS)


def of_clip(
    network: evidence.Network, flow: files.FlowFolder, clip: clips_lib.Clip, gap: int
) -> Iterator[Float[np.ndarray, "h w"]]:
    """Yield how likely each pixel moves on its own, [0, 1], frame by frame in order.

    Frames of a shot too short for a pair have no motion: zeros.

    Args:
        network: From `evidence.load`.
        flow: Holds the flow of every pair of `gap`.
        clip: The clip, with its cuts.
        gap: Frames between the two of a pair; neighbours are that far apart.
    """
    for start, end in clips_lib.shots(clip):
        if end - start <= gap:
            yield from np.zeros((end - start, *clip.size), np.float32)
            continue
        window = _Window(flow, clip, gap, start, end)
        entries = (window.entry(network, t) for t in range(start, end))
        for likely in steady.steady(entries, gap):
            yield cv2.resize(likely, clip.size[::-1], interpolation=cv2.INTER_LINEAR)


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
        fields = [
            self._flow.read(self._clip.name, first, direction, self._gap)
            for direction in files.DIRECTIONS
        ]
        there, back = fields
        size, telling = self._clip.size, there.meta.estimator == "dis"
        self._ahead[first] = evidence.to_grid(
            there.flow, back.flow, there.homography, size, telling
        )
        self._behind[first + self._gap] = evidence.to_grid(
            back.flow, there.flow, back.homography, size, telling
        )
