"""J, F and statistics against the official DAVIS toolkit, to the last digit."""

import numpy as np
import pytest

from imas_jax.evaluation import metrics

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def golden(parity_dir):
    with np.load(parity_dir / "metrics.npz") as file:
        return dict(file)


def unpack(bits: np.ndarray, shape: np.ndarray) -> np.ndarray:
    h, w = map(int, shape)
    return np.unpackbits(bits)[: h * w].reshape(h, w).astype(bool)


def test_degenerate_pairs_score_exactly_as_officially(golden):
    shape = golden["degenerate/shape"]
    for i, name in enumerate(golden["degenerate/names"]):
        truth = unpack(golden["degenerate/gt_bits"][i], shape)
        mask = unpack(golden["degenerate/pred_bits"][i], shape)
        assert metrics.jaccard(mask, truth) == golden["degenerate/J"][i], name
        assert metrics.boundary_f(mask, truth) == golden["degenerate/F"][i], name


def test_boundaries_are_the_official_pixels(golden):
    shape = golden["degenerate/shape"]
    for which in ("gt", "pred"):
        for i, name in enumerate(golden["degenerate/names"]):
            mask = unpack(golden[f"degenerate/{which}_bits"][i], shape)
            edge = unpack(golden[f"degenerate/{which}_boundary_bits"][i], shape)
            np.testing.assert_array_equal(metrics.boundary(mask), edge, err_msg=name)


def test_a_davis_sequence_scores_exactly_as_officially(golden):
    shape = golden["blackswan/shape"]
    for i, frame in enumerate(golden["blackswan/stored_frame_index"]):
        truth = unpack(golden["blackswan/gt_bits"][i], shape)
        mask = unpack(golden["blackswan/pred_bits"][i], shape)
        assert metrics.jaccard(mask, truth) == golden["blackswan/J"][frame]
        assert metrics.boundary_f(mask, truth) == golden["blackswan/F"][frame]


@pytest.mark.parametrize("letter", ["J", "F"])
def test_a_davis_sequence_has_exactly_the_official_statistics(golden, letter):
    found = metrics.statistics(golden[f"blackswan/{letter}"])
    expected = golden[f"blackswan/{letter}_stats_mean_recall_decay"]
    np.testing.assert_array_equal([found.mean, found.recall, found.decay], expected)


@pytest.mark.parametrize("length", [4, 5, 7, 10, 30, 49])
def test_statistics_of_a_series_are_exactly_the_official_ones(golden, length):
    found = metrics.statistics(golden[f"series/{length}_in"])
    expected = golden[f"series/{length}_mean_recall_decay"]
    np.testing.assert_array_equal([found.mean, found.recall, found.decay], expected)
