"""Two commands on one workdir."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_config, write_clip

from imas_jax import protocol
from imas_jax.errors import UserError
from imas_jax.runs import lock
from imas_jax.runs.run import Run

HOLDER = """
import sys, time
from pathlib import Path
from imas_jax.runs import lock
with lock.hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds a workdir until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_command_is_told_who_holds_the_workdir_until_it_dies(holder, tmp_path):
    write_clip(tmp_path / "clip")
    run = Run(tiny_config(tmp_path / "clip", tmp_path / "run").lock(), protocol.STAGES)
    with pytest.raises(UserError, match=f"in use by process {holder.pid} on") as told:
        run.make("flow")
    assert "--config.workdir" in told.value.fix
    assert not (tmp_path / "run/flow").exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    run.make("flow")
    assert (tmp_path / "run/flow/result.json").is_file()
    assert not (tmp_path / "run" / lock.NAME).exists()


def test_one_process_may_hold_a_workdir_within_itself(tmp_path):
    with lock.hold(tmp_path), lock.hold(tmp_path / "." / "inner" / ".."):
        assert (tmp_path / lock.NAME).is_file()
    assert not (tmp_path / lock.NAME).exists()


def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(tmp_path):
    script = """
import os, sys, time
from pathlib import Path
from imas_jax.runs import lock
with lock.hold(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    with lock.hold(tmp_path):
        pass


def test_the_command_says_so_before_it_reads_or_renders_anything(holder, tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "imas_jax.main", "--config=configs/demo.py"]
    done = subprocess.run(
        [*command, f"--config.workdir={tmp_path / 'run'}"],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"in use by process {holder.pid}" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == [lock.NAME]
