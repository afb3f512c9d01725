"""The Dockerfile's image is built, and runs a stage.

Run by `make cluster` where there is docker, podman or buildah (run with buildah 1.28).
`IMAS_BUILD_OPTIONS` are further options of the build, as for a proxy and its
certificate. Where no registry can be reached, buildah takes a base that debootstrap
makes from Debian's own archive (as root).
"""

import os
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from tiny import write_clip

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[2]
BASE = "docker.io/library/debian:bookworm-slim"
BUILDERS = ("docker", "podman", "buildah")


def tell(*command, **options):
    """Run a command; return what it says."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=REPOSITORY, **options
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def builder():
    for name in BUILDERS:  # docker may be there without its daemon
        if shutil.which(name):
            if not subprocess.run([name, "info"], capture_output=True).returncode:
                return name
    pytest.skip(f"none of {', '.join(BUILDERS)} works on this machine; install one")


@pytest.fixture(scope="module")
def image(builder, tmp_path_factory):
    """Build the image; return its name."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    name = f"imas_jax:{project['version']}"
    options = shlex.split(os.environ.get("IMAS_BUILD_OPTIONS", ""))
    if builder == "buildah":
        if subprocess.run(["buildah", "pull", BASE], capture_output=True).returncode:
            make_base(tmp_path_factory.mktemp("base"))
            options.append("--pull-never")
        options.append("--isolation=chroot")
    tell(builder, "build", *options, f"--tag={name}", ".")
    return name


def make_base(folder):
    """Make the base as Debian makes it, without a registry."""
    if not subprocess.run(["buildah", "inspect", BASE], capture_output=True).returncode:
        return  # of an earlier run
    if shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("no registry can be reached, and debootstrap is not installed")
    root = folder / "root"
    tell("/usr/sbin/debootstrap", "--variant=minbase", "bookworm", str(root))
    tell("tar", "-C", str(root), "-cf", str(folder / "root.tar"), ".")
    container = tell("buildah", "from", "scratch")
    tell("buildah", "add", container, str(folder / "root.tar"), "/")
    tell("buildah", "commit", "--rm", container, BASE)


def test_a_stage_runs_in_the_image(builder, image, tmp_path):
    write_clip(tmp_path / "clip")
    volume = f"--volume={tmp_path}:/data"
    told = [
        *("configs/video.py", "--config.stage=flow"),
        *("--config.data.root=/data/clip", "--config.workdir=/data/run"),
    ]
    if builder == "buildah":
        container = tell("buildah", "from", image)
        run = ["buildah", "run", "--isolation=chroot", volume, container, "--"]
        run.append("launch/local.sh")  # buildah leaves the entry point to others
    else:
        run = [builder, "run", "--rm", volume, image]
    try:
        tell(*run, *told)
    finally:
        if builder == "buildah":
            tell("buildah", "rm", container)
    assert (tmp_path / "run/flow/result.json").is_file()
