"""J and F of DAVIS-size masks: this project against transcriptions of the toolkits.

    python benchmarks/metrics.py --root=/data/DAVIS --frames=100

Both official Python toolkits are transcribed from their definitions: `davis` (2016;
boundaries dilated by scikit-image) and `davis2017-evaluation` (the same with OpenCV).
Masks are annotations, predictions are annotations that were moved and roughened;
without `--root` they are made up. All three must agree on every frame to the last
digit. One core each (`--threads`). Prints one table and writes
benchmarks/results/metrics.json.
"""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from absl import app, flags
from PIL import Image
from skimage import morphology

from imas_jax.evaluation import metrics

ROOT = flags.DEFINE_string("root", "", "DAVIS folder; empty makes masks up")
FRAMES = flags.DEFINE_integer("frames", 100, "masks to score")
REPEATS = flags.DEFINE_integer("repeats", 3, "the fastest of so many rounds counts")
THREADS = flags.DEFINE_integer("threads", 1, "OpenCV threads, for all alike")
OUT = flags.DEFINE_string("out", "benchmarks/results/metrics.json", "JSON file")

Masks = list[tuple[np.ndarray, np.ndarray]]


def main(_: list[str]) -> None:
    cv2.setNumThreads(THREADS.value)
    masks = load(Path(ROOT.value), FRAMES.value) if ROOT.value else made(FRAMES.value)
    ways: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, float]]] = {
        "davis (scikit-image)": lambda p, t: (plain_j(p, t), plain_f(p, t, by_skimage)),
        "davis2017-evaluation (OpenCV)": lambda p, t: (
            plain_j(p, t),
            plain_f(p, t, by_opencv),
        ),
        "imas_jax": lambda p, t: (metrics.jaccard(p, t), metrics.boundary_f(p, t)),
    }
    seconds, scores = {}, {}
    for name, score in ways.items():
        rounds = []
        for _ in range(REPEATS.value):
            start = time.perf_counter()
            scores[name] = [score(p, t) for p, t in masks]
            rounds.append((time.perf_counter() - start) / len(masks))
        seconds[name] = min(rounds)
    if any(found != scores["imas_jax"] for found in scores.values()):
        raise SystemExit("the three disagree")
    ours = seconds["imas_jax"]
    print(f"{len(masks)} masks of {masks[0][0].shape}, {THREADS.value} thread(s)")
    for name, each in seconds.items():
        print(f"{name:32s} {1000 * each:8.2f} ms/frame   {each / ours:6.1f}x ours")
    result = {
        "masks": len(masks),
        "size": list(masks[0][0].shape),
        "source": "DAVIS annotations" if ROOT.value else "made up",
        "threads": THREADS.value,
        "seconds_per_frame": seconds,
        "speedup": {name: each / ours for name, each in seconds.items()},
    }
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(OUT.value).write_text(json.dumps(result, indent=1) + "\n")


def load(root: Path, frames: int) -> Masks:
    """Take annotations evenly from all of a DAVIS folder."""
    paths = sorted((root / "Annotations").rglob("*.png"))
    chosen = np.linspace(0, len(paths) - 1, min(frames, len(paths))).round()
    found = []
    for number, index in enumerate(chosen.astype(int)):
        with Image.open(paths[index]) as image:
            truth = np.asarray(image.convert("L")) > 127
        found.append((perturbed(truth, number), truth))
    return found


def made(frames: int) -> Masks:
    """Make up smooth blobs of a tenth of the frame."""
    found = []
    for number in range(frames):
        noise = np.random.default_rng(number).normal(size=(480, 854)).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), 60)
        truth = smooth > np.quantile(smooth, 0.9)
        found.append((perturbed(truth, number), truth))
    return found


def perturbed(truth: np.ndarray, seed: int) -> np.ndarray:
    """Move a mask by some pixels and roughen its edge, as a network's mask is."""
    rng = np.random.default_rng(seed)
    moved = np.roll(truth, tuple(rng.integers(-6, 7, 2)), axis=(0, 1))
    noise = cv2.GaussianBlur(rng.normal(size=truth.shape).astype(np.float32), (0, 0), 4)
    soft = cv2.GaussianBlur(moved.astype(np.float32), (0, 0), 5)
    return soft + 1.5 * noise > 0.5


def plain_j(mask: np.ndarray, truth: np.ndarray) -> float:
    """`db_eval_iou`."""
    if np.isclose(np.sum(mask), 0) and np.isclose(np.sum(truth), 0):
        return 1
    return np.sum(mask & truth) / np.sum(mask | truth, dtype=np.float32)


def plain_f(
    mask: np.ndarray,
    truth: np.ndarray,
    dilate: Callable[[np.ndarray, int], np.ndarray],
) -> float:
    """`db_eval_boundary` with a given way to dilate."""
    radius = math.ceil(0.008 * np.linalg.norm(mask.shape))
    edge, true_edge = plain_boundary(mask), plain_boundary(truth)
    wide, true_wide = dilate(edge, radius), dilate(true_edge, radius)
    match, true_match = edge * true_wide, true_edge * wide
    count, true_count = np.sum(edge), np.sum(true_edge)
    if count == 0 and true_count > 0:
        precision, recall = 1, 0
    elif count > 0 and true_count == 0:
        precision, recall = 0, 1
    elif count == 0 and true_count == 0:
        precision, recall = 1, 1
    else:
        precision = np.sum(match) / float(count)
        recall = np.sum(true_match) / float(true_count)
    if precision + recall == 0:
        return 0
    return 2 * precision * recall / (precision + recall)


def plain_boundary(mask: np.ndarray) -> np.ndarray:
    """`seg2bmap` for equal sizes."""
    right, below, corner = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    right[:, :-1] = mask[:, 1:]
    below[:-1, :] = mask[1:, :]
    corner[:-1, :-1] = mask[1:, 1:]
    edge = mask ^ right | mask ^ below | mask ^ corner
    edge[-1, :] = mask[-1, :] ^ right[-1, :]
    edge[:, -1] = mask[:, -1] ^ below[:, -1]
    edge[-1, -1] = 0
    return edge


def by_skimage(edge: np.ndarray, radius: int) -> np.ndarray:
    return morphology.dilation(edge, morphology.disk(radius))


def by_opencv(edge: np.ndarray, radius: int) -> np.ndarray:
    disk = morphology.disk(radius).astype(np.uint8)
    return cv2.dilate(edge.astype(np.uint8), disk)


if __name__ == "__main__":
    app.run(main)
