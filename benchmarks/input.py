"""How many frame pairs a second each source delivers, and who waits for whom.

    python benchmarks/input.py --config=configs/davis.py --cores=2

Without `data.root` it writes clips of smooth noise at 854x480, with as many bytes a
frame as DAVIS has and with flow beside them, into a temporary folder. With `data.root`
it reads the flow of a run (`--config.workdir`).

For each source: pairs/s and MB/s when nothing else runs, and the share of a training
step spent waiting when a step takes 1/`steps_per_second` on an accelerator (the
consumer sleeps that long, as a host does). With `data.source=device` the host draws
nothing: its pairs/s are those of the drawing alone, which is a part of the step, on the
devices that are here. Writes benchmarks/results/input.json.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from imas_jax.conventions import Batch
from imas_jax.data import builders, clips, pipeline, training_set
from imas_jax.data.found import Clips
from imas_jax.flow import files
from imas_jax.stages import flow as flow_stage
from imas_jax.stages import settle
from imas_jax.training import held, parallel

CONFIG = config_flags.DEFINE_config_file("config", "configs/davis.py")
CORES = flags.DEFINE_integer("cores", 2, "CPU cores to use; 0 is all")
STEPS = flags.DEFINE_integer("steps", 60, "batches per measurement")
RATES = flags.DEFINE_list(
    "steps_per_second", ["2", "10", "50"], "train steps a second to compare with"
)
FRAMES = flags.DEFINE_integer("frames", 40, "frames a clip where clips are made")
SIZE = flags.DEFINE_list("size", ["480", "854"], "h,w where clips are made")
OUT = flags.DEFINE_string("out", "benchmarks/results/input.json", "JSON file")
WARM_UP = 3  # batches before the clock starts


def main(argv: list[str]) -> None:
    del argv
    if CORES.value:
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, available[: CORES.value])
    with tempfile.TemporaryDirectory() as folder:
        config, found = open_set(Path(folder))
        rows = []
        for kind in ("memory", "device", "tfrecord"):
            config.data.source = kind
            rows.append(measure(config, found, Path(folder)))
    report = {
        "cores": len(os.sched_getaffinity(0)),
        "size": list(found.size),
        "pairs": len(found.pairs),
        "batch_size": config.discover.batch_size,
        "sources": rows,
    }
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(OUT.value).write_text(json.dumps(report, indent=1) + "\n")
    show(report)


def open_set(folder: Path):
    """Open the config's training set, or make one."""
    config = CONFIG.value
    if config.data.root:
        config = settle.settle(config).copy_and_resolve_references().unlock()
        found = Clips().for_training(config)
        flow = flow_stage.flow_folder(config, Path(config.workdir) / "flow")
        return config, training_set.find(config, found, flow)
    config.data.update({"root": str(folder / "frames"), "layout": "folders"})
    h, w = (int(side) for side in SIZE.value)
    for number in range(3):
        make_clip(folder / "frames" / f"clip{number}", (h, w), number)
    found = clips.find_clips(config.data)
    flow = files.FlowFolder(folder / "flow", "made")
    rng = np.random.default_rng(0)
    for pair in clips.pairs(found):
        clip = found[pair.clip]
        for direction in files.DIRECTIONS:
            field = rng.normal(size=((h + 1) // 2, (w + 1) // 2, 2)).astype(np.float32)
            meta = files.FlowMeta(
                clip.name, pair.first, direction, 1, clip.size, "made", "made"
            )
            path = flow.path(clip.name, pair.first, direction)
            files.write_flow(path, cv2.GaussianBlur(field, (0, 0), 3.0), meta)
    return config, training_set.find(config, found, flow)


def make_clip(folder: Path, size: tuple[int, int], seed: int) -> None:
    """Write noise so smooth that a frame takes as many bytes as DAVIS's: 0.12 MB."""
    folder.mkdir(parents=True)
    h, w = size
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]
    spectrum = np.maximum(np.hypot(fy, fx), 1.0 / w) ** -1.55
    white = rng.normal(size=(3, h, w))
    pink = np.fft.irfft2(np.fft.rfft2(white) * spectrum, s=(h, w))
    pink = pink.transpose(1, 2, 0) / pink.std() * 50 + 128
    image = np.clip(pink, 0, 255).astype(np.uint8)
    for t in range(FRAMES.value):
        moved = np.roll(image, 3 * t, axis=1)
        cv2.imwrite(str(folder / f"{t:05d}.jpg"), moved)


def measure(config, found: training_set.TrainingSet, folder: Path) -> dict:
    """Time one source alone and against train steps of several lengths."""
    row = {"source": config.data.source, "prepare_seconds": 0.0}
    start = time.perf_counter()
    if config.data.source == "tfrecord":
        builders.write_shards(found, folder / pipeline.SHARDS)
        row["prepare_seconds"] = time.perf_counter() - start
    start = time.perf_counter()
    source = pipeline.make_source(config, found, "discover", folder)
    if config.data.source == "device":
        source = held.HeldSource(source, WARM_UP + STEPS.value)
    batches = source.batches(0)
    batch = next(batches)
    row["start_seconds"] = time.perf_counter() - start
    if config.data.source == "device":
        seconds, _ = consume(drawn_of(batch), 0.0)
        batch = next(drawn_of(batch))
    else:
        seconds, _ = consume(batches, 0.0)
    size = config.discover.batch_size
    row["pairs_per_second"] = size / seconds
    row["megabytes_per_second"] = batch_bytes(batch) / seconds / 1e6
    row["waiting"] = {}
    for rate in map(float, RATES.value):
        seconds, waited = consume(batches, 1.0 / rate)
        row["waiting"][f"{rate:g}"] = waited / seconds
    batches.close()
    return row


def consume(batches: Iterator[Batch], step: float) -> tuple[float, float]:
    """Return seconds a step and seconds of it waiting for data, means."""
    for _ in range(WARM_UP):
        next(batches)
        time.sleep(step)
    waited, start = 0.0, time.perf_counter()
    for _ in range(STEPS.value):
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
        time.sleep(step)
    return (time.perf_counter() - start) / STEPS.value, waited / STEPS.value


def drawn_of(on_devices: held.Held) -> Iterator[Batch]:
    """Yield what each step draws of a set that the devices hold."""
    draw = parallel.run_on_devices(lambda step, of: of.batch(step), donate=False)
    for step in range(WARM_UP + STEPS.value):
        number = parallel.send(parallel.on_each_device(step), on_devices)
        yield jax.block_until_ready(draw(number, on_devices))


def batch_bytes(batch: Batch) -> int:
    return sum(
        array.nbytes
        for array in (batch.frames, batch.flow_forward, batch.flow_backward)
    )


def show(report: dict) -> None:
    rates = list(report["sources"][0]["waiting"])
    print(
        f"{report['pairs']} pairs of {report['size'][1]}x{report['size'][0]}, batches "
        f"of {report['batch_size']}, {report['cores']} cores"
    )
    head = "".join(f"  waits at {rate}/s" for rate in rates)
    print(f"{'source':10}  pairs/s    MB/s  start s{head}")
    for row in report["sources"]:
        shares = "".join(f"{100 * row['waiting'][rate]:13.1f} %" for rate in rates)
        print(
            f"{row['source']:10}{row['pairs_per_second']:9.0f}"
            f"{row['megabytes_per_second']:8.0f}{row['start_seconds']:9.1f}{shares}"
        )


if __name__ == "__main__":
    app.run(main)
