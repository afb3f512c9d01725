"""The wheel in an empty environment: what pip installs, and that the demo runs on it.

What it depends on is lent by this environment (a `.pth` file), so that nothing is
downloaded; its own code is not, since a checkout's is found by other means.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("imas_jax", "configs", "pyproject.toml", "README.md", "LICENSE")
MINIATURE = [
    "--config=demo",
    "--config.data.sequences=cat-sway",
    *("--config.model.width=4", "--config.model.head_width=8"),
    *("--config.augment.short_side=64", "--config.augment.crop=(48, 64)"),
    *("--config.discover.steps=2", "--config.refine.steps=0", "--config.flow.size=64"),
    *("--config.predict.short_side=64", "--config.report.frames_per_sequence=2"),
]


def call(*command, cwd):
    """Run a command that knows nothing of this checkout; return what it says."""
    ours = ("PYTHON", "XLA_FLAGS")  # this checkout's path, eight fake devices
    env = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
        check=False,
        timeout=900,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel from a copy, install it into an empty environment."""
    root = tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, root / "src" / part, True, ignored)
        else:
            shutil.copy(ROOT / part, root / "src" / part)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    alone = ["--no-deps", "--no-index", "--quiet"]
    build = [*pip, "wheel", *alone, "--no-build-isolation", "-w", "dist", "./src"]
    call(*build, cwd=root)
    venv.create(root / "venv", symlinks=True)
    python = root / "venv/bin/python"
    (wheel,) = (root / "dist").glob("*.whl")
    call(*pip, "--python", python, "install", *alone, wheel, cwd=root)
    (own,) = (root / "venv/lib").glob("python*/site-packages")
    (own / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (root / "elsewhere").mkdir()
    return root


@pytest.mark.slow
def test_the_wheel_installs_one_package_and_its_recipes_lie_within(installed):
    (wheel,) = (installed / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"imas_jax"}
    there = {Path(name).name for name in names if name.startswith("imas_jax/configs/")}
    assert there == {path.name for path in (ROOT / "configs").glob("*.py")}
    assert {"imas_jax/py.typed", "imas_jax/flow/evidence.npz"} <= set(names)
    python, where = installed / "venv/bin/python", installed / "elsewhere"
    ask = "import importlib.util as i; print(i.find_spec('configs'))"
    assert call(python, "-c", ask, cwd=where) == "None\n"
    told = call(python, "-c", "import imas_jax; print(imas_jax.__file__)", cwd=where)
    assert Path(told.strip()).is_relative_to(installed / "venv")


@pytest.mark.slow
def test_the_installed_command_helps_and_runs_the_demo_in_miniature(installed):
    command, where = installed / "venv/bin/imas-jax", installed / "elsewhere"
    told = call(command, "--help", cwd=where)
    assert "imas-jax clip.mp4" in told
    assert str(installed / "venv") in told
    call(command, *MINIATURE, "--config.workdir=mini", cwd=where)
    page = (where / "mini/report/report.html").read_text()
    assert "imas-jax --config=demo" in page
    assert len(list((where / "mini/predict/masks/cat-sway").iterdir())) > 10
