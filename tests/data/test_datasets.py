"""What is known of a data set is its record; pages and recipes agree with it."""

import importlib
import re
from pathlib import Path

import pytest

from imas_jax.data import layouts
from imas_jax.data.datasets import DATASETS
from imas_jax.evaluation import paper

ROOT = Path(__file__).parents[2]
recorded = pytest.mark.parametrize("layout", DATASETS)


@recorded
def test_the_page_on_data_says_what_the_record_says(layout):
    dataset = DATASETS[layout]
    page = (ROOT / "docs" / "data.md").read_text()
    (row,) = [
        line for line in page.splitlines() if line.startswith(f"| {dataset.title} ")
    ]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == [dataset.title, dataset.source, dataset.licence]
    numbers = [int(n) for n in re.findall(r"\d+", cells[3].replace(",", ""))]
    every = dataset.counts.get("", dataset.counts.get("trainval"))
    if every:
        assert numbers[:2] == list(every)


@recorded
def test_the_recipe_trains_and_scores_sets_that_the_record_has(layout):
    dataset = DATASETS[layout]
    config = importlib.import_module(f"configs.{layout}").get_config()
    assert config.data.layout == layout
    assert config.evaluate.split == (dataset.scored or "")
    known = {*dataset.splits, *dataset.counts, ""}
    assert {config.data.split, config.evaluate.split} <= known


@recorded
def test_the_paper_has_a_number_for_each_sequence_that_is_scored(layout):
    dataset = DATASETS[layout]
    published = paper.PER_SEQUENCE.get(layout, {})
    assert bool(published) == (dataset.scored is not None)
    if published:
        assert len(published) == dataset.counts[dataset.scored][0]


@recorded
def test_every_image_set_is_made_of_parts_there_are(layout):
    dataset = DATASETS[layout]
    assert layout in layouts.LAYOUTS
    used = {part for parts in dataset.splits.values() for part in parts}
    if dataset.splits:
        assert used == set(range(len(dataset.parts)))
