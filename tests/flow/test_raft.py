"""RAFT against torchvision's (an independent implementation), and its own promises.

`golden/raft_torchvision.npz` holds names, shapes and flows of torchvision 0.29.2's
`raft_small` and `raft_large` with the weights and frames that `draw` and `noise_frames`
rebuild, after 3 updates, every fourth pixel; `floor` is float32's rounding error there
(largest difference from the same network in float64).
"""

import ast
import dataclasses
import functools
import zlib
from pathlib import Path

import chex
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from imas_jax import errors
from imas_jax.flow import raft, raft_layers, raft_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "raft_torchvision.npz"


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    value = rng.standard_normal(shape)
    if name.endswith("running_var"):
        value = 1 + 0.2 * np.abs(value)
    elif name.endswith(("bias", "running_mean")):
        value = 0.05 * value
    elif len(shape) == 1:
        value = 1 + 0.1 * value
    else:
        value = value * np.sqrt(1 / np.prod(shape[1:]))
    return value.astype(np.float32)


def noise_frames() -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(7))
    coarse = rng.integers(0, 256, (2, 16, 17, 3), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


def torchvision_checkpoint(size: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as golden:
        names = [line.split(" ", 1) for line in golden[f"{size}/names"]]
    return {name: draw(name, ast.literal_eval(shape)) for name, shape in names}


def write_checkpoint(folder: Path, size: str = "small", changes=None) -> Path:
    path = folder / f"{size}.npz"
    tensors = torchvision_checkpoint(size) | (changes or {})
    np.savez(path, **{k: v for k, v in tensors.items() if v is not None})
    return path


def photograph(h: int, w: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 255, (h, w, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.clip(127 + 8 * (blurred - 127), 0, 255).astype(np.uint8)


PAIR = (photograph(40, 44)[:, :38], photograph(40, 44)[:, 6:])


@dataclasses.dataclass(frozen=True)
class Small:
    """An estimator of two refinements, its variables, shapes it was traced at."""

    estimator: raft.RaftEstimator
    variables: dict
    traces: list[tuple[int, ...]]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = write_checkpoint(tmp_path_factory.mktemp("raft"))
    traces, original = [], raft.flow_both_ways

    def noting(*args):
        traces.append(args[-1].shape)
        return original(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raft, "flow_both_ways", noting)
        estimator = raft.make_raft(path, 2)
    return Small(estimator, raft.load_weights(path)[1], traces)


@pytest.mark.parametrize("size", ["small", "large"])
def test_flow_is_torchvisions_from_a_file_with_torchvisions_names(tmp_path, size):
    estimator = raft.make_raft(write_checkpoint(tmp_path, size), 3)
    forward, _ = estimator(*noise_frames())
    with np.load(GOLDEN) as golden:
        expected, floor = golden[f"{size}/flow"], golden[f"{size}/floor"]
    assert np.abs(expected).mean() > 5
    np.testing.assert_allclose(forward[::4, ::4], expected, atol=10 * floor, rtol=0)


def test_a_shifted_picture_gives_its_shift_both_ways(shared):
    estimator = raft.make_raft(shared / "weights" / "raft-small.pth", 8)
    picture = photograph(110, 142)
    shift = np.array([5.0, -3.0])  # right and up, in pixels
    frame0, frame1 = picture[6:-6, 8:-8], picture[9:-3, 3:-13]
    forward, backward = estimator(frame0, frame1)
    inside = (slice(10, -10), slice(10, -10))
    assert np.abs(forward[inside] - shift).mean() < 0.2
    assert np.abs(backward[inside] + shift).mean() < 0.2


def test_bfloat16_keeps_flow_within_a_tenth_of_a_pixel(shared, parity_dir):
    with np.load(parity_dir / "raft_small.npz") as golden:
        frames = golden["crop/image1"], golden["crop/image2"]
        expected = golden["crop/it12"].transpose(1, 2, 0)
    weights = shared / "weights" / "raft-small.pth"
    forward, _ = raft.make_raft(weights, 12, precision="bfloat16")(*frames)
    error = np.abs(forward - expected)
    assert forward.dtype == np.float32
    assert 1e-3 < error.max() < 0.1, "bfloat16 must be in use, and near"


def test_pairs_of_a_batch_do_not_see_each_other_and_swapped_frames_swap_flows(small):
    frames = np.stack(PAIR)
    forward, backward = small.estimator.batch(frames, frames[::-1])
    alone_forward, alone_backward = small.estimator(*PAIR)
    np.testing.assert_allclose(forward[0], alone_forward, atol=1e-4)
    np.testing.assert_allclose(backward[0], alone_backward, atol=1e-4)
    np.testing.assert_allclose(forward[1], alone_backward, atol=1e-4)
    np.testing.assert_allclose(backward[1], alone_forward, atol=1e-4)
    assert np.abs(forward[0] - backward[0]).max() > 1


def test_one_direction_alone_is_the_same_flow(small):
    prepared = [raft.prepare(jnp.asarray(frame[None])) for frame in PAIR]
    network = jax.jit(raft.Raft("small").apply, static_argnums=3)
    alone = raft.unpad(network(small.variables, *prepared, 2), (40, 38))
    forward, _ = small.estimator(*PAIR)
    np.testing.assert_allclose(forward, alone[0], atol=1e-4)


def test_a_resolution_is_traced_once(small):
    small.estimator(*PAIR)
    small.estimator(*PAIR[::-1])
    assert len(small.traces) == len(set(small.traces))
    assert (1, 40, 38, 3) in small.traces


@pytest.mark.parametrize("size", [(388, 584), (375, 1242), (16, 24), (17, 17)])
def test_padding_repeats_the_border_evenly_and_unpadding_undoes_it(size):
    frames = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    padded = raft.prepare(jnp.asarray(frames))
    assert padded.shape[1] % 8 == 0
    assert padded.shape[2] % 8 == 0
    assert padded.shape[1] - size[0] < 8
    (top, bottom), (left, right) = raft.borders(*size)
    assert bottom - top in (0, 1)
    assert right - left in (0, 1)
    expected = np.pad(
        2 * (frames.astype(np.float64) / 255) - 1,
        ((0, 0), (top, bottom), (left, right), (0, 0)),
        mode="edge",
    )
    np.testing.assert_allclose(padded, expected, atol=1e-6)
    inside = 2 * (frames[..., :2].astype(np.float64) / 255) - 1
    np.testing.assert_allclose(raft.unpad(padded[..., :2], size), inside, atol=1e-6)


def test_frames_of_sixteen_pixels_have_flow(small):
    frames = photograph(16, 16), photograph(16, 17)[:, 1:]
    forward, backward = small.estimator(*frames)
    assert forward.shape == backward.shape == (16, 16, 2)
    assert np.isfinite(forward).all()
    assert np.isfinite(backward).all()


def test_frames_of_two_sizes_are_refused(small):
    with pytest.raises(errors.UserError, match=r"\(1, 32, 40, 3\)"):
        small.estimator(
            np.zeros((32, 40, 3), np.uint8), np.zeros((32, 48, 3), np.uint8)
        )


def upsample(flow: np.ndarray, mask: np.ndarray) -> np.ndarray:
    mask = jnp.asarray(mask.reshape(*mask.shape[:3], 576))
    return raft.upsample_convex(jnp.asarray(flow), mask)


def test_a_flat_mask_averages_neighbours_and_a_peaked_one_picks():
    flow = np.random.default_rng(0).normal(size=(1, 3, 4, 2)).astype(np.float32)
    mask = np.zeros((1, 3, 4, 9, 8, 8), np.float32)
    fine = upsample(flow, mask)
    border = np.pad(flow, ((0, 0), (1, 1), (1, 1), (0, 0)))
    mean = 8 * border[0, 0:3, 2:5].mean(axis=(0, 1))
    np.testing.assert_allclose(fine[0, 3, 20], mean, atol=1e-5)  # cell (0, 2)
    # Fine row 2, column 5 of every cell takes the flow of its right neighbour.
    mask[:, :, :, 5, 2, 5] = 100
    fine = upsample(flow, mask)
    np.testing.assert_allclose(fine[0, 2::8, 5::8], 8 * border[0, 1:-1, 2:], atol=1e-5)


def test_digest_names_weights_and_every_setting(tmp_path):
    one = write_checkpoint(tmp_path)
    (tmp_path / "other").mkdir()
    bias = {"update_block.flow_head.conv2.bias": np.ones(2, np.float32)}
    other = write_checkpoint(tmp_path / "other", changes=bias)
    makers = [
        raft.make_raft(one, 12),
        raft.make_raft(other, 12),
        raft.make_raft(one, 20),
        raft.make_raft(one, 12, "bfloat16"),
        raft.make_raft(one, 12, correlation="on_demand"),
    ]
    assert len({maker.digest for maker in makers}) == len(makers)
    assert raft.make_raft(one, 12).digest == makers[0].digest


def test_no_refinement_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match=r"flow\.iterations = 0"):
        raft.make_raft(write_checkpoint(tmp_path), 0)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_names_are_understood_with_and_without_module(prefix, shared):
    size, variables = raft.load_weights(shared / "weights" / "raft-small.pth")
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert (size, count) == ("small", 990_162)
    names = raft_weights.foreign_names(variables, "small", "official")
    tensors = {}
    for path, leaf in traverse_util.flatten_dict(variables).items():
        tensor = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
        tensors[prefix + names[path]] = tensor
    again = raft_weights.convert(tensors, variables, Path("again.pth"))
    chex.assert_trees_all_equal(again, variables)


def test_every_mismatch_is_listed_at_once(tmp_path):
    changes = {
        "feature_encoder.conv.bias": None,
        "context_encoder.layer2.0.downsample.0.weight": np.zeros((64, 32, 3, 3)),
        "update_block.extra.weight": np.zeros(3),
    }
    path = write_checkpoint(tmp_path, changes=changes)
    with pytest.raises(errors.UserError, match=r"3 problem\(s\)") as caught:
        raft.make_raft(path, 12)
    for name in changes:
        assert name in caught.value.found


def test_another_network_is_refused_by_name(tmp_path):
    path = tmp_path / "resnet.npz"
    np.savez(path, **{"conv1.weight": np.zeros((64, 3, 7, 7))})
    with pytest.raises(errors.UserError, match=r"no RAFT.*conv1\.weight"):
        raft.make_raft(path, 12)


def test_both_networks_have_the_published_number_of_parameters():
    frames = np.zeros((1, 64, 64, 3), np.float32)
    counts = {}
    for size in raft_layers.ARCHITECTURES:
        network = raft.Raft(size)
        init = functools.partial(network.init, iterations=1)
        shapes = jax.eval_shape(init, jax.random.key(0), frames, frames)
        counts[size] = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert counts == {"small": 990_162, "large": 5_257_536}
