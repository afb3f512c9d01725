"""J, F and statistics against the official DAVIS toolkit, to the last digit."""

import re

import numpy as np
import pytest

from imas_jax.evaluation import metrics

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def golden(authors):
    return authors.load("metrics")


@pytest.fixture(scope="module")
def unpack(authors):
    return authors.recipe.unpack


def worst(ours, theirs):
    return np.abs(np.asarray(ours) - np.asarray(theirs)).max()


def test_degenerate_pairs_score_exactly_as_officially(golden, unpack, record):
    shape = golden["degenerate/shape"]
    for i, name in enumerate(golden["degenerate/names"]):
        truth = unpack(golden["degenerate/gt_bits"][i], shape)
        mask = unpack(golden["degenerate/pred_bits"][i], shape)
        for letter, score in (("J", metrics.jaccard), ("F", metrics.boundary_f)):
            gap = worst(score(mask, truth), golden[f"degenerate/{letter}"][i])
            record("metrics", f"degenerate {name}, {letter}", gap, None, 0)


def test_boundaries_are_the_official_pixels(golden, unpack, record):
    shape = golden["degenerate/shape"]
    for which in ("gt", "pred"):
        wrong = 0
        for i in range(len(golden["degenerate/names"])):
            mask = unpack(golden[f"degenerate/{which}_bits"][i], shape)
            edge = unpack(golden[f"degenerate/{which}_boundary_bits"][i], shape)
            wrong += np.count_nonzero(metrics.boundary(mask) != edge)
        record("metrics", f"{which} boundary, differing pixels", wrong, None, 0)


def test_a_sequence_scores_exactly_as_officially(golden, unpack, record):
    for key in golden:
        if not key.endswith("/stored_frame_index"):
            continue
        clip = key.split("/")[0]
        shape = golden[f"{clip}/shape"]
        for letter, score in (("J", metrics.jaccard), ("F", metrics.boundary_f)):
            ours = [
                score(unpack(mask, shape), unpack(truth, shape))
                for mask, truth in zip(
                    golden[f"{clip}/pred_bits"], golden[f"{clip}/gt_bits"], strict=True
                )
            ]
            theirs = golden[f"{clip}/{letter}"][golden[key]]
            quantity = f"{clip}, {letter} of {len(ours)} frames"
            record("metrics", quantity, worst(ours, theirs), None, 0)


def test_statistics_are_exactly_the_official_ones(golden, record):
    checked = 0
    for key, theirs in golden.items():
        if found := re.fullmatch(r"(series/\d+)_mean_recall_decay", key):
            values = golden[f"{found[1]}_in"]
        elif found := re.fullmatch(r"(.+/[JF])_stats_mean_recall_decay", key):
            values = golden[found[1]]
        else:
            continue
        ours = metrics.statistics(values)
        gap = worst([ours.mean, ours.recall, ours.decay], theirs)
        record("metrics", f"{found[1]} mean, recall, decay", gap, None, 0)
        checked += 1
    assert checked
