import dataclasses

import pytest

from configs import davis
from imas_jax.evaluation import ablations
from imas_jax.evaluation.protocol import Entry, SequenceScore


def entry(mean: float) -> Entry:
    score = SequenceScore("s", 3, (0, 1, 2), (mean,) * 3, (mean,) * 3, (False,) * 3)
    return Entry("stage 2", "aligned", (score,))


@pytest.mark.parametrize("row", ablations.ROWS, ids=lambda row: row.name)
def test_every_row_overrides_fields_the_recipe_has(row):
    config = davis.get_config()
    config.lock()
    before = config.to_dict()
    for name, value in row.overrides.items():
        group, field = name.split(".")
        assert type(before[group][field]) is type(value)
        config[group][field] = value
    assert bool(row.overrides) == (config.to_dict() != before)


def test_names_are_unique_and_the_papers_numbers_are_all_there():
    rows = ablations.ROWS
    assert len({row.name for row in rows}) == len(rows)
    numbers = {
        table: [r.paper for r in rows if r.table == table] for table in (3, 4, 5)
    }
    assert numbers[3] == [67.6, 73.0, 71.0, 76.1, 77.3, 77.7, 79.8]
    assert numbers[4] == [67.6, 69.4, 70.4, 68.8, 73.0]
    assert numbers[5] == [76.1, 77.3, 78.4, 79.5]


def test_rows_that_are_one_run_are_trained_once_and_agree_in_the_paper():
    groups = ablations.distinct()
    assert sum(map(len, groups)) == len(ablations.ABLATIONS)
    assert len(groups) == 12
    assert all(len({row.paper for row in group}) == 1 for group in groups)


def test_the_table_has_mean_and_spread_over_seeds():
    rows = ablations.ABLATIONS[:2]
    results = {"neither": [entry(0.5), entry(0.6)]}
    baseline = Entry("motion baseline", "baseline", entry(0.4).scores)
    table = ablations.spread_table(rows, results, "frame_mean", baseline=baseline)
    assert table.rows[0][:3] == ("motion baseline", "", "40.0")
    assert table.rows[1][:6] == ("neither", "Table 3", "55.0", "7.1", "2", "67.6")
    assert "model.pathway=none" in table.rows[1][6]
    assert table.rows[2][2:5] == ("-", "-", "not run")
    assert table.text()


def test_rows_whose_weights_learned_from_human_labels_are_told():
    shown = dataclasses.replace(entry(0.5), supervised="a classifier")
    table = ablations.spread_table(
        ablations.ABLATIONS[:1], {"neither": [shown, shown]}, "official"
    )
    assert table.notes[1:] == ("supervised weights: a classifier",)


def test_one_seed_has_no_spread():
    table = ablations.spread_table(
        ablations.ABLATIONS[:1], {"neither": [entry(0.5)]}, "official"
    )
    assert table.rows[0][2:5] == ("50.0", "-", "1")
