"""Vision Transformers, in float64 and float32, against the official DINO and DINOv2."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_names

from imas_jax import geometry
from imas_jax.appearance import cuts
from imas_jax.data import augment
from imas_jax.models import pretrained, vit
from imas_jax.models.segmenter import BACKBONES

pytestmark = pytest.mark.parity

BACKBONE = {"dino_s16": "vit_s16", "dino_s8": "vit_s8", "dinov2_s14": "vit_s14"}
EXACT = 1e-10
DRAWN = ("pos_embed", "cls_token", "mask_token")  # otherwise than weights are


def tensors_of(authors, file, tag, depth=12):
    """Rebuild the official state dict, of the first blocks."""
    tensors = {}
    for name, shape in zip(file[f"{tag}/names"], file[f"{tag}/shapes"], strict=True):
        block = re.match(r"blocks\.(\d+)\.", name)
        if block and int(block[1]) >= depth:
            continue
        shape, full = tuple(map(int, shape.split("x"))), f"{tag}.{name}"
        if name in DRAWN:
            tensors[name] = authors.draw("normal", full, shape, scale=0.5)
        else:
            tensors[name] = authors.recipe.param(full, shape, authors.seed)
    return tensors


def load(authors, file, tag, dtype, depth=12):
    """Build our network of a depth, filled through the real loader."""
    backbone = BACKBONES[BACKBONE[tag]]
    model = backbone.published().copy(depth=depth)
    shapes = jax.eval_shape(
        lambda key: model.init(key, jnp.zeros((1, 28, 28, 3)), train=False),
        jax.random.key(0),
    )
    tensors = tensors_of(authors, file, tag, depth)
    read = pretrained.recognise(Path("recipe"), tensors, BACKBONE[tag])
    filled = pretrained.fill_backbone(shapes, read)
    return model, jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), filled), tensors


def frames_of(authors, file, tag, dtype):
    shape = tuple(file[f"{tag}/input_shape"])
    x = authors.draw("smooth", f"vit.{tag}.input", shape)
    x = x + authors.draw("normal", f"vit.{tag}.input_noise", shape, scale=0.3)
    np.testing.assert_array_equal(x.ravel()[:64], file[f"{tag}/input_check"])
    return jnp.asarray(torch_names.to_channels_last(x), dtype)


def look(model, variables, frames):
    """Return everything that the file has numbers of, by its names."""

    def run(variables, frames):
        size = frames.shape[1:3]

        def all_tokens(model):
            seen = {"patch_embed": model.patch_embed(frames)}
            x = model.assemble(seen["patch_embed"], size)
            seen |= {"pos": model.place(size), "tokens0": x}
            for i, block in enumerate(model.blocks, start=1):
                if i == 1:
                    y = block.attn(block.norm1(x))
                    seen["block1.attn"] = y
                    y = x + (block.ls1(y) if model.layer_scale else y)
                    seen["block1.mlp"] = block.mlp(block.norm2(y))
                if i == model.depth:
                    parts = block.project(x)
                    seen |= dict(zip(("query", "key", "value"), parts, strict=True))
                x = seen[f"block{i}"] = block(x)
            seen["norm"] = model.norm(x)
            return seen | {"cls": seen["norm"][:, 0]}

        return model.apply(variables, method=all_tokens)

    seen = jax.jit(run)(variables, frames)
    q, k = (
        seen[name].reshape(*seen[name].shape[:2], -1, vit.HEAD_WIDTH)
        for name in ("query", "key")
    )
    products = jnp.einsum("bhk,bnhk->bhn", q[:, 0], k) * vit.HEAD_WIDTH**-0.5
    return seen | {"attn_cls": jax.nn.softmax(products, axis=-1)}


def part(values, key):
    """Return what the file keeps of an array under a key's ending."""
    values = np.asarray(values, np.float64)
    if found := re.search(r"\.ch(\d+)$", key):
        return values[..., :: int(found[1])]
    if key.endswith(".token5_img0"):
        return values[0, 5]
    return values.mean(axis=(0, 1)) if key.endswith(".tokmean") else values


def compare(file, keys, found, precision, record):
    """Record keys; ours are found under them without their endings."""
    assert keys
    for key in keys:
        tag, name = key.split("/")
        whole = re.sub(r"\.(ch\d+|token5_img0|tokmean)$", "", name)
        floor = float(file[f"relerr_f32_f64/{key}"])
        double = precision == "float64"
        gap = torch_names.error(part(found[whole], name), file[f"{key}_f64"])
        limit = EXACT if double else torch_names.limit(floor)
        record("vit", f"{tag}/{name}, {precision}", gap, floor, limit)


