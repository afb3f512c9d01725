"""Which masks show the object, without annotations (paper Sec. 3.4, equation 13).

A judge gives every candidate of one frame a score; `choose` averages the scores over
frames, then over sequences, and takes the best candidate. Candidates are channels of a
network or unions of some. A run over one clip therefore chooses for that clip, a run
over a dataset chooses once for the dataset (paper).
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from imas_jax.appearance import cuts, parts, semantic

# Channels that together are taken for the object; one in the paper.
Candidate = tuple[int, ...]
BORDER = 1e-3  # of a score, for a mask that has the whole border


@dataclasses.dataclass(frozen=True)
class CandidateMasks:
    """The masks of all candidates in one frame, candidate last.

    Attributes:
        soft: Probability of the candidate's channels together, in [0, 1].
        hard: Pixels whose likeliest channel is one of the candidate's.
    """

    soft: Float[np.ndarray, "h w m"]
    hard: Bool[np.ndarray, "h w m"]


@dataclasses.dataclass(frozen=True)
class FrameScores:
    """What a judge says of one frame.

    Attributes:
        values: Score of each candidate, in [0, 1], higher is better.
        discarded: Candidates that got 0 by the discard rule of equation 13.
    """

    values: Float[np.ndarray, " m"]
    discarded: Bool[np.ndarray, " m"]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, exactly."""
        return {"values": self.values.tolist(), "discarded": self.discarded.tolist()}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "FrameScores":
        """Return what `to_json` told."""
        return cls(np.array(told["values"], float), np.array(told["discarded"], bool))


@dataclasses.dataclass(frozen=True)
class Alignment:
    """The choice and all it rests on.

    Attributes:
        judge: What scored the candidates, e.g. "motion".
        candidates: All candidates.
        sequences: Sequence names.
        values: Mean score over the judged frames of each sequence and candidate.
        discard_rates: Share of judged frames with the candidate discarded.
        best: Index of the chosen candidate.
    """

    judge: str
    candidates: tuple[Candidate, ...]
    sequences: tuple[str, ...]
    values: Float[np.ndarray, "n m"]
    discard_rates: Float[np.ndarray, "n m"]
    best: int

    @property
    def channels(self) -> Candidate:
        """The channels that are the object."""
        return self.candidates[self.best]

    @property
    def scores(self) -> np.ndarray:
        """Mean score of each candidate over sequences, shape (m,)."""
        return self.values.mean(axis=0)

    def to_json(self) -> dict[str, Any]:
        """Return the choice as plain values for result.json."""
        names = ["+".join(map(str, candidate)) for candidate in self.candidates]
        return {
            "judge": self.judge,
            "channels": list(self.channels),
            "scores": dict(zip(names, self.scores.tolist(), strict=True)),
            "discard_rates": dict(
                zip(names, self.discard_rates.mean(axis=0).tolist(), strict=True)
            ),
            "sequences": {
                sequence: dict(zip(names, row.tolist(), strict=True))
                for sequence, row in zip(self.sequences, self.values, strict=True)
            },
        }


def list_candidates(channels: int, largest: int = 1) -> tuple[Candidate, ...]:
    """List the channel sets to choose from, small ones first.

    Args:
        channels: Channels of the network.
        largest: Most channels of one candidate; 1 takes single channels (paper). All
            channels together are never a candidate.
    """
    sizes = range(1, min(largest, channels - 1) + 1) if channels > 1 else (1,)
    return tuple(
        candidate
        for size in sizes
        for candidate in itertools.combinations(range(channels), size)
    )


def object_probability(
    masks: Float[np.ndarray, "*b h w c"], channels: Candidate
) -> Float[np.ndarray, "*b h w"]:
    """Return the soft mask of the object, the sum over its channels."""
    return masks[..., list(channels)].sum(axis=-1)


def object_mask(
    masks: Float[np.ndarray, "*b h w c"], channels: Candidate
) -> Bool[np.ndarray, "*b h w"]:
    """Return the pixels whose likeliest channel is one of the object's."""
    return np.isin(masks.argmax(axis=-1), channels)


