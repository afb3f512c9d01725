import clip_writer
import cv2
import numpy as np
import pytest

from imas_jax.flow import motion

CAMERA = np.array([[1.01, 0.02, 3.0], [-0.01, 0.99, -2.0], [1e-5, -2e-5, 1.0]])
SIZE = (60, 90)


def with_object(flow: np.ndarray, moves=(6.0, 4.0)) -> tuple[np.ndarray, np.ndarray]:
    """Let a box move on its own; return flow and the box's mask."""
    box = np.zeros(flow.shape[:2], bool)
    box[20:40, 30:55] = True
    return np.where(box[..., None], flow + np.array(moves), flow), box


def noisy(flow: np.ndarray, pixels: float = 0.1) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, pixels, flow.shape)
    return (flow + noise).astype(np.float32)


def test_background_flow_moves_points_as_the_homography_does():
    flow = motion.background_flow(CAMERA, SIZE)
    points = np.array([[[0.0, 0.0]], [[89.0, 0.0]], [[40.0, 31.0]]])
    moved = cv2.perspectiveTransform(points, CAMERA)
    for (x, y), target in zip(points[:, 0].astype(int), moved[:, 0], strict=True):
        np.testing.assert_allclose(flow[y, x], target - (x, y), atol=1e-4)


def test_a_coarse_grid_holds_the_values_of_the_frame_where_its_cells_lie():
    fine = motion.background_flow(CAMERA, SIZE)
    coarse = motion.background_flow(CAMERA, (30, 45), SIZE)
    means = fine.reshape(30, 2, 45, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(coarse, means, atol=1e-3)


@pytest.mark.parametrize("grid", [SIZE, (30, 45)])
def test_the_camera_is_found_beside_a_moving_object(grid):
    flow, _ = with_object(motion.background_flow(CAMERA, SIZE))
    if grid != SIZE:
        flow = cv2.resize(flow, grid[::-1], interpolation=cv2.INTER_AREA)
    found = motion.fit_background(noisy(flow), SIZE)
    error = motion.background_flow(found, SIZE) - motion.background_flow(CAMERA, SIZE)
    assert np.abs(error).max() < 0.3


def test_the_same_flow_gives_the_same_homography():
    flow = noisy(with_object(motion.background_flow(CAMERA, SIZE))[0], 1.0)
    cv2.setRNGSeed(1)
    first = motion.fit_background(flow)
    cv2.setRNGSeed(2)
    assert (first == motion.fit_background(flow)).all()


def test_the_baseline_finds_an_object_under_a_moving_camera():
    flow, box = with_object(motion.background_flow(CAMERA, SIZE))
    flow = noisy(flow)
    mask = motion.motion_mask(flow, motion.fit_background(flow))
    assert (mask & box).sum() / (mask | box).sum() > 0.99


def test_a_still_frame_has_an_empty_mask():
    flow = np.zeros((*SIZE, 2), np.float32)
    homography = motion.fit_background(flow)
    np.testing.assert_allclose(homography, np.eye(3), atol=1e-9)
    assert not motion.motion_mask(flow, np.eye(3)).any()


def test_flow_without_any_finite_point_has_no_camera_motion():
    flow = np.full((*SIZE, 2), np.nan, np.float32)
    assert (motion.fit_background(flow) == np.eye(3)).all()
    assert not motion.motion_mask(flow, np.eye(3)).any()


def test_subtracting_the_background_leaves_what_the_object_does_itself():
    flow, box = with_object(motion.background_flow(CAMERA, SIZE), (6.0, 4.0))
    own = motion.subtract_background(flow.astype(np.float32), CAMERA)
    np.testing.assert_allclose(own[box], np.tile([6.0, 4.0], (box.sum(), 1)), atol=1e-4)
    np.testing.assert_allclose(own[~box], 0.0, atol=1e-4)


def test_a_translation_and_its_reverse_agree_inside_the_frame():
    flow = np.broadcast_to(np.float32([5.0, 0.0]), (*SIZE, 2)).copy()
    agree = motion.consistency(flow, -flow)
    assert agree[:, :-5].all()
    assert not agree[:, -5:].any()  # leaves the frame
    assert not motion.consistency(flow, flow)[:, :-5].any()


def test_consistency_counts_pixels_of_the_frame_on_a_coarse_grid():
    flow = np.broadcast_to(np.float32([10.0, 0.0]), (30, 45, 2)).copy()
    agree = motion.consistency(flow, -flow, SIZE)
    assert agree[:, :-5].all()
    assert not agree[:, -5:].any()  # 10 px of the frame are 5 cells


def test_an_affine_motion_explains_itself_and_an_object_less():
    affine = motion.background_flow(
        np.array([[1.02, 0.01, 4], [0, 0.97, 2], [0, 0, 1.0]]), SIZE
    )
    assert motion.affine_share(affine) > 0.999999
    flow, _ = with_object(np.zeros((*SIZE, 2)))
    assert 0.0 < motion.affine_share(flow) < 0.7
    assert motion.affine_share(np.zeros((*SIZE, 2), np.float32)) == 1.0


def flags(flow: np.ndarray, opposite: np.ndarray) -> set[str]:
    said = motion.quality(flow, opposite, motion.fit_background(flow))
    names = ("no_motion", "camera_only", "inconsistent")
    return {name for name in names if said[name]}


def test_quality_flags_name_what_is_wrong_with_a_pair():
    still = noisy(np.zeros((*SIZE, 2)), 0.02)
    camera = motion.background_flow(CAMERA, SIZE)
    moving, _ = with_object(camera)
    moving = moving.astype(np.float32)
    rng = np.random.default_rng(1)
    assert flags(still, -still) == {"no_motion"}
    assert flags(camera, -camera) == {"camera_only"}
    assert flags(moving, -moving) == set()
    wild = rng.normal(0, 20, (2, *SIZE, 2)).astype(np.float32)
    assert flags(*wild) == {"inconsistent"}


def test_quality_measures_magnitude_in_pixels():
    flow = np.zeros((10, 10, 2), np.float32)
    flow[:, :8] = (3.0, 4.0)
    said = motion.quality(flow, -flow, np.eye(3))
    assert said["median"] == 5.0
    assert said["p95"] == 5.0
    assert said["residual_p95"] == 5.0


def test_real_estimates_keep_the_baseline_on_the_moving_square():
    before, after = clip_writer.moving_frames(2, size=(96, 128), step=4, side=32)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in (before, after)]
    flow = dis.calc(*grey, None)
    mask = motion.motion_mask(flow, motion.fit_background(flow))
    square = np.zeros((96, 128), bool)
    square[20:52, 10:42] = True
    assert (mask & square).sum() / (mask | square).sum() > 0.7
