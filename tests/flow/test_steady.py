import numpy as np
import pytest

from imas_jax.flow import evidence, steady

GRID = (12, 20)
STILL = evidence.Motion(
    np.zeros((*GRID, 2), np.float32), np.zeros((*GRID, 2), np.float32), np.eye(3)
)


def entries(values, scales=None, motion=STILL, gap=1):
    count = len(values)
    scales = scales or [1.0] * count
    return [
        steady.Entry(
            np.full(GRID, value, np.float32),
            scale,
            motion if t + gap < count else None,
            motion if t >= gap else None,
        )
        for t, (value, scale) in enumerate(zip(values, scales, strict=True))
    ]


def middle(frames):
    return np.array([frame[6, 10] for frame in frames])


def test_one_frame_and_constant_evidence_stay_as_they_are():
    for count in (1, 2, 7):
        found = list(steady.steady(entries([0.3] * count)))
        assert len(found) == count
        np.testing.assert_allclose(found, 0.3, rtol=1e-6)


def test_a_frame_hears_its_neighbours_by_how_far_they_are():
    values = [0, 0, 1, 0, 0, 0]
    found = middle(steady.steady(entries(values)))
    kept = steady.KEPT
    expected = [
        kept ** abs(t - 2) / sum(kept ** abs(t - s) for s in range(6)) for t in range(6)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_frames_in_which_more_moves_weigh_more_within_bounds():
    found = middle(steady.steady(entries([0, 1], scales=[1.0, 3.0])))
    kept = 3 * steady.KEPT
    np.testing.assert_allclose(found[0], kept / (1 + kept), rtol=1e-5)
    low, high = steady.WEIGHTS
    extreme = middle(steady.steady(entries([0, 1], scales=[low / 100, 100 * high])))
    bounded = middle(steady.steady(entries([0, 1], scales=[low, high])))
    np.testing.assert_allclose(extreme, bounded)


def test_evidence_follows_what_moves():
    flow = np.zeros((*GRID, 2), np.float32)
    flow[..., 0] = 4  # pixels of a frame twice the grid's size: two columns
    ahead = evidence.Motion(flow, -flow, np.eye(3))
    behind = evidence.Motion(-flow, flow, np.eye(3))
    first, second = np.zeros(GRID, np.float32), np.zeros(GRID, np.float32)
    first[5, 5], second[5, 7] = 1, 1
    found = list(
        steady.steady(
            [
                steady.Entry(first, 1.0, ahead, None),
                steady.Entry(second, 1.0, None, behind),
            ]
        )
    )
    np.testing.assert_allclose(found[0][5, 5], 1)
    np.testing.assert_allclose(found[1][5, 7], 1)
    assert found[0].sum() == pytest.approx(1)


def test_nothing_is_heard_where_a_round_trip_does_not_lead_back():
    lost = evidence.Motion(
        np.zeros((*GRID, 2), np.float32), np.full((*GRID, 2), 9, np.float32), np.eye(3)
    )
    found = middle(steady.steady(entries([0, 1, 0], motion=lost)))
    np.testing.assert_allclose(found, [0, 1, 0], atol=1e-6)


def test_long_shots_are_steadied_in_blocks_that_hardly_show():
    rng = np.random.default_rng(0)
    count = 3 * steady.BLOCK + 5
    values = list(rng.uniform(0, 1, count))
    found = middle(steady.steady(entries(values)))
    assert len(found) == count
    distance = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    weights = steady.KEPT**distance
    exact = weights @ values / weights.sum(1)
    np.testing.assert_allclose(found, exact, atol=0.02)


def test_memory_is_that_of_a_few_blocks():
    taken = 0

    def counted():
        nonlocal taken
        for entry in entries([0.5] * (5 * steady.BLOCK)):
            taken += 1
            yield entry

    for given, _ in enumerate(steady.steady(counted()), start=1):
        assert taken - given < 2 * steady.BLOCK


def test_with_a_gap_every_gapth_frame_is_a_neighbour():
    found = middle(steady.steady(entries([0, 1, 0, 1, 0, 1], gap=2), gap=2))
    np.testing.assert_allclose(found, [0, 1, 0, 1, 0, 1], atol=1e-6)
