"""Two processes that are preempted again and again, and those that share badly.

Run by `make cluster`; needs no cluster, only minutes. docs/scale.md says when it was
run.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny import write_clip
from two_processes import PATIENCE, ended, free_port, start, wait_until

pytestmark = pytest.mark.cluster

HERE = Path(__file__).parents[1]
LIMIT = 900  # seconds
PREEMPTIONS = 20
STEPS = 600
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return os.environ | {
        "PYTHONPATH": str(HERE.parent),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    write_clip(folder := tmp_path_factory.mktemp("clips") / "a clip")
    return folder


class Job:
    """Stage 1 of the tiny recipe, with dropout, by any number of processes."""

    def __init__(self, environment, clip, workdir):
        self.workdir, self._environment = workdir, environment
        self._arguments = [
            *(sys.executable, "-m", "imas_jax.main", f"--config={HERE / 'tiny.py'}"),
            *(f"--config.data.root={clip}", f"--config.workdir={workdir}"),
            *("--config.stage=discover", f"--config.discover.steps={STEPS}"),
            *("--config.discover.checkpoint_every=3", "--config.discover.log_every=1"),
            "--config.model.dropout=0.1",
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

    def lines(self):
        """Return what the steps measured."""
        path = self.workdir / "discover/metrics.jsonl"
        whole = path.read_text().split("\n")[:-1] if path.is_file() else []
        return [json.loads(line) for line in whole]

    def checkpoint(self):
        """Return the newest step that is on disk."""
        folder = self.workdir / "discover/checkpoints"
        return max(
            (int(p.name) for p in folder.glob("[0-9]*") if p.name.isdigit()), default=0
        )

    def is_writing(self):
        """Tell whether a checkpoint is half written."""
        drafts = (self.workdir / "discover/checkpoints").glob("*orbax-checkpoint-tmp*")
        return any(drafts)

    def end(self):
        """Run to the end; return the identity of what was learned."""
        codes, said = ended(self.start(), LIMIT)
        assert codes == [0, 0], said
        result = self.workdir / "discover/result.json"
        return json.loads(result.read_text())["identity"]


@pytest.fixture(scope="module")
def whole(environment, clip, tmp_path_factory):
    """Return a job of two processes that was never stopped, and what it learned."""
    job = Job(environment, clip, tmp_path_factory.mktemp("whole"))
    return job, job.end()


def test_twenty_preemptions_at_random_steps_lose_nothing(
    environment, clip, tmp_path, whole
):
    job, drawn = Job(environment, clip, tmp_path), random.Random(0)
    seconds, killed_writing = time.monotonic(), 0
    for time_ in range(PREEMPTIONS):
        processes = job.start()
        number, who = drawn.choice(SIGNALS), drawn.randrange(2)
        goal = job.checkpoint() + drawn.randint(2, 25)
        wait_until(lambda: len(job.lines()) >= goal, LIMIT)  # noqa: B023
        if number == signal.SIGKILL:
            who = 0  # which writes
            wait_until(job.is_writing, LIMIT)
        processes[who].send_signal(number)
        codes, said = ended(processes, LIMIT)
        if number == signal.SIGKILL:
            killed_writing += job.is_writing()
            assert codes[0] == -number, (time_, said)
            assert codes[1] == 1, (time_, said)
        else:
            assert codes == [128 + number] * 2, (time_, said)
            assert job.checkpoint() == len(job.lines())  # not a step is lost
        assert job.checkpoint() < STEPS, "it ended before it was preempted so often"
    assert killed_writing > 0
    print(
        f"{PREEMPTIONS} preemptions, {killed_writing} of them while a checkpoint was "
        f"written: {time.monotonic() - seconds:.0f} s, to step {job.checkpoint()}"
    )
    assert job.end() == whole[1]
    assert job.lines() == whole[0].lines()
    assert [line["step"] for line in job.lines()] == list(range(1, STEPS + 1))


def test_a_job_goes_on_with_other_numbers_of_processes_and_devices(
    environment, clip, tmp_path, whole
):
    """2 devices, then 1, then 4 (two processes of two): the same global batch."""
    job = Job(environment, clip, tmp_path)
    for processes, devices in ((2, 1), (1, 1), (2, 2)):
        running = job.start(processes, devices)
        goal = job.checkpoint() + 20
        wait_until(lambda: len(job.lines()) >= goal, LIMIT)  # noqa: B023
        running[-1].terminate()
        codes, said = ended(running, LIMIT)
        assert codes == [128 + signal.SIGTERM] * processes, said
    found = [line["loss"] for line in job.lines()]
    expected = [line["loss"] for line in whole[0].lines()][: len(found)]
    np.testing.assert_allclose(found[:60], expected[:60], rtol=1e-5, atol=1e-5)


def test_a_second_job_in_the_same_workdir_is_refused_by_both_its_processes(
    environment, clip, tmp_path
):
    job = Job(environment, clip, tmp_path)
    first = job.start()
    wait_until(lambda: len(job.lines()) >= 3, LIMIT)
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
