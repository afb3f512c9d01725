r"""What the learned motion evidence is worth beside Otsu's threshold, clip by clip.

    python benchmarks/evidence.py --root=DAVIS-240p [--out=FILE.json]
        [--weights=raft-small.pth] [--evidence=runs/motion/evidence/evidence.npz]

J of every `stride`-th frame against annotations, which are read here and nowhere the
evidence is made. Sequences in alphabetical order: choices were made on all but every
third (number % 3 == 1); those are held out, and their mean is a line of its own.
Flow is computed once, into `--flow`; milliseconds are those of the evidence alone.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict

from imas_jax.configs import davis
from imas_jax.data import annotations, clips
from imas_jax.evaluation import metrics
from imas_jax.flow import evidence
from imas_jax.stages import flow, motion_baseline, motion_evidence

ROOT = flags.DEFINE_string("root", None, "DAVIS folder", required=True)
RESOLUTION = flags.DEFINE_string("resolution", "240p", "its subfolder")
WEIGHTS = flags.DEFINE_string("weights", "", "RAFT checkpoint; without one, DIS")
EVIDENCE = flags.DEFINE_string("evidence", "", "a network's; '': the packaged one")
FLOW = flags.DEFINE_string("flow", "runs/evidence_flow", "where flow is kept")
SEQUENCES = flags.DEFINE_list("sequences", [], "only these")
SIZE = flags.DEFINE_integer("size", 480, "short side DIS sees frames at; 0: theirs")
GAPS = flags.DEFINE_list("gaps", ["1", "2", "4"], "of the pairs, as far as they help")
STRIDE = flags.DEFINE_integer("stride", 1, "frames between those that are scored")
OUT = flags.DEFINE_string("out", "", "JSON file to add the rows to")


def main(_: list[str]) -> None:
    config = make_config()
    found = clips.find_clips(config.data)
    flow.run(config, found, Path(FLOW.value))
    folder = flow.flow_folder(config, Path(FLOW.value))
    weights = Path(EVIDENCE.value or evidence.weights(config.flow.estimator))
    network = evidence.load(weights)
    names = [clip.name for clip in clips.find_clips(all_of(config).data)]
    rows = []
    for clip in found:
        spent: list[float] = []
        gaps = config.flow.gaps
        likely = timed(motion_evidence.of_clip(network, folder, clip, gaps), spent)
        truths = annotations.annotated_frames(config.data, clip)
        otsu, learned = [], []
        for t, probability in enumerate(likely):
            if t % STRIDE.value or t not in truths:
                continue
            truth = annotations.read_annotation(truths[t])
            moving = motion_baseline.read(folder, clip, t, 1)
            otsu.append(metrics.jaccard(moving, truth))
            learned.append(metrics.jaccard(probability >= 0.5, truth))
        rows.append(
            {
                "clip": clip.name,
                "held_out": names.index(clip.name) % 3 == 1,
                "frames": len(otsu),
                "otsu": 100 * float(np.mean(otsu)),
                "evidence": 100 * float(np.mean(learned)),
                "ms": 1000 * float(np.mean(spent)),  # they come in blocks
            }
        )
        print(line(rows[-1]), flush=True)
    for held_out in (False, True):
        part = [row for row in rows if row["held_out"] == held_out]
        if part:
            label = "held out" if held_out else "chosen on"
            print(line({"clip": label, **mean(part)}))
    if OUT.value:
        path = Path(OUT.value)
        told = json.loads(path.read_text()) if path.is_file() else {}
        told[config.flow.estimator] = {
            "evidence": evidence.digest(weights),
            "rows": rows,
        }
        path.write_text(json.dumps(told, indent=1) + "\n")


def mean(rows: list[dict]) -> dict:
    """Return the frame means of some rows."""
    weights = [row["frames"] for row in rows]
    means = {
        key: float(np.average([row[key] for row in rows], weights=weights))
        for key in ("otsu", "evidence", "ms")
    }
    return means | {"frames": sum(weights)}


def line(row: dict) -> str:
    """Return a row of the table."""
    return (
        f"| {row['clip']} | {row['frames']} | {row['otsu']:.1f} | "
        f"{row['evidence']:.1f} | {row['ms']:.0f} |"
    )


def timed(frames: Iterator[np.ndarray], spent: list[float]) -> Iterator[np.ndarray]:
    """Pass frames on, and note how long each took to come."""
    while True:
        start = time.perf_counter()
        frame = next(frames, None)
        if frame is None:
            return
        spent.append(time.perf_counter() - start)
        yield frame


def make_config() -> ConfigDict:
    """Return the config of the clips and their flow."""
    config = all_of(davis.get_config())
    config.data.sequences = tuple(SEQUENCES.value)
    config.flow.update({"size": SIZE.value, "gaps": tuple(map(int, GAPS.value))})
    if WEIGHTS.value:
        more = {"estimator": "raft", "weights": WEIGHTS.value, "size": 0}
        config.flow.update(more)
    return config


def all_of(config: ConfigDict) -> ConfigDict:
    """Return a config of every sequence of the data set."""
    config = config.copy_and_resolve_references()
    config.data.update({"root": ROOT.value, "resolution": RESOLUTION.value})
    config.data.update({"layout": "davis", "split": "", "sequences": ()})
    config.data.partial = True
    return config


if __name__ == "__main__":
    app.run(main)
