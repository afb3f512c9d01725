"""benchmarks/accelerator.py: time is kept, and what fails loses nothing else.

That its parts run is asked by tests/cluster/test_accelerator_parts.py, in minutes.
"""

import importlib
import json
import sys
import time
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def accelerator():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("accelerator")
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def parts(accelerator):
    return importlib.import_module("accelerator_parts")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_every_part_is_there_and_the_shares_leave_time_to_train(accelerator, parts):
    assert [part.name for part in accelerator.PARTS] == list(parts.RUN)
    fixed = sum(part.seconds for part in accelerator.PARTS if part.seconds)
    last = accelerator.PARTS[-1]
    spent = fixed + accelerator.GRACE * len(accelerator.PARTS) + accelerator.LAST
    assert last.seconds is None
    assert 60 * accelerator.MINUTES - spent > last.least


def test_what_fails_or_hangs_loses_no_other_and_all_is_over_in_time(
    accelerator, tmp_path
):
    clock, begun = Clock(), []
    out = tmp_path / "deep/report.json"
    wanted = [
        accelerator.Part(name, seconds, 5.0)
        for name, seconds in (("a", 100.0), ("b", 100.0), ("c", 60.0), ("d", None))
    ]

    def launch(part, seconds, rows):
        begun.append((part.name, seconds))
        if part.name != "a":
            report = json.loads(out.read_text())["parts"]
            assert report["a"]["rows"] == [{"x": 1}]  # written before the next begins
        rows.write_text('{"x": 1}\n{"y": ')  # killed while it wrote
        clock.now += 150.0 if part.name == "b" else 10.0
        return "failed with exit code 1" if part.name == "a" else "whole"

    report = accelerator.run(wanted, 260.0, out, launch, clock=clock)
    assert begun == [("a", 100.0), ("b", 100.0), ("c", 60.0), ("d", 80.0)]
    assert json.loads(out.read_text()) == report
    assert any("a: failed" in line for line in report["summary"])


def test_a_part_is_not_begun_that_could_not_end(accelerator, tmp_path):
    part = accelerator.Part("train", None, 60.0)
    report = accelerator.run([part], 65.0, tmp_path / "out.json", None, clock=Clock())
    assert report["parts"]["train"]["ended"].startswith("not begun: 55 s left")


def test_a_part_that_hangs_is_ended_with_its_children(accelerator, tmp_path):
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', SLEEP])"
    (tmp_path / "accelerator_parts.py").write_text(
        "SLEEP = 'import time; time.sleep(60)'\n" + code
    )
    given = types.SimpleNamespace(data="", recipe="", miniature=True)
    launch, start = accelerator.launcher(given), time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accelerator, "HERE", tmp_path)
        patch.setattr(accelerator, "GRACE", 0.2)
        ended = launch(accelerator.PARTS[0], 0.3, tmp_path / "rows")
    assert ended == "its time was over"
    assert time.monotonic() - start < 10


def test_ours_stands_beside_the_twin(accelerator):
    case = {"precision": "tf32", "pairs": 16}
    found = {
        "steps": {
            "ended": "whole",
            "rows": [
                {"engine": "imas_jax", **case, "seconds": 0.1, "share_of_peak": 0.5},
                {"engine": "imas_jax", "precision": "float32", "failed": "no memory"},
            ],
        },
        "twin": {
            "ended": "whole",
            "rows": [{"engine": "torch", **case, "seconds": 0.15}],
        },
    }
    _, ours, twin, failed = accelerator.summary(found)
    assert ours.split()[-3:] == ["50.0", "%", "1.00"]
    assert twin.split()[-1] == "1.50"
    assert "no memory" in failed


def test_a_case_fails_alone_and_one_without_time_is_said(parts, tmp_path):
    rows = parts.Rows(tmp_path / "rows", 0.3)
    for case in rows.cases([{"n": 1}, {"n": 2}, {"n": 3}]):
        with rows.trying(**case):
            time.sleep(0.2)
            if case["n"] == 1:
                raise MemoryError("all of it")
    first, second, third = (
        json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()
    )
    assert first == {"n": 1, "failed": "MemoryError: all of it"}
    assert second["skipped"] == third["skipped"] == "no time left for it"


def test_operations_of_the_device_are_added_up(parts):
    def line(name, **spent):
        events = [
            types.SimpleNamespace(name=n, duration_ns=t) for n, t in spent.items()
        ]
        return types.SimpleNamespace(name=name, events=events)

    def plane(name, *lines):
        return types.SimpleNamespace(name=name, lines=lines)

    host = plane("/host:CPU", line("python", wait=9.0), line("tf_XLAEigen/1", add=1.0))
    device = plane(
        "/device:GPU:0",
        line("Stream #1", conv=6.0, add=1.0),
        line("Stream #2", conv=3.0),
        line("Steps", step=99.0),
    )
    both = types.SimpleNamespace(planes=[host, device])
    assert parts.longest(both) == [("conv", 0.9), ("add", 0.1)]
    assert parts.longest(types.SimpleNamespace(planes=[host])) == [("add", 1.0)]
