"""The CRF's two solvers: speed, memory, agreement, and a whole data set.

    python benchmarks/crf.py --root=DAVIS-240p

Speed: every round runs every case once, solvers in turn, so that whatever else the
machine does falls on both alike; the fastest round counts. Pools include their start,
as every clip pays it. Frames are crops of a photograph bundled with scikit-image, masks
smooth blobs; "tolerance 0" makes every update, "preset" stops as the preset says.
Memory: what one worker's peak grows by over its first full frame, in a process of its
own. With --root, a DAVIS folder, also agreement on the middle frame of every sequence,
and images a second over all its frames (every --every-th for pydensecrf); soft masks
are annotations, shifted, blurred and with noise on them.

Writes benchmarks/results/crf.json and crf.md.
"""

import dataclasses
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import app, flags
from skimage import data

from imas_jax.appearance import crf

ROOT = flags.DEFINE_string("root", "", "a DAVIS folder, at any resolution")
ROUNDS = flags.DEFINE_integer("rounds", 2, "times each case runs")
EVERY = flags.DEFINE_integer("every", 20, "frames of the data set for pydensecrf")
NOTE = flags.DEFINE_string("note", "", "said above the tables, e.g. a busy machine")
OUT = flags.DEFINE_string("out", "benchmarks/results/crf", "without its ending")

Pair = tuple[np.ndarray, np.ndarray]
SOLVERS: tuple[crf.Solver, ...] = ("pydensecrf", "lattice")
SIZES = {"480 x 854": ((480, 854), 4), "98 x 175": ((98, 175), 32)}
PRESETS = ("authors_post", "weak_unary", "paper")

# One frame in a fresh process; prints the MB by which its peak is above the start.
MEMORY = """
import re, sys
from pathlib import Path
sys.path.insert(0, "benchmarks")
import crf as benchmark
from imas_jax.appearance import crf
small, whole = (benchmark.photographs(s, 1)[0] for s in ((48, 64), (480, 854)))
def read(name):
    text = Path("/proc/self/status").read_text()
    return int(re.search(name + r":\\s+(\\d+) kB", text)[1])
crf.refine(*small, sys.argv[1], solver=sys.argv[2])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
before = read("VmRSS")
crf.refine(*whole, sys.argv[1], solver=sys.argv[2])
print((read("VmHWM") - before) / 1024)
"""


def main(_: list[str]) -> None:
    for preset in PRESETS:  # compiled, or read from the cache, before any clock runs
        for pair in photographs((48, 64), 1):
            crf.refine(*pair, preset)
    told: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "command": f"python {' '.join(sys.argv)}",
        "note": NOTE.value,
        "speed": list(speed()),
        "memory_mb": {
            solver: max(memory(preset, solver) for preset in PRESETS)
            for solver in SOLVERS
        },
    }
    if ROOT.value:
        told["agreement"] = list(agreement())
        told["data_set"] = list(data_set())
    out = Path(OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
    out.with_suffix(".md").write_text(document(told))
    print(out.with_suffix(".md").read_text())


def speed() -> Iterator[dict[str, Any]]:
    """Time every size, preset and number of cores."""
    for (size, (shape, count)), name, workers in itertools.product(
        SIZES.items(), PRESETS, (1, 2)
    ):
        preset = crf.PRESETS[name]
        all_updates = dataclasses.replace(preset, tolerance=0.0)
        ways = {
            "pydensecrf": (all_updates, "pydensecrf"),
            "lattice, tolerance 0": (all_updates, "lattice"),
        }
        if preset.tolerance:
            ways["lattice, preset"] = (preset, "lattice")
        pairs = photographs(shape, count * workers)
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS.value):
            for way, (numbers, solver) in ways.items():
                start = time.perf_counter()
                list(crf.refine_many(pairs, numbers, workers, solver))
                seconds[way].append(time.perf_counter() - start)
        rates = {way: len(pairs) / min(times) for way, times in seconds.items()}
        yield {"size": size, "preset": name, "cores": workers, "images_per_s": rates}


