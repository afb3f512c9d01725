import dataclasses
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from imas_jax.demo import poses, render, scenes
from imas_jax.errors import UserError

SIZE = (96, 160)
FRAMES = 6


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "clips"
    render.render_demo(root, seed=0, frames=FRAMES, size=SIZE)
    return root


def images(root: Path, clip: str) -> np.ndarray:
    files = sorted((root / "JPEGImages/96p" / clip).iterdir())
    return np.stack([cv2.imread(str(file)) for file in files])


def masks(root: Path, clip: str) -> np.ndarray:
    files = sorted((root / "Annotations/96p" / clip).iterdir())
    return np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files])


def flows(root: Path, clip: str, direction: str) -> np.ndarray:
    files = sorted((root / "Flow/96p" / clip).iterdir())
    return np.stack([np.load(file)[direction] for file in files]).astype(np.float32)


def test_the_folder_has_the_layout_of_davis(demo):
    lines = (demo / "ImageSets/96p/val.txt").read_text().splitlines()
    assert len(lines) == len(scenes.SCENES) * FRAMES
    for line in lines:
        image, mask = (demo / part.lstrip("/") for part in line.split())
        assert image.is_file()
        assert mask.is_file()
    assert (
        lines[0]
        == "/JPEGImages/96p/astronaut/00000.jpg /Annotations/96p/astronaut/00000.png"
    )


@pytest.mark.parametrize("clip", list(scenes.SCENES))
def test_objects_cover_a_fair_part_of_every_frame(demo, clip):
    mask = masks(demo, clip)
    assert set(np.unique(mask)) == {0, 255}
    area = (mask > 0).mean(axis=(1, 2))
    assert area.min() > 0.04
    assert area.max() < 0.25


@pytest.mark.parametrize("clip", list(scenes.SCENES))
def test_every_frame_is_distinct(demo, clip):
    for a, b in itertools.pairwise(images(demo, clip)):
        assert not np.array_equal(a, b)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("clip", list(scenes.SCENES))
def test_flow_brings_the_next_frame_back(demo, clip, direction):
    frames = images(demo, clip).astype(np.float32)
    flow = flows(demo, clip, direction)
    h, w = SIZE
    x, y = np.meshgrid(np.arange(w), np.arange(h))
    for t in range(FRAMES - 1):
        here, there = (t, t + 1) if direction == "forward" else (t + 1, t)
        moved = cv2.remap(
            frames[there],
            (x + flow[t, ..., 0]).astype(np.float32),
            (y + flow[t, ..., 1]).astype(np.float32),
            cv2.INTER_LINEAR,
        )
        inner = cv2.erode((masks(demo, clip)[here] > 0).astype(np.uint8), np.ones(5))
        error = np.abs(moved - frames[here]).mean(-1)[inner > 0]
        unmoved = np.abs(frames[there] - frames[here]).mean(-1)[inner > 0]
        # What is left is the noise of two frames, JPEG and interpolation.
        assert np.median(error) < 8
        still = np.abs(flow[t][inner > 0]).max() < 0.3
        assert still or error.mean() < 0.75 * unmoved.mean()


@pytest.mark.parametrize("clip", list(scenes.SCENES))
def test_masks_move_with_the_flow(demo, clip):
    mask = masks(demo, clip) > 0
    flow = flows(demo, clip, "forward")
    for t in range(FRAMES - 1):
        y, x = np.nonzero(cv2.erode(mask[t].astype(np.uint8), np.ones(3)))
        landed_x = np.rint(x + flow[t, y, x, 0]).astype(int)
        landed_y = np.rint(y + flow[t, y, x, 1]).astype(int)
        inside = (landed_x >= 0) & (landed_x < SIZE[1])
        inside &= (landed_y >= 0) & (landed_y < SIZE[0])
        hit = mask[t + 1][landed_y[inside], landed_x[inside]]
        # Articulated parts hide each other, so not every pixel stays in sight.
        assert hit.mean() > 0.97


def test_a_pose_and_its_inverse_cancel():
    matrix = np.array([[1.1, -0.3, 20.0], [0.2, 0.9, -4.0]])
    pose = poses.Pose(matrix, sway=6.0, wavelength=50.0, phase=0.7)
    points = np.random.default_rng(0).uniform(-100, 300, (200, 2))
    np.testing.assert_allclose(pose.to_layer(pose.to_frame(points)), points, atol=1e-9)


def test_a_still_object_has_no_flow_in_the_middle_third(tmp_path):
    render.render_demo(tmp_path / "d", 0, 9, SIZE, names=("shuttle-pause",))
    flow = flows(tmp_path / "d", "shuttle-pause", "forward")
    mask = masks(tmp_path / "d", "shuttle-pause") > 0
    speed = [np.linalg.norm(flow[t][mask[t]], axis=-1).mean() for t in range(8)]
    assert max(speed[3:5]) == 0.0
    assert min(speed[:2] + speed[6:]) > 0.5


