"""One self-contained HTML file about a run: opens from disk, needs no network.

`write` takes plain data, so it knows neither runs nor annotations; a stage fills it:

    frames = tuple(report.view_frame(name, {"image": image, "overlay": ...}, jaccard))
    report.write(path, report.Report(title=..., entries=..., sequences=...))
"""

import base64
import dataclasses
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from imas_jax import files
from imas_jax.evaluation import protocol, tables
from imas_jax.evaluation.protocol import Empty, Entry
from imas_jax.evaluation.tables import Table
from imas_jax.report import curves, drawing, page, sections

LIMIT = 19_000_000  # bytes of the file
WORST = 5  # frames offered below each scrubber
_AGREEMENT = (
    "A number is the overlap (IoU) of the object with what moves: no score, but a hint "
    "where to look."
)


@dataclasses.dataclass(frozen=True)
class FrameView:
    """One frame's pictures.

    Attributes:
        name: The frame.
        pictures: JPEG files by caption; every frame of a sequence has the first one's.
        jaccard: J of the result in [0, 1], or None without annotation.
        agreement: IoU of the result with what moves, in [0, 1]; no score, but shown
            where there is none.
    """

    name: str
    pictures: Mapping[str, bytes]
    jaccard: float | None = None
    agreement: float | None = None

    @property
    def rank(self) -> float | None:
        """By which the worst frames are found."""
        return self.agreement if self.jaccard is None else self.jaccard


