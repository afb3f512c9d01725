"""Backbone and heads, in float32, against the authors' float32 numbers."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_names

from imas_jax.conventions import Features
from imas_jax.models import heads, resnet

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def variables(authors):
    channels = int(authors.load("seg_head")["eval.logits"].shape[1])
    config = torch_names.network_config(channels=channels)
    return torch_names.variables_of(authors, config)


def subtree(variables, part):
    return {kind: tree[part] for kind, tree in variables.items()}


def summary(maps, key):
    """Return what the file keeps of a stage's output, (n, c, h, w)."""
    if key == "chmean":
        return maps.mean(axis=(0, 2, 3))
    if key == "chstd":
        return maps.std(axis=(0, 2, 3))
    if key == "shape":
        return np.array(maps.shape)
    if found := re.fullmatch(r"ch(\d+)to(\d+)", key):
        return maps[:, int(found[1]) : int(found[2]) + 1]
    if found := re.fullmatch(r"pixel_y(\d+)_x(\d+)", key):
        return maps[:, :, int(found[1]), int(found[2])]
    return maps[:, :: {"full": 4, "full_half": 8}[key]]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_backbone_agrees_in_every_stage(mode, authors, variables, record):
    file = authors.load("backbone")
    shape = tuple(file["input_shape"])
    frames = authors.draw("smooth", "backbone.input", shape)
    frames = frames + authors.draw("normal", "backbone.input_noise", shape, scale=0.3)
    np.testing.assert_array_equal(frames.ravel()[:64], file["input_check"])
    model, tree = resnet.ResNet(50), subtree(variables, "backbone")

    @jax.jit
    def run(tree, x):
        return model.apply(tree, x, train=mode == "train", mutable=["batch_stats"])

    stages, updated = run(tree, torch_names.to_channels_last(frames))
    floors = file[f"relerr_f32_f64.{mode}"]
    for key, theirs in file.items():
        found = re.fullmatch(rf"{mode}\.stage(\d)\.(\w+)", key)
        if found:
            stage = int(found[1]) - 1
            maps = torch_names.to_channels_first(stages[stage]).astype(np.float64)
            ours = summary(maps, found[2])
            if found[2] == "shape":
                np.testing.assert_array_equal(ours, theirs)
                continue
            floor = floors[stage]
            record(
                "backbone",
                key,
                torch_names.error(ours, theirs),
                floor,
                torch_names.limit(floor),
            )
    if mode == "train":
        ours = torch_names.by_name(
            {"batch_stats": {"backbone": updated["batch_stats"]}}
        )
        floor = floors.max()
        for key, theirs in file.items():
            if key.startswith("train.updated."):
                name = key.replace("train.updated.", "backbone2.")
                gap = torch_names.error(ours[name], theirs)
                record("backbone", key, gap, floor, torch_names.limit(floor))


HEADS = {
    "seg_head": ("segmentation_head", heads.SegmentationHead),
    "residual_head": ("residual_head", heads.ResidualFlowHead),
}


@pytest.mark.parametrize("item", HEADS)
def test_head_agrees_in_both_modes(item, authors, variables, record):
    file = authors.load(item)
    part, kind = HEADS[item]
    head = kind(file["eval.logits"].shape[1], dropout=0.0)
    tree = subtree(variables, part)

    def features(name):
        shape = tuple(file[f"{name}_shape"])
        x = authors.draw("smooth", f"{item}.{name}", shape) + authors.draw(
            "normal", f"{item}.{name}_noise", shape, scale=0.5
        )
        x = np.maximum(x, 0)
        np.testing.assert_array_equal(x.ravel()[:64], file[f"{name}_check"])
        return jnp.asarray(torch_names.to_channels_last(x))

    inputs = [features(key[:-6]) for key in file if key.endswith("_shape")]
    x = Features(*inputs if item == "seg_head" else (None, *inputs))
    for mode in ("eval", "train"):
        run = jax.jit(
            lambda tree, x, mode=mode: head.apply(
                tree, x, train=mode == "train", mutable=["batch_stats"]
            )
        )
        logits, updated = run(tree, x)
        floor = float(file[f"relerr_f32_f64.{mode}"])
        gap = torch_names.error(
            torch_names.to_channels_first(logits), file[f"{mode}.logits"]
        )
        record(item, f"{mode}.logits", gap, floor, torch_names.limit(floor))
    ours = torch_names.by_name({"batch_stats": {part: updated["batch_stats"]}})
    for key, theirs in file.items():
        if key.startswith("train.updated."):
            gap = torch_names.error(ours[key.removeprefix("train.updated.")], theirs)
            record(item, key, gap, floor, torch_names.limit(floor))
