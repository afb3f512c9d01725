"""Scores as tables: terminal, Markdown, CSV and JSON. Every number names its protocol.

The motion baseline is the first row and oracle rows come last, marked as what they
are: annotations chose their channel, so they are no result. Numbers are percent in
tables and in [0, 1] in `metrics.json`.
"""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imas_jax import files
from imas_jax.evaluation import metrics, paper, protocol
from imas_jax.evaluation.protocol import PROTOCOLS, Empty, Entry, Protocol

ORACLE_NOTE = "oracle: annotations chose the channel; an upper bound, not a result"
SUPERVISED = "supervised weights: "
_ORDER = {"baseline": 0, "given": 1, "aligned": 1, "oracle": 2}


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells as they are printed.

    Attributes:
        title: What the table shows, protocol included.
        header: Column names; the first column holds row names.
        rows: One string a cell.
        notes: Lines below the table.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the table for a terminal."""
        cells = [self.header, *self.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [_justify(row, widths) for row in cells]
        rule = "-" * max(len(line) for line in lines)
        return "\n".join([self.title, lines[0], rule, *lines[1:], *self.notes])

    def markdown(self) -> str:
        """Return the table as GitHub Markdown."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        lines = [
            "| " + " | ".join(c.replace("|", "\\|") for c in row) + " |"
            for row in (self.header, rule, *self.rows)
        ]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"**{self.title}**", "", *lines, *notes])


def ordered(entries: Sequence[Entry]) -> list[Entry]:
    """Sort baseline first and oracle last, otherwise as given."""
    return sorted(entries, key=lambda entry: _ORDER[entry.kind])


def headline(entries: Sequence[Entry], empty: Empty = "one") -> Table:
    """Return one row a method with J and F by all three protocols."""
    header = ["masks", *(f"J {p}" for p in PROTOCOLS)]
    header += ["F official", "J recall official", "J decay official", "frames"]
    rows = []
    for entry in ordered(entries):
        by = {p: protocol.summarize(entry.scores, p, empty) for p in PROTOCOLS}
        official = by["official"]
        row = [display_name(entry), *(percent(by[p].jaccard.mean) for p in PROTOCOLS)]
        row += [
            percent(official.boundary.mean),
            percent(official.jaccard.recall),
            percent(official.jaccard.decay),
            str(by["frame_mean"].frames),
        ]
        rows.append(tuple(row))
    return Table("Scores, percent", tuple(header), tuple(rows), _notes(entries, empty))


def per_sequence(
    entries: Sequence[Entry],
    which: Protocol,
    empty: Empty = "one",
    dataset: str = "",
) -> Table:
    """Return one row a sequence with every method's J, in the form of paper 6.4.

    Args:
        entries: The methods; all scored on the same sequences.
        which: The protocol; the last row is its mean.
        empty: What a frame scores in which both masks are empty.
        dataset: "davis", "segtrackv2" or "fbms59" adds the paper's own numbers where
            it has the sequence; its mean only where all its sequences are scored.
    """
    entries = ordered(entries)
    names = [score.name for score in entries[0].scores]
    for entry in entries:
        if [score.name for score in entry.scores] != names:
            raise ValueError(f"{entry.label} is scored on other sequences: {names}")
    published = [paper.sequence_jaccard(dataset, name) for name in names]
    with_paper = any(value is not None for value in published)
    rows = []
    for number, name in enumerate(names):
        means = [
            protocol.sequence_statistics(entry.scores[number], which, empty)
            for entry in entries
        ]
        row = [name, *(percent(mean.jaccard.mean) for mean in means)]
        rows.append(row + [_plain(published[number])] * with_paper)
    last = [f"{which} (of {len(names)})"]
    last += [
        percent(protocol.summarize(entry.scores, which, empty).jaccard.mean)
        for entry in entries
    ]
    complete = len(names) == len(paper.PER_SEQUENCE.get(dataset, {}))
    complete &= None not in published
    mean = paper.FRAME_MEAN[dataset] if complete and which == "frame_mean" else None
    rows.append(last + [_plain(mean)] * with_paper)
    header = ["sequence", *map(display_name, entries)] + ["paper 6.4"] * with_paper
    notes = list(_notes(entries, empty))
    if with_paper:
        notes.append("paper 6.4: J with CRF post-processing, frame mean")
    return Table(
        f"J by sequence, percent, {which}",
        tuple(header),
        tuple(map(tuple, rows)),
        tuple(notes),
    )


def beside_published(
    entries: Sequence[Entry], empty: Empty = "one", dataset: str = ""
) -> Table:
    """Return the paper's Table 2 whole, with ours above it in the data set's column.

    Args:
        entries: The methods; what an oracle chose is left out, for it is no result.
        empty: What a frame scores in which both masks are empty.
        dataset: "davis", "segtrackv2" or "fbms59" is what ours were scored on; of
            another one they have no column of the paper's.
    """
    columns = {"davis": "DAVIS16", "segtrackv2": "STv2", "fbms59": "FBMS59"}
    rows = []
    for entry in ordered(entries):
        if entry.kind == "oracle":
            continue
        value = protocol.summarize(entry.scores, "frame_mean", empty).jaccard.mean
        cells = [percent(value) if name == dataset else "" for name in columns]
        own = "" if dataset in columns else percent(value)
        rows.append((f"ours: {display_name(entry)}", "", *cells, own))
    for one in paper.SYSTEMS:
        values = (_plain(getattr(one, name)) for name in columns)
        after = one.processing + one.processing_mark
        rows.append((one.name + one.mark, after, *values, ""))
    header = ["method", "post-process", *columns.values(), dataset or "this data"]
    if dataset in columns:
        header, rows = header[:-1], [row[:-1] for row in rows]
    notes = [f"{mark} {meaning}" for mark, meaning in paper.NOTES.items()]
    notes.append("ours: frame_mean; the others as their papers average")
    count, whole = len(entries[0].scores), len(paper.PER_SEQUENCE.get(dataset, {}))
    if whole and count != whole:
        notes.append(f"ours on {count} sequences, the others on the set's {whole}")
    notes += supervision_notes(entries)
    title = "The paper's Table 2, J, percent"
    return Table(title, tuple(header), tuple(rows), tuple(notes))