def memory(preset: str, solver: str) -> float:
    """Measure what one frame adds to a process, MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, preset, solver],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def agreement() -> Iterator[dict[str, Any]]:
    """Compare both solvers on a frame of every sequence, with every preset."""
    middle = [frames[len(frames) // 2] for frames in sequences()]
    pairs = list(davis(middle))
    for name, preset in crf.PRESETS.items():
        all_updates = dataclasses.replace(preset, tolerance=0.0)
        theirs = list(crf.refine_many(pairs, all_updates, solver="pydensecrf"))
        ours = list(crf.refine_many(pairs, all_updates))
        stopped = list(crf.refine_many(pairs, preset))
        both = list(zip(ours, theirs, strict=True))
        early = [jaccard(a, b) for a, b in zip(stopped, theirs, strict=True)]
        yield {
            "preset": name,
            "frames": len(pairs),
            "worst_labels_iou": min(jaccard(a, b) for a, b in both),
            "worst_probability": max(
                float(np.abs(a.probability - b.probability).max()) for a, b in both
            ),
            "tolerance": preset.tolerance,
            "mean_labels_iou_at_tolerance": float(np.mean(early)),
            "worst_labels_iou_at_tolerance": min(early),
        }


def data_set() -> Iterator[dict[str, Any]]:
    """Post-process a data set as stage predict does, on two cores."""
    for solver in SOLVERS:
        frames = list(itertools.chain.from_iterable(sequences()))
        frames = frames[:: EVERY.value if solver == "pydensecrf" else 1]
        pairs = davis(frames)
        start = time.perf_counter()
        for _ in crf.refine_many(pairs, "authors_post", 2, solver):
            pass
        seconds = time.perf_counter() - start
        yield {
            "solver": solver,
            "images": len(frames),
            "images_per_s": len(frames) / seconds,
        }


def sequences() -> list[list[Path]]:
    """List the annotated frames of every sequence."""
    folders = sorted(Path(ROOT.value).glob("Annotations/*/*/"))
    return [sorted(folder.glob("*.png")) for folder in folders]


def davis(annotations: Iterable[Path]) -> Iterator[Pair]:
    """Read frames; make soft masks of their annotations, wrong by a few pixels."""
    for i, path in enumerate(annotations):
        frame = Path(str(path).replace("Annotations", "JPEGImages"))
        image = cv2.imread(str(frame.with_suffix(".jpg")))[..., ::-1]
        truth = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
        rng = np.random.default_rng(i)
        h = len(truth)
        shift = tuple(rng.integers(-h // 30, h // 30 + 1, 2))
        rough = np.roll(truth.astype(np.float32), shift, (0, 1))
        noise = cv2.GaussianBlur(rng.normal(size=truth.shape), (0, 0), h / 24)
        soft = cv2.GaussianBlur(rough, (0, 0), h / 40) + 0.15 * noise / noise.std()
        yield image, (1 / (1 + np.exp(-6 * (soft - 0.5)))).astype(np.float32)


def photographs(size: tuple[int, int], count: int) -> list[Pair]:
    """Crop a photograph at different places; masks are smooth blobs."""
    photo = cv2.resize(data.astronaut(), (size[1] + count, size[0] + count))
    pairs = []
    for i in range(count):
        noise = np.random.default_rng(i).normal(size=size).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), size[0] / 8)
        soft = 1 / (1 + np.exp(-(smooth / smooth.std() - 1) * 4))
        pairs.append((photo[i : i + size[0], i : i + size[1]].copy(), soft))
    return pairs


def jaccard(a: crf.CrfResult, b: crf.CrfResult) -> float:
    union = np.count_nonzero(a.mask | b.mask)
    return float(np.count_nonzero(a.mask & b.mask) / union) if union else 1.0


def document(told: dict[str, Any]) -> str:
    """Write the tables for people."""
    lines = ["# The CRF's solvers", "", f"`{told['command']}`", "", told["machine"]]
    lines += ["", told["note"]] if told["note"] else []
    lines += ["", "Images a second, and how many times pydensecrf's:", ""]
    lines += ["| size | preset | cores | pydensecrf | tolerance 0 | preset's |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in told["speed"]:
        rates = list(row["images_per_s"].values())
        ours = [f"{rate:.3g} ({rate / rates[0]:.1f}x)" for rate in rates[1:]]
        cells = [row["size"], row["preset"], row["cores"], f"{rates[0]:.3g}", *ours]
        cells += [""] * (6 - len(cells))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    peaks = ", ".join(f"{k} {v:.0f} MB" for k, v in told["memory_mb"].items())
    lines += ["", f"A 480 x 854 frame adds to a worker's peak: {peaks}."]
    if "agreement" in told:
        lines += ["", "Against pydensecrf, the worst over the middle frames of all "]
        lines[-1] += f"{told['agreement'][0]['frames']} sequences:"
        lines += ["", "| preset | labels IoU | probability | tolerance | IoU there |"]
        lines += ["|---|---|---|---|---|"]
        for row in told["agreement"]:
            mean = row["mean_labels_iou_at_tolerance"]
            worst = row["worst_labels_iou_at_tolerance"]
            lines.append(
                f"| {row['preset']} | {row['worst_labels_iou']:.5f} | "
                f"{row['worst_probability']:.1e} | {row['tolerance']:g} | "
                f"mean {mean:.5f}, worst {worst:.5f} |"
            )
        lines += ["", "All frames with authors_post on 2 cores, reading included: "]
        lines[-1] += ", ".join(
            f"{row['solver']} {row['images_per_s']:.3g} images/s "
            f"({row['images']} images)"
            for row in told["data_set"]
        )
        lines[-1] += "."
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    app.run(main)
