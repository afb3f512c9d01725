"""A ranked table of candidates that a judge scored: pure NumPy and text.

Candidates are anything with masks: channels, checkpoints, hyperparameter values,
methods. Scores are label-free; nothing here reads annotations.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from imas_jax.appearance.alignment import FrameScores

RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Scored:
    """Candidates that were judged together, e.g. the channels of one network.

    Attributes:
        candidates: Their names.
        frames: By sequence, the scores of the judged frames.
    """

    candidates: tuple[str, ...]
    frames: Mapping[str, Sequence[FrameScores]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One candidate.

    Attributes:
        name: The candidate.
        score: Mean over sequences, in [0, 1], higher is better.
        low: 2.5th percentile of the mean over resampled sequences.
        high: 97.5th percentile.
        discarded: Share of judged frames that got 0 by the discard rule.
        wins: Share of resamplings in which this candidate is the best.
    """

    name: str
    score: float
    low: float
    high: float
    discarded: float
    wins: float


@dataclasses.dataclass(frozen=True)
class Ranking:
    """All candidates, as given.

    Attributes:
        judge: What scored them.
        candidates: Their names.
        sequences: Sequence names.
        values: Mean score over judged frames.
        discarded: Share of judged frames discarded.
    """

    judge: str
    candidates: tuple[str, ...]
    sequences: tuple[str, ...]
    values: Float[np.ndarray, "n m"]
    discarded: Float[np.ndarray, "n m"]

    @property
    def best(self) -> str:
        """The candidate with the highest score; the first of equal ones."""
        return self.candidates[int(self.values.mean(axis=0).argmax())]

    def rows(self, seed: int = 0) -> list[Row]:
        """Return one row a candidate, best first.

        The interval draws sequences again, for all candidates the same ones: it says
        how much a score, and the winner, depends on which sequences there are.
        """
        n, m = self.values.shape
        draws = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
        # counts @ values is the mean over drawn sequences without an (r, n, m) array.
        counts = np.zeros((RESAMPLES, n))
        np.add.at(counts, (np.arange(RESAMPLES)[:, None], draws), 1.0)
        means = counts @ self.values / n
        low, high = np.percentile(means, [2.5, 97.5], axis=0)
        wins = np.bincount(means.argmax(axis=1), minlength=m) / RESAMPLES
        rows = [
            Row(
                name,
                float(self.values[:, i].mean()),
                float(low[i]),
                float(high[i]),
                float(self.discarded[:, i].mean()),
                float(wins[i]),
            )
            for i, name in enumerate(self.candidates)
        ]
        return sorted(rows, key=lambda row: -row.score)

    def text(self) -> str:
        """Return the ranked table for a terminal."""
        title = f"candidate ({self.judge})"
        head = (title, "score", "95 % interval", "wins", "discarded")
        body = [
            (
                row.name,
                f"{row.score:.3f}",
                f"{row.low:.3f} .. {row.high:.3f}",
                f"{100 * row.wins:.0f} %",
                f"{100 * row.discarded:.0f} %",
            )
            for row in self.rows()
        ]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in (head, *body)
        ]
        note = (
            f"{len(self.sequences)} sequences; interval: bootstrap over them, "
            f"{RESAMPLES} draws; no annotation was read"
        )
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], note])

    def to_json(self) -> dict[str, Any]:
        """Return the ranking as plain values for result.json, best first."""
        by_name = {name: i for i, name in enumerate(self.candidates)}
        return {
            "judge": self.judge,
            "best": self.best,
            "ranking": [
                dataclasses.asdict(row)
                | {
                    "sequences": dict(
                        zip(
                            self.sequences,
                            self.values[:, by_name[row.name]].tolist(),
                            strict=True,
                        )
                    )
                }
                for row in self.rows()
            ],
        }


def rank(judge: str, groups: Sequence[Scored]) -> Ranking:
    """Average scores over frames, and line candidates up over sequences.

    Args:
        judge: Name of the score.
        groups: At least one, all with the same sequences.
    """
    sequences = tuple(groups[0].frames)
    values: list[np.ndarray] = []
    discarded: list[np.ndarray] = []
    for group in groups:
        frames = [group.frames[name] for name in sequences]
        values.append(np.stack([_mean(f.values for f in one) for one in frames]))
        discarded.append(np.stack([_mean(f.discarded for f in one) for one in frames]))
    return Ranking(
        judge,
        tuple(name for group in groups for name in group.candidates),
        sequences,
        np.concatenate(values, axis=1),
        np.concatenate(discarded, axis=1),
    )


def _mean(frames: Iterable[np.ndarray]) -> np.ndarray:
    return np.mean(list(frames), axis=0)
