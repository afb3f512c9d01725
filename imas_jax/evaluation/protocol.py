"""Which frames are averaged, and how: three protocols, always called by name.

    official        DAVIS-2016: first and last frame of each sequence dropped, mean over
                    the frames of a sequence, then over sequences
    sequence_mean   all annotated frames, mean of sequence means
    frame_mean      all annotated frames of all sequences in one mean (the paper's)

They differ by up to five points on the same masks (FACTS.md, "Evaluation"). A frame in
which prediction and annotation are both empty scores 1 (official), or is left out
(`empty="skip"`, the authors' tool on SegTrackv2 and FBMS59).

Frames are scored as a stream, so that a data set's masks are never in memory at once.
Tables of the results are `evaluation/tables.py`.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool

from imas_jax import errors
from imas_jax.evaluation import metrics

Protocol = Literal["official", "sequence_mean", "frame_mean"]
PROTOCOLS: tuple[Protocol, ...] = ("official", "sequence_mean", "frame_mean")
Empty = Literal["one", "skip"]

# Which mask a row is about. "given" is a folder's, whoever chose it. "oracle" is the
# channel annotations would pick: never a result, only an upper bound beside it.
Kind = Literal["baseline", "given", "aligned", "oracle"]


@dataclasses.dataclass(frozen=True)
class FramePair:
    """What is compared on one frame.

    Attributes:
        index: Position in the clip, from 0.
        prediction: The mask to judge.
        truth: The annotation, at the size that is scored.
        void: Pixels that count for nothing, or None: no object is there in either mask
            (as the DAVIS-2017 toolkit does), so they change neither J nor F.
    """

    index: int
    prediction: Bool[np.ndarray, "h w"]
    truth: Bool[np.ndarray, "ht wt"]
    void: Bool[np.ndarray, "ht wt"] | None = None


@dataclasses.dataclass(frozen=True)
class SequenceScore:
    """Per-frame scores of one sequence.

    Attributes:
        name: The sequence.
        length: Frames of the clip, annotated or not.
        frames: Clip positions of the scored frames, increasing.
        jaccard: J of each, in [0, 1].
        boundary: F of each, in [0, 1]; NaN where it was not asked for.
        both_empty: Whether prediction and annotation were both empty.
        missing: Positions of annotated frames without a mask (an empty mask is one).
            A protocol that averages any of them has no number for the sequence.
    """

    name: str
    length: int
    frames: tuple[int, ...]
    jaccard: tuple[float, ...]
    boundary: tuple[float, ...]
    both_empty: tuple[bool, ...]
    missing: tuple[int, ...] = ()

    def lacks(self, protocol: Protocol) -> bool:
        """Tell whether a frame is missing that a protocol averages."""
        return any(averages(protocol, frame, self.length) for frame in self.missing)

    def kept(self, protocol: Protocol, empty: Empty = "one") -> np.ndarray:
        """Tell which of `frames` a protocol averages."""
        keep = np.array([averages(protocol, f, self.length) for f in self.frames], bool)
        if empty == "skip":
            keep &= ~np.array(self.both_empty, bool)
        return keep

    def only(self, frames: Collection[int]) -> "SequenceScore":
        """Return the scores of some of the frames."""
        at = [i for i, frame in enumerate(self.frames) if frame in frames]
        return dataclasses.replace(
            self,
            frames=tuple(self.frames[i] for i in at),
            jaccard=tuple(self.jaccard[i] for i in at),
            boundary=tuple(self.boundary[i] for i in at),
            both_empty=tuple(self.both_empty[i] for i in at),
        )


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of a table: a method's masks, scored.

    Attributes:
        label: E.g. "stage 2, CRF".
        kind: Which mask it is about; tables mark the oracle.
        scores: One a sequence.
        binarization: How soft masks became binary, e.g. "argmax" or "threshold=0.35".
        supervised: Weights behind the masks that learned from human labels, in words;
            "" for a method without annotation.
    """

    label: str
    kind: Kind
    scores: tuple[SequenceScore, ...]
    binarization: str = ""
    supervised: str = ""

    def has(self, protocol: Protocol) -> bool:
        """Tell whether there is a mask of every frame that a protocol averages."""
        return not any(score.lacks(protocol) for score in self.scores)


