"""One self-contained HTML file about a run: opens from disk, needs no network.

`write` takes plain data, so it knows neither runs nor annotations; a stage fills it:

    frame = FrameView(name, encode({"frame": image, "object": ...}), jaccard=0.8)
    write(path, Report(title=..., sequences=(SequenceView("bear", (frame,)),)))
"""

import base64
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from imas_jax import files
from imas_jax.evaluation import protocol, tables
from imas_jax.evaluation.protocol import Empty, Entry
from imas_jax.evaluation.tables import Table
from imas_jax.report import curves, drawing, page

LIMIT = 19_000_000  # bytes of the file
WORST = 5  # frames offered below each scrubber
UNSURE = 3  # and those offered for being unsure
COMPARED = 2  # pictures of a frame that lie over each other, a divider between them


@dataclasses.dataclass(frozen=True)
class FrameView:
    """One frame's pictures.

    Attributes:
        name: The frame.
        pictures: JPEG files by caption; every frame of a sequence has the first one's.
        place: In the clip, from 0.
        jaccard: J of the result in [0, 1], or None without annotation.
        agreement: IoU of the result with what moves, in [0, 1]; no score, but shown
            where there is none.
        unsure: How much of the mask is undecided, in [0, 1], or None.
    """

    name: str
    pictures: Mapping[str, bytes]
    place: int = 0
    jaccard: float | None = None
    agreement: float | None = None
    unsure: float | None = None

    @property
    def rank(self) -> float | None:
        """By which the worst frames are found."""
        return self.agreement if self.jaccard is None else self.jaccard


@dataclasses.dataclass(frozen=True)
class Strip:
    """One number a frame, drawn as bars over the whole clip; a click shows the frame.

    Attributes:
        name: What the number is.
        values: Of every frame of the clip, in [0, 1]; NaN where there is none, not all.
        colour: Of the bars.
        top: Value of the highest bar; None: the highest on the page with this name, so
            that sequences compare.
    """

    name: str
    values: tuple[float, ...]
    colour: tuple[int, int, int]
    top: float | None = 1.0


