"""Two runs on the same sequences: paired differences and a bootstrap interval.

Sequences differ far more than methods do, so methods are compared sequence by sequence,
and it is sequences that are drawn again: the interval says how much the mean difference
depends on which sequences happen to be in the data set. It says nothing of seeds; for
those, train several.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from imas_jax.evaluation import protocol, tables
from imas_jax.evaluation.protocol import Empty, Entry, Protocol

RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Comparison:
    """J of `other` minus J of `reference`, in [-1, 1].

    Attributes:
        reference: Label of the first method.
        other: Label of the second.
        differences: By sequence.
        mean: As the protocol averages.
        low: 2.5th percentile of the mean over resampled sequences.
        high: 97.5th percentile.
        better: Sequences on which `other` is ahead.
    """

    reference: str
    other: str
    differences: dict[str, float]
    mean: float
    low: float
    high: float
    better: int


def compare(
    reference: Entry,
    other: Entry,
    which: Protocol,
    empty: Empty = "one",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two methods sequence by sequence; the same arguments, the same interval.

    For `frame_mean` whole sequences are drawn and weigh as many frames as they have.

    Raises:
        ValueError: If the two were scored on other sequences, or on other frames that
            the protocol averages.
    """
    names = [score.name for score in reference.scores]
    if names != [score.name for score in other.scores]:
        raise ValueError(f"{other.label} and {reference.label}: other sequences")
    differences, weights, kept = [], [], []
    for a, b in zip(reference.scores, other.scores, strict=True):
        frames = [np.array(s.frames)[s.kept(which)].tolist() for s in (a, b)]
        if frames[0] != frames[1] or a.lacks(which) or b.lacks(which):
            raise ValueError(f"{other.label} and {reference.label}: {a.name} differs")
        before, after = (
            protocol.sequence_statistics(score, which, empty) for score in (a, b)
        )
        if before.frames and after.frames:
            kept.append(a.name)
            differences.append(after.jaccard.mean - before.jaccard.mean)
            # "skip" may leave out other frames of each: weigh by the mean.
            weights.append((before.frames + after.frames) / 2)
    if not kept:
        raise ValueError(f"{reference.label}: no sequence has a frame to compare")
    values = np.array(differences)
    weight = np.array(weights) if which == "frame_mean" else np.ones(len(values))
    draws = np.random.default_rng(seed).integers(
        0, len(values), (resamples, len(values))
    )
    means = (values[draws] * weight[draws]).sum(1) / weight[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Comparison(
        reference=reference.label,
        other=other.label,
        differences=dict(zip(kept, differences, strict=True)),
        mean=float(np.average(values, weights=weight)),
        low=float(low),
        high=float(high),
        better=int((values > 0).sum()),
    )


def on_common_frames(
    entries: Sequence[Entry],
) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """Keep what every method has a score of: a difference is of the same frames.

    Returns:
        The entries on their common sequences and frames, in the first one's order; and
        a line if some had more.
    """
    frames = {score.name: set(score.frames) for score in entries[0].scores}
    seen = {name: set(there) for name, there in frames.items()}
    for entry in entries[1:]:
        there = {score.name: set(score.frames) for score in entry.scores}
        frames = {name: frames[name] & there[name] for name in frames if name in there}
        for name, some in there.items():
            seen.setdefault(name, set()).update(some)
    kept = []
    for entry in entries:
        scores = {score.name: score for score in entry.scores}
        common = tuple(scores[name].only(frames[name]) for name in frames)
        kept.append(dataclasses.replace(entry, scores=common))
    total, count = (sum(map(len, some.values())) for some in (frames, seen))
    if total == count:
        return tuple(kept), ()
    line = f"{total} of {count} frames have a mask in every folder: the others do not "
    return tuple(kept), (line + "count",)


def comparison_table(
    entries: Sequence[Entry], which: Protocol, empty: Empty = "one"
) -> tables.Table:
    """Return one row a sequence: J of the first method, and the others' differences.

    Args:
        entries: At least two; the first is the reference.
        which: The protocol.
        empty: What a frame scores in which both masks are empty.
    """
    reference, *others = entries
    pairs = [compare(reference, other, which, empty) for other in others]
    rows = []
    for score in reference.scores:
        mean = protocol.sequence_statistics(score, which, empty).jaccard.mean
        cells = [
            signed(pair.differences[score.name])
            if score.name in pair.differences
            else "-"
            for pair in pairs
        ]
        rows.append((score.name, tables.percent(mean), *cells))
    whole = protocol.summarize(reference.scores, which, empty).jaccard.mean
    rows.append((which, tables.percent(whole), *(signed(p.mean) for p in pairs)))
    rows.append(
        ("95 % interval", "", *(f"{signed(p.low)} .. {signed(p.high)}" for p in pairs))
    )
    rows.append(
        ("ahead on", "", *(f"{p.better} of {len(p.differences)}" for p in pairs))
    )
    header = ["sequence", reference.label]
    header += [f"{other.label} - {reference.label}" for other in others]
    note = f"interval: bootstrap over sequences, {RESAMPLES} draws"
    return tables.Table(
        f"J difference, points, {which}", tuple(header), tuple(rows), (note,)
    )


def signed(value: float) -> str:
    """Format a difference in points with its sign."""
    return f"{100 * value:+.1f}"
