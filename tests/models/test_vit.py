"""Vision Transformers as backbones and as frozen features; tests/parity has numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import davis
from imas_jax import errors
from imas_jax.models import imas, pretrained, torch_files, vit
from imas_jax.models.segmenter import BACKBONES


def small(patch=8, **changes):
    return vit.ViT(patch, **{"width": 8, "depth": 2, "positions": 3} | changes)


def fill(shapes):
    rng = np.random.default_rng(0)

    def one(path, leaf):
        values = rng.normal(0, 0.3, leaf.shape)
        is_variance = path[0].key == "batch_stats"
        return jnp.asarray(np.abs(values) if is_variance else values, jnp.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


def start(model, size=(24, 24)):
    frames = jax.random.normal(jax.random.key(0), (1, *size, 3))
    shapes = jax.eval_shape(
        lambda key: model.init(key, frames, train=False), jax.random.key(0)
    )
    return fill(shapes), frames


def last(model, variables, frames):
    return jax.jit(lambda v, x: model.apply(v, x, False)[-1])(variables, frames)


def state_dict(variables, rng, prefix=""):
    """Make the tensors of a file that fits."""
    leaves = traverse_util.flatten_dict(variables)
    names = vit.torch_names(variables)
    return {
        prefix + names[path]: rng.normal(
            size=torch_files.torch_shape(leaf.shape)
            if path[-1] == "kernel"
            else leaf.shape
        ).astype(np.float32)
        for path, leaf in leaves.items()
    }


def shapes_of(name):
    model = BACKBONES[name].published()
    return jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 32, 32, 3)), False),
        jax.random.key(0),
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # The official hubs' counts; DINOv2's without its mask token.
        ("vit_s16", 21_665_664),
        ("vit_s8", 21_670_272),
        ("vit_s14", 22_056_576 - 384),
        ("vit_s14_reg", 22_058_112 - 384),
    ],
)
def test_parameters_are_as_many_as_published(name, parameters):
    leaves = jax.tree.leaves(shapes_of(name))
    assert sum(leaf.size for leaf in leaves) == parameters


@pytest.mark.parametrize("size", [(24, 24), (27, 100), (61, 20), (3, 3)])
def test_frames_of_any_size_have_the_grid_that_is_promised(size):
    model = small()
    variables, _ = start(model)
    frames = jnp.ones((2, *size, 3))
    promised = vit.patches(size, 8)
    found = jax.eval_shape(lambda: model.apply(variables, frames, False))
    assert [one.shape for one in found] == [(2, *promised, 8)] * 2
    keys = jax.eval_shape(lambda: model.apply(variables, frames, method="keys"))
    assert keys.shape == (2, *promised, 8)


def test_the_grid_spans_the_whole_frame():
    """A frame of 2.75 patches becomes 3 patches of it, not 2 and a lost rest."""
    model = small()
    variables, frames = start(model)
    wide = jax.image.resize(frames, (1, 24, 22, 3), "linear")
    seen = last(model, variables, wide)
    assert seen.shape == (1, 3, 3, 8)
    rest = last(model, variables, wide.at[:, :, 16:].set(9.0))
    assert not np.allclose(rest, seen)


def test_attention_is_the_same_head_by_head(monkeypatch):
    model = small(width=128)  # two heads
    variables, frames = start(model)
    together = last(model, variables, frames)
    monkeypatch.setattr(vit, "LONG", 0)
    alone = last(model, variables, frames)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_registers_stand_between_the_class_token_and_the_patches():
    model = small(registers=4, layer_scale=True)
    variables, frames = start(model)

    @jax.jit
    def run(variables):
        def parts(model):
            patches = model.patch_embed(frames)
            return patches, model.assemble(patches, (24, 24))

        return model.apply(variables, method=parts)

    patches, tokens = run(variables)
    assert tokens.shape == (1, 1 + 4 + 9, 8)
    params = variables["params"]
    np.testing.assert_array_equal(tokens[0, 1:5], params["register_tokens"][0])
    place = params["pos_embed"][0]
    np.testing.assert_allclose(tokens[0, 5:], patches[0] + place[1:], rtol=1e-6)
    np.testing.assert_array_equal(tokens[0, 0], params["cls_token"][0, 0] + place[0])


def test_names_are_the_official_ones():
    names = set(vit.torch_names(shapes_of("vit_s14")).values())
    for name in (
        *("cls_token", "pos_embed", "patch_embed.proj.weight", "norm.bias"),
        *("blocks.0.attn.qkv.weight", "blocks.11.mlp.fc2.bias", "blocks.3.ls2.gamma"),
    ):
        assert name in names


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
def test_weights_are_read_in_every_layout_and_no_others(prefix, tmp_path):
    rng = np.random.default_rng(0)
    tensors = state_dict(shapes_of("vit_s16"), rng, prefix)
    head = prefix.removesuffix("backbone.") + "head."
    tensors[f"{head}mlp.0.weight"] = np.zeros((2, 2), np.float32)
    np.savez(tmp_path / "dino.npz", **tensors)
    read = pretrained.load_backbone(tmp_path / "dino.npz", "vit_s16")
    kernel = read["params"]["blocks_5"]["mlp"]["fc1"]["kernel"]
    name = f"{prefix}blocks.5.mlp.fc1.weight"
    np.testing.assert_array_equal(kernel, tensors[name].T)
    assert pretrained.identify(tmp_path / "dino.npz") == "vit_s16"
    with pytest.raises(errors.UserError, match="patches of 16") as refusal:
        pretrained.load_backbone(tmp_path / "dino.npz", "vit_s14")
    assert "ls1.gamma: missing" in str(refusal.value)
    with pytest.raises(errors.UserError, match="no ResNet of a known layout"):
        pretrained.load_backbone(tmp_path / "dino.npz", "resnet50")


def test_a_file_of_another_network_is_told_for_every_backbone(tmp_path):
    np.savez(tmp_path / "b.npz", **{"conv1.weight": np.zeros((64, 3, 7, 7))})
    with pytest.raises(errors.UserError, match="no backbone that is known") as refusal:
        pretrained.identify(tmp_path / "b.npz")
    for part in ("resnet50: ", "conv1", "vit_s8: ", "--config.model.width"):
        assert part in str(refusal.value)


def test_moco_v3_under_dinos_names_is_refused(tmp_path):
    """Names and shapes are the same; its heads are others, which no tensor tells."""
    tensors = state_dict(shapes_of("vit_s16"), np.random.default_rng(0))
    angles = np.arange(14)[:, None] / 10_000 ** (np.arange(96) / 96)
    x, y = (a.reshape(-1, 96) for a in np.broadcast_arrays(angles[:, None], angles))
    table = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], -1)
    tensors["pos_embed"] = np.pad(table, ((1, 0), (0, 0)))[None].astype(np.float16)
    np.savez(tmp_path / "moco.npz", **tensors)
    with pytest.raises(errors.UserError, match="position embeddings are sines"):
        pretrained.load_backbone(tmp_path / "moco.npz", "vit_s16")


def test_a_network_with_registers_is_none_without(tmp_path):
    tensors = state_dict(shapes_of("vit_s14_reg"), np.random.default_rng(0))
    tensors["mask_token"] = np.zeros((1, 384), np.float32)
    np.savez(tmp_path / "reg.npz", **tensors)
    pretrained.load_backbone(tmp_path / "reg.npz", "vit_s14_reg")
    with pytest.raises(errors.UserError, match="register_tokens: unexpected"):
        pretrained.load_backbone(tmp_path / "reg.npz", "vit_s14")


@pytest.fixture
def config(monkeypatch):
    def build(width, stride, axis_name, dtype):
        full = vit.S16.build(width, stride, axis_name, dtype)
        return full.copy(depth=2)  # for the compiler's sake

    shallow = dataclasses.replace(vit.S16, build=build)
    monkeypatch.setitem(BACKBONES, "vit_s16", shallow)
    config = davis.get_config()
    config.model.update(
        {"backbone": "vit_s16", "output_stride": 16, "width": 16, "head_width": 4}
    )
    return config


@pytest.mark.parametrize("merging", [True, False])
def test_it_trains_as_the_backbone_of_the_network(config, merging):
    config.model.feature_merging = merging
    model, size = imas.make_model(config), (40, 58)
    frames = jax.random.normal(jax.random.key(0), (1, 2, *size, 3))
    shapes = jax.eval_shape(
        lambda key: model.init(key, frames, train=False), jax.random.key(0)
    )
    variables = fill(shapes)

    @jax.jit
    @jax.grad
    def slope(params):
        tree = variables | {"params": params}
        logits = model.apply(tree, frames, train=False).logits
        assert logits.shape[2:4] == imas.mask_size(config.model, size) == (2, 4)
        return jnp.square(logits).mean()

    backbone = slope(variables["params"])["backbone"]
    for path, leaf in traverse_util.flatten_dict(backbone).items():
        assert np.abs(leaf).max() > 0, path


def test_it_computes_in_bfloat16(config):
    config.precision = "bfloat16"
    model = imas.make_model(config)
    frames = jnp.ones((1, 2, 32, 32, 3))
    variables = jax.eval_shape(
        lambda key: model.init(key, frames, train=False), jax.random.key(0)
    )
    assert variables["params"]["backbone"]["pos_embed"].dtype == jnp.float32

    def see(tree):
        features = model.apply(tree, frames[0], False, method="features")
        return features.merge, features.deep

    for one in jax.eval_shape(see, variables):
        assert one.dtype == jnp.bfloat16


def test_a_stride_it_does_not_have_is_refused(config):
    config.model.output_stride = 8
    with pytest.raises(errors.UserError, match="8 is none of 16, which vit_s16 has"):
        imas.make_model(config)
