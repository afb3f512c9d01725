"""DenseCL through the project's own neck, losses and step, against the authors' code.

`neck`, `warmup` and `wrap` are three steps on feature maps (the backbone is the
identity), `r50` two whole steps of a ResNet-50. The file has its tensors in float64
too, so that 1e-10 can be asked of them (1e-7 of what the file's page says).
"""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_names
from flax import traverse_util

from imas_jax.models import densecl, resnet, torch_files
from imas_jax.training import contrast, parallel

pytestmark = pytest.mark.parity

EXACT = 1e-10
TEMPERATURE, MOMENTUM, RATE = 0.2, 0.999, 0.03
HIDDEN = {"neck": 80, "r50": 2048}


@dataclasses.dataclass(frozen=True)
class Item:
    """One part of the file."""

    name: str
    weights: str  # of which part its weights are
    steps: int


NECK = [Item("neck", "neck", 3), Item("warmup", "neck", 3), Item("wrap", "neck", 3)]
R50 = Item("r50", "r50", 2)


def encoder(item):
    if item.weights == "neck":
        return densecl.Neck(HIDDEN["neck"])
    return densecl.Encoder("resnet50", 64, 32)


def torch_name(path):
    """Return the authors' name of a leaf below an encoder."""
    _, *inner = path
    if inner[0] == "backbone":
        return "0." + torch_files.torch_name(tuple(inner[1:]), resnet.LAYERS)
    if inner[0] == "neck":
        inner = inner[1:]
    return "1." + torch_files.torch_name(tuple(inner), densecl.LAYERS)


def draw_encoder(authors, item, which, shapes, dtype):
    """Rebuild one encoder by the authors' names."""
    leaves = {}
    for path, leaf in traverse_util.flatten_dict(shapes).items():
        name = f"encoder_{which}.{torch_name(path)}"
        shape = torch_files.torch_shape(leaf.shape)
        if name.endswith("mlp2.0.weight") or name.endswith("mlp2.2.weight"):
            assert len(shape) == 4
        tensor = authors.recipe.param(
            f"densecl.{item.weights}.{name}", shape, authors.seed
        )
        if name.endswith("bn3.weight"):
            tensor = tensor * np.float32(0.1)
        value = torch_files.to_kernel(tensor) if path[-1] == "kernel" else tensor
        leaves[path] = np.asarray(value, dtype)
    return traverse_util.unflatten_dict(leaves)


def by_name(params):
    """Return the authors' name -> leaf of the query encoder, in torch's layout."""
    leaves = traverse_util.flatten_dict({"params": params})
    found = {}
    for path, leaf in leaves.items():
        leaf = np.asarray(leaf)
        leaf = leaf.T if leaf.ndim == 2 else torch_names.to_torch(leaf)
        found[torch_name(path)] = leaf
    return found


def queues_of(authors, item, file, dtype):
    size = int(file[f"{item.name}/queue_len"])
    drawn = []
    for name in ("queue", "queue2"):
        stream = f"densecl.{item.weights}.{name}"
        n = authors.recipe.rng(stream, authors.seed).standard_normal((128, size))
        n = np.float32(n / np.sqrt((n**2).sum(axis=0)))
        drawn.append(jnp.asarray(n.T, dtype))
    return contrast.Queues(*drawn, jnp.zeros((), jnp.int32))


def views_of(authors, item, file, step, dtype):
    """Rebuild the query and the key views of a step, channels last."""
    if item.weights == "neck":
        b, _, c, h, w = map(int, file["neck/feat_shape"])
        wave = authors.draw("smooth", f"densecl.feat{step}", (b, 1, c, h, w), waves=3)
        noise = authors.draw(
            "normal", f"densecl.feat{step}_noise", (b, 2, c, h, w), scale=0.5
        )
        both = np.maximum(wave + noise, 0)
    else:
        shape = tuple(map(int, file["r50/input_shape"]))[-5:]
        both = authors.draw("smooth", f"densecl.img{step}", shape)
        both = both + authors.draw(
            "normal", f"densecl.img{step}_noise", shape, scale=0.3
        )
    both = jnp.asarray(torch_names.to_channels_last(both), dtype)
    return both[:, 0], both[:, 1]


def encode_with(model):
    """Return the `contrast.Encode` of a neck alone, or of backbone and neck."""
    if isinstance(model, densecl.Neck):
        return lambda params, stats, x: (model.apply({"params": params}, x), stats)

    def encode(params, stats, x):
        seen, changed = model.apply(
            {"params": params, "batch_stats": stats}, x, True, mutable=["batch_stats"]
        )
        return seen, changed["batch_stats"]

    return encode


