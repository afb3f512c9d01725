r"""Choices of `configs/video.py`, each changed alone: J on single clips.

    python benchmarks/choices.py --root=DAVIS-240p --out=benchmarks/results/choices
    python benchmarks/choices.py --root=DAVIS-240p --result --first=2 --seeds=0 \
        --out=benchmarks/results/choices_result

Every ninth sequence from the second on: none is among those that benchmarks/video.py
reports. Stage 1, because that is what these choices act on; `--result` goes on to
stage 2 and the CRF. The CRF's presets have benchmarks/crf_presets.py. Runs that are
finished are not repeated, and the table is written anew after each choice.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import video

STAGE_1 = ("--config.refine.steps=0", "--config.predict.crf=")
CHOICES = {
    "as configs/video.py": (),
    "flow.background=none": ("--config.flow.background=none",),
    "model.residual_bound=10": ("--config.model.residual_bound=10.0",),
    "discover.learning_rate=5e-4": ("--config.discover.learning_rate=5e-4",),
    "channels=2, still_background": (
        "--config.model.channels=2",
        "--config.model.still_background=True",
    ),
    "model.motion_width=64": ("--config.model.motion_width=64",),
}
# What is compared, and with it whether the channel was annotations' choice.
STAGE_1_COLUMNS = {"aligned channel": 1, "oracle channel": 4}
RESULT_COLUMNS = {"result": 3, "stage 2": 2, "stage 1": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-choices"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--result", action="store_true", help="whole protocol")
    parser.add_argument("--first", type=int, default=len(CHOICES), help="how many")
    known = parser.parse_args()
    folders = sorted(next(known.root.glob("JPEGImages/*")).iterdir())
    clips = [folder.name for folder in folders][1::9]
    seeds = [int(seed) for seed in known.seeds.split(",")]
    shared = (f"--config.flow.root={(known.work / 'flow').resolve()}",)
    shared = (
        ("--config.overwrite=True", *shared) if known.result else (*STAGE_1, *shared)
    )
    scores = {}
    for number, (name, overrides) in enumerate([*CHOICES.items()][: known.first]):
        rows = [
            video.run(known.root, known.work / str(number), c, s, [*shared, *overrides])
            for c in clips
            for s in seeds
        ]
        scores[name] = [row["scores"] for row in rows]
        write(known, scores, clips, seeds)


def write(
    known: argparse.Namespace, scores: dict, clips: list[str], seeds: list[int]
) -> None:
    """Write what there is so far."""
    known.out.parent.mkdir(parents=True, exist_ok=True)
    stored = {"clips": clips, "seeds": seeds, "columns": video.COLUMNS}
    stored["scores"] = scores
    known.out.with_suffix(".json").write_text(json.dumps(stored, indent=1) + "\n")
    text = table(scores, clips, seeds, known)
    known.out.with_suffix(".md").write_text(text)
    sys.stdout.write(text)


def table(
    scores: dict, clips: list[str], seeds: list[int], known: argparse.Namespace
) -> str:
    """One row a choice: means over all runs, and paired differences from the first."""
    columns = RESULT_COLUMNS if known.result else STAGE_1_COLUMNS
    values = {name: np.array(rows, float) for name, rows in scores.items()}
    reference = next(iter(values.values()))
    baseline = 100 * reference[:, 0].mean()
    lines = [
        f"# Choices of configs/video.py, one at a time ({', '.join(clips)})",
        "",
        f"`python {' '.join(sys.argv).replace(str(known.root), known.root.name)}`",
        "",
        f"{platform.machine()}, CPU only; J frame_mean, percent, mean over "
        f"{len(clips)} clips and seeds {seeds}.",
        "Difference: paired with the first row, mean and standard error over the runs.",
        f"Motion baseline on the same clips: {baseline:.1f}.",
        "",
        f"| choice | {' | '.join(columns)} | difference, {next(iter(columns))} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, rows in values.items():
        means = " | ".join(f"{100 * rows[:, c].mean():.1f}" for c in columns.values())
        gains = 100 * (rows - reference)[:, next(iter(columns.values()))]
        error = gains.std(ddof=1) / len(gains) ** 0.5
        cell = "" if rows is reference else f"{gains.mean():+.1f} ± {error:.1f}"
        lines.append(f"| {name} | {means} | {cell} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
