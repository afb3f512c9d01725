"""A frozen backbone: features on disk, heads that train on them, masks that last."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from killer import Killed, Killer
from tiny import tiny_config, write_clip

from imas_jax import errors, files, protocol
from imas_jax.data import clips
from imas_jax.models import pretrained, segmenter, torch_files, vit
from imas_jax.runs import restoring
from imas_jax.runs.run import Run
from imas_jax.stages import discover, features, fit, frozen, network, predictor
from imas_jax.training import state as states

FRAMES = 8


@pytest.fixture(scope="module", autouse=True)
def shallow():
    """Let one backbone be tiny, for the compiler's sake."""

    def build(width, stride, axis_name, dtype):
        return vit.ViT(stride, width, depth=2, positions=3, dtype=dtype)

    with pytest.MonkeyPatch.context() as patch:
        one = dataclasses.replace(vit.S8, build=build, width=8)
        patch.setitem(segmenter.BACKBONES, "vit_s8", one)
        yield


def config_of(root, workdir):
    config = tiny_config(root / "clip", workdir)
    config.model.update(
        {
            "backbone": "vit_s8",
            "width": 8,
            "weights": str(root / "weights.npz"),
            "trained": "heads",
            "head_dilation": 0,
        }
    )
    config.augment.flip = 0.5
    return config


def write_weights(path):
    """Write a backbone as it is published; return its tensors by our names."""
    model = segmenter.BACKBONES["vit_s8"].published()
    shapes = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 16, 16, 3)), False), jax.random.key(0)
    )
    rng, names = np.random.default_rng(0), vit.torch_names(shapes)
    tensors = {}
    for leaf_path, leaf in traverse_util.flatten_dict(shapes).items():
        is_kernel = leaf_path[-1] == "kernel"
        shape = torch_files.torch_shape(leaf.shape) if is_kernel else leaf.shape
        tensors[names[leaf_path]] = rng.normal(0, 0.5, shape).astype(np.float32)
    np.savez(path, **tensors)
    return tensors


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("frozen")
    write_clip(root / "clip", FRAMES)
    write_weights(root / "weights.npz")
    return root


@pytest.fixture
def store(root, tmp_path):
    config = config_of(root, tmp_path)
    backbone = pretrained.load_backbone(root / "weights.npz", "vit_s8")
    variables = {"params": {"backbone": backbone["params"]}, "batch_stats": {}}
    return frozen.open_store(config, tmp_path, network.build_model(config), variables)


@pytest.fixture
def clip(root):
    (clip,) = clips.find_clips(config_of(root, root / "none").data)
    return clip


def leaves(seen):
    return jax.tree.leaves(seen)


def equal(a, b):
    for one, other in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


def test_features_are_computed_once_and_read_as_they_were_computed(
    store, clip, tmp_path, caplog
):
    with caplog.at_level("INFO"):
        (kept,) = store.keep((clip,))
        assert f"features of {FRAMES} frames computed, of 0" in caplog.text
        again = store.keep((clip,))
        assert f"features of 0 frames computed, of {FRAMES}" in caplog.text
    assert len(kept) == len(again[0]) == FRAMES
    assert len(list((tmp_path / "features").rglob("*.bin"))) == FRAMES
    merge, deep = leaves(kept[3])
    assert merge.dtype == deep.dtype == np.float16
    assert merge.shape == deep.shape == (6, 8, 8)
    equal(store([clip.read(3)])[0], kept[3])
    # What is asked for only once is not kept.
    mirrored = store([clip.read(3)[:, ::-1]])[0]
    assert np.abs(leaves(mirrored)[1] - deep).max() > 0
    assert len(list((tmp_path / "features").rglob("*.bin"))) == FRAMES