def settings_of(item, file):
    dense = float(file[f"{item.name}/loss_lambda"]) if item.name != "r50" else 0.5
    return contrast.Settings(TEMPERATURE, MOMENTUM, dense, warm_up=0, groups=1)


def run(authors, item, file, dtype):
    """Train as an item says; return all quantities by the file's keys."""
    model = encoder(item)
    views = [views_of(authors, item, file, i, dtype) for i in range(item.steps)]
    shapes = jax.eval_shape(
        lambda key: model.init(key, views[0][0], *([True] * (item.name == "r50"))),
        jax.random.key(0),
    )
    query, key = (draw_encoder(authors, item, q, shapes, dtype) for q in "qk")
    optimizer = contrast.make_optimizer(RATE, 1e-4)
    state = contrast.create_state(query, optimizer, 0, 4, 128).replace(
        ema={"params": key["params"], "batch_stats": key.get("batch_stats", {})},
        queues=queues_of(authors, item, file, dtype),
    )
    encode, settings = encode_with(model), settings_of(item, file)
    step = jax.pmap(
        lambda state, q, k: contrast.update(
            state, q, k, encode, optimizer, settings, jax.random.key(0)
        ),
        axis_name=parallel.AXIS,
        devices=jax.local_devices()[:1],
    )
    found = {}
    for i, (q, k) in enumerate(views, start=1):
        when = f".step{i}"
        if item.name in ("neck", "r50") and (i == 1 or item.name == "r50"):
            mark = when if item.name == "r50" else ""
            found |= first_look(item, state, encode, settings, q, k, mark)
        carried, metrics = step(*jax.tree.map(lambda x: x[None], (state, q, k)))
        after = jax.tree.map(lambda x: x[0], carried)
        metrics = {name: float(value[0]) for name, value in metrics.items()}
        weight = settings.dense_weight
        found[f"loss_contra_single{when}"] = (1 - weight) * metrics["image"]
        found[f"loss_contra_dense{when}"] = weight * metrics["dense"]
        found[f"loss{when}"] = metrics["loss"]
        # Of the neck the file has the gradients of the first step alone.
        found = changes(state, after, query, key, file, item, when) | found
        state = after
    last = item.steps
    for name, values in (
        ("queue", state.queues.image),
        ("queue2", state.queues.pooled),
    ):
        found[f"{name}_after{last}.ch8"] = np.asarray(values).T[::8]
    return found


def first_look(item, state, encode, settings, q, k, when):
    """Return embeddings, logits and gradients before a step's update."""
    m = settings.momentum
    keys = jax.tree.map(
        lambda a, b: m * a + (1.0 - m) * b, state.ema["params"], state.params
    )
    seen = encode(state.params, state.batch_stats, q)[0]
    other = encode(keys, state.ema["batch_stats"], k)[0]
    found = {}
    for name, one in (("q", seen), ("k", other)):
        found[f"{name}{when}"], found[f"{name}2{when}"] = one.image, one.pooled
        found[f"{name}_grid{when}"] = np.asarray(one.dense).transpose(0, 2, 1)
    found[f"sim{when}"] = np.einsum("bsk,btk->bst", seen.grid, other.grid)
    found[f"match{when}"] = densecl.matches(seen, other)
    if item.name == "r50":
        return found
    image = densecl.image_logits(seen, other, state.queues.image)
    dense = densecl.dense_logits(seen, other, state.queues.pooled)
    found |= {
        "l_pos": image[0],
        "l_neg.ch4": image[1][:, ::4],
        "l_pos_dense": dense[0],
        "l_neg_dense.ch8": dense[1][:, ::8],
        "ce_global": densecl.contrast(*image, TEMPERATURE),
        "ce_dense": densecl.contrast(*dense, TEMPERATURE),
    }

    def loss(views):
        seen = encode(state.params, state.batch_stats, views[0])[0]
        other = jax.lax.stop_gradient(
            encode(keys, state.ema["batch_stats"], views[1])[0]
        )
        image = densecl.image_logits(seen, other, state.queues.image)
        dense = densecl.dense_logits(seen, other, state.queues.pooled)
        return 0.5 * sum(densecl.contrast(*x, TEMPERATURE) for x in (image, dense))

    slope = torch_names.to_channels_first(jax.grad(loss)((q, k))[0])
    return found | {"input_grad.query_ch8": slope[:, ::8]}


