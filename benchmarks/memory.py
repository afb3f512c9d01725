"""How much memory the processes of one host take for one data set.

    python benchmarks/memory.py --config=configs/davis.py \
        --config.data.root=DAVIS --config.workdir=runs/memory

Flow is computed first, unless the workdir has it. Then `--processes` readers are
started at once, as one a GPU would be, each with its share of every batch. Each opens
the training set, touches all of it, draws a few batches, and waits; when all wait, the
system is asked for everybody's proportional set size (`Pss` of /proc/PID/smaps_rollup:
a page that n processes map counts as 1/n in each). Summed over processes that is what
the machine spends. What they take before they open anything is taken off.

Three rows: each process holds its own (`data.cache=off`), the map on a host that sees
the set for the first time, and on one that has it. Seconds are those of the slowest
reader. Writes benchmarks/results/memory.json.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from imas_jax import protocol
from imas_jax.data import decoded, pipeline, training_set
from imas_jax.data.found import Clips
from imas_jax.stages import flow as flow_stage
from imas_jax.stages import settle

CONFIG = config_flags.DEFINE_config_file("config", "configs/davis.py")
PROCESSES = flags.DEFINE_integer("processes", 8, "readers")
BATCHES = flags.DEFINE_integer("batches", 20, "drawn by each")
OUT = flags.DEFINE_string("out", "benchmarks/results/memory.json", "JSON file")
INDEX = flags.DEFINE_integer("index", -1, "of a reader; the benchmark starts them")
ROLLUP = Path("/proc/self/smaps_rollup")


def main(argv: list[str]) -> None:
    del argv
    if INDEX.value >= 0:
        read()
        return
    CONFIG.value.stage = "flow"
    protocol.run(CONFIG.value)
    with tempfile.TemporaryDirectory() as cache:
        rows = [
            measure("each its own", decoded.OFF),
            measure("mapped, first", cache),
            measure("mapped, again", cache),
        ]
    config, found = open_set()
    report = {
        "processes": PROCESSES.value,
        "frames": sum(len(clip.frames) for clip in found.clips),
        "pairs": len(found.pairs),
        "size": list(found.size),
        "batch_size": config.discover.batch_size,
        "set_bytes": training_set.memory_needed(found),
        "rows": rows,
    }
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(OUT.value).write_text(json.dumps(report, indent=1) + "\n")
    show(report)


def open_set():
    """Open the config's training set; its flow is there."""
    config = settle.settle(CONFIG.value).copy_and_resolve_references().unlock()
    config.data.source = "memory"
    flow = flow_stage.flow_folder(config, Path(config.workdir) / "flow")
    return config, training_set.find(config, Clips().for_training(config), flow)


def measure(name: str, cache: str) -> dict:
    """Start all readers, wait until each has all, and ask each what it takes."""
    command = [sys.executable, *sys.argv, f"--config.data.cache={cache}"]
    readers = [
        subprocess.Popen(
            [*command, f"--index={index}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(PROCESSES.value)
    ]
    ready = [json.loads(reader.stdout.readline()) for reader in readers]
    told = []
    for reader in readers:  # all others wait, and hold what they have
        reader.stdin.write("\n")
        reader.stdin.flush()
        told.append(json.loads(reader.stdout.readline()))
    for reader in readers:
        reader.stdin.close()
        if reader.wait():
            raise RuntimeError(f"a reader ended with {reader.returncode}")
    # Before any has opened anything they share libraries alone: taken as it was then.
    pss = [t["Pss"] - r["before"]["Pss"] for t, r in zip(told, ready, strict=True)]
    rss = [t["Rss"] - r["before"]["Rss"] for t, r in zip(told, ready, strict=True)]
    return {
        "name": name,
        "open_seconds": max(one["seconds"] for one in ready),
        "pss_bytes": pss,
        "rss_bytes": rss,
    }


def read() -> None:
    """Be one reader."""
    before = usage()
    config, found = open_set()
    start = time.perf_counter()
    source = pipeline.make_source(
        config,
        found,
        "discover",
        Path(config.workdir) / "prepare",
        process=(INDEX.value, PROCESSES.value),
        here=PROCESSES.value,
    )
    seconds = time.perf_counter() - start
    for array in (*source.frames, *source.flows):
        array.max()  # touches every page
    for step in range(BATCHES.value):
        source.batch(step)
    say({"seconds": seconds, "before": before})
    sys.stdin.readline()
    say(usage())
    sys.stdin.readline()


def usage() -> dict[str, int]:
    """Return what the system says this process takes, in bytes."""
    found = re.findall(r"^(Pss|Rss): +(\d+) kB", ROLLUP.read_text(), re.MULTILINE)
    return {name: 1024 * int(value) for name, value in found}


def say(value: dict) -> None:
    print(json.dumps(value), flush=True)


def show(report: dict) -> None:
    h, w = report["size"]
    print(
        f"{report['frames']} frames of {w}x{h}, {report['pairs']} pairs: "
        f"{report['set_bytes'] / 1e9:.2f} GB; {report['processes']} processes"
    )
    print(f"{'':14}  all, GB (Pss)  times the set  each, GB (Rss)  opened in, s")
    for row in report["rows"]:
        pss, rss = row["pss_bytes"], row["rss_bytes"]
        print(
            f"{row['name']:14}{sum(pss) / 1e9:15.2f}"
            f"{sum(pss) / report['set_bytes']:15.2f}"
            f"{sum(rss) / len(rss) / 1e9:16.2f}{row['open_seconds']:14.1f}"
        )


if __name__ == "__main__":
    app.run(main)
