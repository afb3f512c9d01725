"""CRF presets on the stage-1 masks of finished runs: J before and after.

    python benchmarks/crf_presets.py --runs=runs/benchmark-video/seed-0/runs \
        --root=DAVIS-240p --out=benchmarks/results/crf_presets

Each run's config and object channel are read from its folder; nothing is trained.
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from imas_jax.appearance import alignment, crf
from imas_jax.configs import davis
from imas_jax.data import annotations, clips
from imas_jax.evaluation.metrics import jaccard
from imas_jax.stages.predictor import to_frame

PRESETS = ("", "authors_target", "gwm", "tokencut", "paper", "weak_unary")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--every", type=int, default=10, help="frames between scored")
    parser.add_argument("--out", type=Path, required=True)
    known = parser.parse_args()
    runs = sorted(p.parents[1] for p in known.runs.glob("*/align/result.json"))
    presets = known.presets.split(",")
    jobs = [(run, known.root, presets, known.every) for run in runs]
    with ProcessPoolExecutor() as pool:
        rows = dict(
            zip(
                [r.name for r in runs],
                pool.map(score, *zip(*jobs, strict=True)),
                strict=True,
            )
        )
    names = [name or "none" for name in presets]
    lines = [
        "# CRF presets on stage-1 masks",
        "",
        f"`python {' '.join(sys.argv)}`",
        "",
        f"J frame_mean, percent, every {known.every}th frame, CRF at frame resolution.",
        "",
        "| run | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for run, values in rows.items():
        lines.append(
            f"| {run} | " + " | ".join(f"{100 * v:.1f}" for v in values) + " |"
        )
    means = np.mean(list(rows.values()), axis=0)
    lines.append(
        "| **mean** | " + " | ".join(f"**{100 * v:.1f}**" for v in means) + " |"
    )
    text = "\n".join(lines) + "\n"
    known.out.parent.mkdir(parents=True, exist_ok=True)
    known.out.with_suffix(".md").write_text(text)
    known.out.with_suffix(".json").write_text(json.dumps({"presets": names, **rows}))
    sys.stdout.write(text)


def score(run: Path, root: str, presets: list[str], every: int) -> list[float]:
    """Return J of every preset on one run of a single clip."""
    cv2.setNumThreads(1)
    channels = json.loads((run / "align/result.json").read_text())["outputs"][
        "channels"
    ]
    masks = next((run / "align/soft").glob("*.npy"))
    data = davis.get_config().data
    data.update({"root": root, "sequences": (masks.stem,)})
    clip = clips.find_clips(data)[0]
    truth = annotations.annotated_frames(data, clip)
    soft = np.load(masks, mmap_mode="r")
    scores: dict[str, list[float]] = {name: [] for name in presets}
    for t in range(0, len(clip.frames), every):
        whole = to_frame(soft[t].astype(np.float32), clip.size)
        wanted = annotations.read_annotation(truth[t])
        for name in presets:
            if name:
                found = alignment.object_probability(whole, tuple(channels))
                mask = crf.refine(clip.read(t), found, name).mask
            else:
                mask = alignment.object_mask(whole, tuple(channels))
            scores[name].append(jaccard(mask, wanted))
    return [float(np.mean(scores[name])) for name in presets]


if __name__ == "__main__":
    main()
