"""Ranked tables: order, intervals, and text."""

import json

import numpy as np
import pytest

from imas_jax.appearance import ranking
from imas_jax.appearance.alignment import FrameScores


def scored(names, table):
    """One frame a sequence; `table` is (sequences, candidates)."""
    frames = {
        f"s{i}": [FrameScores(np.array(row), np.array(row) == 0)]
        for i, row in enumerate(table)
    }
    return ranking.Scored(tuple(names), frames)


def test_candidates_of_all_groups_are_ranked_together():
    groups = [
        scored(["a 0", "a 1"], [[0.2, 0.9], [0.4, 0.7]]),
        scored(["b"], [[0.85], [0.85]]),
    ]
    found = ranking.rank("motion", groups)
    assert found.best == "b"
    assert [row.name for row in found.rows()] == ["b", "a 1", "a 0"]
    assert [row.score for row in found.rows()] == pytest.approx([0.85, 0.8, 0.3])


def test_frames_are_averaged_before_sequences():
    frames = {
        "long": [FrameScores(np.array([1.0]), np.array([False]))] * 3,
        "short": [FrameScores(np.array([0.0]), np.array([True]))],
    }
    row = ranking.rank("x", [ranking.Scored(("a",), frames)]).rows()[0]
    assert row.score == 0.5
    assert row.discarded == 0.5


def test_the_interval_is_that_of_a_mean_over_sequences():
    values = np.random.default_rng(0).uniform(size=(40, 1))
    row = ranking.rank("x", [scored(["a"], values)]).rows()[0]
    error = values.std() / np.sqrt(40)
    assert row.low == pytest.approx(values.mean() - 1.96 * error, abs=0.01)
    assert row.high == pytest.approx(values.mean() + 1.96 * error, abs=0.01)


def test_a_candidate_ahead_everywhere_wins_always():
    table = np.stack([np.linspace(0, 0.8, 10), np.linspace(0.1, 0.9, 10)], axis=1)
    rows = ranking.rank("x", [scored(["a", "b"], table)]).rows()
    assert [(row.name, row.wins) for row in rows] == [("b", 1.0), ("a", 0.0)]
    # The intervals overlap all the same: sequences differ more than candidates.
    assert rows[0].low < rows[1].high


def test_the_table_and_its_json_say_the_same():
    found = ranking.rank("both", [scored(["a", "b"], [[0.25, 0.5], [0.0, 0.5]])])
    told = json.loads(json.dumps(found.to_json()))
    assert told["best"] == "b"
    assert told["ranking"][1]["sequences"] == {"s0": 0.25, "s1": 0.0}
    assert told["ranking"][1]["discarded"] == 0.5
    lines = found.text().splitlines()
    assert lines[0].startswith("candidate (both)")
    assert lines[2].split()[:2] == ["b", "0.500"]
    assert "2 sequences" in lines[-1]