def changes(state, after, query, key, file, item, when):
    """Return gradients (from the momentum buffer), and how far parameters moved."""
    names = [n.removeprefix("encoder_q.") for n in file[f"{item.weights}/param_names"]]
    found = {}
    trace, before = (by_name(momentum_of(one)) for one in (after, state))
    # Momentum's buffer: 0.9 of what it was, the gradient, and the weight decay.
    start = by_name(state.params)
    gradients = {n: trace[n] - 0.9 * before[n] - 1e-4 * start[n] for n in names}
    found[f"grad_norm{when}"] = torch_names.norms(gradients[n] for n in names)
    now, first = by_name(after.params), by_name(query["params"])
    found[f"q_delta_norm{when}"] = torch_names.norms(now[n] - first[n] for n in names)
    theirs, was = by_name(after.ema["params"]), by_name(key["params"])
    found[f"k_delta_norm{when}"] = torch_names.norms(theirs[n] - was[n] for n in names)
    found[f"queue_ptr{when}"] = [after.queues.pointer] * 2
    kept = {f"delta{when}": {n: now[n] - first[n] for n in names}}
    kept["grad" if item.name == "neck" else f"grad{when}"] = gradients
    for kind, tensors in kept.items():
        for n in names:
            found[f"{kind}/encoder_q.{n}"] = tensors[n]
    if item.name == "r50":
        found |= statistics(after, file, when)
    return found


def statistics(after, file, when):
    """Return norms of running statistics, and the first layer's in full."""
    found = {}
    for which, stats in (("q", after.batch_stats), ("k", after.ema["batch_stats"])):
        leaves = traverse_util.flatten_dict({"batch_stats": stats})
        named = {torch_name(path): leaf for path, leaf in leaves.items()}
        names = [
            re.sub(r"^encoder_[qk]\.", "", str(name)) for name in file["r50/bn_names"]
        ]
        names = [name if name.startswith("0.") else f"0.{name}" for name in names]
        found[f"bn_norm_{which}{when}"] = torch_names.norms(named[n] for n in names)
        for part in ("running_mean", "running_var"):
            found[f"bn1.{part}_{which}{when}"] = named[f"0.bn1.{part}"]
    return found


def momentum_of(state):
    """Return the buffer of SGD's momentum."""
    return state.opt_state[1][0].trace


def thinned(key, ours, theirs):
    """Take of a whole tensor what the file keeps of it."""
    ours = np.asarray(ours)
    if ours.size == np.size(theirs):
        return ours
    ours = ours[::4]
    return ours[:, ::8] if ours.size != np.size(theirs) else ours


def limit_of(key):
    return 1e-7 if "delta_norm" in key else EXACT


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("item", NECK, ids=lambda item: item.name)
def test_the_neck_learns_as_the_authors(item, authors, record):
    file = authors.load("densecl")
    compare(item, run(authors, item, file, np.float64), file, record, at_least=20)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_whole_steps_of_a_resnet50_agree(authors, record):
    file = authors.load("densecl")
    compare(R50, run(authors, R50, file, np.float64), file, record, at_least=40)


def compare(item, found, file, record, at_least):
    """Record every quantity of an item in float64."""
    keys = [
        key.removeprefix(f"{item.name}/")
        for key in file
        if key.startswith(f"{item.name}/")
    ]
    compared = 0
    for key in keys:
        name = key.removesuffix("_f64")
        if name not in found or (name == key and f"{key}_f64" in keys):
            continue
        theirs = file[f"{item.name}/{key}"]
        ours = thinned(name, found[name], theirs)
        floor = file.get(f"relerr_f32_f64/{item.name}/{name}")
        whole = np.asarray(theirs).dtype.kind in "iu"
        gap = torch_names.error(ours, theirs)
        record(
            "densecl", f"{item.name} {name}", gap, floor, 0 if whole else limit_of(name)
        )
        compared += 1
    missing = [
        key
        for key in keys
        if key.removesuffix("_f64") not in found and not DESCRIBES.search(key)
    ]
    assert not missing
    assert compared >= at_least


# Keys that say how the numbers were made; and the float32 run's matches.
DESCRIBES = re.compile(
    r"(names|shapes?|check|queue_len|loss_lambda|queue_in|min_gap\S*|match_f32\S*|"
    r"feat_[qk]\.ch16\S*)$"
)
