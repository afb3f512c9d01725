"""The demo in float32 and in bfloat16: the same J and the same loss?

    python benchmarks/precision.py --seeds=0,1,2

Each run is `configs/demo.py` with 200 steps of stage 1, from the same start and on the
same batches; only `config.precision` differs. Compared are J (frame mean, the object
channel chosen without annotations) of stage 1 and of the final masks, and the mean
loss of each stage's last 20 steps. Allowed: 2 points of J, 5 % of loss. What two seeds
differ by in float32 is the scale to read it on. Further arguments
(`--config.FIELD=VALUE`) go to every run. Prints one table, writes a JSON file.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

PRECISIONS = ("float32", "bfloat16")
LAST = 20  # steps whose mean loss counts
QUANTITIES = ("J stage 1", "J result", "loss stage 1", "loss stage 2")
LIMITS = (2.0, 2.0, 5.0, 5.0)  # points of J, percent of the loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-precision"))
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/precision.json")
    )
    known, overrides = parser.parse_known_args()
    seeds = [int(seed) for seed in known.seeds.split(",")]
    steps = f"--config.discover.steps={known.steps}"
    values = {
        precision: np.array(
            [run(known.work, precision, seed, [steps, *overrides]) for seed in seeds]
        )
        for precision in PRECISIONS
    }
    report = {
        "seeds": seeds,
        "steps": known.steps,
        "overrides": overrides,
        "quantities": QUANTITIES,
        **{precision: array.tolist() for precision, array in values.items()},
    }
    known.out.parent.mkdir(parents=True, exist_ok=True)
    known.out.write_text(json.dumps(report, indent=1) + "\n")
    sys.stdout.write(table(seeds, values))


def run(work: Path, precision: str, seed: int, overrides: list[str]) -> list[float]:
    """Run the demo, or what is left of it; return the values of `QUANTITIES`."""
    workdir = work / f"{precision}-{seed}"
    arguments = {
        "config": "configs/demo.py",
        "config.workdir": str(workdir),
        "config.flow.root": str(work / "flow"),  # the same for all
        "config.precision": precision,
        "config.seed": str(seed),
        "config.stage": "evaluate",
    }
    command = [sys.executable, "-m", "imas_jax.main"]
    command += [f"--{name}={value}" for name, value in arguments.items()]
    subprocess.run([*command, *overrides], check=True)
    methods = json.loads((workdir / "evaluate/metrics.json").read_text())["methods"]
    ours = [m for m in methods if m["kind"] == "aligned"]
    first = next(m for m in ours if "stage 1" in m["label"] and "CRF" not in m["label"])
    scores = [
        100 * method["protocols"]["frame_mean"]["jaccard"]["mean"]
        for method in (first, ours[-1])
    ]
    return [*scores, *(last_loss(workdir / stage) for stage in ("discover", "refine"))]


def last_loss(folder: Path) -> float:
    """Return the mean loss of a training stage's last steps."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()[-LAST:]
    return float(np.mean([json.loads(line)["loss"] for line in lines]))


def table(seeds: list[int], values: dict[str, np.ndarray]) -> str:
    """Format both precisions, their difference and what seeds differ by."""
    lines = [
        "| quantity | seed | float32 | bfloat16 | difference | allowed | holds |",
        "|---|---|---|---|---|---|---|",
    ]
    for q, (name, limit) in enumerate(zip(QUANTITIES, LIMITS, strict=True)):
        for s, seed in enumerate(seeds):
            full, half = (values[precision][s, q] for precision in PRECISIONS)
            relative = name.startswith("loss")
            difference = (half - full) * (100 / full if relative else 1)
            unit = "%" if relative else "points"
            lines.append(
                f"| {name} | {seed} | {full:.4g} | {half:.4g} | "
                f"{difference:+.2f} {unit} | {limit:g} {unit} | "
                f"{'yes' if abs(difference) <= limit else 'NO'} |"
            )
    if len(seeds) > 1:
        spread = np.ptp(values["float32"], axis=0)
        listed = ", ".join(
            f"{name} {value:.3g}"
            for name, value in zip(QUANTITIES, spread, strict=True)
        )
        lines += ["", f"Range over seeds in float32: {listed}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
