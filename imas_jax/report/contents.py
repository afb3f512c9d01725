"""The page of a folder of clips: cards to sort and filter, and one table over all."""

import dataclasses
from collections.abc import Sequence

from imas_jax.evaluation import tables
from imas_jax.evaluation.protocol import Empty, Entry, Protocol
from imas_jax.report import page

# Whose tables by clip are on the page.
PROTOCOLS: tuple[Protocol, ...] = ("frame_mean", "official")


@dataclasses.dataclass(frozen=True)
class Clip:
    """One card.

    Attributes:
        name: The clip.
        folder: Of its report and overview picture, relative to the page, with slashes.
        jaccard: J of its result, mean of its frames, in [0, 1]; None: not annotated.
        unsure: How much of its masks is undecided, in [0, 1]; None: not known.
        warnings: One line each.
    """

    name: str
    folder: str
    jaccard: float | None = None
    unsure: float | None = None
    warnings: tuple[str, ...] = ()


def render(
    title: str,
    clips: Sequence[Clip],
    entries: Sequence[Entry],
    empty: Empty = "one",
    dataset: str = "",
) -> str:
    """Return the page.

    Args:
        title: What the clips are.
        clips: The cards.
        entries: Rows over all clips; none where nothing is annotated.
        empty: What a frame scores in which both masks are empty.
        dataset: As in `tables.per_sequence`.
    """
    shown = []
    if entries:
        shown = [tables.per_sequence(entries, p, empty, dataset) for p in PROTOCOLS]
        shown.insert(0, tables.headline(entries, empty))
    return page.fill(
        "contents.html",
        title=title,
        clips=clips,
        scored=any(clip.jaccard is not None for clip in clips),
        tables=shown,
        percent=tables.percent,
    )