def keys_of(file, pattern):
    """Return the keys that have a float64 run, without what says so."""
    found = (re.fullmatch(rf"({pattern})_f64", key) for key in file)
    return [match[1] for match in found if match]


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("depth", [3, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tag", BACKBONE)
def test_every_layer_agrees(tag, depth, precision, authors, record):
    file = authors.load("vit")
    if depth == 3:
        keys = keys_of(file, rf"{tag}/depth3\.\w+(\.ch\d+)?")
    else:
        keys = keys_of(file, rf"{tag}/(?!pos_|depth3|ragged|tokens0_masked)[\w.]+")
    if not keys:
        pytest.skip("not in the subset; make parity runs this test")
    with jax.enable_x64(precision == "float64"):
        model, variables, _ = load(authors, file, tag, precision, depth)
        frames = frames_of(authors, file, tag, precision)
        found = look(model, variables, frames)
        stages = model.apply(variables, frames, train=False)
        keys_map = model.apply(variables, frames, method="keys")
        # What the rest of the project takes is these tokens, on the grid.
        for ours, theirs in ((stages[-1], found["norm"]), (keys_map, found["key"])):
            np.testing.assert_allclose(
                ours.reshape(theirs[:, 1:].shape), theirs[:, 1:], rtol=1e-4, atol=1e-4
            )
        if depth == 3:
            found = {f"depth3.{name}": values for name, values in found.items()}
        compare(file, keys, found, precision, record)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("tag", BACKBONE)
def test_position_embeddings_are_resized_as_officially(tag, authors, record):
    file = authors.load("vit")
    keys = keys_of(file, rf"{tag}/pos_.+\.ch64")
    shapes = dict(zip(file[f"{tag}/names"], file[f"{tag}/shapes"], strict=True))
    shape = tuple(map(int, shapes["pos_embed"].split("x")))
    table = authors.draw("normal", f"{tag}.pos_embed", shape, scale=0.5)
    others = {"cls_token": (1, 1, 384), "register_tokens": (1, 4, 384)}
    params = {name: jnp.zeros(shape) for name, shape in others.items()}
    variables = {"params": params | {"pos_embed": jnp.asarray(table, float)}}
    model = BACKBONES[BACKBONE[tag]].published()
    for key in keys:
        h, w = map(int, re.search(r"_(\d+)x(\d+)\.", key).groups())
        registers = 4 if "antialias" in key else 0
        one = model.copy(registers=registers)
        found = one.apply(variables, (h, w), method="place")
        gap = torch_names.error(found[0, :, ::64], file[f"{key}_f64"])
        floor = float(file[f"relerr_f32_f64/{key}"])
        record("vit", f"{key}, float64", gap, floor, EXACT)
        same = file.get(key.replace(".ch64", ".identity"))
        assert same is None or bool(same) == np.array_equal(found, table)


@pytest.mark.usefixtures("float64")
def test_frames_of_no_whole_patches_and_hidden_patches(authors, record):
    """What is ours around the tokens (resizing, no hiding) is left out here."""
    file = authors.load("vit")
    model, variables, _ = load(authors, file, "dino_s16", float, depth=1)
    shape = tuple(file["dino_s16/ragged.input_shape"])
    x = authors.draw("normal", "vit.dino_s16.ragged", shape)
    x = jnp.asarray(torch_names.to_channels_last(x), float)

    def tokens(model):
        return model.assemble(model.patch_embed(x), x.shape[1:3])

    found = {"ragged.tokens0": model.apply(variables, method=tokens)}
    keys = ["dino_s16/ragged.tokens0.ch16"]
    compare(file, keys, found, "float64", record)

    model, variables, tensors = load(authors, file, "dinov2_s14", float, depth=1)
    x = frames_of(authors, file, "dinov2_s14", float)
    hidden = jnp.asarray(file["dinov2_s14/mask"])[..., None]

    def masked(model):
        token = jnp.asarray(tensors["mask_token"], float)[None]
        seen = jnp.where(hidden, token, model.patch_embed(x))
        return model.assemble(seen, x.shape[1:3])

    found = {"tokens0_masked": model.apply(variables, method=masked)}
    compare(file, ["dinov2_s14/tokens0_masked.ch32"], found, "float64", record)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_the_later_methods_judge_sees_the_same_keys(authors, record):
    """RCF's stage 2.2: a frame of no whole patches, its keys, and what cuts cost."""
    later, file = authors.load("rcf_later"), authors.load("vit")
    model, variables, _ = load(authors, file, "dino_s8", float)
    image = jnp.asarray(later["s22/images"][:1], float)
    grid = tuple(map(int, later["s22/grid"]))
    assert BACKBONES["vit_s8"].grid(image.shape[1:3], 8) == grid
    frames = augment.normalize(image * 255.0)
    resized = geometry.resize(frames, (grid[0] * 8, grid[1] * 8))
    found = {
        "vit.image_resized": torch_names.to_channels_first(resized[:, ::4, ::4]),
        "vit.key.ch8": look(model, variables, resized)["key"][..., ::8],
    }
    keys = np.asarray(model.apply(variables, frames, method="keys"))[0]
    ties = cuts.affinity(keys, float(later["s22/vit.tau"]))
    masks = np.moveaxis(later["s22/masks"][0].astype(float), 0, -1)
    small = np.moveaxis(cuts.nearest(masks, grid), -1, 0)
    found["vit.ncut"] = np.array([cuts.cost(ties, mask) for mask in small])
    for key, ours in found.items():
        gap = torch_names.error(ours, later[f"s22/{key}_f64"])
        floor = float(later[f"relerr_f32_f64/s22/{key}"])
        record("rcf_later", f"s22/{key}, float64", gap, floor, EXACT)
