r"""The paper's Fig. 5 from a sweep: alignment score against C and against the channel.

    python benchmarks/alignment.py --runs=runs/c2_s0,runs/c2_s1,runs/c3_s0,... \
        --out=benchmarks/results/channels.json
    python benchmarks/figure5.py --judge=motion

Left, the score that chooses, without annotations; right, apart from it, what
annotations say (J) of the same choice. Top: newest checkpoints by number of channels,
one point a run, the line through their means. Bottom: the channels of the run with
most of them. Writes an SVG and prints the means: score, J, best channel's J.
"""

import collections
import json
from pathlib import Path

import numpy as np
from absl import app, flags

SOURCE = flags.DEFINE_string("source", "benchmarks/results/channels.json", "")
JUDGE = flags.DEFINE_string("judge", "motion", "a name of its table")
OUT = flags.DEFINE_string("out", "benchmarks/results/figure5.svg", "")

WIDTH, HEIGHT, MARGIN = 380, 240, 44
STYLE = (
    "text{font:12px sans-serif;fill:#333}.axis{stroke:#888}.grid{stroke:#ddd}"
    "polyline{fill:none;stroke:#06c;stroke-width:2}circle{fill:#06c;opacity:.55}"
)


def main(_: list[str]) -> None:
    told = json.loads(Path(SOURCE.value).read_text())
    points = [p for p in told["points"] if p["judge"] == JUDGE.value]
    if not points:
        raise SystemExit(f"no judge {JUDGE.value!r} in {SOURCE.value}")
    Path(OUT.value).write_text(draw(points))
    print_means(points)


def newest_of(points: list[dict]) -> list[dict]:
    """Return every run's newest checkpoint."""
    return list({p["run"]: p for p in sorted(points, key=lambda p: p["step"])}.values())


def print_means(points: list[dict]) -> None:
    """Print mean and standard deviation over runs by number of channels, percent."""
    by_count = collections.defaultdict(list)
    for p in newest_of(points):
        best = int(np.argmax(p["scores"]))
        by_count[len(p["scores"])].append(
            (p["scores"][best], p["J"][best], max(p["J"]))
        )
    for count, rows in sorted(by_count.items()):
        values = 100 * np.array(rows)
        pairs = zip(values.mean(axis=0), values.std(axis=0, ddof=1), strict=True)
        print(f"C = {count}: " + ", ".join(f"{m:.1f} ± {s:.1f}" for m, s in pairs))


def draw(points: list[dict]) -> str:
    newest = newest_of(points)
    chosen: dict[int, list[tuple[float, float]]] = collections.defaultdict(list)
    for p in newest:
        best = int(np.argmax(p["scores"]))
        chosen[len(p["scores"])].append((p["scores"][best], p["J"][best]))
    one = max(newest, key=lambda p: len(p["scores"]))
    pairs = zip(one["scores"], one["J"], strict=True)
    by_channel = {i: [pair] for i, pair in enumerate(pairs)}
    panels = []
    for table, axis in ((chosen, "number of channels C"), (by_channel, "channel")):
        for side, what in enumerate((f"alignment, {JUDGE.value}", "annotation J")):
            column = {x: [pair[side] for pair in table[x]] for x in sorted(table)}
            panels.append(panel(column, what, axis))
    placed = [
        f'<g transform="translate({WIDTH * (i % 2)} {HEIGHT * (i // 2)})">{one}</g>'
        for i, one in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" '
        f'height="{2 * HEIGHT}"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(placed)}</svg>\n'
    )


def panel(column: dict[int, list[float]], what: str, axis: str) -> str:
    """Draw one diagram with its value axis from 0 to 1."""
    low, high = min(column), max(column)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (x - low) / max(high - low, 1)
        across = MARGIN + 12 + share * (WIDTH - 2 * MARGIN - 24)
        return across, HEIGHT - MARGIN - y * (HEIGHT - 2 * MARGIN)

    parts = [f'<text x="{MARGIN}" y="24">{what}</text>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y, right = place(low, tick)[1], WIDTH - MARGIN
        parts.append(
            f'<line class="grid" x1="{MARGIN}" x2="{right}" y1="{y}" y2="{y}"/>'
            f'<text x="{MARGIN - 6}" y="{y + 4}" text-anchor="end">{tick:g}</text>'
        )
    for x, values in column.items():
        across = place(x, 0)[0]
        parts.append(
            f'<text x="{across}" y="{HEIGHT - MARGIN + 16}" '
            f'text-anchor="middle">{x}</text>'
        )
        for value in values:
            parts.append(f'<circle cx="{across}" cy="{place(x, value)[1]}" r="4"/>')
    means = [place(x, float(np.mean(values))) for x, values in column.items()]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in means)
    parts.append(f'<polyline points="{path}"/>')
    parts.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{axis}</text>'
    )
    return "".join(parts)


if __name__ == "__main__":
    app.run(main)
