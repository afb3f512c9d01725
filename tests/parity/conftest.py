"""The parity table: every comparison with the authors' numbers is one row of it.

A test calls `record(item, quantity, error, floor, limit)`; it fails at its end when an
error is above its limit, after all its rows are in the table.
"""

import dataclasses
import hashlib
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import cv2
import jax
import numpy as np
import pytest

ROW = "parity"  # name of the test property that carries a row
# Files of the authors' folder, cut down to what may be published and runs in seconds.
SUBSET = Path(__file__).parents[1] / "golden" / "parity"


@dataclasses.dataclass(frozen=True)
class Row:
    item: str
    quantity: str
    error: float
    floor: float | None
    limit: float

    @property
    def passed(self) -> bool:
        # Written so that an error that is not a number fails.
        return self.error <= self.limit


class Numbers(dict):
    """One file of numbers; a test that asks the subset for more is skipped."""

    subset = False

    def __missing__(self, key):
        if self.subset:
            pytest.skip(f"{key} is not in the subset; make parity runs this test")
        raise KeyError(key)


@dataclasses.dataclass(frozen=True)
class Authors:
    """The folder with the authors' numbers.

    Attributes:
        folder: `IMAS_PARITY_DIR`, or the subset of this repository.
        recipe: The folder's own generator of weights and inputs.
        seed: Of that generator.
    """

    folder: Path
    recipe: ModuleType
    seed: int

    def load(self, item: str) -> Numbers:
        """Read one file of numbers, e.g. "stage1_step"."""
        path = self.folder / f"{item}.npz"
        if not path.is_file():
            pytest.skip(f"no {path}; make parity wants the whole folder")
        numbers = Numbers(self.recipe.load(path))
        numbers.subset = self.folder == SUBSET
        return numbers

    def frame(self, sha1: str) -> np.ndarray:
        """Read a whole RGB frame, which the folder keeps by its pixels' SHA-1."""
        for path in (self.folder / "frames").glob(f"{sha1}.*"):
            frame = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
            if hashlib.sha1(frame.tobytes()).hexdigest() == sha1:
                return frame
            pytest.skip(f"this OpenCV decodes {path} to other pixels")
        pytest.skip(f"no frame {sha1} in {self.folder / 'frames'}")

    def draw(self, kind: str, name: str, shape: tuple, **options) -> np.ndarray:
        """Rebuild an input by its name: kind is smooth, normal, flow_field, ..."""
        return getattr(self.recipe, kind)(name, shape, self.seed, **options)


def open_folder(folder: Path) -> Authors:
    spec = importlib.util.spec_from_file_location("recipe", folder / "recipe.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    meta = json.loads((folder / "meta.json").read_text())
    return Authors(folder, recipe, meta["seed"])


@pytest.fixture(scope="session")
def authors(pytestconfig):
    shared = Path(__file__).parents[3] / "shared" / "parity"
    folder = Path(os.environ.get("IMAS_PARITY_DIR", shared)).resolve()
    if not (folder / "meta.json").is_file():
        if "parity" in pytestconfig.option.markexpr:
            pytest.fail(f"no parity files at {folder} (set IMAS_PARITY_DIR)")
        folder = SUBSET
    return open_folder(folder)


@pytest.fixture
def record(request):
    """Return `record(item, quantity, error, floor, limit)`, one row of the table.

    `floor` is the float32 rounding error stored in the file, or None; for exact
    quantities pass limit 0.
    """

    def add(item, quantity, error, floor, limit):
        # A property of the test reaches the process that prints the table.
        floor = None if floor is None else float(floor)
        row = Row(item, quantity, float(error), floor, float(limit))
        request.node.user_properties.append((ROW, dataclasses.asdict(row)))

    return add


@pytest.fixture
def float64():
    """Compute in float64 for the length of one test."""
    with jax.enable_x64(True):
        yield


def pytest_collection_modifyitems(config, items):
    """Leave what takes minutes to `make parity`."""
    if "parity" in config.option.markexpr:
        return
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="minutes; make parity runs it"))


def rows_of(test):
    """Return the rows that a test, or what is reported of it, carries."""
    return [Row(**value) for name, value in test.user_properties if name == ROW]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    failed = [
        f"{row.item} {row.quantity}: error {row.error:.3g} above {row.limit:.3g}"
        for row in rows_of(item)
        if not row.passed
    ]
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)
    return result


def pytest_terminal_summary(terminalreporter):
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call"
    ]
    reports.sort(key=lambda report: report.nodeid)  # processes finish in any order
    rows = [row for report in reports for row in rows_of(report)]
    if not rows:
        return
    terminalreporter.section("parity with the authors' code")
    width = max(len(row.quantity) for row in rows)
    head = f"{'item':<21} {'quantity':<{width}} {'error':>9} {'floor':>9} {'limit':>9}"
    terminalreporter.write_line(f"{head}  pass")
    for row in rows:
        floor = "-" if row.floor is None else f"{row.floor:.2e}"
        terminalreporter.write_line(
            f"{row.item:<21} {row.quantity:<{width}} {row.error:9.2e} {floor:>9} "
            f"{row.limit:9.2e}  {'yes' if row.passed else 'NO'}"
        )
    passed = sum(row.passed for row in rows)
    terminalreporter.write_line(f"{passed} of {len(rows)} quantities within limits")