@dataclasses.dataclass(frozen=True)
class Channel:
    """What a colour in the picture "channels" stands for.

    Attributes:
        name: E.g. "1: the object".
        colour: As it is drawn.
    """

    name: str
    colour: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Link:
    """A file or folder beside the page.

    Attributes:
        name: What it is.
        path: Relative to the page, with slashes.
        detail: E.g. its size.
    """

    name: str
    path: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class SequenceView:
    """What the scrubber of one sequence shows, in order of time.

    Attributes:
        name: The sequence.
        frames: Those shown.
        caption: Beside the name.
        mean: J over all its frames, shown or not; None takes the frames shown.
        strips: Over all its frames.
        channels: Legend of the picture "channels".
        links: To its files.
    """

    name: str
    frames: tuple[FrameView, ...]
    caption: str = ""
    mean: float | None = None
    strips: tuple[Strip, ...] = ()
    channels: tuple[Channel, ...] = ()
    links: tuple[Link, ...] = ()

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
        explained: What the pictures show, a sentence by caption.
        links: To files of all sequences.
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
    explained: Mapping[str, str] = dataclasses.field(default_factory=dict)
    links: tuple[Link, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    config: str = ""
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def encode(
    pictures: Mapping[str, UInt8[np.ndarray, "_ _ 3"]],
    widths: tuple[int, int] = (480, 320),
    quality: int = 74,
) -> dict[str, bytes]:
    """Encode one frame's pictures as JPEG files.

    Args:
        pictures: RGB pictures by caption, any sizes.
        widths: Pixels that the first `COMPARED` ones, which are shown large, and the
            others are shrunk to; none is enlarged.
        quality: Of the JPEG files.
    """
    encoded = {}
    for number, (caption, picture) in enumerate(pictures.items()):
        width = min(widths[number >= COMPARED], picture.shape[1])
        picture = drawing.fit_width(picture, width)
        encoded[caption] = drawing.encode_jpeg(picture, quality)
    return encoded


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
    shown = [sequence for sequence in report.sequences if sequence.frames]
    scored = not all(math.isnan(sequence.jaccard) for sequence in shown)
    if scored:
        shown.sort(key=lambda s: math.inf if math.isnan(s.jaccard) else s.jaccard)
    return page.fill(
        "report.html",
        title=report.title,
        subtitle=report.subtitle,
        command=report.command,
        cards=list(_cards(report)),
        warnings=report.warnings,
        scores=_scores(report),
        scored=scored,
        sequences=[_scrubber(sequence, _tops(shown)) for sequence in shown],
        panels=report.panels,
        alignment=report.alignment,
        targets=report.targets,
        explained=report.explained,
        links_of_all=report.links,
        seconds=report.seconds,
        config=report.config,
        versions="\n".join(f"{name} {v}" for name, v in report.versions.items()),
        draw=curves.svg,
        percent=tables.percent,
    )


def _cards(report: Report) -> Iterator[dict[str, Any]]:
    """Show each method's frame mean large; the last aligned one is the result."""
    entries = tables.ordered(report.entries)
    aligned = [entry for entry in entries if entry.kind == "aligned"]
    for entry in entries:
        rank = "oracle" if entry.kind == "oracle" else ""
        if aligned and entry is aligned[-1]:
            rank = "result"
        yield {
            "name": tables.display_name(entry),
            "rank": rank,
            **{
                which: protocol.summarize(
                    entry.scores, which, report.empty
                ).jaccard.mean
                for which in ("frame_mean", "official")
            },
        }


def _scores(report: Report) -> dict[str, Table]:
    if not report.entries:
        return {}
    return {
        "headline": tables.headline(report.entries, report.empty),
        **{
            which: tables.per_sequence(
                report.entries, which, report.empty, report.dataset
            )
            for which in ("frame_mean", "official")
        },
    }


def _tops(shown: Sequence[SequenceView]) -> dict[str, float]:
    """Return each strip's value of the highest bar."""
    tops: dict[str, float] = {}
    for strip in (strip for sequence in shown for strip in sequence.strips):
        highest = strip.top or float(np.nanmax(strip.values, initial=1e-9))
        tops[strip.name] = max(highest, tops.get(strip.name, 0.0))
    return tops


def _scrubber(sequence: SequenceView, tops: Mapping[str, float]) -> dict[str, Any]:
    """Return what the page's script shows of a sequence, and what stands around it."""
    frames, captions = sequence.frames, list(sequence.frames[0].pictures)
    worst = _worst(frames)
    unsure = [(f.unsure, i) for i, f in enumerate(frames) if f.unsure is not None]
    return {
        "name": sequence.name,
        "caption": sequence.caption,
        "jaccard": sequence.jaccard,
        "scored": not math.isnan(sequence.jaccard),
        "captions": captions,
        "compared": captions[:COMPARED],
        "ratio": _ratio(frames[0].pictures[captions[0]]),
        "first": worst[0] if worst else 0,
        "worst": [_chip(frames[at], at, frames[at].rank) for at in worst[:WORST]],
        "unsure": [
            _chip(frames[at], at, value)
            for value, at in sorted(unsure, reverse=True)[:UNSURE]
        ],
        "strips": [_bars(strip, frames, tops) for strip in sequence.strips],
        "channels": sequence.channels,
        "links": sequence.links,
        "frames": [
            {
                "name": frame.name,
                "place": frame.place,
                "jaccard": frame.jaccard,
                "agreement": frame.agreement,
                "unsure": frame.unsure,
                "pictures": [
                    base64.b64encode(frame.pictures.get(caption, b"")).decode()
                    for caption in captions
                ],
            }
            for frame in frames
        ],
    }


def _chip(frame: FrameView, at: int, value: float | None) -> dict[str, Any]:
    return {"at": at, "name": frame.name, "value": value}


def _ratio(jpeg: bytes) -> str:
    """Return width / height, so that the page keeps room for a picture."""
    with Image.open(io.BytesIO(jpeg)) as image:
        return f"{image.width} / {image.height}"


def _bars(
    strip: Strip, frames: Sequence[FrameView], tops: Mapping[str, float]
) -> dict[str, Any]:
    """Return a strip's picture, its words, and where frames are shown."""
    values = np.asarray(strip.values, float)
    picture = drawing.encode_png(drawing.bars(values / tops[strip.name], strip.colour))
    return {
        "name": strip.name,
        "count": len(values),
        "picture": base64.b64encode(picture).decode(),
        "mean": float(np.nanmean(values)),
        "least": float(np.nanmin(values)),
        "most": float(np.nanmax(values)),
        "shown": [100 * (frame.place + 0.5) / len(values) for frame in frames],
    }
