"""What the import contracts cannot say; `make check` runs the contracts themselves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "imas_jax").rglob("*.py"))


def test_import_contracts_hold():
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(tool), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_devices_are_mentioned_in_one_file():
    """Elsewhere is per-device maths (but flow inference is spread too)."""
    pattern = re.compile(
        r"jax\.(pmap|devices|local_devices|device_count|process_)|pmean"
    )
    allowed = {
        "training/parallel.py",
        "models/layers.py",
        "flow/raft.py",
        "flow/estimators.py",
    }
    found = {
        str(path.relative_to(ROOT / "imas_jax"))
        for path in SOURCES
        if pattern.search(path.read_text())
    }
    assert "training/parallel.py" in found
    assert found <= allowed


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_no_file_outgrows_a_readers_patience(path):
    assert len(path.read_text().splitlines()) <= 400


def test_files_are_written_aside_and_renamed_in_one_file():
    writes = re.compile(r"os\.replace|fsync")
    found = {p.name for p in SOURCES if writes.search(p.read_text())}
    assert found == {"files.py"}


def test_the_root_of_the_package_is_a_contents_page():
    assert len(list((ROOT / "imas_jax").glob("*.py"))) <= 12


def test_no_two_files_of_tests_have_one_name():
    # pytest imports them by name alone: the second could not be collected.
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert sorted(set(names) - {"conftest.py"}) == sorted(
        name for name in names if name != "conftest.py"
    )


def test_the_library_does_not_print():
    found = [p.name for p in SOURCES if re.search(r"^\s*print\(", p.read_text(), re.M)]
    assert found == []


def test_nothing_is_left_unfinished():
    words = re.compile("NotImplemented" + "Error|TO" + "DO|FIX" + "ME")
    found = [p.name for p in SOURCES if words.search(p.read_text())]
    assert found == []