def test_the_camera_pans_over_the_background(demo):
    flow = flows(demo, "cup-pan", "forward")
    outside = masks(demo, "cup-pan")[:-1] == 0
    assert np.abs(flow[..., 0][outside]).min() > 0.5


def test_the_reflection_moves_but_is_not_the_object(demo):
    (scene,) = scenes.build_scenes(SIZE, FRAMES, 0, ("cat-mirror",))
    bare = poses.Scene("bare", scene.layers[::2], scene.gains)
    frame = [
        render.render_frame(s, 0, SIZE, np.random.default_rng(0)) for s in (scene, bare)
    ]
    np.testing.assert_array_equal(frame[0].mask, frame[1].mask)
    changed = np.abs(frame[0].image.astype(int) - frame[1].image).max(-1) > 5
    assert changed.mean() > 0.02
    assert not (changed & cv2.erode(frame[0].mask.astype(np.uint8), np.ones(3))).any()
    assert (frame[0].surface[changed & ~frame[0].mask] == 0).all()


def test_an_edge_pixel_is_the_area_average_of_both_sides():
    white = np.ones((64, 64, 4), np.float32)
    black = white * np.array([0, 0, 0, 1], np.float32)
    half = poses.Pose(np.array([[1.0, 0, 3.5], [0, 1, 0]]))
    still = poses.Pose(np.eye(3)[:2])
    scene = poses.Scene(
        "edge",
        (
            poses.Layer(black, "background", (still,)),
            poses.Layer(white, "object", (half,)),
        ),
        (1.0,),
        noise=0.0,
    )
    frame = render.render_frame(scene, 0, (8, 8), np.random.default_rng(0))
    # The edge is at x = 3.5: pixel 3 is half covered, up to the sampling of the edge.
    assert frame.image[4, 2].tolist() == [0, 0, 0]
    assert 90 < frame.image[4, 3, 0] < 165
    assert frame.image[4, 4].tolist() == [255, 255, 255]


def test_an_object_out_of_sight_leaves_an_empty_mask():
    (scene,) = scenes.build_scenes(SIZE, 1, 0, ("cup-pan",))
    away = poses.Pose(np.array([[1.0, 0, 900], [0, 1, -500]]))
    gone = dataclasses.replace(scene.layers[1], poses=(away,))
    scene = dataclasses.replace(scene, layers=(scene.layers[0], gone))
    frame = render.render_frame(scene, 0, SIZE, np.random.default_rng(0))
    assert not frame.mask.any()
    assert frame.image.std() > 10


def test_seeds_give_other_clips_and_the_same_seed_the_same(tmp_path, demo):
    name = ("cup-pan",)
    render.render_demo(tmp_path / "same", 0, FRAMES, SIZE, names=name)
    render.render_demo(tmp_path / "other", 1, FRAMES, SIZE, names=name)
    same, other = (masks(tmp_path / d, "cup-pan") for d in ("same", "other"))
    np.testing.assert_array_equal(same, masks(demo, "cup-pan"))
    np.testing.assert_array_equal(
        images(tmp_path / "same", "cup-pan"), images(demo, "cup-pan")
    )
    assert (same != other).any()


def test_a_finished_demo_is_left_alone_and_other_files_are_never_touched(tmp_path):
    root = tmp_path / "demo"
    arguments = {"frames": 2, "size": (48, 80), "names": ("cat-sway",)}
    render.render_demo(root, 0, **arguments)
    before = (root / "demo.json").stat().st_mtime_ns
    render.render_demo(root, 0, **arguments)
    assert (root / "demo.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="delete"):
        render.render_demo(root, 1, **arguments)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="other files"):
        render.render_demo(tmp_path / "mine", 0, **arguments)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo", "mine"]


def test_a_rendering_that_dies_leaves_nothing_at_the_root(tmp_path, monkeypatch):
    def die(*_):
        raise OSError("disk full")

    monkeypatch.setattr(render, "_write_lists", die)
    with pytest.raises(OSError, match="disk full"):
        render.render_demo(tmp_path / "d", 0, 2, (48, 80), ("cat-sway",))
    assert not (tmp_path / "d").exists()


def test_an_unknown_scene_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="cat-mirror"):
        render.render_demo(tmp_path / "d", 0, names=("dog",))


def test_the_recipe_is_kept_beside_the_clips(demo):
    recipe = json.loads((demo / "demo.json").read_text())
    assert recipe["size"] == [96, 160]
    assert recipe["scenes"] == list(scenes.SCENES)
