"""Runs as users run them: from the command line, killed, damaged, walled off."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import write_clip

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
LIMIT = 600  # seconds; a run takes about 40 on two quiet cores


def command(root, workdir, *overrides):
    return [
        sys.executable,
        "-m",
        "imas_jax.main",
        f"--config={HERE / 'tiny.py'}",
        f"--config.data.root={root}",
        f"--config.workdir={workdir}",
        *overrides,
    ]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    cache = tmp_path_factory.mktemp("compiled")
    return {
        **os.environ,
        "PYTHONPATH": str(HERE.parent),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        # The same executables for all runs of this file: they are started often.
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }


def run(arguments, environment):
    done = subprocess.run(
        arguments,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        cwd=HERE.parent,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def run_until(arguments, environment, ready):
    """Start a run and kill -9 it as soon as `ready()`."""
    process = subprocess.Popen(
        arguments,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=HERE.parent,
        start_new_session=True,
    )
    end = time.monotonic() + LIMIT
    while not ready():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end, "the run never came to where it is killed"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def lines(path):
    return len(path.read_text().splitlines()) if path.is_file() else 0


def identity(workdir, stage):
    return json.loads((workdir / stage / "result.json").read_text())["identity"]


LONGER = ("--config.discover.steps=12", "--config.refine.steps=8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, environment):
    """Two clips, one for each of two processes, and an uninterrupted run on them."""
    root = tmp_path_factory.mktemp("whole")
    write_clip(root / "a clip é/one", 5)
    write_clip(root / "a clip é/two", 4, seed=1)
    code, text = run(command(root / "a clip é", root / "run", *LONGER), environment)
    assert code == 0, text
    return root


def test_a_run_killed_in_every_stage_ends_with_the_same_bits(whole, environment):
    workdir = whole / "killed"
    again = command(whole / "a clip é", workdir, *LONGER)
    points = (
        lambda: any((workdir / "flow").rglob("*.npz")),
        lambda: lines(workdir / "discover/metrics.jsonl") >= 4,
        lambda: (workdir / "discover/checkpoints/6").is_dir(),
        lambda: lines(workdir / "refine/metrics.jsonl") >= 4,
    )
    for ready in points:
        run_until(again, environment, ready)
    code, text = run(again, environment)
    assert code == 0, text
    for stage in ("discover", "refine"):
        assert identity(workdir, stage) == identity(whole / "run", stage)
    log = (workdir / "refine/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, 9))


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_used(
    whole, environment
):
    workdir = whole / "damaged"
    shutil.copytree(whole / "run", workdir)
    for stage in ("align", "refine", "predict", "evaluate", "report"):
        shutil.rmtree(workdir / stage)
    (workdir / "discover/result.json").unlink()
    newest = workdir / "discover/checkpoints/12"
    largest = max(
        (p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    largest.write_bytes(largest.read_bytes()[:100])
    code, text = run(
        command(whole / "a clip é", workdir, *LONGER, "--config.stage=discover"),
        environment,
    )
    assert code == 0, text
    assert "12 is unusable" in text
    assert "continuing from step 10" in text
    assert identity(workdir, "discover") == identity(whole / "run", "discover")


def test_a_loss_that_is_not_finite_stops_with_its_step(whole, environment):
    workdir = whole / "infinite"
    code, text = run(
        command(
            whole / "a clip é",
            workdir,
            *LONGER,
            "--config.discover.learning_rate=1e30",
            "--config.discover.checkpoint_every=1",
            "--config.stage=discover",
        ),
        environment,
    )
    assert code == 2
    assert "at step" in text
    assert "Traceback" not in text
    # Its first update is not finite already: such a state is never kept.
    assert not any((workdir / "discover/checkpoints").glob("[0-9]*"))


def test_another_config_in_the_same_workdir_is_refused_with_the_field(
    whole, environment
):
    code, text = run(
        command(
            whole / "a clip é", whole / "run", *LONGER, "--config.model.channels=5"
        ),
        environment,
    )
    assert code == 2
    assert "model.channels: was 3, is 5" in text
    assert "Traceback" not in text


def test_nothing_before_evaluate_reads_an_annotation(tmp_path, environment):
    """The wall: with and without annotations every stage makes the same."""
    root = tmp_path / "data"
    masks = write_clip(root / "JPEGImages/48p/square")
    lists = root / "ImageSets/48p"
    lists.mkdir(parents=True)
    names = [f"/JPEGImages/48p/square/{t:05d}.png" for t in range(len(masks))]
    for split in ("train", "val", "trainval"):
        text = "".join(f"{n} {n.replace('JPEGImages', 'Annotations')}\n" for n in names)
        (lists / f"{split}.txt").write_text(text)
    annotations = root / "Annotations/48p/square"
    annotations.mkdir(parents=True)
    for t, mask in enumerate(masks):
        image = Image.fromarray((mask * 255).astype(np.uint8))
        image.save(annotations / f"{t:05d}.png")
    layout = ("--config.data.layout=davis", "--config.stage=predict")
    code, text = run(command(root, tmp_path / "with", *layout), environment)
    assert code == 0, text
    shutil.rmtree(root / "Annotations")
    code, text = run(command(root, tmp_path / "without", *layout), environment)
    assert code == 0, text
    for stage in ("discover", "align", "refine", "predict"):
        assert identity(tmp_path / "with", stage) == identity(
            tmp_path / "without", stage
        )


def start_processes(arguments, environment):
    """Start a run of two processes with one device each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one_device = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    return [
        subprocess.Popen(
            [*arguments, f"--config.distributed=127.0.0.1:{port},2,{index}"],
            env=environment | one_device,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=HERE.parent,
        )
        for index in range(2)
    ]


def ended(processes):
    """Wait for processes; return their codes and what they said."""
    said = [process.communicate(timeout=LIMIT)[0] for process in processes]
    return [process.returncode for process in processes], said


def test_two_processes_do_the_whole_protocol_as_one_does(whole, environment):
    """Two of one device each beside one of two: the sum of two has one order."""
    workdir = whole / "processes"
    arguments = command(whole / "a clip é", workdir, *LONGER)
    codes, said = ended(start_processes(arguments, environment))
    assert codes == [0, 0], "\n".join(said)
    made = [set(re.findall(r"targets of (\w+):", text)) for text in said]
    assert made == [{"one"}, {"two"}]
    assert (workdir / "report/report.html").is_file()
    for stage in ("discover", "align", "refine", "predict", "evaluate"):
        assert identity(workdir, stage) == identity(whole / "run", stage)
    for stage in ("discover", "refine"):
        together, alone = (
            (folder / stage / "metrics.jsonl").read_text().splitlines()
            for folder in (workdir, whole / "run")
        )
        assert together == alone
    made = [
        *("align/soft/*.npy", "predict/soft/*.npy", "predict/masks/*/*.png"),
        "refine/targets/*.npz",
    ]
    for pattern in made:
        found = list((whole / "run").glob(pattern))
        assert found
        for file in found:
            twin = workdir / file.relative_to(whole / "run")
            assert twin.read_bytes() == file.read_bytes()