def as_json(entries: Sequence[Entry], empty: Empty = "one") -> dict[str, Any]:
    """Return everything as plain data, numbers in [0, 1], NaN as None."""
    methods = []
    for entry in ordered(entries):
        methods.append(
            {
                "label": entry.label,
                "kind": entry.kind,
                "binarization": entry.binarization,
                **({"supervised": entry.supervised} if entry.supervised else {}),
                "protocols": {
                    p: _summary(protocol.summarize(entry.scores, p, empty))
                    for p in PROTOCOLS
                },
                "sequences": {
                    score.name: {
                        p: _summary(protocol.sequence_statistics(score, p, empty))
                        for p in PROTOCOLS
                    }
                    | {
                        "frames": list(score.frames),
                        "jaccard": [_number(v) for v in score.jaccard],
                        "boundary": [_number(v) for v in score.boundary],
                    }
                    for score in entry.scores
                },
            }
        )
    return {"both_empty": empty, "protocols": list(PROTOCOLS), "methods": methods}


def as_csv(entries: Sequence[Entry], empty: Empty = "one") -> str:
    """Return one line a method, sequence and protocol."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["method", "kind", "sequence", "protocol", "frames"]
    head += [f"{m}_{s}" for m in "JF" for s in ("mean", "recall", "decay")]
    writer.writerow(head)
    for entry in ordered(entries):
        for score in entry.scores:
            for p in PROTOCOLS:
                one = protocol.sequence_statistics(score, p, empty)
                values = [
                    "" if math.isnan(value) else f"{value:.6f}"
                    for part in (one.jaccard, one.boundary)
                    for value in dataclasses.astuple(part)
                ]
                kind = entry.kind + " (supervised weights)" * bool(entry.supervised)
                row = [entry.label, kind, score.name, p, one.frames]
                writer.writerow(row + values)
    return out.getvalue()


def write(
    folder: Path,
    entries: Sequence[Entry],
    empty: Empty = "one",
    dataset: str = "",
    extra: Mapping[str, Any] | None = None,
    more: Sequence[Table] = (),
) -> None:
    """Write `metrics.json`, `per_sequence.csv` and `tables.md` into a folder.

    Args:
        folder: Made if it is missing; each file is whole or not there.
        entries: What was scored.
        empty: What a frame scores in which both masks are empty.
        dataset: As in `per_sequence`.
        extra: More fields of `metrics.json`, e.g. where the masks came from.
        more: Tables to follow the others in `tables.md`.
    """
    tables = [headline(entries, empty)]
    tables += [per_sequence(entries, p, empty, dataset) for p in PROTOCOLS]
    tables += more
    data = as_json(entries, empty) | dict(extra or {})
    contents = {
        "metrics.json": json.dumps(data, indent=1, allow_nan=False) + "\n",
        "per_sequence.csv": as_csv(entries, empty),
        "tables.md": "\n\n".join(table.markdown() for table in tables) + "\n",
    }
    for name, text in contents.items():
        files.write_text(folder / name, text)


def display_name(entry: Entry) -> str:
    """Return a row's name; the oracle's says so."""
    if entry.kind == "oracle" and "oracle" not in entry.label:
        return f"{entry.label} (oracle channel)"
    return entry.label


def percent(value: float) -> str:
    """Format a number in [0, 1] as percent with one decimal; "-" for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def supervision_notes(entries: Sequence[Entry]) -> list[str]:
    """Return the line that a table of masks owes whoever reads it, if it owes one."""
    told = dict.fromkeys(entry.supervised for entry in entries if entry.supervised)
    return [SUPERVISED + one for one in told]


def _notes(entries: Sequence[Entry], empty: Empty) -> tuple[str, ...]:
    notes = supervision_notes(entries)
    ways = {entry.binarization for entry in entries if entry.binarization}
    if ways:
        notes.append("binarization: " + ", ".join(sorted(ways)))
    rule = "scores 1" if empty == "one" else "is left out"
    notes.append(f"a frame with both masks empty {rule}")
    if any(entry.kind == "oracle" for entry in entries):
        notes.append(ORACLE_NOTE)
    if not any(entry.kind == "baseline" for entry in entries):
        notes.append("no motion baseline")
    return tuple(notes)


def _justify(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = (
        cell.ljust(width) if column == 0 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([name, *numbers])


def _summary(summary: protocol.Summary) -> dict[str, Any]:
    return {
        "jaccard": _statistics(summary.jaccard),
        "boundary": _statistics(summary.boundary),
        "sequences": summary.sequences,
        "frames": summary.frames,
    }


def _statistics(values: metrics.Statistics) -> dict[str, float | None]:
    return {key: _number(value) for key, value in dataclasses.asdict(values).items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
