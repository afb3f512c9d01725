"""Every stage, on one device and process and on several: the same bytes.

Run by `make cluster`: training aside it is the whole protocol. And what differs between
two processes is told by one of them, and ends both.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import write_clip
from two_processes import ended, free_port

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[2]


def test_stages_make_the_same_bytes_on_any_number_of_processes_and_devices(tmp_path):
    fields = {
        "motion.evidence": "network",
        "motion.crf": "weak_unary",
        "align.score": "both",
        "align.features": "stage1",  # a network on the devices
        "target.semantic_constraint": True,
        "predict.crf": "weak_unary",
    }
    out = tmp_path / "stages.json"
    done = subprocess.run(
        [
            *(sys.executable, "benchmarks/stages.py", "--config=tests/tiny.py"),
            *("--clips=3", "--frames=6", "--steps=8", "--repeat=1"),
            *("--processes=1,2", "--devices=1,2", f"--out={out}", "--"),
            *(f"--config.{name}={value}" for name, value in fields.items()),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(out.read_text())
    settings = [(row["processes"], row["devices"]) for row in measured["rows"]]
    assert settings == [(1, 1), (1, 2), (2, 1), (2, 2)]
    for row in measured["rows"]:
        # Soft masks thrice, refined evidence and targets of each clip; masks; scores.
        assert row["files"] == 5 * 3 + 3 * 6 + 2
        assert row["unlike"] == []


def start(tmp_path, roots, *overrides):
    """Run two processes of two devices, each with its own data; return their ends."""
    address = f"127.0.0.1:{free_port()}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(REPOSITORY),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    running = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "imas_jax.main"),
                f"--config={REPOSITORY / 'tests/tiny.py'}",
                f"--config.data.root={root}",
                f"--config.workdir={tmp_path / 'run'}",
                f"--config.distributed={address},2,{index}",
                *overrides,
            ],
            env=environment,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index, root in enumerate(roots)
    ]
    return ended(running, 600)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two clips, and one of them alone."""
    root = tmp_path_factory.mktemp("clips")
    for name in ("whole/one", "whole/two", "half/one"):
        write_clip(root / name, 4)
    return root


def test_a_node_without_its_data_is_named_and_all_end(clips, tmp_path):
    codes, said = start(tmp_path, [clips / "whole", clips / "none"])
    assert codes == [1, 2], said
    told = f"process 1 of 2: error: data.root = '{clips / 'none'}' does not exist"
    assert told in said[1]
    assert f"as another has ended: {told}" in said[0]


def test_a_node_with_half_of_the_data_is_named_and_all_end(clips, tmp_path):
    codes, said = start(tmp_path, [clips / "whole", clips / "half"])
    assert 0 not in codes, said
    full = [text for text in said if "what to do" in text]
    assert len(full) == 1
    assert "process 1 on" in full[0]
    assert "clips trained on: was two" in full[0]


def test_a_batch_that_does_not_divide_is_told_by_one_process(clips, tmp_path):
    whole = [clips / "whole"] * 2
    codes, said = start(tmp_path, whole, "--config.discover.batch_size=6")
    assert 0 not in codes, said
    full = [text for text in said if "set batch_size to 4 or 8" in text]
    assert len(full) == 1