@dataclasses.dataclass(frozen=True)
class SequenceView:
    """What the scrubber of one sequence shows, in order of time.

    Attributes:
        name: The sequence.
        frames: Those shown.
        caption: Beside the name.
        mean: J over all its frames, shown or not; None takes the frames shown.
    """

    name: str
    frames: tuple[FrameView, ...]
    caption: str = ""
    mean: float | None = None

    @property
    def jaccard(self) -> float:
        """Mean J; NaN without annotations."""
        if self.mean is not None:
            return self.mean
        values = [f.jaccard for f in self.frames if f.jaccard is not None]
        return sum(values) / len(values) if values else math.nan


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything the page shows; what is empty is left out.

    Attributes:
        title: Of the page.
        subtitle: One line below it.
        command: What was typed.
        entries: Scored masks: baseline, stage 1, stage 2, oracle.
        empty: What a frame scores in which both masks are empty.
        dataset: Adds the paper's numbers; see `tables.per_sequence`.
        panels: Training curves.
        alignment: Scores of the candidate channels.
        targets: What the CRF and the semantic constraint changed.
        sequences: Shown worst first where annotations exist.
        warnings: From flow and data, one line each.
        seconds: Of each stage.
        config: As text.
        versions: Of the software.
    """

    title: str
    subtitle: str = ""
    command: str = ""
    entries: tuple[Entry, ...] = ()
    empty: Empty = "one"
    dataset: str = ""
    panels: tuple[curves.Panel, ...] = ()
    alignment: Table | None = None
    targets: Table | None = None
    sequences: tuple[SequenceView, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    config: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def view_frame(
    name: str,
    pictures: Mapping[str, UInt8[np.ndarray, "_ _ 3"]],
    jaccard: float | None = None,
    width: int = 400,
    quality: int = 78,
    agreement: float | None = None,
) -> FrameView:
    """Encode one frame's pictures, all brought to one width.

    Args:
        name: The frame.
        pictures: RGB pictures by caption, any sizes.
        jaccard: J of the result in [0, 1], or None.
        width: Pixels.
        quality: Of the JPEG files.
        agreement: IoU of the result with what moves, in [0, 1], or None.
    """
    encoded = {
        caption: drawing.encode_jpeg(drawing.fit_width(picture, width), quality)
        for caption, picture in pictures.items()
    }
    return FrameView(name, encoded, jaccard, agreement)


def write(path: Path, report: Report, limit: int = LIMIT) -> None:
    """Write the page; whole or not at all.

    Where it would be larger than `limit` bytes, frames are left out evenly, but for
    each sequence's worst, and the page says so.
    """
    text = render(report)
    keep = 1
    while len(text) > limit and any(len(s.frames) > 1 for s in report.sequences):
        keep += 1
        fewer = tuple(
            dataclasses.replace(sequence, frames=_some(sequence.frames, keep))
            for sequence in report.sequences
        )
        warning = f"to keep this page small, one frame in {keep} is shown"
        text = render(
            dataclasses.replace(
                report, sequences=fewer, warnings=(*report.warnings, warning)
            )
        )
        if all(len(sequence.frames) <= 2 for sequence in fewer):
            break
    files.write_text(path, text)


def _some(frames: tuple[FrameView, ...], keep: int) -> tuple[FrameView, ...]:
    """Keep one frame in `keep`, and the worst."""
    worst = _worst(frames)[:1]
    return tuple(f for i, f in enumerate(frames) if i % keep == 0 or i in worst)


def _worst(frames: Sequence[FrameView]) -> list[int]:
    """Return the places of the frames with a score, worst first."""
    ranked = [(f.rank, i) for i, f in enumerate(frames) if f.rank is not None]
    return [i for _, i in sorted(ranked)]


def render(report: Report) -> str:
    """Return the page."""
    title = html.escape(report.title)
    command = f"<pre>{html.escape(report.command)}</pre>" if report.command else ""
    body = [
        f"<h1>{title}</h1><p>{html.escape(report.subtitle)}</p>{command}",
        _cards(report),
        sections.warnings(report.warnings),
        _scores(report),
        _sequences(report.sequences),
        sections.panels(report.panels),
        sections.titled("Object channel", report.alignment),
        sections.titled("Stage-2 targets", report.targets),
        sections.seconds(report.seconds),
        sections.provenance(report.config, report.versions),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{title}</title>'
        f"<style>{page.STYLE}</style></head><body><main>"
        + "\n".join(part for part in body if part)
        + f"</main><script>{page.SCRIPT}</script></body></html>\n"
    )


def _cards(report: Report) -> str:
    """Show each method's frame mean large; the last aligned one is the result."""
    entries = tables.ordered(report.entries)
    aligned = [entry for entry in entries if entry.kind == "aligned"]
    cards = []
    for entry in entries:
        means = {
            name: protocol.summarize(entry.scores, name, report.empty).jaccard.mean
            for name in protocol.PROTOCOLS
        }
        rank = " oracle" if entry.kind == "oracle" else ""
        if aligned and entry is aligned[-1]:
            rank = " result"
        cards.append(
            f'<div class="card{rank}">'
            f"{html.escape(tables.display_name(entry))}"
            f"<b>{tables.percent(means['frame_mean'])}</b>"
            f"<p>J frame_mean</p><p>official {tables.percent(means['official'])}</p>"
            "</div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>' if cards else ""


def _scores(report: Report) -> str:
    if not report.entries:
        return "<h2>Scores</h2><p>No annotations, so nothing is scored.</p>"
    headline = tables.headline(report.entries, report.empty)
    frame_mean, official = (
        tables.per_sequence(report.entries, which, report.empty, report.dataset)
        for which in ("frame_mean", "official")
    )
    return (
        f"<h2>Scores</h2>{sections.table(headline)}"
        f"<h2>{html.escape(frame_mean.title)}</h2>"
        f"{sections.table(frame_mean, mean=True)}"
        f"<details><summary>{html.escape(official.title)}</summary>"
        f"{sections.table(official, mean=True)}</details>"
    )


def _sequences(sequences: Sequence[SequenceView]) -> str:
    shown = [sequence for sequence in sequences if sequence.frames]
    if not shown:
        return ""
    scored = not all(math.isnan(sequence.jaccard) for sequence in shown)
    if scored:
        shown.sort(key=lambda s: math.inf if math.isnan(s.jaccard) else s.jaccard)
    order = "worst first" if scored else "in order"
    note = (
        "<p>Turquoise is the object found; yellow, where drawn, outlines the "
        "annotation, which nothing but the scores has seen. "
        + ("A number is J of the frame." if scored else _AGREEMENT)
        + "</p>"
    )
    boxes = "".join(map(_sequence, shown))
    return f"<h2>Sequences, {order}</h2>{note}{boxes}"


def _sequence(sequence: SequenceView) -> str:
    captions = list(sequence.frames[0].pictures)
    data = [
        {
            "name": frame.name,
            "jaccard": frame.jaccard,
            "agreement": frame.agreement,
            "pictures": [
                base64.b64encode(frame.pictures.get(caption, b"")).decode()
                for caption in captions
            ],
        }
        for frame in sequence.frames
    ]
    figures = "".join(
        f'<figure><img alt="{html.escape(caption)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption in captions
    )
    worst = _worst(sequence.frames)[:WORST]
    chips = "".join(
        f'<button data-at="{at}">{html.escape(sequence.frames[at].name)} · '
        f"{100 * (sequence.frames[at].rank or 0):.1f}</button>"
        for at in worst
    )
    scored = not math.isnan(sequence.jaccard)
    mean = f"J {100 * sequence.jaccard:.1f}" if scored else ""
    label = "worst frames" if scored else "least agreement"
    first = worst[0] if worst else 0
    # "</" would end the script element early.
    payload = json.dumps(data).replace("</", "<\\/")
    return (
        f'<section class="sequence"><div class="row">'
        f'<h3>{html.escape(sequence.name)}</h3><span class="soft">{mean}</span>'
        f'<span class="soft">{html.escape(sequence.caption)}</span></div>'
        f'<div class="pictures">{figures}</div><div class="scrub">'
        f'<button class="play">play</button><input type="range" min="0" '
        f'max="{len(data) - 1}" value="{first}" aria-label="frame">'
        "<output></output></div>"
        + (f'<div class="worst">{label} {chips}</div>' if chips else "")
        + f'<script type="application/json">{payload}</script></section>'
    )
