"""RAFT against the official code, and end-point errors on real ground truth."""

import ast
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_names

from imas_jax.flow import formats, raft, raft_correlation, raft_weights

pytestmark = pytest.mark.parity

METHODS = ("volume", "on_demand")
# Folder in flow_gt, frames, ground truth, official end-point error at 20 iterations.
PAIRS = {
    "RubberWhale": (
        "middlebury_rubberwhale",
        "frame10.png",
        "frame11.png",
        "flow10.flo",
    ),
    "FlyingChairs 0": ("flyingchairs_samples", "0img0.ppm", "0img1.ppm", "0flow.flo"),
    "FlyingChairs 1": ("flyingchairs_samples", "1img0.ppm", "1img1.ppm", "1flow.flo"),
    "KITTI": ("kitti_sample", "frame1.png", "frame2.png", "flow_gt.png"),
}
OFFICIAL = {
    "RubberWhale": 0.320,
    "FlyingChairs 0": 1.306,
    "FlyingChairs 1": 0.758,
    "KITTI": 7.285,
}
RUBBERWHALE = "b7693d1790c10fb7e7e3228526cab3a32a4f88e4"
BEAR = "d0f92b498bf383ce385b520ce5d21bdc9b6e39bf"
# Rounding floors of whole frames, which the file does not store, by iterations and the
# first frame's SHA-1: the largest float32-float64 difference of
# `benchmarks/raft_torch.py` at every fourth pixel. Its float32 flow equals the stored
# windows and means to the last bit.
WHOLE_FRAME_FLOORS = {
    12: {RUBBERWHALE: 1.04e-4, BEAR: 8.37e-5},
    20: {RUBBERWHALE: 2.00e-4, BEAR: 1.23e-4},
}


@pytest.fixture(scope="module")
def golden(authors):
    return authors.load("raft_small")


@pytest.fixture(scope="module")
def small_weights(shared):
    path = shared / "weights" / "raft-small.pth"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(scope="module")
def large_weights(authors, golden, tmp_path_factory):
    """Write the large network's named random weights as a checkpoint."""
    tensors = {}
    for line in golden["large/param_names"]:
        name, shape = line.split(" ", 1)
        alias = name.replace(".norm3.", ".downsample.1.")
        drawn = "raft_large." + (alias if name.startswith("cnet.layer") else name)
        value = authors.recipe.param(drawn, ast.literal_eval(shape), authors.seed)
        scale = np.float32(0.1 if "flow_head.conv2" in name else 1)
        tensors["module." + name] = value * scale
    path = tmp_path_factory.mktemp("raft") / "raft-things.npz"
    np.savez(path, **tensors)
    return path


