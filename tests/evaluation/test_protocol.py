import dataclasses
import math
import weakref

import numpy as np
import pytest

from imas_jax import errors
from imas_jax.evaluation import protocol
from imas_jax.evaluation.protocol import FramePair, SequenceScore


def scored(name, jaccard, length=None, frames=None, both_empty=None) -> SequenceScore:
    number = len(jaccard)
    return SequenceScore(
        name=name,
        length=length or number,
        frames=tuple(frames or range(number)),
        jaccard=tuple(jaccard),
        boundary=tuple(jaccard),
        both_empty=tuple(both_empty or [False] * number),
    )


TWO = (scored("long", [0.1, 0.8, 0.6, 0.7, 0.3]), scored("short", [0.0, 0.4, 1.0]))


def test_official_drops_both_ends_and_averages_sequences():
    found = protocol.summarize(TWO, "official")
    assert found.jaccard.mean == pytest.approx((0.7 + 0.4) / 2)
    assert found.jaccard.recall == pytest.approx((1.0 + 0.0) / 2)
    assert (found.sequences, found.frames) == (2, 4)


def test_sequence_mean_keeps_every_frame():
    found = protocol.summarize(TWO, "sequence_mean")
    assert found.jaccard.mean == pytest.approx((0.5 + 1.4 / 3) / 2)
    assert found.frames == 8


def test_frame_mean_pools_all_frames():
    found = protocol.summarize(TWO, "frame_mean")
    assert found.jaccard.mean == pytest.approx((2.5 + 1.4) / 8)
    assert found.jaccard.recall == pytest.approx(4 / 8)


def test_official_drops_the_clips_ends_not_the_first_annotated_frames():
    sparse = scored("fbms", [0.2, 0.4, 0.9], length=21, frames=[0, 10, 19])
    found = protocol.summarize((sparse,), "official")
    assert found.jaccard.mean == pytest.approx(0.65)


def test_empty_frames_score_one_or_are_left_out_as_asked():
    score = scored("a", [1.0, 0.5, 0.1, 0.2], both_empty=[True, False, False, False])
    one = protocol.summarize((score,), "frame_mean", "one")
    skip = protocol.summarize((score,), "frame_mean", "skip")
    assert one.jaccard.mean == pytest.approx(1.8 / 4)
    assert skip.jaccard.mean == pytest.approx(0.8 / 3)


def test_a_sequence_without_a_kept_frame_is_left_out_of_the_mean():
    gone = scored("gone", [1.0, 1.0], both_empty=[True, True])
    found = protocol.summarize((gone, scored("a", [0.4, 0.4])), "sequence_mean", "skip")
    assert found.jaccard.mean == pytest.approx(0.4)
    assert found.sequences == 1
    nothing = protocol.summarize((gone,), "frame_mean", "skip")
    assert math.isnan(nothing.jaccard.mean)


def test_an_unknown_protocol_is_refused():
    with pytest.raises((ValueError, TypeError), match="frame_mean"):
        protocol.summarize(TWO, "mean")


def squares(*sizes: int) -> list[np.ndarray]:
    masks = []
    for size in sizes:
        mask = np.zeros((12, 16), bool)
        mask[:size, :size] = True
        masks.append(mask)
    return masks


def test_a_stream_of_frames_is_scored_in_order_of_frames():
    small, large, none = squares(4, 8, 0)
    stream = iter(
        [
            FramePair(5, large, small),
            FramePair(2, none, none),
            FramePair(3, small, small),
        ]
    )
    found = protocol.score_sequence("a", 9, stream)
    assert found.frames == (2, 3, 5)
    assert found.jaccard == (1.0, 1.0, 0.25)
    assert found.both_empty == (True, False, False)
    assert found.boundary[1] == 1.0


def test_frames_are_taken_one_at_a_time():
    seen = []

    def stream():
        for index in range(20):
            pair = FramePair(index, *squares(4, 4))
            seen.append(weakref.ref(pair))
            yield pair
            del pair
            assert sum(ref() is not None for ref in seen) <= 1

    protocol.score_sequence("a", 20, stream(), boundary=False)
    assert len(seen) == 20


def test_boundary_scores_can_be_left_out():
    (mask,) = squares(4)
    found = protocol.score_sequence("a", 3, [FramePair(1, mask, mask)], boundary=False)
    assert math.isnan(found.boundary[0])
    assert math.isnan(protocol.summarize((found,), "official").boundary.mean)
    assert protocol.summarize((found,), "official").jaccard.mean == 1.0


def test_a_mask_of_another_size_is_named():
    (mask,) = squares(4)
    with pytest.raises(errors.UserError, match=r"bear, frame 1: .*\(16, 12\)"):
        protocol.score_sequence("bear", 3, [FramePair(1, mask.T, mask)])


def test_a_frame_that_comes_twice_is_refused():
    (mask,) = squares(4)
    pair = FramePair(1, mask, mask)
    with pytest.raises(ValueError, match="twice"):
        protocol.score_sequence("bear", 3, [pair, pair])


def test_a_missing_mask_leaves_out_the_numbers_that_need_it():
    last = dataclasses.replace(scored("torn", [0.2, 0.4, 0.6], length=4), missing=(3,))
    for scores in ((last,), (last, *TWO)):
        official = protocol.summarize(scores, "official").jaccard
        whole = protocol.summarize(
            [scored("torn", [0.2, 0.4, 0.6, 0.0]), *scores[1:]], "official"
        )
        assert (official.mean, official.recall) == (
            whole.jaccard.mean,
            whole.jaccard.recall,
        )
        for which in ("sequence_mean", "frame_mean"):
            assert math.isnan(protocol.summarize(scores, which).jaccard.mean)
    middle = dataclasses.replace(last, missing=(2,))
    assert math.isnan(protocol.summarize((middle,), "official").jaccard.mean)


def test_void_pixels_count_neither_for_nor_against():
    truth = np.zeros((20, 30), bool)
    truth[5:15, 5:15] = True
    void = np.zeros_like(truth)
    void[5:15, 15:20] = True
    wide = truth | void
    for mask in (truth, wide):
        plain = protocol.score_sequence("a", 3, [FramePair(1, mask, truth)])
        spared = protocol.score_sequence("a", 3, [FramePair(1, mask, truth, void)])
        assert spared.jaccard == spared.boundary == (1.0,)
        assert (plain.jaccard == (1.0,)) == (mask is truth)
