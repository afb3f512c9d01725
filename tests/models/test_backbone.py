"""A new backbone is one file and one line: here is one with patches of 14 pixels."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

from configs import davis
from imas_jax import errors
from imas_jax.models import imas, pretrained, segmenter
from imas_jax.models.backbone import Backbone, Foreign, Layout

PATCH, WIDTH = 14, 6


class Patches(nn.Module):
    """A linear map of whole patches: what a Vision Transformer begins with."""

    width: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x, train):
        b, h, w, _ = x.shape
        rows, cols = grid((h, w), PATCH)
        edge = ((0, 0), (0, rows * PATCH - h), (0, cols * PATCH - w), (0, 0))
        x = jnp.pad(x, edge, mode="edge").reshape(b, rows, PATCH, cols, PATCH, 3)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows, cols, -1)
        return (nn.Dense(self.width, dtype=self.dtype, name="embed")(x),)

    def keys(self, x):
        return -self(x, train=False)[0]


def grid(size, stride):
    return max(round(size[0] / stride), 3), -(-size[1] // stride) + 1


NAMES = {"kernel": "patch_embed.weight", "bias": "patch_embed.bias"}
PATCHES = Backbone(
    build=lambda width, stride, axis_name, dtype: Patches(width, dtype),
    width=WIDTH,
    strides=(PATCH,),
    merge_stride=None,
    grid=grid,
    foreign=Foreign(
        "Vision Transformer",
        "patch_embed.weight",
        (Layout("DINO", "teacher.", ("student.",)), Layout("plain", "", ("head.",))),
        lambda tree: {p: NAMES[p[-1]] for p in traverse_util.flatten_dict(tree)},
        lambda tensors, prefix: "patches",
    ),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.5, 1.0),
)


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(segmenter.BACKBONES, "patches", PATCHES)
    config = davis.get_config()
    config.model.update(
        {
            "backbone": "patches",
            "output_stride": PATCH,
            "width": WIDTH,
            "feature_merging": False,
            "head_width": 4,
            "motion_width": 0,
            "dropout": 0.0,
        }
    )
    return config


def start(config, size):
    model = imas.make_model(config)
    frames = jnp.zeros((1, 2, *size, 3))
    variables = model.init(jax.random.key(0), frames, train=False)
    return model, variables


def weights(rng):
    return {
        "teacher.patch_embed.weight": rng.normal(size=(WIDTH, PATCH * PATCH * 3)),
        "teacher.patch_embed.bias": rng.normal(size=WIDTH),
        "student.patch_embed.bias": np.zeros(3),
    }


def test_masks_have_the_grid_of_any_patch(config):
    size = (33, 47)
    model, variables = start(config, size)
    logits = model.apply(variables, jnp.zeros((1, 2, *size, 3)), train=False).logits
    assert logits.shape == (1, 2, 3, 5, 4)
    assert imas.mask_size(config.model, size) == (3, 5)


def test_its_own_normalisation_is_what_it_sees(config):
    model, variables = start(config, (28, 28))
    pixels = np.random.default_rng(0).uniform(0, 1, (1, 28, 28, 3)).astype(np.float32)
    # As all frames are, by ImageNet's statistics.
    mean, std = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
    frames = jnp.asarray((pixels - mean) / std, jnp.float32)
    found = model.apply(variables, frames, False, method="features").deep
    own = (pixels - np.array(PATCHES.mean)) / np.array(PATCHES.std)
    alone = PATCHES.published()
    part = {"params": variables["params"]["backbone"]}
    (expected,) = alone.apply(part, jnp.asarray(own, jnp.float32), train=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert segmenter.BACKBONES["resnet50"].renormalize(frames) is frames


def test_what_is_compared_is_its_last_stage_unless_it_says_otherwise(config):
    _, variables = start(config, (28, 28))
    part = {"params": variables["params"]["backbone"]}
    frames = jax.random.normal(jax.random.key(1), (1, 28, 28, 3))
    alone = PATCHES.published()
    (stage,) = alone.apply(part, PATCHES.renormalize(frames), train=False)
    found = PATCHES.compare(alone, part, frames)
    np.testing.assert_array_equal(found, stage)
    keys = dataclasses.replace(PATCHES, compared="keys")
    found = keys.compare(alone, part, frames)
    np.testing.assert_array_equal(found, -stage)


def test_its_weights_are_read_by_its_own_names(config, tmp_path):
    tensors = weights(np.random.default_rng(0))
    np.savez(tmp_path / "vit.npz", **tensors)
    _, variables = start(config, (28, 28))
    filled = pretrained.load_into(variables, tmp_path / "vit.npz", "patches")
    embed = filled["params"]["backbone"]["embed"]
    kernel = tensors["teacher.patch_embed.weight"].T.astype(np.float32)
    np.testing.assert_array_equal(embed["kernel"], kernel)
    alone = pretrained.load_backbone(tmp_path / "vit.npz", "patches")
    np.testing.assert_array_equal(alone["params"]["embed"]["kernel"], kernel)
    with pytest.raises(errors.UserError, match="no ResNet of a known layout"):
        pretrained.load_backbone(tmp_path / "vit.npz", "resnet50")


def test_what_it_cannot_do_is_refused_by_name(config):
    config.model.update({"output_stride": 8, "feature_merging": True})
    with pytest.raises(errors.UserError) as refusal:
        imas.make_model(config)
    for part in ("8 is none of 14", "model.feature_merging", "patches"):
        assert part in str(refusal.value)
