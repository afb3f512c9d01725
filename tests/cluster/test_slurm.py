"""launch/slurm.sh under SLURM itself, in every way that SLURM ends a job.

Run by `make cluster`; needs SLURM and munge (Debian: slurm-wlm, munge). Jobs are of two
nodes and the tiny recipe, and are compared with the same two processes started by hand.
docs/scale.md says with which versions it was run, and when.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_here
from two_processes import ended, free_port

pytestmark = pytest.mark.cluster

LIMIT = 900  # seconds; a run of the tiny recipe takes about 60 on two quiet cores


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if missing := slurm_here.missing():
        pytest.skip(
            f"no {', '.join(missing)} on this machine; "
            "install SLURM and munge (Debian: slurm-wlm and munge)"
        )
    with slurm_here.Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def variables(compiled):
    """Return what a task's environment has beside what SLURM puts there."""
    return compiled | {
        "PATH": f"{Path(sys.executable).parent}:{slurm_here.PATH}",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
    }


def arguments(clip, workdir, *overrides):
    """Return what launch/local.sh is to be told."""
    tiny = str(Path(__file__).parents[1] / "tiny.py")
    named = [f"--config.data.root={clip}", f"--config.workdir={workdir}"]
    return [tiny, *named, *overrides]


def by_hand(variables, *told):
    """Start the two processes without SLURM."""
    address = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            ["launch/local.sh", *told, f"--config.distributed={address},2,{index}"],
            env=os.environ | variables,
            cwd=slurm_here.REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]


def submit(cluster, variables, log, options, *told):
    """Submit launch/slurm.sh, two nodes; return the job's number."""
    nodes = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1"]
    options = ["--parsable", *nodes, f"--output={log}", *options]
    return cluster.ask("sbatch", *options, "launch/slurm.sh", *told, **variables)


def identities(workdir):
    """Return the digests of the trained stages' checkpoints."""
    results = [workdir / stage / "result.json" for stage in ("discover", "refine")]
    return [json.loads(path.read_text())["identity"] for path in results]


def losses(workdir):
    """Return what stage 1's steps measured, in full precision."""
    path = workdir / "discover/metrics.jsonl"
    whole = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in whole]


def test_a_job_on_two_nodes_ends_with_the_bits_of_two_processes_without_slurm(
    cluster, variables, clip, tmp_path
):
    job = submit(
        cluster, variables, tmp_path / "log", [], *arguments(clip, tmp_path / "job")
    )
    assert cluster.ended(job, LIMIT) == ("COMPLETED", 0, 0)
    nodes = cluster.ask("scontrol", "show", "job", job)
    assert f"NodeList={','.join(slurm_here.NODES)}" in nodes
    codes, said = ended(by_hand(variables, *arguments(clip, tmp_path / "hand")), LIMIT)
    assert codes == [0, 0], said
    assert identities(tmp_path / "job") == identities(tmp_path / "hand")
    assert losses(tmp_path / "job") == losses(tmp_path / "hand")


def test_a_job_put_back_out_of_time_and_stopped_loses_nothing(
    cluster, variables, clip, tmp_path
):
    """Put back by `scontrol requeue`, then at its limit, then stopped by `scancel`."""
    long = [
        "--config.stage=discover",
        "--config.discover.steps=100000",
        "--config.discover.checkpoint_every=100000",  # only what a stop saves
        "--config.discover.log_every=1",
    ]
    workdir, log = tmp_path / "job", tmp_path / "log"
    told = arguments(clip, workdir, *long)

    def further(steps):
        goal = len(losses(workdir)) + steps
        cluster.wait(lambda: len(losses(workdir)) >= goal, LIMIT)

    def both_stop(time):
        """Wait for the last words of both processes; return the step they saved."""
        told = "discover was interrupted at step "
        cluster.wait(lambda: log.read_text().count(told) == 2 * time, 120)
        steps = {line.split(told)[1].split()[0] for line in lines(told)[-2:]}
        assert steps == {str(len(losses(workdir)))}
        return len(losses(workdir))

    def lines(told):
        return [line for line in log.read_text().splitlines() if told in line]

    def both_continue(step):
        """Wait until both have gone on from a step."""
        cluster.wait(lambda: len(losses(workdir)) > step, LIMIT)
        assert len(lines(f"continuing from step {step}")) == 2

    # SLURM looks at the clock twice a minute, and warns by that much too early.
    job = submit(cluster, variables, log, ["--time=3", "--signal=TERM@20"], *told)
    further(10)
    cluster.ask("scontrol", "requeue", job)
    both_continue(both_stop(1))

    assert cluster.ended(job, LIMIT)[0] in ("FAILED", "TIMEOUT")
    step = both_stop(2)

    again = submit(cluster, variables, log, ["--time=60"], *told)
    both_continue(step)
    further(10)
    cluster.ask("scancel", "--signal=TERM", again)
    assert cluster.ended(again, 120) == ("FAILED", 128 + signal.SIGTERM, 0)
    both_stop(3)

    taken = losses(workdir)
    assert [line["step"] for line in taken] == list(range(1, len(taken) + 1))
    hand = tmp_path / "hand"
    processes = by_hand(variables, *arguments(clip, hand, *long))
    try:
        cluster.wait(lambda: len(losses(hand)) >= len(taken), LIMIT)
    finally:
        processes[0].terminate()
        ended(processes, 120)
    assert losses(hand)[: len(taken)] == taken


def test_a_task_that_is_killed_ends_its_job(cluster, variables, clip, tmp_path):
    """As the kernel does it when memory runs out: no word, no time."""
    log = tmp_path / "log"
    told = arguments(clip, tmp_path / "job", "--config.discover.steps=100000")
    job = submit(cluster, variables, log, [], *told)
    cluster.wait(lambda: losses(tmp_path / "job"), LIMIT)
    tasks = [n for n, line in _processes() if f"workdir={tmp_path / 'job'}" in line]
    assert len(tasks) == 2
    os.kill(tasks[1], signal.SIGKILL)
    state, code, _ = cluster.ended(job, 180)
    assert (state, code != 0) == ("FAILED", True), log.read_text()


def _processes():
    """Return (number, command line) of this machine's Python processes."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode().replace("\0", " ")
        except (OSError, UnicodeDecodeError):
            continue
        if "imas_jax.main" in line:
            found.append((int(folder.name), line))
    return found


def test_every_task_has_the_processors_that_the_job_asked_for(cluster, tmp_path):
    """SLURM since 22.05 gives the tasks of a step one each, unless asked again."""
    (tmp_path / "launch").mkdir()
    local = tmp_path / "launch/local.sh"
    local.write_text("#!/bin/sh\nscontrol show step $SLURM_JOB_ID.$SLURM_STEP_ID\n")
    local.chmod(0o755)
    job = cluster.ask(
        *("sbatch", "--parsable", f"--output={tmp_path / 'log'}"),
        *("--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=3"),
        *(str(slurm_here.REPOSITORY / "launch/slurm.sh"), "config"),
        folder=tmp_path,
    )
    assert cluster.ended(job, 120) == ("COMPLETED", 0, 0), tmp_path
    assert "CPUs=12" in (tmp_path / "log").read_text()
