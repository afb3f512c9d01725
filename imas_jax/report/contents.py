"""The page of a folder of clips: one table over all, and pictures that lead to each."""

import html
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from imas_jax.evaluation import tables
from imas_jax.evaluation.protocol import Empty, Entry, Protocol
from imas_jax.report import page, sections

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
    body = [f"<h1>{html.escape(title)}</h1><p>{_count(len(reports))}</p>"]
    if entries:
        headline = tables.headline(entries, empty)
        body.append(f"<h2>{html.escape(headline.title)}</h2>{sections.table(headline)}")
    for which in PROTOCOLS if entries else ():
        shown = tables.per_sequence(entries, which, empty, dataset)
        rows = sections.table(shown, mean=True)
        body.append(f"<h2>{html.escape(shown.title)}</h2>{rows}")
    body += [_clip(name, quote(folder)) for name, folder in reports.items()]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title>'
        f"<style>{page.STYLE} main img {{ max-width:100% }}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _clip(name: str, folder: str) -> str:
    text = html.escape(name)
    return (
        f'<h2>{text}</h2><a href="{folder}/report.html">'
        f'<img src="{folder}/overview.jpg" alt="{text}"></a>'
    )


def _count(clips: int) -> str:
    return f"{clips} clip{'s' if clips != 1 else ''}"
