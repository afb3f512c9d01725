"""What do more devices and processes do to each stage, and to its results?

    python benchmarks/stages.py
    python benchmarks/stages.py --config=tests/tiny.py --clips=4 --frames=6  # short
    python benchmarks/stages.py -- --config.predict.crf=gwm  # with other fields

A run is made once, with one device. Then its stages but for training are made again
from its checkpoints, for each number of processes on this machine and of devices a
process (which XLA makes of the processor's cores), twice: programs are compiled by the
first time, the second is the one that counts. `refine` is its targets and their CRF
alone: training has nothing left to do. `same bits`: soft masks, PNG masks, targets and
scores are those of one device and one process, byte for byte.

Prints one table, writes benchmarks/results/stages.json; `--from=FILE` prints what was
written. Seconds are the first process's, waiting for the others included.
"""

import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags, logging

CONFIG = flags.DEFINE_string("config", "configs/demo.py", "a recipe")
CLIPS = flags.DEFINE_integer("clips", 0, "so many small clips in place of the recipe's")
FRAMES = flags.DEFINE_integer("frames", 8, "frames of each of them")
STEPS = flags.DEFINE_integer("steps", 8, "of both training stages")
PROCESSES = flags.DEFINE_list("processes", ["1", "2"], "numbers of processes")
DEVICES = flags.DEFINE_list("devices", ["1", "2", "4"], "devices of each process")
REPEAT = flags.DEFINE_integer("repeat", 2, "times; the last counts")
OUT = flags.DEFINE_string("out", "benchmarks/results/stages.json", "JSON file")
FROM = flags.DEFINE_string("from", "", "print what this file says; nothing is run")

STAGES = ("flow", "motion", "align", "refine", "predict", "evaluate")
# What is made again of the run, by folder of the workdir.
MADE = (*(s for s in STAGES if s != "refine"), "refine/targets", "refine/result.json")
RESULTS = ("*/soft/*.npy", "motion/refined/*.npy", "predict/masks/*/*.png")
RESULTS += ("refine/targets/*.npz", "evaluate/*.json", "evaluate/*.csv")
UNLIKE = ("result.json", "config.json")  # they tell times


def main(argv: list[str]) -> None:
    if FROM.value:
        sys.stdout.write(table(json.loads(Path(FROM.value).read_text())))
        return
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), argv[1:])
    sys.stdout.write(table(measured))
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(OUT.value).write_text(json.dumps(measured, indent=1) + "\n")


def measure(folder: Path, given: list[str]) -> dict:
    """Make the run, then its stages again in every setting."""
    if CLIPS.value:
        write_clips(folder / "clips")
        given = [*given, f"--config.data.root={folder / 'clips'}"]
        given += ["--config.data.layout=davis", "--config.data.partial=True"]
    stages = ("discover", "refine")
    given = [*given, *(f"--config.{one}.steps={STEPS.value}" for one in stages)]
    given += [f"--config.{one}.batch_size=8" for one in stages]  # for eight devices
    once = folder / "once"
    run(folder, once, given, 1, 1)
    if not CLIPS.value:  # the demo renders its clips into the workdir
        given.append(f"--config.data.root={once / 'clips'}")
    wanted, rows = digests(once), []
    for processes in map(int, PROCESSES.value):
        for devices in map(int, DEVICES.value):
            for _ in range(REPEAT.value):
                again = folder / "again"
                shutil.rmtree(again, ignore_errors=True)
                shutil.copytree(
                    once, again, ignore=shutil.ignore_patterns("clips", "report")
                )
                for name in MADE:
                    path = again / name
                    shutil.rmtree(path) if path.is_dir() else path.unlink(True)
                run(folder, again, given, processes, devices)
            found = {
                stage: json.loads((again / stage / "result.json").read_text())
                for stage in STAGES
                if (again / stage).is_dir()
            }
            made = digests(again)
            unlike = [name for name in wanted if wanted[name] != made.get(name)]
            rows.append(
                {
                    "processes": processes,
                    "devices": devices,
                    "seconds": {name: one["seconds"] for name, one in found.items()},
                    "unlike": unlike,
                    "files": len(wanted),
                }
            )
            logging.info("%s", rows[-1])  # it takes long; these are not lost
    return {
        "config": CONFIG.value,
        "clips": json.loads((once / "prepare/result.json").read_text())["outputs"][
            "frames_of_clip"
        ],
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "rows": rows,
    }


def write_clips(root: Path) -> None:
    """Write small clips as DAVIS has them, annotations too."""
    sys.path[:0] = [".", "tests"]
    import numpy as np
    from PIL import Image
    from tiny import write_clip

    lines = []
    for name in (f"clip{number}" for number in range(CLIPS.value)):
        frames = root / "JPEGImages/480p" / name
        masks = write_clip(frames, FRAMES.value, (96, 128), len(lines))
        for t, mask in enumerate(masks):
            truth = f"Annotations/480p/{name}/{t:05d}.png"
            (root / truth).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(root / truth)
            lines.append(f"/JPEGImages/480p/{name}/{t:05d}.png /{truth}\n")
    (root / "ImageSets/480p").mkdir(parents=True)
    for split in ("train", "val", "trainval"):
        (root / f"ImageSets/480p/{split}.txt").write_text("".join(lines))


def run(
    folder: Path, workdir: Path, given: list[str], processes: int, devices: int
) -> None:
    """Run up to the scores, in so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": os.getcwd(),
        # XLA's threads: otherwise as many as cores, or devices where these are more,
        # and programs for other numbers of threads differ in bits.
        "NPROC": str(max(map(int, DEVICES.value))),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    command = [sys.executable, "-m", "imas_jax.main", f"--config={CONFIG.value}"]
    command += [f"--config.workdir={workdir}", "--config.stage=evaluate", *given]
    if processes == 1:
        ends = [""]
    else:
        ends = [f"127.0.0.1:{port},{processes},{index}" for index in range(processes)]
    running = [
        subprocess.Popen(
            [*command, f"--config.distributed={end}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for end in ends
    ]
    said = [one.communicate()[0] for one in running]
    if any(one.returncode for one in running):
        sys.exit("\n".join(said))


def digests(workdir: Path) -> dict[str, str]:
    """Hash what was made, by file."""
    return {
        str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).hexdigest()
        for pattern in RESULTS
        for path in sorted(workdir.glob(pattern))
        if path.name not in UNLIKE
    }


def table(measured: dict) -> str:
    """Format one table, a column a setting."""
    rows = measured["rows"]
    names = [f"{row['processes']} x {row['devices']}" for row in rows]
    clips = measured["clips"]
    lines = [
        f"{len(clips)} clips, {sum(clips.values())} frames, {measured['config']}, "
        f"{measured['cores']} cores, load {measured['load']}; processes x devices:",
        "",
        f"| stage, s | {' | '.join(names)} |",
        f"|---|{'---:|' * len(rows)}",
    ]
    for stage in STAGES:
        if stage in rows[0]["seconds"]:
            seconds = [f"{row['seconds'][stage]:.1f}" for row in rows]
            lines.append(f"| {stage} | {' | '.join(seconds)} |")
    same = [f"{r['files'] - len(r['unlike'])}/{r['files']}" for r in rows]
    lines.append(f"| files with the same bits | {' | '.join(same)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    app.run(main)
