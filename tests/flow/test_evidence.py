import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imas_jax import errors
from imas_jax.flow import estimators, evidence, files, motion
from imas_jax.models import evidence_net
from imas_jax.rendered import film, samples
from imas_jax.tools import evidence as training

GRID = (120, 160)
FRAME = (240, 320)
WEIGHTS = evidence.weights("dis")


def shift(x, y=0.0):
    """Return the motion of a frame that moves as one, and its camera."""
    flow = np.full((*GRID, 2), (x, y), np.float32)
    matrix = np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])
    return evidence.Motion(flow, -flow, matrix)


def picture(seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (12, 16, 3)).astype(np.float32)
    return cv2.resize(coarse, GRID[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1)


def test_the_grid_has_the_frames_shape_and_one_short_side():
    assert evidence.grid_size((240, 428)) == (120, 214)
    assert evidence.grid_size((854, 480)) == (214, 120)
    assert evidence.shrink(np.zeros((240, 428, 3), np.uint8)).shape == (120, 214, 3)


def test_the_size_of_frames_and_of_stored_flow_changes_nothing():
    matrix = np.array([[1.0, 0, 4.0], [0, 1, -2.0], [0, 0, 1]])
    flow = np.full((120, 160, 2), (4.0, -2.0), np.float32)
    small = evidence.to_grid(flow, -flow, matrix, FRAME)
    double = matrix.copy()
    double[:2, 2] *= 2
    twice = np.full((240, 320, 2), (8.0, -4.0), np.float32)
    large = evidence.to_grid(twice, -twice, double, (480, 640))
    np.testing.assert_allclose(small.flow, large.flow, atol=1e-5)
    np.testing.assert_allclose(small.opposite, large.opposite, atol=1e-5)
    np.testing.assert_allclose(small.homography, large.homography, atol=1e-9)
    np.testing.assert_allclose(small.homography, matrix, atol=1e-9)


def test_camera_motion_is_the_same_on_the_grid_as_in_the_frame():
    angle = 0.02
    matrix = np.array(
        [
            [np.cos(angle), -np.sin(angle), 3],
            [np.sin(angle), np.cos(angle), 1],
            [0, 0, 1],
        ]
    )
    size = (480, 640)
    flow = motion.background_flow(matrix, (240, 320), size)
    found = evidence.to_grid(flow, flow, matrix, size)
    h, w = GRID
    camera = motion.background_flow(found.homography, GRID, (2 * h, 2 * w))
    np.testing.assert_allclose(found.flow, camera, atol=1e-3)


def test_motions_chain_like_steps():
    both = evidence.chain(shift(3, 1), shift(2, -2))
    np.testing.assert_allclose(both.flow, shift(5, -1).flow)
    np.testing.assert_allclose(both.opposite, shift(5, -1).opposite)
    np.testing.assert_allclose(both.homography, shift(5, -1).homography)


def test_neighbours_beyond_the_clip_are_unknown():
    ahead = {t: shift(1) for t in range(5)}
    behind = {t + 1: shift(-1) for t in range(5)}
    middle = evidence.neighbours(3, ahead, behind)
    assert [m is None for m in middle] == [False, False, True, False]
    np.testing.assert_allclose(middle[3].flow[0, 0], (-3, 0))
    assert [m is None for m in evidence.neighbours(0, ahead, behind)] == [
        False,
        True,
        False,
        True,
    ]


def test_what_is_unknown_repeats_what_is_known():
    frame = picture()
    there, back = (shift(4), frame), (shift(-4), frame)
    every = evidence.observe(frame, [there, back, there, back])
    one = evidence.observe(frame, [None, back, None, None])
    # All point forward in time: a twin that moves the other way says the same.
    np.testing.assert_allclose(one.looks[..., :3], every.looks[..., :3], atol=1e-5)
    np.testing.assert_allclose(one.camera, every.camera, atol=1e-4)
    with pytest.raises(ValueError, match="neither neighbour"):
        evidence.observe(frame, [None, None, there, back])


def test_a_frame_the_camera_explains_shows_no_change_and_no_motion():
    frame = picture()
    matrix = np.array([[1, 0, 8.0], [0, 1, 0]])
    # 8 px of the frame are 4 of the grid.
    later = cv2.warpAffine(frame, matrix - [[0, 0, 4], [0, 0, 0]], GRID[::-1])
    seen = evidence.observe(frame, [(shift(8), later), None, None, None])
    assert np.abs(seen.looks[:, :150]).max() < 1e-3
    np.testing.assert_allclose(seen.scales, evidence.LEAST)
    moved = evidence.observe(frame, [(shift(8), frame), None, None, None])
    assert moved.looks[..., 3].mean() > 0.05


def test_features_are_of_the_order_of_one_however_fast_things_are():
    sample = samples.make(estimators.Estimator(estimators.Dis()), 0, 1)
    looks, camera, scales = (
        jnp.asarray(part, jnp.float32)[None]
        for part in (sample.looks, sample.camera, sample.scales)
    )
    for speed in (0.1, 1, 50):
        faster = looks.at[..., 0::4].multiply(speed).at[..., 1::4].multiply(speed)
        x = evidence.features(faster, camera * speed, scales * speed)
        assert x.shape == (*looks.shape[:3], evidence.CHANNELS)
        assert jnp.abs(x).max() < 5


@pytest.mark.parametrize("estimator", ["dis", "raft", "import"])
def test_the_packaged_networks_load_and_answer_with_probabilities(estimator):
    network, frame = evidence.load(evidence.weights(estimator)), picture()
    look = (shift(2), frame)
    found = network(evidence.observe(frame, [look, None, None, None]))
    assert found.shape == GRID
    assert (found >= 0).all()
    assert (found <= 1).all()


def test_a_scene_in_a_mirror_and_backwards_in_time_is_seen_like_the_scene():
    network, frame = evidence.load(WEIGHTS), picture()
    ahead, behind = shift(3, 1), shift(-3, -1)
    ahead.flow[40:80, 30:60] += 4
    behind.flow[40:80, 20:50] -= 4
    looks = [(ahead, picture(1)), (behind, picture(2)), None, None]
    seen = evidence.observe(frame, looks)
    turned = []
    for motion_there, other in (looks[1], looks[0]):
        flow, opposite = (
            field[:, ::-1] * np.float32([-1, 1])
            for field in (motion_there.flow, motion_there.opposite)
        )
        mirror = np.array([[-1.0, 0, GRID[1] - 1], [0, 1, 0], [0, 0, 1]])
        camera = mirror @ motion_there.homography @ mirror
        turned.append((evidence.Motion(flow, opposite, camera), other[:, ::-1]))
    there = evidence.observe(frame[:, ::-1], [*turned, None, None])
    parts = (seen.looks, seen.camera, seen.scales)
    mirrored = evidence.mirrored(*(jnp.asarray(part)[None] for part in parts))
    wanted = (there.looks, there.camera, there.scales)
    for one, expected in zip(mirrored, wanted, strict=True):
        np.testing.assert_allclose(one[0], expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(network(seen), network(there)[:, ::-1], atol=1e-3)


def test_the_packaged_weights_are_small_and_known_by_their_digests():
    paths = {evidence.weights(estimator) for estimator in ("dis", "raft", "import")}
    assert sum(path.stat().st_size for path in paths) <= 3e6
    digests = {evidence.digest(path) for path in paths}
    assert len(digests) == len(paths) == 2
    assert {len(digest) for digest in digests} == {16}


def test_weights_survive_a_round_trip(tmp_path):
    members = evidence.read_weights(WEIGHTS)
    evidence.write_weights(tmp_path / "again.npz", members)
    again = evidence.Network(evidence.read_weights(tmp_path / "again.npz"))
    seen = evidence.observe(picture(), [(shift(2), picture(1)), None, None, None])
    np.testing.assert_array_equal(again(seen), evidence.load(WEIGHTS)(seen))


def test_stored_kernels_are_off_by_half_a_step_and_all_else_is_exact(tmp_path):
    rng = np.random.default_rng(0)
    template = evidence_net.template(
        evidence_net.EvidenceNet((2, 4)), evidence.CHANNELS
    )
    given = jax.tree.map(lambda one: rng.normal(size=one.shape), template)
    evidence.write_weights(tmp_path / "stored.npz", [given])
    (stored,) = evidence.read_weights(tmp_path / "stored.npz")
    named = zip(jax.tree.leaves_with_path(given), jax.tree.leaves(stored), strict=True)
    for (path, before), after in named:
        step = 0.0
        if path[-1].key == "kernel":
            step = np.abs(before).max(axis=tuple(range(before.ndim - 1))) / 127
        assert (np.abs(after - before) <= step / 2 + 1e-6).all()


def test_what_is_said_is_the_mean_of_the_networks():
    seen = evidence.observe(picture(), [(shift(2), picture(1)), None, None, None])
    members = evidence.read_weights(WEIGHTS)
    assert len(members) > 1
    each = [evidence.Network([one])(seen) for one in members]
    assert np.abs(each[0] - each[1]).max() > 0.01
    np.testing.assert_allclose(
        evidence.load(WEIGHTS)(seen), np.mean(each, axis=0), atol=1e-5
    )


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_a_file_that_holds_no_evidence_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "evidence.npz"
    if damage == "cut":
        path.write_bytes(WEIGHTS.read_bytes()[:5000])
    if damage == "foreign":
        np.savez(path, **{"params/other": np.zeros(3)})
    with pytest.raises(errors.UserError, match=r"evidence\.npz is no file"):
        evidence.read_weights(path)


def test_evidence_beats_otsu_where_the_camera_moves_through_depth():
    """On rendered clips no network has seen: another seed than configs/motion.py's."""
    scores = np.array([both_scores(number) for number in range(8)])
    otsu, learned = scores.mean(axis=0)
    assert learned > otsu + 0.1
    assert learned > 0.35


def both_scores(number):
    """Return the baseline's and the evidence's J on a rendered frame."""
    estimator = estimators.Estimator(estimators.Dis())
    seed = 977
    take = film.render(seed, number, samples.SIZES[number], (0, 1))
    flow = files.half_resolution(estimator(take.frames[0], take.frames[1])[0])
    size = take.mask.shape
    homography = motion.fit_background(flow, size)
    otsu = motion.motion_mask(cv2.resize(flow, size[::-1]), homography)
    union = np.count_nonzero(otsu | take.mask)
    baseline = np.count_nonzero(otsu & take.mask) / union if union else 1.0
    members = evidence.read_weights(WEIGHTS)
    sample = samples.make(estimator, seed, number)
    return baseline, np.mean([training.jaccard(one, [sample]) for one in members])
