"""The page of a folder of clips: one table over all, and pictures that lead to each."""

from collections.abc import Mapping, Sequence

from imas_jax.evaluation import tables
from imas_jax.evaluation.protocol import Empty, Entry, Protocol
from imas_jax.report import page

# Whose tables by clip are on the page.
PROTOCOLS: tuple[Protocol, ...] = ("frame_mean", "official")


def render(
    title: str,
    entries: Sequence[Entry],
    reports: Mapping[str, str],
    empty: Empty = "one",
    dataset: str = "",
) -> str:
    """Return the page.

    Args:
        title: What the clips are.
        entries: Rows over all clips; none where nothing is annotated.
        reports: By clip, its report's folder, relative to the page.
        empty: What a frame scores in which both masks are empty.
        dataset: As in `tables.per_sequence`.
    """
    shown = []
    if entries:
        shown = [tables.per_sequence(entries, p, empty, dataset) for p in PROTOCOLS]
        shown.insert(0, tables.headline(entries, empty))
    return page.fill("contents.html", title=title, tables=shown, reports=reports)
