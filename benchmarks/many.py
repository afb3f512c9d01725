"""Does anything grow faster than the data set? YouTube-VOS in number, not in size.

    python benchmarks/many.py

Writes clips of tiny frames (32x48, 30 a clip) into a temporary folder and measures, in
a process of its own for each number of frames: finding and checking the clips, listing
the pairs, the first batch's order (a permutation of all pairs), the order of later
batches, decoding into memory, drawing batches, and resident memory before and after.
Flow is left out: frames are paired as for losses without it. Seconds a thousand frames
should be flat. Prints one table, writes benchmarks/results/many.json.
"""

import concurrent.futures
import json
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from absl import app, flags

from configs import davis
from imas_jax.data import order, pipeline, training_set
from imas_jax.data.found import Clips
from imas_jax.flow import files

NUMBERS = flags.DEFINE_list("frames", ["1000", "10000", "100000"], "frames in all")
OUT = flags.DEFINE_string("out", "benchmarks/results/many.json", "JSON file")
SIZE, LENGTH = (32, 48), 30  # (h, w); frames a clip
LATER = 1000  # batches whose order is asked for
DRAWN = 100  # batches drawn
STEPS = ("find", "pairs", "first_order", "later_orders", "decode", "draw")


def main(_: list[str]) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in map(int, NUMBERS.value):
            make_clips(Path(folder), number)
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
                rows.append(pool.submit(measure, Path(folder)).result())
            show(rows[-1])
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(OUT.value).write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def make_clips(folder: Path, frames: int) -> None:
    """Write what is missing of so many frames: noise, a file each."""
    rng = np.random.default_rng(0)
    first = folder / "clip00000"
    if not first.is_dir():
        first.mkdir()
        for t in range(LENGTH):
            image = rng.integers(0, 255, (*SIZE, 3)).astype(np.uint8)
            cv2.imwrite(str(first / f"{t:05d}.png"), image)
    for number in range(frames // LENGTH):
        clip = folder / f"clip{number:05d}"
        if not clip.is_dir():
            shutil.copytree(first, clip)


def measure(folder: Path) -> dict:
    """Time every step on the clips of a folder; seconds, and MiB of this process."""
    config = davis.get_config()
    config.data.update({"root": str(folder), "layout": "folders"})
    seconds, before = {}, resident()

    def timed(name, work):
        start = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - start
        return result

    clips = timed("find", lambda: Clips().find(config.data))
    nothing = files.FlowFolder(folder / "none", "none")
    found = timed(
        "pairs",
        lambda: training_set.apart(training_set.find(config, clips, nothing)),
    )
    orders = order.Order(len(found.pairs), config.discover.batch_size, config.seed)
    timed("first_order", lambda: orders.indices(0))
    timed("later_orders", lambda: [orders.indices(step) for step in range(LATER)])
    index = resident()
    arrays = timed("decode", lambda: training_set.read_frames(found))
    flows = [np.zeros((2, 2, 2, 2), np.float16)] * len(found.pairs)
    source = pipeline.MemorySource(arrays, flows, found.pairs, orders)
    timed("draw", lambda: [source.batch(step) for step in range(DRAWN)])
    return {
        "frames": sum(len(clip.frames) for clip in clips),
        "seconds": seconds,
        "mib": {
            "before": before,
            "index": index - before,
            "decoded": resident() - index,
            "frames": sum(array.nbytes for array in arrays) / 2**20,
        },
    }


def resident() -> float:
    """Return this process's resident memory (Linux), MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def show(row: dict) -> None:
    """Print a row; in brackets seconds a thousand frames."""
    thousands = row["frames"] / 1000
    told = "  ".join(
        f"{name} {row['seconds'][name]:.3f} s ({row['seconds'][name] / thousands:.4f})"
        for name in STEPS
    )
    mib = row["mib"]
    print(
        f"{row['frames']} frames: {told}  index {mib['index']:.0f} MiB  "
        f"decoded {mib['decoded']:.0f} of {mib['frames']:.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    app.run(main)