@pytest.mark.parametrize("damage", ["cut", "grown", "changed", "empty"])
def test_what_is_damaged_is_not_taken(damage, store, clip, caplog):
    (kept,) = store.keep((clip,))
    whole, path = kept[2], kept.paths[2]
    content = path.read_bytes()
    broken = {
        "cut": content[:-6],
        "grown": content + b"\0\0",
        "changed": content[:50] + bytes([content[50] ^ 1]) + content[51:],
        "empty": b"",
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(errors.UserError, match="lost or damaged"):
        kept[2]
    equal(store([clip.read(2)])[0], whole)
    store.keep((clip,))
    assert "is damaged: computed anew" in caplog.text
    assert path.read_bytes() == content


def test_a_draft_that_a_killed_run_left_is_no_file(store, clip):
    (kept,) = store.keep((clip,))
    path = kept.paths[0]
    path.rename(files.draft_name(path))
    with pytest.raises(errors.UserError, match="run the same command again"):
        kept[0]
    equal(store.keep((clip,))[0][0], store([clip.read(0)])[0])


def test_features_of_another_network_or_size_lie_elsewhere(root, tmp_path):
    config = config_of(root, tmp_path)
    variables = {"params": {"backbone": {"w": np.ones(3)}, "head": {"w": np.ones(2)}}}

    def place(variables=variables, **change):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict(
            {field.replace("__", "."): value for field, value in change.items()}
        )
        model = network.build_model(changed)
        return frozen.open_store(changed, tmp_path, model, variables)._folder

    other = jax.tree.map(np.copy, variables)
    other["params"]["backbone"]["w"][1] = 2.0
    heads = jax.tree.map(np.copy, variables)
    heads["params"]["head"]["w"][1] = 2.0
    assert place(heads, model__channels=2) == place()
    folders = [
        place(),
        place(other),
        place(predict__short_side=32),
        place(precision="bfloat16"),
        place(model__feature_merging=False),
    ]
    assert len(set(folders)) == len(folders)


def test_a_full_disk_is_told_before_it_is_full(store, clip, monkeypatch):
    usage = files.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(errors.UserError, match="for the features of all frames"):
        store.keep((clip,))


def test_features_that_half_precision_cannot_hold_are_refused(store, clip):
    store._variables = jax.tree.map(lambda x: x * 1e6, store._variables)
    with pytest.raises(errors.UserError, match="too large for half precision"):
        store.keep((clip,))


def test_what_is_frozen_is_neither_optimised_nor_averaged_nor_lost():
    variables = {
        "params": {"backbone": {"w": jnp.ones(3)}, "head": {"w": jnp.zeros(2)}},
        "batch_stats": {"backbone": {"m": jnp.ones(3)}, "head": {"m": jnp.ones(1)}},
    }
    state = states.create_state(variables, optax.adam(1.0), 0, 0.9, frozen=frozen.PARTS)
    assert set(state.params) == set(state.ema["params"]) == {"head"}
    assert all(leaf.size < 3 for leaf in jax.tree.leaves(state.opt_state))
    for whole in (state.variables, state.best_variables):
        assert jax.tree.structure(whole) == jax.tree.structure(variables)
        equal(whole, variables)
    assert states.create_state(variables, optax.adam(1.0), 0, 0.0).frozen is None


@pytest.fixture(scope="module")
def finished(root):
    """A whole tiny run, by the paper's losses, of heads alone."""
    Run(config_of(root, root / "run").lock(), protocol.STAGES).make(protocol.LAST)
    return root / "run"


@pytest.mark.slow
def test_heads_learn_and_the_backbone_stays(finished, root):
    config = config_of(root, finished)
    log = (finished / "discover/metrics.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["motion"] > 0
    weights = np.load(root / "weights.npz")
    for stage in ("discover", "refine"):
        state = network.final_state(config, finished / stage, stage)
        backbone = state.best_variables["params"]["backbone"]
        found = backbone["blocks_1"]["mlp"]["fc1"]["kernel"]
        np.testing.assert_array_equal(found, weights["blocks.1.mlp.fc1.weight"].T)
        assert "backbone" not in state.params
    assert len(list((finished / "features").rglob("*.bin"))) == FRAMES
    assert len(list((finished / "predict/masks/clip").iterdir())) == FRAMES


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(finished, root, tmp_path, caplog):
    config = config_of(root, tmp_path / "killed").lock()
    run = Run(config, protocol.STAGES)
    run.make("prepare")
    with pytest.raises(Killed):
        discover.work(run, Killer())
    lost, torn = sorted((tmp_path / "killed/features").rglob("*.bin"))[:2]
    lost.unlink()
    torn.write_bytes(torn.read_bytes()[:100])
    with caplog.at_level("INFO"):
        run.make("refine")
    assert f"features of 2 frames computed, of {FRAMES - 2}" in caplog.text
    assert "augmentation that makes new pixels is off (random crops" in caplog.text
    whole = Run(config_of(root, finished).lock(), protocol.STAGES)
    for stage in ("discover", "refine"):
        assert run.result(stage)["identity"] == whole.result(stage)["identity"]


@pytest.mark.slow
def test_masks_are_the_same_without_any_kept_feature(finished, root, tmp_path):
    config = config_of(root, tmp_path / "again")
    config.restore, config.model.weights = str(finished), "gone.npz"
    config.stage = "predict"
    Run(restoring.adopt_network(config), protocol.STAGES).make("predict")
    found, kept = (
        np.load(folder / "predict/soft/clip.npy")
        for folder in (tmp_path / "again", finished)
    )
    np.testing.assert_array_equal(found, kept)
    assert not (tmp_path / "again/features").exists()


def test_judges_and_constraint_compare_the_keys_of_a_vision_transformer(root, clip):
    config = config_of(root, root / "none")
    config.align.update({"features": "weights", "backbone": "vit_s8"})
    see = features.frozen(config)
    frame = clip.read(0)
    found = see(frame)
    assert found.shape == (6, 8, 8)
    backbone = pretrained.load_backbone(root / "weights.npz", "vit_s8")
    model = segmenter.BACKBONES["vit_s8"].published()
    pixels = predictor.sample(frame[None], config.predict.short_side)
    look = jax.jit(lambda v, x: model.apply(v, x, method="keys"))
    keys = look(backbone, pixels)
    np.testing.assert_allclose(found, keys[0], rtol=1e-4, atol=1e-4)


def test_whole_frames_take_the_place_of_crops(root, tmp_path, caplog):
    config = config_of(root, tmp_path)
    config.predict.short_side = 24
    with caplog.at_level("INFO"):
        fitted = fit.with_whole_frames(config, (48, 64))
    assert tuple(fitted.augment.crop) == (24, 32)
    assert fitted.augment.short_side == 24
    assert "(random crops, random scales, flips, colours)" in caplog.text
    assert tuple(config.augment.crop) == (32, 48)
