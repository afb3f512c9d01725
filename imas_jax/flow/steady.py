"""Evidence steadied over time: each frame also hears what its neighbours saw.

Probabilities are carried along the flow from frame to frame, forwards and backwards,
and averaged. What is carried loses weight with every step, all of it where a round trip
does not lead back (occlusion, failed flow). Frames in which more moves weigh more: what
pauses was seen when it moved. Measured in docs/experiments.md.
"""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float

from imas_jax.flow import evidence

KEPT = 0.9  # share of the weight that a step leaves
TOLERANCE = 1.0  # px a round trip may miss, plus a tenth of the way
WEIGHTS = (0.3, 4.0)  # px; frames that move less or more weigh no less and no more
BLOCK = 32  # steps that are known ahead of a frame, at least


@dataclasses.dataclass(frozen=True)
class Entry:
    """One frame.

    Attributes:
        likely: The network's probabilities, on the grid.
        scale: Of its motion, pixels (`evidence.Observation.scales`).
        ahead: Motion to the next frame; None at the end.
        behind: Motion to the frame before; None at the start.
    """

    likely: Float[np.ndarray, "h w"]
    scale: float
    ahead: evidence.Motion | None
    behind: evidence.Motion | None


def steady(
    entries: Iterable[Entry], gap: int = 1, kept: float = KEPT
) -> Iterator[Float[np.ndarray, "h w"]]:
    """Yield the steadied probabilities of a shot's frames, in order.

    Memory is that of `2 * BLOCK * gap` frames, however long the shot.

    Args:
        entries: Of every frame, in order.
        gap: Frames that motion spans; every `gap`-th frame hears of another.
        kept: Share of the weight that a step leaves, in [0, 1].
    """
    held: deque[tuple[Entry, np.ndarray]] = deque()
    before: deque[np.ndarray | None] = deque([None] * gap, maxlen=gap)
    for entry in entries:
        past = _carried(before[0], entry.behind, kept) + _own(entry)
        before.append(past)
        held.append((entry, past))
        if len(held) == 2 * BLOCK * gap:
            yield from _finished(held, BLOCK * gap, gap, kept)
    yield from _finished(held, len(held), gap, kept)


def _finished(
    held: deque[tuple[Entry, np.ndarray]], count: int, gap: int, kept: float
) -> Iterator[Float[np.ndarray, "h w"]]:
    """Take the first `count` frames out of those held, heard from both sides."""
    after: deque[np.ndarray | None] = deque([None] * gap, maxlen=gap)
    fused: list[np.ndarray] = []
    for entry, past in reversed(held):
        future = _carried(after[0], entry.ahead, kept)
        after.append(future + _own(entry))
        both = past + future
        fused.append(both[..., 0] / both[..., 1])
    for likely in fused[::-1][:count]:
        held.popleft()
        yield likely


def _own(entry: Entry) -> np.ndarray:
    weight = np.float32(np.clip(entry.scale, *WEIGHTS))
    return weight * np.stack([entry.likely, np.ones_like(entry.likely)], axis=-1)


def _carried(
    sums: np.ndarray | None, there: evidence.Motion | None, share: float
) -> np.ndarray:
    """Bring another frame's sums here, along the motion that leads there."""
    if sums is None or there is None:
        return np.zeros((1, 1, 2), np.float32)
    miss = np.linalg.norm(
        there.flow + evidence.follow(there.opposite, there.flow), axis=-1
    )
    allowed = TOLERANCE * (1 + 0.1 * np.linalg.norm(there.flow, axis=-1))
    kept = share * np.exp(-np.square(miss / allowed))
    return kept[..., None].astype(np.float32) * evidence.follow(sums, there.flow)
