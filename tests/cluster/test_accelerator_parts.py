"""Every part of benchmarks/accelerator.py runs whole, in miniature."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import write_clip

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]


def test_all_parts_run_whole_in_miniature(tmp_path):
    for number, name in enumerate(("square", "other")):
        masks = write_clip(tmp_path / "JPEGImages/48p" / name, seed=number)
        folder = tmp_path / "Annotations/48p" / name
        folder.mkdir(parents=True)
        for t, mask in enumerate(masks):
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{t:05d}.png")
    (tmp_path / "ImageSets/48p").mkdir(parents=True)
    (tmp_path / "ImageSets/48p/trainval.txt").write_text("square\nother\n")
    out = tmp_path / "report.json"
    subprocess.run(
        [
            *(sys.executable, ROOT / "benchmarks/accelerator.py", "--miniature"),
            *("--minutes=180", f"--out={out}", f"--data={tmp_path}"),
            f"--recipe={ROOT / 'tests/tiny.py'}",
        ],
        check=True,
        cwd=ROOT,
    )
    report = json.loads(out.read_text())
    parts = report["parts"]
    assert {name: part["ended"] for name, part in parts.items()} == dict.fromkeys(
        ("steps", "twin", "raft", "crf", "predict", "train"), "whole"
    )
    rows = {name: part["rows"] for name, part in parts.items()}
    assert not [row for some in rows.values() for row in some if "failed" in row]
    timed = {row["precision"] for row in rows["steps"] if "seconds" in row}
    assert timed == {"bfloat16", "tf32", "float32"}
    top = [row for row in rows["steps"] if "operation" in row]
    assert 0 < len(top) <= 10
    networks = {row["network"] for row in rows["raft"] if "pairs_a_second" in row}
    assert networks == {"small", "large"}
    assert all(row["frames_a_second"] > 0 for row in rows["predict"])
    assert [row for row in rows["train"] if "J" in row]
    assert [row for row in rows["train"] if "watched" in row]
