import dataclasses

import numpy as np
import pytest

from imas_jax.evaluation import compare
from imas_jax.evaluation.protocol import Entry, SequenceScore


def entry(label: str, values: dict[str, list[float]]) -> Entry:
    scores = tuple(
        SequenceScore(
            name, len(v), tuple(range(len(v))), tuple(v), tuple(v), (False,) * len(v)
        )
        for name, v in values.items()
    )
    return Entry(label, "aligned", scores)


A = entry("A", {"x": [0.5] * 2, "y": [0.6] * 6})
B = entry("B", {"x": [0.7] * 2, "y": [0.5] * 6})


def test_differences_are_paired_by_sequence():
    found = compare.compare(A, B, "sequence_mean")
    assert found.differences == pytest.approx({"x": 0.2, "y": -0.1})
    assert found.mean == pytest.approx(0.05)
    assert found.better == 1


def test_frame_mean_weighs_sequences_by_their_frames():
    found = compare.compare(A, B, "frame_mean")
    assert found.mean == pytest.approx((0.2 * 2 - 0.1 * 6) / 8)


def test_the_interval_of_two_sequences_runs_from_one_to_the_other():
    found = compare.compare(A, B, "sequence_mean")
    assert found.low == pytest.approx(-0.1)
    assert found.high == pytest.approx(0.2)


def test_the_interval_is_about_two_standard_errors_wide():
    rng = np.random.default_rng(3)
    gains = rng.normal(0.03, 0.1, 200)
    before = entry("A", {str(i): [0.5] for i in range(200)})
    after = entry("B", {str(i): [0.5 + gain] for i, gain in enumerate(gains)})
    found = compare.compare(before, after, "sequence_mean")
    error = gains.std() / np.sqrt(200)
    assert found.low == pytest.approx(gains.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(gains.mean() + 1.96 * error, abs=0.15 * error)


def test_a_constant_gain_is_certain():
    better = entry("B", {"x": [0.51] * 2, "y": [0.61] * 6})
    found = compare.compare(A, better, "frame_mean")
    assert (found.low, found.high) == pytest.approx((0.01, 0.01))


def test_the_same_arguments_give_the_same_interval():
    assert compare.compare(A, B, "official") == compare.compare(A, B, "official")


def test_other_sequences_or_frames_are_not_compared():
    with pytest.raises(ValueError, match="other sequences"):
        compare.compare(A, entry("B", {"x": [0.5] * 2}), "official")
    with pytest.raises(ValueError, match="x differs"):
        compare.compare(A, entry("B", {"x": [0.5], "y": [0.6] * 6}), "frame_mean")


def test_the_table_has_signs_and_an_interval():
    table = compare.comparison_table([A, B, A], "sequence_mean")
    assert table.header == ("sequence", "A", "B - A", "A - A")
    assert table.rows[0] == ("x", "50.0", "+20.0", "+0.0")
    assert table.rows[2] == ("sequence_mean", "55.0", "+5.0", "+0.0")
    assert table.rows[3][2] == "-10.0 .. +20.0"
    assert table.rows[4][2] == "1 of 2"
    assert table.text()


def torn(label: str, values: dict[str, list[float]]) -> Entry:
    """A method that left no mask of a sequence's last frame."""
    scores = tuple(
        dataclasses.replace(
            score, length=len(score.frames) + 1, missing=(score.length,)
        )
        for score in entry(label, values).scores
    )
    return Entry(label, "given", scores)


def test_methods_are_compared_where_the_protocol_drops_what_is_missing():
    values = {"x": [0.5] * 4, "y": [0.6] * 6}
    whole = entry("B", {name: [*some, 0.1] for name, some in values.items()})
    found = compare.compare(whole, torn("A", values), "official")
    assert found.mean == pytest.approx(0)
    with pytest.raises(ValueError, match="x differs"):
        compare.compare(whole, torn("A", values), "sequence_mean")
    with pytest.raises(ValueError, match="x differs"):
        compare.compare(torn("A", values), torn("B", values), "sequence_mean")


def test_frames_that_some_method_lacks_do_not_count_for_any():
    more = entry("B", {"x": [0.5] * 3, "y": [0.6] * 6, "z": [0.1]})
    kept, lines = compare.on_common_frames([more, A])
    assert [[len(s.frames) for s in one.scores] for one in kept] == [[2, 6], [2, 6]]
    assert lines == (
        "8 of 10 frames have a mask in every folder: the others do not count",
    )
    assert compare.on_common_frames([A, B])[1] == ()
