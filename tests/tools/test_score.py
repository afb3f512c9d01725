"""Folders of masks of any make against a data set, as users score them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs import evaluate as evaluate_config
from imas_jax import protocol
from imas_jax.demo import render
from imas_jax.errors import UserError
from imas_jax.report import drawing
from imas_jax.runs.run import Run

STAGES = (*protocol.STAGES, *protocol.TOOLS)
NAMES, FRAMES = ("cat-sway", "cup-pan"), 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A DAVIS folder of two rendered clips, and its annotations."""
    root = tmp_path_factory.mktemp("score") / "clips"
    render.render_demo(root, 0, frames=FRAMES, size=(48, 80), names=NAMES)
    truth = {
        name: [
            np.asarray(Image.open(root / f"Annotations/48p/{name}/{t:05d}.png")) > 0
            for t in range(FRAMES)
        ]
        for name in NAMES
    }
    return root, truth


def write(folder, truth, spoil=lambda mask: mask):
    for name, masks in truth.items():
        for t, mask in enumerate(masks):
            drawing.write_mask(folder / name / f"{t:05d}.png", spoil(mask))
    return folder


def score(data, folders, workdir, **fields):
    config = evaluate_config.get_config()
    config.workdir, config.data.root = str(workdir), str(data[0])
    config.data.split = ""
    config.evaluate.masks = ",".join(map(str, folders))
    config.evaluate.update({"baseline": False} | fields)
    Run(config.lock(), STAGES).make(protocol.goal(config))
    return json.loads((workdir / "score/metrics.json").read_text())


def frame_mean(told, label):
    (method,) = (m for m in told["methods"] if m["label"] == label)
    return method["protocols"]["frame_mean"]["jaccard"]["mean"]


def test_a_folder_is_scored_beside_the_motion_baseline(data, tmp_path, caplog):
    folder = write(tmp_path / "right", data[1])
    with caplog.at_level("INFO"):
        told = score(data, [folder], tmp_path / "run", baseline=True)
    assert [m["label"] for m in told["methods"]] == ["motion baseline", "right"]
    assert frame_mean(told, "right") == 1.0
    assert 0 < frame_mean(told, "motion baseline") < 1
    assert told["folders"] == {"right": str(folder)}
    lines = (tmp_path / "run/score/per_sequence.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    assert {(row["method"], row["sequence"]) for row in rows} == {
        (method, name) for method in ("motion baseline", "right") for name in NAMES
    }
    tables = (tmp_path / "run/score/tables.md").read_text()
    for which in ("official", "sequence_mean", "frame_mean"):
        assert f"J by sequence, percent, {which}" in tables
    assert any("J frame_mean" in record.message for record in caplog.records)


def test_several_folders_are_compared_with_the_first(data, tmp_path):
    shifts = {"right": 0, "off": 1, "far": 6}
    folders = [
        write(tmp_path / name / "masks", data[1], lambda m, by=by: np.roll(m, by, 1))
        for name, by in shifts.items()
    ]
    told = score(data, folders, tmp_path / "run", published=True)
    off, far = told["differences"]["official"]
    assert (off["reference"], off["other"], far["other"]) == ("right", "off", "far")
    assert set(off["differences"]) == set(NAMES)
    assert far["mean"] < off["mean"] < 0
    assert far["low"] <= far["mean"] <= far["high"] < 0
    tables = (tmp_path / "run/score/tables.md").read_text()
    assert "far - right" in tables
    assert "95 % interval" in tables
    assert "| OCLR\N{DAGGER} |" in tables
    assert "| ours: off |" in tables


def test_a_second_run_writes_the_same_bytes(data, tmp_path):
    folders = [
        write(tmp_path / str(by), data[1], lambda m, by=by: np.roll(m, by, 1))
        for by in (1, 2)
    ]
    names = ("metrics.json", "per_sequence.csv", "tables.md")
    written = []
    for _ in range(2):
        score(data, folders, tmp_path / "run", baseline=True)
        written.append([(tmp_path / "run/score" / n).read_bytes() for n in names])
    assert written[0] == written[1]


def test_what_a_protocol_drops_may_be_missing(data, tmp_path, caplog):
    """Methods that live on flow leave no mask of a sequence's last frame."""
    whole = write(tmp_path / "whole", data[1], lambda m: np.roll(m, 2, 1))
    torn = write(tmp_path / "torn", data[1], lambda m: np.roll(m, 3, 1))
    for name in NAMES:
        (torn / name / f"{FRAMES - 1:05d}.png").unlink()
    alone = score(data, [whole], tmp_path / "alone")
    with caplog.at_level("WARNING"):
        told = score(data, [whole, torn], tmp_path / "run")
    # Nothing of the complete folder changes; of the other, what can be told is told.
    assert told["methods"][0] == alone["methods"][0]
    means = {
        which: told["methods"][1]["protocols"][which]["jaccard"]["mean"]
        for which in ("official", "sequence_mean", "frame_mean")
    }
    assert 0 < means["official"] < 1
    assert means["sequence_mean"] is means["frame_mean"] is None
    assert told["notes"] == [
        "torn: 2 of 8 annotated frames have no mask (cat-sway 00003, cup-pan 00003); "
        "only what drops them is scored: official"
    ]
    warned = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert warned == told["notes"]
    # They are compared by the one protocol that both have.
    assert [len(told["differences"].get(p, [])) for p in means] == [1, 0, 0]
    tables = (tmp_path / "run/score/tables.md").read_text()
    assert "J difference, points, official" in tables


