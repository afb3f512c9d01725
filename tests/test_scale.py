"""docs/scale.md says what its command prints."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_has_the_tables_that_follow_from_what_was_measured(tmp_path):
    recorded = ROOT / "benchmarks/results/scale.json"
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "benchmarks/scale.py"),
            *(f"--from={recorded}", f"--out={tmp_path / 'scale.json'}"),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() in (ROOT / "docs/scale.md").read_text()
    again = json.loads((tmp_path / "scale.json").read_text())
    assert again == json.loads(recorded.read_text())
    for row in again["rows"]:  # the parts are those of the whole
        parts = row["seconds"]
        slower = max(parts["arithmetic"], parts["memory traffic"])
        assert row["bound"] == slower + parts["network"]
        assert row["pairs_a_second"] * row["bound"] - row["pairs"] < 1e-6


def test_the_page_has_the_table_of_stages_that_was_measured():
    recorded = ROOT / "benchmarks/results/stages.json"
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/stages.py", f"--from={recorded}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout in (ROOT / "docs/scale.md").read_text()
    rows = json.loads(recorded.read_text())["rows"]
    assert all(row["files"] and not row["unlike"] for row in rows)
