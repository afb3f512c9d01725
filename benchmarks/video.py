"""`configs/video.py` on every sequence of a DAVIS folder: J from flow to final masks.

    python benchmarks/video.py --root=DAVIS-240p --out=benchmarks/results/video

One `stage=each` a seed: each sequence is a run of its own from random weights, as a
user's own video would be; a run that was killed goes on. Sequences in alphabetical
order: choices are made on all but every third (number % 3 == 1); those are held out,
and their mean is a line of its own. Further arguments (`--config.FIELD=VALUE`) go to
every run, so that one choice can be compared with --against, an earlier --out: the
difference is paired by sequence, with its standard error over sequences.
`--recipe=configs/video.py:quick` is the recipe that learns nothing on the clip, one run
a seed all the same.

Seconds are those of all stages, flow and report included, as their results note them.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

# Heading, and what `evaluate` calls the row: label and kind.
COLUMNS = (
    ("motion baseline", "motion baseline", "baseline"),
    ("evidence", "motion evidence, network", "baseline"),
    ("evidence + CRF", "motion evidence, network, CRF", "baseline"),
    ("stage 1", "stage 1", "aligned"),
    ("stage 2", "stage 2", "aligned"),
    ("stage 2 + CRF (the result)", "stage 2, CRF", "aligned"),
)
BASELINE, RESULT = 0, 5
UNLEARNED = "final masks, CRF"  # the result's label where nothing is learned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--recipe", default="configs/video.py")
    parser.add_argument("--clips", default="")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-video"))
    parser.add_argument("--against", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    known, overrides = parser.parse_known_args()
    every = [f.name for f in sorted(next(known.root.glob("JPEGImages/*")).iterdir())]
    clips = known.clips.split(",") if known.clips else every
    seeds = [int(seed) for seed in known.seeds.split(",")]
    rows = []
    for seed in seeds:
        workdir = known.work / f"seed-{seed}"
        run(known.recipe, known.root, workdir, clips, seed, overrides)
        for clip in clips:
            row = read(workdir / "runs" / clip)
            held_out = every.index(clip) % 3 == 1
            rows.append({"clip": clip, "seed": seed, "held_out": held_out, **row})
    known.out.parent.mkdir(parents=True, exist_ok=True)
    known.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    text = table(known.recipe, rows, seeds, known.root, overrides)
    if known.against:
        text += compare(rows, json.loads(known.against.read_text()), known.against.name)
    known.out.with_suffix(".md").write_text(text)
    sys.stdout.write(text)


def run(
    recipe: str,
    root: Path,
    workdir: Path,
    clips: list[str],
    seed: int,
    overrides: list[str],
) -> None:
    """Run all clips, or what is left of them."""
    listed = "".join(f"'{clip}'," for clip in clips)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "imas_jax.main",
            f"--config={recipe}",
            "--config.stage=each",
            f"--config.data.root={root}",
            "--config.data.layout=davis",
            "--config.data.partial=True",
            f"--config.data.sequences=({listed})",
            f"--config.seed={seed}",
            f"--config.workdir={workdir}",
            *overrides,
        ],
        check=True,
    )


def read(workdir: Path) -> dict:
    """Read the scores of a clip's run and the seconds of its stages."""
    stages = (json.loads(p.read_text()) for p in workdir.glob("*/result.json"))
    seconds = round(sum(stage["seconds"] for stage in stages), 1)
    metrics = json.loads((workdir / "evaluate/metrics.json").read_text())
    scores: list[float | None] = []
    frames = 0
    for _, label, kind in COLUMNS:
        found = [
            method["protocols"]["frame_mean"]
            for method in metrics["methods"]
            if method["kind"] == kind and matches(label, method["label"])
        ]
        scores.append(found[0]["jaccard"]["mean"] if found else None)
        frames = max(frames, *(one["frames"] for one in found), 0)
    return {"frames": frames, "seconds": seconds, "scores": scores}


def matches(wanted: str, label: str) -> bool:
    """Tell whether a row of the metrics is the wanted column, whatever its preset."""
    if wanted == COLUMNS[RESULT][1] and label.startswith(UNLEARNED):
        return True
    if wanted.endswith("CRF"):
        return label.startswith(wanted)
    return label == wanted


def means(rows: list[dict]) -> np.ndarray:
    """Return J of every column, percent, mean over all frames of all rows."""
    scores = np.array([row["scores"] for row in rows], float)
    weights = np.array([row["frames"] for row in rows], float)
    return 100 * (scores * weights[:, None]).sum(0) / weights.sum()


def table(
    recipe: str, rows: list[dict], seeds: list[int], root: Path, overrides: list[str]
) -> str:
    """Format every clip, mean over seeds, and the frame means of both parts."""
    clips = list(dict.fromkeys(row["clip"] for row in rows))
    command = " ".join(sys.argv).replace(str(root), root.name)
    lines = [
        f"# {recipe} on {len(clips)} single clips, seeds {seeds}",
        "",
        f"    python {command}",
        "",
        f"{os.cpu_count()} cores ({platform.machine()}), no accelerator. J frame_mean, "
        "percent, mean over seeds.",
        f"Overrides: {' '.join(overrides) or 'none'}.",
        "",
        "| clip | frames | " + " | ".join(c[0] for c in COLUMNS) + " | seconds |",
        "|---|" + "---|" * (len(COLUMNS) + 2),
    ]
    parts = [(clip, [row for row in rows if row["clip"] == clip]) for clip in clips]
    for clip, own in parts:
        label = clip + " (held out)" * own[0]["held_out"]
        lines.append(line(label, own, len(seeds)))
    for label, wanted in (
        ("chosen on", [row for row in rows if not row["held_out"]]),
        ("held out", [row for row in rows if row["held_out"]]),
        ("all", rows),
    ):
        if wanted:
            lines.append(line(f"**{label}**", wanted, len(seeds)))
    seconds = [row["seconds"] for row in rows]
    lines += ["", f"Seconds: median {np.median(seconds):.0f}, most {max(seconds):.0f}."]
    for seed in seeds:
        own = means([row for row in rows if row["seed"] == seed])
        lines.append(
            f"Seed {seed}: result {own[RESULT]:.1f}, baseline {own[BASELINE]:.1f}."
        )
    return "\n".join(lines) + "\n"


def line(label: str, rows: list[dict], seeds: int) -> str:
    """Return one row of the table."""
    cells = ["-" if np.isnan(value) else f"{value:.1f}" for value in means(rows)]
    frames = sum(row["frames"] for row in rows) // seeds
    seconds = float(np.median([row["seconds"] for row in rows]))
    return f"| {label} | {frames} | {' | '.join(cells)} | {seconds:.0f} |"


def compare(rows: list[dict], others: list[dict], name: str) -> str:
    """Return the paired difference of the result to another run of this script."""
    theirs = {(row["clip"], row["seed"]): row["scores"][RESULT] for row in others}
    by_clip: dict[str, list[float]] = {}
    for row in rows:
        other = theirs.get((row["clip"], row["seed"]))
        if other is not None:
            gain = 100 * (row["scores"][RESULT] - other)
            by_clip.setdefault(row["clip"], []).append(gain)
    gains = np.array([np.mean(gains) for gains in by_clip.values()])
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    return (
        f"\nResult less that of {name}: {gains.mean():+.1f} ± {error:.1f} points "
        f"(standard error over {len(gains)} sequences), "
        f"better on {(gains > 0).sum()}.\n"
    )


if __name__ == "__main__":
    main()
