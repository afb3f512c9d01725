"""One self-contained HTML file about a run: opens from disk, needs no network.

`write` takes plain data, so it knows neither runs nor annotations; a stage fills it:

    frames = tuple(report.view_frame(name, {"image": image, "overlay": ...}, jaccard))
    report.write(path, report.Report(title=..., entries=..., sequences=...))
"""

import base64
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from imas_jax import files
from imas_jax.evaluation import protocol, tables
from imas_jax.evaluation.protocol import Empty, Entry
from imas_jax.evaluation.tables import Table
from imas_jax.report import curves, drawing, page

LIMIT = 19_000_000  # bytes of the file
WORST = 5  # frames offered below each scrubber


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
        sequences=[_scrubber(sequence) for sequence in shown],
        panels=report.panels,
        alignment=report.alignment,
        targets=report.targets,
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


def _scrubber(sequence: SequenceView) -> dict[str, Any]:
    """Return what the page's script shows of a sequence, and what stands around it."""
    frames, captions = sequence.frames, list(sequence.frames[0].pictures)
    return {
        "name": sequence.name,
        "caption": sequence.caption,
        "jaccard": sequence.jaccard,
        "scored": not math.isnan(sequence.jaccard),
        "captions": captions,
        "worst": [
            {"at": at, "name": frames[at].name, "rank": frames[at].rank}
            for at in _worst(frames)[:WORST]
        ],
        "frames": [
            {
                "name": frame.name,
                "jaccard": frame.jaccard,
                "agreement": frame.agreement,
                "pictures": [
                    base64.b64encode(frame.pictures.get(caption, b"")).decode()
                    for caption in captions
                ],
            }
            for frame in frames
        ],
    }
