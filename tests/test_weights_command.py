"""`python -m imas_jax.weights`, and the page that says what it knows."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import file_server
import pytest

from imas_jax.errors import UserError
from imas_jax.models import fetching, published
from imas_jax.weights import __main__ as weights

ROOT = Path(__file__).parents[1]
TABLE = published.TABLE


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_the_table_has_every_name_with_licence_supervision_and_what_is_here(tmp_path):
    before = weights.run(())
    for name, entry in TABLE.items():
        (line,) = re.findall(rf"^{name} .*$", before, re.M)
        assert entry.licence in line
        assert entry.supervision in line
        assert line.endswith("-")
    assert str(tmp_path / "imas_jax/weights") in before
    fetching.folder().mkdir(parents=True)
    fetching.place("raft_small").write_bytes(b"x" * 3_000_000)
    (line,) = re.findall(r"^raft_small .*$", weights.run(["list"]), re.M)
    assert re.search(r" 3 +yes$", line)


def test_a_name_is_shown_with_all_that_is_known_of_it(tmp_path):
    text = weights.run(["show", "vicreg_resnet50", "densecl_resnet50"])
    assert "https://dl.fbaipublicfiles.com/vicreg/resnet50.pth" in text
    assert TABLE["vicreg_resnet50"].hashes[0] in text
    assert f"{tmp_path}/imas_jax/weights/vicreg_resnet50.pth (not here)" in text
    assert "its published link is dead" in text


def test_names_are_fetched_one_after_the_other(monkeypatch, tmp_path, caplog):
    with file_server.serving() as server:
        for name in ("raft_small", "resnet50_imagenet"):
            entry = dataclasses.replace(
                TABLE[name], url=server.offer(name, name.encode()), hashes=(), size=None
            )
            entry = dataclasses.replace(entry, network="of nothing")
            monkeypatch.setitem(TABLE, name, entry)
        with caplog.at_level("WARNING", logger="absl"):
            said = weights.run(["fetch", "raft_small", "resnet50_imagenet"])
    assert said.splitlines() == [
        f"{name}: {tmp_path}/imas_jax/weights/{name}.pth"
        for name in ("raft_small", "resnet50_imagenet")
    ]
    assert fetching.place("raft_small").read_bytes() == b"raft_small"
    assert "resnet50_imagenet learned from human labels" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fetsch"], "did you mean fetch"),
        (["fetch", "dino_vit16"], "did you mean dino_vits16"),
        (["fetch"], "fetch with 0 names"),
        (["list", "dino_vits16"], "list with 1 names"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_nearest(arguments, said):
    with pytest.raises(UserError, match=said):
        weights.run(arguments)


def test_the_command_ends_with_its_table_or_with_one_message(tmp_path):
    def start(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "imas_jax.weights", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            check=False,
            timeout=120,
        )

    done = start()
    assert done.returncode == 0
    assert "dino_resnet50" in done.stdout
    done = start("fetch", "densecl_resnet50")
    assert done.returncode == 2
    assert done.stderr.startswith("error: weights 'densecl_resnet50' cannot be fetched")
    assert "Traceback" not in done.stderr


FEATURES = [name for name, entry in TABLE.items() if not entry.is_flow]


def cells_of(page, first):
    (line,) = [one for one in page.splitlines() if one.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("name", FEATURES)
def test_the_page_of_features_has_every_name_and_what_was_measured(name):
    page = (ROOT / "docs/features.md").read_text()
    measured = json.loads((ROOT / "benchmarks/results/backbones.json").read_text())
    entry, rows = TABLE[name], {row["backbone"]: row for row in measured["rows"]}
    row = rows.get(entry.network)
    *told, parameters, seconds, propagation, command = cells_of(page, f"`{name}`")
    size = f"{entry.size / 1e6:.0f}" if entry.size else ""
    wanted = [f"`{name}`", entry.network, entry.supervision, entry.licence, size]
    assert told == wanted
    assert measured["size"] == [480, 854]
    assert seconds == (f"{row['seconds']:.2f}" if row else "")
    if row:
        assert parameters == f"{row['parameters'] / 1e6:.1f}"
    assert propagation == ""  # no published file was measured here
    supervised = " --config.model.allow_supervised=True"
    allowed = supervised * (entry.supervision == "human labels")
    assert command == f"`--config.model.weights={name}{allowed}`"


def test_the_page_of_features_says_what_propagation_was_measured():
    page = (ROOT / "docs/features.md").read_text()
    results = (ROOT / "benchmarks/results/label_propagation.md").read_text()
    for first, of in {
        "colours": "colours",
        "at random": "random ResNet-50, seed 0",
        "[made here](pretraining.md), 50 minutes": "4,000",
    }.items():
        lines = [one for one in page.splitlines() if one.startswith(f"| {first} |")]
        shown = lines[-1].split("|")[8].strip()
        row = next(o for o in results.splitlines() if o.startswith(f"| {of} |"))
        found = re.findall(r"0\.\d{3}", row)
        assert shown == f"{max(map(float, found)):.2f}"


@pytest.mark.parametrize("name", TABLE)
def test_the_page_of_weights_tells_of_every_name(name):
    page = (ROOT / "docs/weights.md").read_text()
    entry = TABLE[name]
    (line,) = [one for one in page.splitlines() if one.startswith(f"| `{name}` |")]
    for told in (entry.supervision, entry.licence, entry.network, entry.page):
        assert told in line
