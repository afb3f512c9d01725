"""`configs/video.py` clip by clip: J of the motion baseline, both stages and the CRF.

    python benchmarks/video.py --root=DAVIS-240p --out=benchmarks/results/video

Each clip is a run of its own from random weights, as a user's own video would be.
Without --clips every third sequence in alphabetical order is taken, a rule fixed before
anything was measured; choices were made on other sequences. Further arguments
(`--config.FIELD=VALUE`) go to every run, so that one choice can be compared.
"""

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

COLUMNS = (
    ("baseline", "baseline"),
    ("stage 1", "aligned"),
    ("stage 2", "aligned"),
    ("CRF", "aligned"),
    ("stage 1", "oracle"),
    ("stage 2", "oracle"),
)
HEADER = (
    "motion baseline",
    "stage 1",
    "stage 2",
    "stage 2 + CRF (the result)",
    "stage 1, oracle channel",
    "stage 2, oracle channel",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--clips", default="")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-video"))
    parser.add_argument("--out", type=Path, required=True)
    known, overrides = parser.parse_known_args()
    folders = sorted(next(known.root.glob("JPEGImages/*")).iterdir())
    names = [folder.name for folder in folders][::3]
    clips = known.clips.split(",") if known.clips else names
    rows = [
        run(known.root, known.work, clip, int(seed), overrides)
        for seed in known.seeds.split(",")
        for clip in clips
    ]
    known.out.parent.mkdir(parents=True, exist_ok=True)
    known.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    text = table(rows, clips, known.root, overrides)
    known.out.with_suffix(".md").write_text(text)
    sys.stdout.write(text)


def run(root: Path, work: Path, clip: str, seed: int, overrides: list[str]) -> dict:
    """Run one clip, or what is left of it; read scores and the stages' seconds."""
    workdir = work / f"{clip}-{seed}"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "imas_jax.main",
            "--config=configs/video.py",
            f"--config.data.root={root}",
            "--config.data.layout=davis",
            f"--config.data.sequences=('{clip}',)",
            f"--config.seed={seed}",
            f"--config.workdir={workdir}",
            *overrides,
        ],
        check=True,
        capture_output=True,
    )
    stages = (json.loads(p.read_text()) for p in workdir.glob("*/result.json"))
    seconds = sum(stage["seconds"] for stage in stages)
    methods = json.loads((workdir / "evaluate/metrics.json").read_text())["methods"]
    scores = []
    for label, kind in COLUMNS:
        found = [m for m in methods if m["kind"] == kind and matches(label, m["label"])]
        scores.append(
            found[0]["protocols"]["frame_mean"]["jaccard"]["mean"] if found else None
        )
    row = {"clip": clip, "seed": seed, "seconds": round(seconds, 1), "scores": scores}
    sys.stderr.write(json.dumps(row) + "\n")
    return row


def matches(wanted: str, label: str) -> bool:
    """Tell whether a row of the metrics is the wanted column."""
    if wanted == "CRF":
        return "CRF" in label
    return wanted in label and "CRF" not in label


def table(rows: list[dict], clips: list[str], root: Path, overrides: list[str]) -> str:
    """Format the mean over seeds of every clip, J frame mean in percent."""
    seeds = sorted({row["seed"] for row in rows})
    by_run = {(row["clip"], row["seed"]): row["scores"] for row in rows}
    values = np.array(
        [[by_run[c, s] for s in seeds] for c in clips],
        float,
    )
    lines = [
        f"# configs/video.py on {len(clips)} single clips, seeds {seeds}",
        "",
        f"`python {' '.join(sys.argv).replace(str(root), root.name)}`",
        "",
        f"{platform.machine()}, CPU only; J frame_mean, percent, mean over seeds.",
        f"Overrides: {' '.join(overrides) or 'none'}.",
        "",
        "| clip | " + " | ".join(HEADER) + " | seconds |",
        "|---|" + "---|" * (len(HEADER) + 1),
    ]
    for number, clip in enumerate(clips):
        times = [r["seconds"] for r in rows if r["clip"] == clip]
        cells = " | ".join(f"{100 * v:.1f}" for v in values[number].mean(0))
        lines.append(f"| {clip} | {cells} | {np.mean(times):.0f} |")
    means = values.mean(axis=(0, 1))
    lines.append("| **mean** | " + " | ".join(f"**{100 * v:.1f}**" for v in means))
    lines[-1] += f" | {np.mean([r['seconds'] for r in rows]):.0f} |"
    by_seed = (values[..., 3] - values[..., 0]).mean(axis=0)
    lines += ["", "Result minus baseline, by seed: "]
    lines[-1] += ", ".join(f"{100 * gain:+.1f}" for gain in by_seed) + " points of J."
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
