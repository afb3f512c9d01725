"""Images a second of the dense CRF: the process pool against a plain loop.

    python benchmarks/crf.py --frames=20

Sizes are DAVIS frames (480 x 854, post-processing) and, eight times as many, masks
(98 x 175, stage-2 targets). The plain loop is pydensecrf called as its README shows;
pools include their start. All ways must give the same labels. Frames are crops of a
photograph bundled with scikit-image. Prints one table and writes
benchmarks/results/crf.json.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from absl import app, flags
from pydensecrf import densecrf
from skimage import data

from imas_jax.appearance import crf

FRAMES = flags.DEFINE_integer("frames", 20, "DAVIS-size images")
WORKERS = flags.DEFINE_list("workers", ["1", "2"], "pool sizes")
OUT = flags.DEFINE_string("out", "benchmarks/results/crf.json", "JSON file")

SIZES = {"frame": ((480, 854), "authors_post"), "mask": ((98, 175), "authors_target")}

Pairs = list[tuple[np.ndarray, np.ndarray]]


def main(_: list[str]) -> None:
    results = []
    for name, (size, preset) in SIZES.items():
        count = FRAMES.value * (1 if name == "frame" else 8)
        pairs = make_pairs(size, count)
        ways: dict[str, Callable[[], list[np.ndarray]]] = {
            "plain loop": lambda p=pairs, s=preset: plain_loop(p, s)
        }
        for workers in map(int, WORKERS.value):
            ways[f"{workers} worker(s)"] = lambda p=pairs, s=preset, w=workers: [
                result.mask for result in crf.refine_many(p, s, w)
            ]
        reference = None
        for way, run in ways.items():
            start = time.perf_counter()
            labels = run()
            seconds = time.perf_counter() - start
            reference = reference or labels
            if not all(map(np.array_equal, labels, reference)):
                raise SystemExit(f"{way}: other labels than the plain loop")
            rate = count / seconds
            results.append({"size": list(size), "way": way, "images_per_s": rate})
            print(f"{size[0]:4d} x {size[1]:3d}  {way:14s} {rate:8.2f} images/s")
    told = {"cores": os.cpu_count(), "frames": FRAMES.value, "results": results}
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(OUT.value).write_text(json.dumps(told, indent=1) + "\n")


def make_pairs(size: tuple[int, int], count: int) -> Pairs:
    """Crop a photograph at different places; masks are smooth blobs."""
    photo = cv2.resize(data.astronaut(), (size[1] + count, size[0] + count))
    pairs = []
    for i in range(count):
        noise = np.random.default_rng(i).normal(size=size).astype(np.float32)
        smooth = cv2.GaussianBlur(noise, (0, 0), size[0] / 8)
        soft = 1 / (1 + np.exp(-(smooth / smooth.std() - 1) * 4))
        pairs.append((photo[i : i + size[0], i : i + size[1]].copy(), soft))
    return pairs


def plain_loop(pairs: Pairs, name: str) -> list[np.ndarray]:
    """Call pydensecrf as users do."""
    labels = []
    for image, soft in pairs:
        h, w = soft.shape
        preset = crf.at_resolution(crf.PRESETS[name], (h, w))
        field = densecrf.DenseCRF2D(w, h, 2)
        field.setUnaryEnergy(crf.unary_energy(soft, preset).reshape(2, -1))
        field.addPairwiseBilateral(
            sxy=preset.bilateral_sxy,
            srgb=preset.bilateral_srgb,
            rgbim=image,
            compat=preset.bilateral_weight,
        )
        energy = np.array(field.inference(preset.iterations))
        labels.append((energy[1] > energy[0]).reshape(h, w))
    return labels


if __name__ == "__main__":
    app.run(main)
