"""What a stored flow field costs: bytes a pair, and the error storing adds, in pixels.

    python benchmarks/flow_storage.py --root=DAVIS --pairs=40

Flow is DIS between neighbouring frames of all sequences, as estimated, against what
comes back from the file (float16 at half resolution, resized to the frame). Beside it
other ways to store: the whole grid, float16 alone, and deflate. Prints one table and
writes benchmarks/results/flow_storage.json.
"""

import argparse
import json
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

from imas_jax.configs import davis
from imas_jax.data import clips
from imas_jax.flow import estimators, files
from imas_jax.stages import flow_export

DAVIS_PAIRS = 3455  # paper's count: the last frame's pair is counted too
PERCENTILES = (50, 95, 99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True)
    parser.add_argument("--pairs", type=int, default=40)
    out = Path("benchmarks/results/flow_storage.json")
    parser.add_argument("--out", type=Path, default=out)
    known = parser.parse_args()
    config = davis.get_config()
    config.data.update({"root": known.root, "split": "", "partial": True})
    found = clips.find_clips(config.data)
    pairs = clips.pairs(found)
    chosen = np.unique(np.linspace(0, len(pairs) - 1, known.pairs).round().astype(int))
    estimate, ways = estimators.make_estimator(config.flow), {}
    for number in chosen:
        pair = pairs[number]
        clip = found[pair.clip]
        fields = estimate(clip.read(pair.first), clip.read(pair.second))
        for way, (size, errors) in ways_to_store(fields, clip).items():
            row = ways.setdefault(way, {"bytes": [], "errors": []})
            row["bytes"].append(size)
            row["errors"].append(errors)
    rows = {way: summary(row) for way, row in ways.items()}
    told = {"size": list(found[0].size), "pairs": len(chosen), "ways": rows}
    known.out.parent.mkdir(parents=True, exist_ok=True)
    known.out.write_text(json.dumps(told, indent=1) + "\n")
    show(told)


def ways_to_store(fields, clip) -> dict[str, tuple[int, np.ndarray]]:
    """Return bytes of both directions and all pixels' errors, by way of storing."""
    halves = [files.half_resolution(field) for field in fields]
    with tempfile.TemporaryDirectory() as folder:
        back, size = [], 0
        for direction, half in zip(files.DIRECTIONS, halves, strict=True):
            meta = files.FlowMeta(clip.name, 0, direction, 1, clip.size, "dis", "")
            path = Path(folder) / f"{direction}.npz"
            files.write_flow(path, half, meta)
            size += path.stat().st_size
            stored = files.read_flow(path).flow
            back.append(flow_export.full_size(stored, clip.size))
    half16 = [half.astype(np.float16) for half in halves]
    whole16 = [field.astype(np.float16) for field in fields]
    deflated = sum(len(zlib.compress(half.tobytes(), 6)) for half in half16)
    return {
        "float16, half resolution (stored)": (size, error(fields, back)),
        "the same, deflated": (deflated, error(fields, back)),
        "float16, whole grid": (
            sum(field.nbytes for field in whole16),
            error(fields, [field.astype(np.float32) for field in whole16]),
        ),
    }


def error(fields, back) -> np.ndarray:
    both = zip(fields, back, strict=True)
    return np.stack([np.linalg.norm(a - b, axis=-1) for a, b in both])


def summary(row: dict) -> dict:
    errors = np.concatenate([e.ravel() for e in row["errors"]])
    levels = np.percentile(errors, PERCENTILES)
    return {
        "bytes": float(np.mean(row["bytes"])),
        "mean": float(errors.mean()),
        **{f"p{p}": float(v) for p, v in zip(PERCENTILES, levels, strict=True)},
    }


def show(told: dict) -> None:
    h, w = told["size"]
    head = f"{told['pairs']} pairs of {w}x{h}, both ways"
    columns = "  MB a pair  DAVIS16, GB  error, px: mean  " + "".join(
        f"{f'{p} %':>8}" for p in PERCENTILES
    )
    sys.stdout.write(f"{head:36}{columns}\n")
    for way, row in told["ways"].items():
        sizes = f"{row['bytes'] / 1e6:11.2f}{row['bytes'] * DAVIS_PAIRS / 1e9:13.1f}"
        values = "".join(f"{row[f'p{p}']:8.3f}" for p in PERCENTILES)
        sys.stdout.write(f"{way:36}{sizes}{row['mean']:17.4f}  {values}\n")


if __name__ == "__main__":
    main()
