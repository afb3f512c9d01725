"""Every launcher gives launch/local.sh the same arguments, whatever is in them."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import write_clip

LAUNCH = Path(__file__).parents[1] / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
ARGUMENTS = ["configs/davis.py", "--config.data.root=/data/my clips"]


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Stand in for cluster tools: they only write down what they were asked."""
    for tool in ("srun", "gcloud"):
        script = tmp_path / tool
        script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/said\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_SUBMIT_DIR", raising=False)
    return lambda: (tmp_path / "said").read_text().splitlines()


def launch(script, *arguments):
    return subprocess.run(
        [LAUNCH / script, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_executable_and_parse(script):
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", ["local.sh", "slurm.sh", "tpu_pod.sh"])
def test_without_arguments_a_script_says_how_it_is_used(script):
    done = launch(script)
    assert done.returncode != 0
    assert "CONFIG" in done.stderr


def test_slurm_starts_the_local_command_in_every_task(recorded):
    assert launch("slurm.sh", *ARGUMENTS).returncode == 0
    said = recorded()
    command = said[said.index("launch/local.sh") :]
    assert command[1:] == [*ARGUMENTS, "--config.distributed=auto"]


def test_a_tpu_slice_runs_the_local_command_on_every_host(recorded):
    assert launch("tpu_pod.sh", "pod", "zone", *ARGUMENTS).returncode == 0
    said = recorded()
    assert {"pod", "--zone=zone", "--worker=all"} <= set(said)
    (command,) = (line for line in said if line.startswith("--command="))
    words = shlex.split(command.removeprefix("--command="))
    assert words[words.index("launch/local.sh") + 1 :] == [
        *ARGUMENTS,
        "--config.distributed=auto",
    ]


def test_kubernetes_pods_meet_at_the_first_of_them():
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    (container,) = pod["containers"]
    (line,) = container["args"]
    words = shlex.split(line)
    assert words[:3] == ["exec", "launch/local.sh", "configs/davis.py"]
    first = f"{job['metadata']['name']}-0.{pod['subdomain']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert words[-1] == (
        f"--config.distributed={first}:9911,{spec['completions']},$JOB_COMPLETION_INDEX"
    )
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_launched_stage_ends_it_with_one_message(tmp_path, number):
    """Training saves first (tests of the loop); flow and all else stops at once."""
    write_clip(tmp_path / "clip", frames=120, size=(192, 480))
    python = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        [
            LAUNCH / "local.sh",
            Path(__file__).parent / "tiny.py",
            f"--config.data.root={tmp_path / 'clip'}",
            f"--config.workdir={tmp_path / 'run'}",
            "--config.stage=flow",
        ],
        env=os.environ | {"PATH": python},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        while "flow: starting" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        said = process.stdout.read().splitlines()
    assert process.returncode == 128 + number
    assert said[-1] == "stopped; run the same command again: it continues"
    assert not any("Traceback" in line or "done" in line for line in said)
