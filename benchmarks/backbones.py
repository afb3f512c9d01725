"""How long each backbone looks at a frame, and how large what it sees is.

    taskset -c 0 python benchmarks/backbones.py            # one core
    python benchmarks/backbones.py --size=240,427 --names=resnet50,vit_s16

A frame of `--size` goes through the published network at its finest stride, all stages
as the heads take them, once a round; the least of the rounds counts, for whatever else
the machine does only adds. Weights are random: they change no time. Megabytes are of
both stages in float16, as frozen features lie on the disk.
"""

import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import plain_config  # before anything that reads a config
from absl import app, flags

from imas_jax.models.segmenter import BACKBONES

del plain_config
NAMES = flags.DEFINE_list("names", list(BACKBONES), "backbones")
SIZE = flags.DEFINE_list("size", ["480", "854"], "height, width, pixels")
ROUNDS = flags.DEFINE_integer("rounds", 3, "times each one looks")
OUT = flags.DEFINE_string("out", "benchmarks/results/backbones.json", "JSON file")


def main(_: list[str]) -> None:
    h, w = map(int, SIZE.value)
    threads = len(os.sched_getaffinity(0))
    device = jax.devices()[0].device_kind
    print(f"{w}x{h}, {threads} thread(s), {device}")
    print("backbone     params M  grid     channels  merged  s/frame  compile s  MB")
    rows = [measure(name, (h, w)) for name in NAMES.value]
    report = {"size": [h, w], "threads": threads, "device": device, "rows": rows}
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(OUT.value).write_text(json.dumps(report, indent=1) + "\n")


def measure(name: str, size: tuple[int, int]) -> dict:
    """Time one backbone and print its row."""
    record = BACKBONES[name]
    model = record.published()
    frames = jax.random.normal(jax.random.key(0), (1, *size, 3))
    small = jnp.zeros((1, 64, 64, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(0), small, train=False))()

    @jax.jit
    def look(variables: dict, frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        stages = model.apply(variables, record.renormalize(frames), train=False)
        return stages[0], stages[-1]

    start = time.monotonic()
    compiled = look.lower(variables, frames).compile()
    compiling = time.monotonic() - start
    seconds = []
    for _ in range(ROUNDS.value):
        start = time.monotonic()
        merge, deep = jax.block_until_ready(compiled(variables, frames))
        seconds.append(time.monotonic() - start)
    row = {
        "backbone": name,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables)),
        "grid": deep.shape[1:3],
        "channels": deep.shape[-1],
        "merged_grid": merge.shape[1:3],
        "merged_channels": merge.shape[-1],
        "seconds": min(seconds),
        "compile_seconds": compiling,
        "megabytes": (merge.size + deep.size) * 2 / 1e6,
    }
    grid, fine = (
        "x".join(map(str, one)) for one in (deep.shape[1:3], merge.shape[1:3])
    )
    print(
        f"{name:12s} {row['parameters'] / 1e6:8.1f}  {grid:8s} {row['channels']:8d}"
        f"  {fine:7s} {row['seconds']:7.2f}  {compiling:9.1f}  {row['megabytes']:.1f}",
        flush=True,
    )
    return row


if __name__ == "__main__":
    app.run(main)
