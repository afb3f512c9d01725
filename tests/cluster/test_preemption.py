"""Two processes that are preempted again and again, and those that share badly.

Run by `make cluster`; needs no cluster, only minutes. docs/scale.md says when it was
run.
"""

import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from two_processes import PATIENCE, ended, expected, free_port, start, wait_until

pytestmark = pytest.mark.cluster

HERE = Path(__file__).parents[1]
LIMIT = 900  # seconds
PREEMPTIONS = 20
STEPS = 600
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)


@pytest.fixture(scope="module")
def environment(compiled):
    return os.environ | compiled | {"PYTHONPATH": str(HERE.parent)}


class Job:
    """Stage 1 of the tiny recipe, with dropout, by any number of processes."""

    def __init__(self, environment, clip, workdir):
        self.folder, self._environment = workdir / "discover", environment
        self._arguments = [
            *(sys.executable, "-m", "imas_jax.main", f"--config={HERE / 'tiny.py'}"),
            *(f"--config.data.root={clip}", f"--config.workdir={workdir}"),
            *("--config.stage=discover", "--config.discover.steps=100000"),
            *("--config.discover.log_every=1", "--config.model.dropout=0.1"),
        ]

    def start(self, processes=2, devices=1):
        """Start processes of so many devices each."""
        flags = f"--xla_force_host_platform_device_count={devices}"
        address = f"127.0.0.1:{free_port()}"
        together = [f"{address},{processes},{i}" for i in range(processes)]
        return [
            subprocess.Popen(
                [*self._arguments, f"--config.distributed={where}"],
                env=self._environment | {"XLA_FLAGS": flags},
                cwd=HERE.parent,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for where in (together if processes > 1 else [""])
        ]


def log(folder):
    """Return what the steps of a training measured, in full precision."""
    path = folder / "metrics.jsonl"
    whole = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in whole]


def test_twenty_preemptions_at_random_steps_lose_nothing(tmp_path):
    """Of two processes that train one number, which every line of their log has."""
    checkpoints, drawn = tmp_path / "checkpoints", random.Random(0)
    begun, killed_writing = time.monotonic(), 0

    def train():
        return start("train", tmp_path, STEPS, every=5)

    def saved():
        names = [path.name for path in checkpoints.glob("[0-9]*")]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def is_writing():
        return any(checkpoints.glob("*orbax-checkpoint-tmp*"))

    def comes_to(step):
        wait_until(lambda: lines(tmp_path)[-1:] >= [step], LIMIT)

    def lines(folder):
        return [line["step"] for line in log(folder)]

    for turn in range(PREEMPTIONS):
        number, who = SIGNALS[turn % 3], drawn.randrange(2)
        processes = train()
        comes_to(saved() + drawn.randint(1, 25))
        if number == signal.SIGKILL:
            who = 0  # which writes
            wait_until(is_writing, LIMIT)
        processes[who].send_signal(number)
        codes, said = ended(processes, LIMIT)
        if number == signal.SIGKILL:
            killed_writing += is_writing()
            assert codes == [-number, 1], (turn, said)
        else:
            assert codes == [128 + number] * 2, (turn, said)
            assert saved() == lines(tmp_path)[-1]  # not a step is lost
        assert saved() < STEPS, "it ended before it was preempted so often"
    assert killed_writing > 0
    print(
        f"{PREEMPTIONS} preemptions, {killed_writing} of them while a checkpoint was "
        f"written, to step {saved()}: {time.monotonic() - begun:.0f} s"
    )
    codes, said = ended(train(), LIMIT)
    assert codes == [0, 0], said
    learned = [{"step": step + 1, "loss": expected(step)} for step in range(STEPS)]
    assert log(tmp_path) == learned


def go_on(job, steps, processes, devices):
    """Train some steps more, stop, and return the losses of these steps."""
    done = len(log(job.folder))
    running = job.start(processes, devices)
    wait_until(lambda: len(log(job.folder)) >= done + steps, LIMIT)
    running[-1].terminate()
    codes, said = ended(running, LIMIT)
    assert codes == [128 + signal.SIGTERM] * processes, said
    return [line["loss"] for line in log(job.folder)][done : done + steps]


def test_a_job_goes_on_with_other_numbers_of_processes_and_devices(
    environment, clip, tmp_path
):
    """2 devices, then 1, then 4 (two processes of two): the same global batch.

    Each time beside the same job that goes on as it was. Two steps are compared: sums
    in another order differ in last bits, which Adam's division makes a thousandth of
    the loss in twenty steps.
    """
    job = Job(environment, clip, tmp_path / "0")
    go_on(job, 4, 2, 1)
    numbers = [(2, 1), (1, 1), (2, 2)]
    for place, (before, after) in enumerate(itertools.pairwise(numbers), start=1):
        for name in (f"{place}", f"{place} as before"):
            shutil.copytree(job.folder.parent, tmp_path / name)
        same = Job(environment, clip, tmp_path / f"{place} as before")
        job = Job(environment, clip, tmp_path / f"{place}")
        found, wanted = go_on(job, 4, *after), go_on(same, 2, *before)
        np.testing.assert_allclose(found[:2], wanted, rtol=1e-5)


def test_a_second_job_in_the_same_workdir_is_refused_by_both_its_processes(
    environment, clip, tmp_path
):
    job = Job(environment, clip, tmp_path)
    first = job.start()
    wait_until(lambda: log(job.folder), LIMIT)
    codes, said = ended(job.start(), LIMIT)
    assert codes == [2, 1]
    holder = f"in use by process {first[0].pid} on {socket.gethostname()}"
    assert holder in said[0]
    assert (
        f"another has ended: process 0 of 2: error: {tmp_path} is {holder}" in said[1]
    )
    first[0].terminate()
    assert ended(first, LIMIT)[0] == [128 + signal.SIGTERM] * 2


def test_a_process_that_hangs_is_named_and_ends_all(tmp_path):
    begun = time.monotonic()
    codes, said = ended(start("hang", tmp_path), LIMIT)
    assert codes == [1, 1]
    hangs = f"process 1 of 2 on {socket.gethostname()} hangs: no progress for"
    assert hangs in said[0]
    assert hangs in said[1]
    assert time.monotonic() - begun < PATIENCE + 60
