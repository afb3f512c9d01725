"""Blocks of the report's page: tables, curves, bars, lists. Plain data to HTML.

An empty block is an empty string, so that a page leaves it out.
"""

import html
from collections.abc import Mapping, Sequence

from imas_jax.evaluation.tables import Table
from imas_jax.report import curves


def table(data: Table, mean: bool = False) -> str:
    """Return a table; with `mean`, the last row is set apart."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in data.header)
    rows = []
    for number, row in enumerate(data.rows):
        last = mean and number == len(data.rows) - 1
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        rows.append(f"<tr{' class=mean' if last else ''}>{cells}</tr>")
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in data.notes)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div><div class=notes>{notes}</div>"
    )


def panels(diagrams: Sequence[curves.Panel]) -> str:
    """Show training curves with their legends."""
    if not diagrams:
        return ""
    boxes = []
    for panel in diagrams:
        unit = f" ({panel.unit})" if panel.unit else ""
        legend = "".join(
            f'<span><svg viewBox="0 0 18 8"><polyline class="c{i % 6}" '
            f'points="0,4 18,4"/></svg>{html.escape(curve.label)}</span>'
            for i, curve in enumerate(panel.curves)
        )
        boxes.append(
            f'<div class="panel"><h3>{html.escape(panel.title + unit)}</h3>'
            f'{curves.svg(panel)}<div class="legend">{legend}</div></div>'
        )
    return f'<h2>Training</h2><div class="panels">{"".join(boxes)}</div>'


def titled(heading: str, rows: Table | None) -> str:
    """Show a table below a heading and its title."""
    if rows is None:
        return ""
    title = html.escape(rows.title)
    return f"<h2>{heading}</h2><p>{title}</p>{table(rows)}"


def warnings(lines: Sequence[str]) -> str:
    """Show warnings as a list."""
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<h2>Warnings</h2><ul class="warnings">{items}</ul>'


def seconds(stages: Mapping[str, float]) -> str:
    """Show seconds of each stage as bars."""
    if not stages:
        return ""
    longest = max(max(stages.values()), 1e-9)
    bars = "".join(
        f"<span>{html.escape(name)}</span>"
        f'<i style="width:{100 * value / longest:.1f}%"></i><span>{value:.1f} s</span>'
        for name, value in stages.items()
    )
    total = sum(stages.values())
    return (
        f"<h2>Time, {total:.0f} s in all</h2>"
        f'<div class="panel"><div class="bars">{bars}</div></div>'
    )


def provenance(config: str, versions: Mapping[str, str]) -> str:
    """Show config and software versions, folded."""
    parts = []
    if config:
        parts.append(
            f"<details><summary>Config</summary><pre>{html.escape(config)}</pre>"
            "</details>"
        )
    if versions:
        lines = "\n".join(f"{name} {text}" for name, text in versions.items())
        parts.append(
            f"<details><summary>Versions</summary><pre>{html.escape(lines)}</pre>"
            "</details>"
        )
    if not parts:
        return ""
    return f'<h2>Provenance</h2><div class="two">{"".join(parts)}</div>'