@dataclasses.dataclass(frozen=True)
class Summary:
    """One number a protocol gives, and what stands behind it.

    Attributes:
        jaccard: Statistics of J. For `frame_mean`, `decay` is the mean over sequences.
        boundary: The same of F.
        sequences: Sequences with at least one averaged frame.
        frames: Averaged frames.
    """

    jaccard: metrics.Statistics
    boundary: metrics.Statistics
    sequences: int
    frames: int


def averages(protocol: Protocol, frame: int, length: int) -> bool:
    """Tell whether a protocol averages a frame of a clip of `length` frames."""
    return protocol != "official" or 0 < frame < length - 1


def score_sequence(
    name: str,
    length: int,
    pairs: Iterable[FramePair],
    boundary: bool = True,
) -> SequenceScore:
    """Score one sequence, frame by frame.

    Args:
        name: The sequence.
        length: Frames of the clip: `official` drops the clip's ends, not the first and
            last annotated frames.
        pairs: Any order; only one is held at a time.
        boundary: False leaves F out (NaN), the slower of the two.

    Raises:
        UserError: If a prediction differs in size from its annotation.
        ValueError: If a frame comes twice or lies outside the clip.
    """
    rows: dict[int, tuple[float, float, bool]] = {}
    for pair in pairs:
        if pair.index in rows or not 0 <= pair.index < length:
            raise ValueError(f"{name}: frame {pair.index} twice, or beyond {length}")
        if pair.prediction.shape != pair.truth.shape:
            raise errors.UserError(
                f"{name}, frame {pair.index}: a mask of size {pair.prediction.shape}",
                f"the annotation's {pair.truth.shape}",
                "resize the mask before scoring (nearest for labels, bilinear before "
                "the threshold for soft masks)",
            )
        found, truth = pair.prediction, pair.truth
        if pair.void is not None:
            found, truth = found & ~pair.void, truth & ~pair.void
        rows[pair.index] = (
            metrics.jaccard(found, truth),
            metrics.boundary_f(found, truth) if boundary else math.nan,
            not (found.any() or truth.any()),
        )
    frames = tuple(sorted(rows))
    return SequenceScore(
        name=name,
        length=length,
        frames=frames,
        jaccard=tuple(rows[i][0] for i in frames),
        boundary=tuple(rows[i][1] for i in frames),
        both_empty=tuple(rows[i][2] for i in frames),
    )


def sequence_statistics(
    score: SequenceScore, protocol: Protocol, empty: Empty = "one"
) -> Summary:
    """Summarise one sequence; NaN where a protocol keeps no frame, or lacks one."""
    keep = score.kept(protocol, empty)
    known = keep & (not score.lacks(protocol))
    return Summary(
        metrics.statistics(np.array(score.jaccard)[known]),
        metrics.statistics(np.array(score.boundary)[known]),
        sequences=int(keep.any()),
        frames=int(keep.sum()),
    )


def summarize(
    scores: Sequence[SequenceScore], protocol: Protocol, empty: Empty = "one"
) -> Summary:
    """Average over sequences, or over all frames, as the protocol says.

    A sequence without a single averaged frame is left out of the means; one that lacks
    a frame leaves none.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r}; known: {PROTOCOLS}")
    parts = [sequence_statistics(score, protocol, empty) for score in scores]
    parts = [part for part in parts if part.frames]
    weights = np.array([part.frames for part in parts], float)
    if protocol != "frame_mean":
        weights = np.ones_like(weights)
    return Summary(
        _combine([part.jaccard for part in parts], weights),
        _combine([part.boundary for part in parts], weights),
        sequences=len(parts),
        frames=sum(part.frames for part in parts),
    )


def _combine(
    parts: Sequence[metrics.Statistics], weights: np.ndarray
) -> metrics.Statistics:
    """Average sequences' statistics; decay is one a sequence, so it has no weights."""
    if not parts:
        return metrics.Statistics(math.nan, math.nan, math.nan)
    return metrics.Statistics(
        mean=float(np.average([part.mean for part in parts], weights=weights)),
        recall=float(np.average([part.recall for part in parts], weights=weights)),
        decay=float(np.mean([part.decay for part in parts])),
    )
