import csv
import dataclasses
import io
import json

import pytest

from imas_jax.evaluation import paper, tables
from imas_jax.evaluation.protocol import Entry, SequenceScore


def entry(label: str, kind, means: dict[str, float], **extra) -> Entry:
    scores = tuple(
        SequenceScore(name, 3, (0, 1, 2), (m,) * 3, (m / 2,) * 3, (False,) * 3)
        for name, m in means.items()
    )
    return Entry(label, kind, scores, **extra)


ORACLE = entry("stage 2", "oracle", {"bear": 0.9, "camel": 0.8})
RESULT = entry(
    "stage 2", "aligned", {"bear": 0.7, "camel": 0.75}, binarization="argmax"
)
BASELINE = entry("motion baseline", "baseline", {"bear": 0.5, "camel": 0.55})
ALL = (ORACLE, RESULT, BASELINE)


def test_the_baseline_comes_first_and_the_oracle_last_under_its_name():
    table = tables.headline(ALL)
    assert [row[0] for row in table.rows] == [
        "motion baseline",
        "stage 2",
        "stage 2 (oracle channel)",
    ]
    assert tables.ORACLE_NOTE in table.notes
    assert "binarization: argmax" in table.notes


def test_every_protocol_is_a_named_column():
    table = tables.headline(ALL)
    for name in ("official", "sequence_mean", "frame_mean"):
        assert f"J {name}" in table.header
    assert table.rows[0][1] == "52.5"


def test_a_table_without_baseline_says_so():
    assert any("no motion baseline" in n for n in tables.headline([RESULT]).notes)


def test_weights_from_human_labels_are_told_in_every_form():
    shown = dataclasses.replace(RESULT, supervised="a classifier")
    line = "supervised weights: a classifier"
    assert line in tables.headline([BASELINE, shown]).notes
    assert line in tables.per_sequence([BASELINE, shown], "official").notes
    assert "stage 2,aligned (supervised weights),bear" in tables.as_csv([shown])
    assert tables.as_json([shown])["methods"][0]["supervised"] == "a classifier"
    assert not any("supervised" in note for note in tables.headline(ALL).notes)
    assert "supervised" not in tables.as_csv(ALL)


def test_a_sequence_the_paper_has_stands_beside_the_papers_number():
    table = tables.per_sequence(ALL, "frame_mean", dataset="davis")
    assert table.header[-1] == "paper 6.4"
    cells = {row[0]: row for row in table.rows}
    assert cells["camel"][-1] == "83.9"
    assert cells["bear"][-1] == "-"
    assert cells["camel"][1:4] == ("55.0", "75.0", "80.0")
    # Two sequences of twenty: the paper's mean would not be comparable.
    assert table.rows[-1][-1] == "-"


def test_the_papers_mean_stands_below_all_of_its_sequences_only():
    full = entry("x", "aligned", dict.fromkeys(paper.DAVIS16, 0.5))
    rows = tables.per_sequence([full], "frame_mean", dataset="davis").rows
    assert rows[-1][-1] == "79.8"
    rows = tables.per_sequence([full], "official", dataset="davis").rows
    assert rows[-1][-1] == "-"


def test_table_2_stands_whole_beside_ours_in_the_column_of_the_data_set():
    table = tables.beside_published(ALL, dataset="segtrackv2")
    cells = {(row[0], row[1]): row[2:] for row in table.rows}
    assert len(table.rows) == len(cells) == 2 + 18  # no oracle
    assert cells["ours: stage 2", ""] == ("", "72.5", "")
    assert cells["EM", ""] == ("69.8", "-", "-")
    assert cells["GWM*", "CRF + SP\N{DOUBLE DAGGER}"] == ("73.4", "72.0", "68.6")
    assert any("2 sequences, the others on the set's 14" in n for n in table.notes)
    for mark in paper.NOTES:
        assert any(note.startswith(mark) for note in table.notes)
        assert any(mark in "".join(row) for row in table.rows)
    other = tables.beside_published(ALL, dataset="demo")
    assert other.header[-1] == "demo"
    assert other.rows[1][-1] == "72.5"


@pytest.mark.parametrize(
    ("half", "rival", "gains"),
    [("", "OCLR", (5.6, 1.0, 2.0)), ("CRF", "CIS", (8.3, 10.7, 5.4))],
)
def test_table_2_has_the_gains_that_the_paper_prints(half, rival, gains):
    last = {s.name: s for s in paper.SYSTEMS if s.processing[:3] == half}
    for name, gain in zip(("davis", "segtrackv2", "fbms59"), gains, strict=True):
        ours, theirs = (getattr(last[who], name) for who in ("IMAS", rival))
        assert ours - theirs == pytest.approx(gain)
        if half:
            assert ours == paper.FRAME_MEAN[name]


def test_other_data_sets_have_no_paper_column():
    assert (
        "paper 6.4" not in tables.per_sequence(ALL, "official", dataset="demo").header
    )


def test_names_of_releases_are_matched_to_the_papers():
    assert paper.sequence_jaccard("segtrackv2", "bird_of_paradise") == 86.7
    assert paper.sequence_jaccard("fbms59", "nosuch") is None
    counts = {name: len(table) for name, table in paper.PER_SEQUENCE.items()}
    assert counts == {"davis": 20, "segtrackv2": 14, "fbms59": 30}


def test_methods_scored_on_other_sequences_are_not_put_in_one_table():
    other = entry("x", "aligned", {"dog": 0.1})
    with pytest.raises(ValueError, match="other sequences"):
        tables.per_sequence([RESULT, other], "official")


def test_text_columns_line_up():
    lines = tables.headline(ALL).text().splitlines()
    body = [lines[1], *lines[3:6]]
    assert len({len(line) for line in body}) == 1
    assert lines[3].startswith("motion baseline")


def test_markdown_has_one_cell_a_column():
    lines = tables.per_sequence(ALL, "official").markdown().splitlines()
    counts = {line.count("|") for line in lines if line.startswith("|")}
    assert counts == {5}


def test_files_hold_the_numbers_and_no_leftovers(tmp_path):
    unscored = entry("none", "aligned", {"bear": float("nan"), "camel": float("nan")})
    tables.write(tmp_path, [*ALL, unscored], dataset="davis", extra={"masks": "here"})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "metrics.json",
        "per_sequence.csv",
        "tables.md",
    ]
    data = json.loads((tmp_path / "metrics.json").read_text())
    assert data["masks"] == "here"
    first = data["methods"][0]
    assert first["kind"] == "baseline"
    assert first["protocols"]["official"]["jaccard"]["mean"] == pytest.approx(0.525)
    assert first["sequences"]["bear"]["boundary"] == [0.25] * 3
    rows = list(
        csv.DictReader(io.StringIO((tmp_path / "per_sequence.csv").read_text()))
    )
    assert len(rows) == 4 * 2 * 3
    bear = [r for r in rows if r["sequence"] == "bear" and r["kind"] == "oracle"]
    assert {r["protocol"]: r["frames"] for r in bear}["official"] == "1"
    assert float(bear[0]["J_mean"]) == pytest.approx(0.9)
