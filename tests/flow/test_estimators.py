import concurrent.futures
import time

import clip_writer
import cv2
import jax
import numpy as np
import pytest

from imas_jax import errors
from imas_jax.flow import estimators, raft

BEFORE, AFTER = clip_writer.moving_frames(2, size=(96, 160), step=4, side=40)
SQUARE = (slice(28, 52), slice(18, 42))  # inside the moving square, off its border
BACKGROUND = (slice(70, 96), slice(80, 160))


def flow_of(**settings) -> estimators.FlowPair:
    config = clip_writer.config("unused").flow
    config.update(settings)
    return estimators.make_estimator(config)(BEFORE, AFTER)


def test_dis_measures_pixels_in_both_directions():
    forward, backward = flow_of()
    assert forward.shape == backward.shape == (96, 160, 2)
    assert forward.dtype == np.float32
    np.testing.assert_allclose(np.median(forward[SQUARE], (0, 1)), [4, 0], atol=0.3)
    np.testing.assert_allclose(np.median(backward[SQUARE], (0, 1)), [-4, 0], atol=0.3)
    assert np.abs(np.median(forward[BACKGROUND], (0, 1))).max() < 0.1


@pytest.mark.parametrize(("short_side", "scale"), [(48, 0.5), (96, 1), (192, 2)])
def test_another_working_size_keeps_pixels_of_the_frame(short_side, scale):
    seen = []

    def stand_in(frames0, frames1):
        seen.append(frames0.shape)
        flow = np.broadcast_to(np.float32([4, -2]) * scale, (*frames0.shape[:3], 2))
        return flow.copy(), -flow

    forward, backward = estimators.Estimator(stand_in, short_side)(BEFORE, AFTER)
    assert seen == [(1, 96 * scale, 160 * scale, 3)]
    np.testing.assert_allclose(forward, np.broadcast_to([4.0, -2.0], (96, 160, 2)))
    np.testing.assert_allclose(backward, np.broadcast_to([-4.0, 2.0], (96, 160, 2)))


def test_a_larger_working_size_still_measures_the_frame_s_pixels():
    forward, _ = flow_of(size=192)
    np.testing.assert_allclose(np.median(forward[SQUARE], (0, 1)), [4, 0], atol=0.3)


def test_resizing_a_flow_scales_each_component_by_its_axis():
    flow = np.broadcast_to(np.float32([3.0, 5.0]), (20, 30, 2)).copy()
    bigger = estimators.resize_flow(flow, (40, 90))
    np.testing.assert_allclose(bigger, np.broadcast_to([9.0, 10.0], (40, 90, 2)))


def test_the_number_of_opencv_threads_does_not_change_the_flow():
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        single = flow_of()
        cv2.setNumThreads(4)
        several = flow_of()
    finally:
        cv2.setNumThreads(before)
    assert all((a == b).all() for a, b in zip(single, several, strict=True))


def test_the_digest_changes_with_what_the_flow_depends_on_only():
    config = clip_writer.config("unused").flow
    plain = estimators.digest(config)
    config.iterations = 3  # RAFT's
    assert estimators.digest(config) == plain
    config.size = 480
    assert estimators.digest(config) != plain


def raft_config(tmp_path, **changes):
    weights = tmp_path / "raft.pth"
    weights.write_bytes(b"weights")
    config = clip_writer.config("unused").flow
    config.update({"estimator": "raft", "weights": str(weights), **changes})
    return config


def test_flow_by_other_arithmetic_never_has_the_same_name(tmp_path):
    changes = (
        {},
        {"iterations": 3},
        {"precision": "bfloat16"},
        {"correlation": "volume"},
        {"correlation": "on_demand"},
        {"size": 480},
    )
    names = {estimators.digest(raft_config(tmp_path, **c)) for c in changes}
    assert len(names) == len(changes)


def test_precision_and_correlation_reach_the_network(tmp_path, monkeypatch):
    asked = []

    def make_raft(*arguments):
        asked.append(arguments)
        return StandIn(0)

    monkeypatch.setattr(raft, "make_raft", make_raft)
    changes = {"iterations": 7, "precision": "bfloat16", "correlation": "on_demand"}
    config = raft_config(tmp_path, **changes)
    estimators.make_estimator(config)
    assert asked == [(tmp_path / "raft.pth", 7, "bfloat16", "on_demand")]


@pytest.mark.slow  # compiles the network
def test_raft_runs_through_the_same_door(shared):
    weights = shared / "weights/raft-small.pth"
    config = clip_writer.config("unused").flow
    config.update({"estimator": "raft", "weights": str(weights), "iterations": 2})
    assert estimators.digest(config).startswith("raft-c7d41b9cc88442bb-it2")
    forward, backward = estimators.make_estimator(config)(BEFORE, AFTER)
    assert forward.shape == backward.shape == (96, 160, 2)
    # RAFT is rough on frames this small; its numbers are tested with its network.
    assert 1 < np.median(forward[SQUARE][..., 0]) < 6
    assert -6 < np.median(backward[SQUARE][..., 0]) < -1


def test_raft_without_weights_says_where_they_are_published():
    for weights in ("", "gone.pth"):
        for call in (estimators.make_estimator, estimators.digest):
            config = clip_writer.config("unused").flow
            config.update({"estimator": "raft", "weights": weights})
            with pytest.raises(errors.UserError, match="raft_things"):
                call(config)


class StandIn:
    """Adds its own number to the difference of the frames' means."""

    def __init__(self, number: int):
        self.number, self.shapes, self.devices = number, [], set()

    def batch(self, frames0, frames1):
        self.shapes.append(frames0.shape)
        self.devices.add(jax.numpy.zeros(1).device)
        time.sleep(0.01)
        change = (frames1.astype(float) - frames0).mean((1, 2, 3))
        flow = np.broadcast_to(change[:, None, None, None], (*frames0.shape[:3], 2))
        return flow, -flow


def test_a_pool_keeps_every_device_busy_and_pads_short_batches():
    copies = [(device, StandIn(n)) for n, device in enumerate(jax.local_devices()[:3])]
    pool = estimators.DevicePool(copies, batch_size=4)
    frames0 = np.zeros((3, 8, 8, 3), np.uint8)
    frames1 = frames0 + np.uint8([10, 20, 30])[:, None, None, None]
    with concurrent.futures.ThreadPoolExecutor(6) as workers:
        calls = [workers.submit(pool, frames0, frames1) for _ in range(12)]
        for call in calls:
            forward, backward = call.result()
            assert forward[:, 0, 0, 0].tolist() == [10, 20, 30]
            assert (backward == -forward).all()
    for device, copy in copies:
        assert copy.devices == {device}
        assert set(copy.shapes) == {(4, 8, 8, 3)}