def candidate_masks(
    masks: Float[np.ndarray, "h w c"], candidates: Sequence[Candidate]
) -> CandidateMasks:
    """Build every candidate's masks from a network's soft masks."""
    soft = [object_probability(masks, candidate) for candidate in candidates]
    hard = [object_mask(masks, candidate) for candidate in candidates]
    return CandidateMasks(np.stack(soft, axis=-1), np.stack(hard, axis=-1))


def judge_by_motion(
    masks: CandidateMasks, moving: Bool[np.ndarray, "h w"]
) -> FrameScores:
    """Score candidates by their IoU with the motion baseline's mask.

    Args:
        masks: Candidates at the size of `moving`.
        moving: What moves against the background (flow/motion.py).
    """
    values = [semantic.overlap(hard, moving) for hard in unstack(masks.hard)]
    return FrameScores(np.array(values), np.zeros(len(values), bool))


def judge_by_features(
    masks: CandidateMasks, features: Float[np.ndarray, "hu wu k"], threshold: float
) -> FrameScores:
    """Score candidates by their semantic alignment (equation 13).

    Args:
        masks: Candidates.
        features: Frozen features of the same frame, on any grid.
        threshold: theta, a cosine.
    """
    matches = semantic.mask_similarity(features, masks.soft) > threshold
    pairs = list(zip(unstack(masks.hard), unstack(matches), strict=True))
    return FrameScores(
        np.array([semantic.alignment_score(hard, match) for hard, match in pairs]),
        np.array([semantic.is_discarded(match) for _, match in pairs]),
    )


def judge_by_cut(
    masks: CandidateMasks, features: Float[np.ndarray, "hu wu k"], threshold: float
) -> FrameScores:
    """Score candidates by how cheaply they are cut out of the frame (RCF's judge).

    RCF takes the negative cost; 1 less half of it says the same in [0, 1].

    Args:
        masks: Candidates.
        features: Frozen features of the same frame, on any grid.
        threshold: Cosine above which places belong together.
    """
    seen = cuts.on_grid(features)
    ties = cuts.affinity(seen, threshold)
    small = unstack(cuts.nearest(masks.soft, seen.shape[:2]))
    values = [1.0 - cuts.cost(ties, mask) / cuts.WORST for mask in small]
    return FrameScores(np.array(values), np.zeros(len(values), bool))


def judge_side_of_cut(
    masks: CandidateMasks, features: Float[np.ndarray, "hu wu k"], threshold: float
) -> FrameScores:
    """Score candidates as `judge_by_cut`, and prefer the inner side of a cut.

    A cut costs the same whichever side is called the object: of two channels both
    scores are equal, and the first would always win, which is the background's. The
    share of the border that a candidate has counts `BORDER`, too little to overrule a
    difference (ours; RCF's networks have more channels).

    Args:
        masks: Candidates.
        features: Frozen features of the same frame, on any grid.
        threshold: Cosine above which places belong together.
    """
    scores = judge_by_cut(masks, features, threshold)
    values = scores.values - BORDER * parts.border(masks.soft).mean(axis=0)
    values = np.maximum(values, 0.0)
    return FrameScores(values, scores.discarded)


def mean_scores(scores: Sequence[FrameScores]) -> FrameScores:
    """Average what several judges say; discarded is what any of them discards."""
    return FrameScores(
        np.mean([one.values for one in scores], axis=0),
        np.any([one.discarded for one in scores], axis=0),
    )


def choose(
    judge: str,
    candidates: Sequence[Candidate],
    scores: Mapping[str, Sequence[FrameScores]],
) -> Alignment:
    """Choose the candidate with the highest mean score; the first of equal ones.

    Args:
        judge: Name of the score.
        candidates: As the scores are ordered.
        scores: The judged frames of each sequence, at least one.
    """
    values = [np.mean([f.values for f in frames], axis=0) for frames in scores.values()]
    rates = [
        np.mean([f.discarded for f in frames], axis=0) for frames in scores.values()
    ]
    table = np.stack(values)
    return Alignment(
        judge,
        tuple(candidates),
        tuple(scores),
        table,
        np.stack(rates),
        int(table.mean(axis=0).argmax()),
    )


def unstack(maps: np.ndarray) -> list[np.ndarray]:
    """Split maps along their last axis."""
    return list(np.moveaxis(maps, -1, 0))
