"""Every launcher gives launch/local.sh the same arguments, whatever is in them.

Clusters themselves are met in tests/cluster.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
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


def test_a_tpu_slice_runs_the_local_command_on_every_host(
    recorded, tmp_path, monkeypatch
):
    """What gcloud is asked to run is run here, as by a host of the slice."""
    monkeypatch.setenv("REPOSITORY", str(tmp_path))
    odd = [*ARGUMENTS, "--config.data.sequences=('a b', \"c$HOME\")"]
    assert launch("tpu_pod.sh", "pod", "zone", *odd).returncode == 0
    said = recorded()
    assert said[:5] == ["compute", "tpus", "tpu-vm", "ssh", "pod"]
    assert {"--zone=zone", "--worker=all"} <= set(said)
    (command,) = (line for line in said if line.startswith("--command="))
    stand_in_for_local(tmp_path, 'printf "%s\\n" "$@"')
    there = subprocess.run(
        ["sh", "-c", command.removeprefix("--command=")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.splitlines() == [*odd, "--config.distributed=auto"]


def stand_in_for_local(repository, script):
    """Write a launch/local.sh of another repository."""
    (repository / "launch").mkdir(exist_ok=True)
    local = repository / "launch" / "local.sh"
    local.write_text(f"#!/usr/bin/env bash\n{script}\n")
    local.chmod(0o755)


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


@pytest.mark.parametrize("version", ["1.29", "1.34"])
def test_kubernetes_takes_the_manifest(version):
    """By the schemas Kubernetes publishes; strict: a misspelt field is an error."""
    for document in yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text()):
        kubernetes_validate.validate(document, version, strict=True)
        document["spec"]["templates"] = {}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, version, strict=True)


def test_the_image_is_the_one_that_kubernetes_runs():
    dockerfile = (LAUNCH.parent / "Dockerfile").read_text()
    project = tomllib.loads((LAUNCH.parent / "pyproject.toml").read_text())["project"]
    _, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    tag = f"imas_jax:{project['version']}"
    assert container["image"].endswith(f"/{tag}")
    assert f"-t {tag}" in dockerfile
    assert f"\nWORKDIR {container['workingDir']}\n" in dockerfile
    for extras in re.findall(r"EXTRAS=(\S+)", dockerfile):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
    copied = re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE)
    wanted = {name for names in copied for name in names.split()}
    ignored = (LAUNCH.parent / ".dockerignore").read_text().splitlines()
    assert wanted == {line[1:] for line in ignored if line.startswith("!")}
    assert all((LAUNCH.parent / name).exists() for name in wanted)


def test_nothing_is_to_be_said_against_the_dockerfile():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, LAUNCH.parent / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture
def protocol(tmp_path):
    """Return launch/davis.sh of a repository in which stages only say their names."""
    stand_in_for_local(
        tmp_path,
        """
        stage=${2#--config.stage=}
        trap 'echo "$stage hears INT"; exit 130' INT
        trap 'echo "$stage hears USR1"; exit 138' USR1
        echo "$stage begins"
        [ "$stage" != "${fails:-}" ] || exit 5
        if [ "$stage" = "${waits:-}" ]; then while :; do sleep 0.05; done; fi
        """,
    )
    return shutil.copy(LAUNCH / "davis.sh", tmp_path / "launch")


def test_the_protocol_is_its_stages_one_after_the_other(protocol):
    done = subprocess.run([protocol], capture_output=True, text=True, check=True)
    assert done.stdout.split()[::2] == [
        *("flow", "prepare", "discover", "align"),
        *("refine", "predict", "evaluate", "report"),
    ]
    failed = subprocess.run(
        [protocol],
        env=os.environ | {"fails": "align"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 5
    assert failed.stdout.splitlines()[-1] == "align begins"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_the_protocol_passes_a_signal_on_to_the_stage_that_runs(protocol, number):
    # A shell cannot listen to what its parents ignore, as those of a job in the
    # background ignore SIGINT.
    before = signal.signal(number, signal.SIG_DFL)
    process = subprocess.Popen(
        [protocol],
        env=os.environ | {"waits": "discover"},
        stdout=subprocess.PIPE,
        text=True,
    )
    signal.signal(number, before)
    with process:
        while process.stdout.readline() != "discover begins\n":
            assert process.poll() is None
        process.send_signal(number)
        said = process.stdout.read().splitlines()
    assert said == [f"discover hears {number.name.removeprefix('SIG')}"]
    assert process.returncode == 128 + number


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