def read_rgb(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


@pytest.mark.parametrize(
    ("iterations", "method"),
    [(1, "volume"), (2, "volume"), (12, "volume"), (20, "volume"), (20, "on_demand")],
)
def test_small_flow_of_a_crop_is_official(
    golden, small_weights, record, iterations, method
):
    estimator = raft.make_raft(small_weights, iterations, correlation=method)
    forward, _ = estimator(golden["crop/image1"], golden["crop/image2"])
    error = np.abs(forward.transpose(2, 0, 1) - golden[f"crop/it{iterations}"]).max()
    floor = float(golden[f"crop/maxabs_f32_f64.it{iterations}"])
    quantity = f"small, {method}, it{iterations}, px"
    record("raft", quantity, error, floor, 10 * floor)


@pytest.mark.parametrize("iterations", [1, 2, 4, 8])
def test_large_flow_of_a_crop_is_official(golden, large_weights, record, iterations):
    estimator = raft.make_raft(large_weights, iterations)
    forward, _ = estimator(golden["large/image1"], golden["large/image2"])
    error = np.abs(forward.transpose(2, 0, 1) - golden[f"large/it{iterations}"]).max()
    floor = float(golden[f"large/maxabs_f32_f64.it{iterations}"])
    record("raft", f"large, it{iterations}, px", error, floor, 10 * floor)


@pytest.mark.parametrize("size", ["small", "large"])
def test_features_and_context_are_official(golden, request, record, size):
    weights = request.getfixturevalue(f"{size}_weights")
    where = {"small": "crop", "large": "large"}[size]
    variables = jax.device_put(raft.load_weights(weights)[1])
    frames = np.stack([golden[f"{where}/image1"], golden[f"{where}/image2"]])
    network = raft.Raft(size)

    @jax.jit
    def encode(frames):
        prepared = raft.prepare(frames)
        return tuple(
            network.apply(variables, prepared, method=part)
            for part in ("features", "context")
        )

    features, context = (torch_names.to_channels_first(x) for x in encode(frames))
    context_key = {"small": "crop/cnet", "large": "large/cnet_ch0to31"}[size]
    comparisons = {
        f"{where}/fmap1_ch0to15": features[:1, :16],
        context_key: context[:1, :32] if size == "large" else context[:1],
    }
    if size == "small":
        comparisons["crop/fmap2_ch0to15"] = features[1:, :16]
    for key, ours in comparisons.items():
        error = torch_names.error(ours, golden[key])
        record("raft", f"{size}, {key.split('/')[1]}", error, None, 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_correlation_windows_are_official(golden, small_weights, record, method):
    variables = jax.device_put(raft.load_weights(small_weights)[1])
    frames = np.stack([golden["crop/image1"], golden["crop/image2"]])
    network = raft.Raft("small")

    @jax.jit
    def look(frames):
        features = network.apply(variables, raft.prepare(frames), method="features")
        _, h, w, _ = features.shape
        position = np.stack(np.meshgrid(np.arange(w), np.arange(h)), axis=-1)
        position = jnp.asarray(position[None] + 0.37, jnp.float32)
        built = raft_correlation.build(features[:1], features[1:], 3, method)
        return raft_correlation.read(built, position)

    ours = torch_names.to_channels_first(look(frames))
    error = torch_names.error(ours, golden["crop/corr_lookup_at_grid_plus_0.37"])
    record("raft", f"small, {method}, correlation windows", error, None, 1e-5)


@pytest.mark.parametrize("iterations", [12, 20])
def test_small_flow_of_whole_frames_is_official(
    authors, golden, small_weights, record, iterations
):
    estimator = raft.make_raft(small_weights, iterations)
    names = [key.removesuffix("/sha1_rgb") for key in golden if "/sha1_rgb" in key]
    assert names
    for name in names:
        digests = list(map(str, golden[f"{name}/sha1_rgb"]))
        forward, _ = estimator(*map(authors.frame, digests))
        forward = forward.transpose(2, 0, 1)
        key = f"{name}/it{iterations}"
        # The crop's floor, lower than a whole frame's.
        floor = float(golden[f"crop/maxabs_f32_f64.it{iterations}"])
        y, x = golden[f"{name}/window_y0x0"]
        window = np.abs(forward[:, y : y + 64, x : x + 64] - golden[key + ".window"])
        record("raft", f"small, {key} window, px", window.max(), floor, 10 * floor)
        for quantity, value in (("mean", forward), ("mean_abs", np.abs(forward))):
            mean = value.mean(axis=(1, 2), dtype=np.float64)
            error = np.abs(mean - golden[f"{key}.{quantity}"]).max()
            record("raft", f"small, {key} {quantity}, px", error, floor, 10 * floor)
        coarse = golden[key + ".sub4"].astype(np.float32)
        step = np.spacing(np.abs(golden[key + ".sub4"])).astype(np.float32)
        known = WHOLE_FRAME_FLOORS[iterations]
        floor = known.get(digests[0], max(known.values()))
        excess = (np.abs(forward[:, ::4, ::4] - coarse) - step / 2).max()
        record("raft", f"small, {key} beyond float16, px", excess, floor, 10 * floor)


@pytest.mark.parametrize("name", PAIRS)
def test_end_point_error_on_ground_truth_is_the_official_one(
    shared, small_weights, record, name
):
    folder, first, second, truth = PAIRS[name]
    folder = shared / "data" / "flow_gt" / folder
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    frames = read_rgb(folder / first), read_rgb(folder / second)
    forward, _ = raft.make_raft(small_weights, 20)(*frames)
    distance = np.linalg.norm(forward - formats.read(folder / truth), axis=-1)
    error = np.nanmean(distance)
    gap = abs(error - OFFICIAL[name]) / OFFICIAL[name]
    record(
        "raft",
        f"{name}: EPE {error:.3f} px, official {OFFICIAL[name]}",
        gap,
        None,
        0.01,
    )


def test_official_names_are_all_understood(golden):
    for size in ("small", "large"):
        names = {line.split(" ")[0] for line in golden[f"{size}/param_names"]}
        table = set(raft_weights.module_names(size, "official").values())
        modules = {name.rsplit(".", 1)[0] for name in names}
        assert {m for m in modules if ".norm3" not in m} <= table
