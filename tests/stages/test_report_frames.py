from imas_jax.stages.report_frames import UNSURE, WORST, choose_frames


def test_the_worst_of_all_frames_are_shown_wherever_they_are():
    values = {t: 0.9 for t in range(100)} | {37: 0.1, 38: 0.2, 71: 0.3}
    shown = choose_frames(100, 5, values)
    assert shown == sorted({0, 25, 50, 74, 99} | {37, 38, 71})
    assert len(shown) == 5 + WORST


def test_without_values_frames_are_spread():
    assert choose_frames(9, 3, {}) == [0, 4, 8]
    assert choose_frames(2, 8, {}) == [0, 1]


def test_sparse_annotations_rank_only_what_they_annotate():
    assert choose_frames(50, 1, {20: 0.5, 40: 0.4}) == [0, 20, 40]


def test_the_most_unsure_frames_are_shown_too():
    doubts = [0.1] * 100
    doubts[7], doubts[60] = 0.5, 0.4
    shown = choose_frames(100, 3, {5: 0.2}, doubts)
    assert shown == [0, 5, 7, 50, 60, 99]
    assert len(shown) == 3 + 1 + UNSURE