def test_the_first_table_that_is_shown_has_numbers(data, tmp_path, caplog):
    torn = write(tmp_path / "torn", data[1])
    for name in NAMES:
        (torn / name / "00000.png").unlink()
    with caplog.at_level("INFO"):
        score(data, [torn], tmp_path / "run")
    assert any("J by sequence, percent, official" in r.message for r in caplog.records)


def test_missing_masks_are_all_listed_then_left_out_for_everybody(data, tmp_path):
    whole = write(tmp_path / "whole", data[1])
    torn = write(tmp_path / "torn", data[1])
    (torn / "cup-pan/00002.png").unlink()
    (torn / "cup-pan/00003.png").unlink()
    half = write(tmp_path / "half", {"cup-pan": data[1]["cup-pan"]})
    with pytest.raises(UserError) as error:
        score(data, [whole, torn, half], tmp_path / "run")
    for part in ("cup-pan: 2 of 4 missing: 00002, 00003", "cat-sway: no masks at all"):
        assert part in str(error.value)
    assert "evaluate.partial" in str(error.value)
    told = score(data, [whole, torn, half], tmp_path / "run", partial=True)
    for method in told["methods"]:
        assert list(method["sequences"]) == ["cup-pan"]
        assert method["sequences"]["cup-pan"]["frames"] == [0, 1]
    assert told["notes"] == [
        "torn: 2 of 8 annotated frames have no mask (cup-pan 00002, 00003)",
        "half: 4 of 8 annotated frames have no mask (cat-sway: all 4)",
        "2 of 8 frames have a mask in every folder: the others do not count",
    ]


def test_folders_with_nothing_in_common_are_refused(data, tmp_path):
    one, other = (
        write(tmp_path / name, {name: data[1][name]}) for name in sorted(data[1])
    )
    with pytest.raises(UserError, match="every folder"):
        score(data, [one, other], tmp_path / "run", partial=True)


def test_a_sequence_without_annotation_is_named(data, tmp_path):
    truth = {**data[1], "stranger": data[1]["cup-pan"]}
    told = score(data, [write(tmp_path / "more", truth)], tmp_path / "run")
    assert told["notes"] == ["more: stranger: not among the sequences to score"]


def test_what_is_odd_about_several_folders_is_one_line(data, tmp_path):
    truth = {**data[1], "stranger": data[1]["cup-pan"]}
    folders = [write(tmp_path / name, truth) for name in ("a", "b")]
    told = score(data, folders, tmp_path / "run")
    assert told["notes"] == ["a, b: stranger: not among the sequences to score"]


def test_masks_of_another_size_are_scored_and_it_is_said(data, tmp_path):
    large = write(
        tmp_path / "large", data[1], lambda m: np.kron(m, np.ones((2, 2))) > 0
    )
    told = score(data, [large], tmp_path / "run")
    assert frame_mean(told, "large") == 1.0
    assert told["notes"] == [
        "large: 8 mask(s) resized to their annotation, e.g. (96, 160) to (48, 80)"
    ]


def test_masks_of_another_shape_are_scored_and_questioned(data, tmp_path):
    folder = write(tmp_path / "square", data[1], lambda m: m[:, :48])
    (note,) = score(data, [folder], tmp_path / "run")["notes"]
    assert note.endswith(
        "e.g. (48, 48) to (48, 80), another shape: are they cut or squashed?"
    )


def test_the_backgrounds_channel_is_suspected(data, tmp_path):
    folder = write(tmp_path / "inverse", data[1], np.logical_not)
    told = score(data, [folder], tmp_path / "run")
    assert frame_mean(told, "inverse") < 0.1
    assert any("background's channel?" in note for note in told["notes"])


def test_a_channel_that_is_not_there_is_refused(data, tmp_path):
    folder = write(tmp_path / "right", data[1])
    with pytest.raises(UserError, match="label 7 is in none"):
        score(data, [folder], tmp_path / "run", label=7)


def test_unreadable_and_coloured_files_are_named(data, tmp_path):
    folder = write(tmp_path / "masks", data[1])
    (folder / "cat-sway/00001.png").write_bytes(b"no picture")
    colours = np.zeros((48, 80, 3), np.uint8)
    colours[5:9, 5:9] = (128, 0, 0)
    Image.fromarray(colours).save(folder / "cup-pan/00003.png")
    with pytest.raises(UserError) as error:
        score(data, [folder], tmp_path / "run", encoding="labels")
    assert "00001.png cannot be read" in str(error.value)
    assert "00003.png is in colours" in str(error.value)


def test_folders_that_do_not_exist_are_named(data, tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        score(data, [tmp_path / "nowhere"], tmp_path / "run")


def test_frames_alone_cannot_be_scored_against(data, tmp_path):
    folder = write(tmp_path / "masks", data[1])
    frames = Path(data[0]) / "JPEGImages/48p"
    with pytest.raises(UserError, match="is annotated"):
        score((frames, data[1]), [folder], tmp_path / "run")
