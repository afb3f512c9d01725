"""Foreign checkpoints -> our variables, by explicit name tables.

Two kinds of file are understood (`weight_names.py` has their names): a ResNet alone,
which fills the backbone, and the authors' own, which fill the whole network. What is
missing, unexpected or misshapen is listed in one error; nothing is loaded halfway.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import traverse_util

from imas_jax import errors
from imas_jax.conventions import Tree
from imas_jax.models import resnet, torch_files, weight_names

NUMBERS = "fiub"  # NumPy's kinds of type that a weight may have


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A file that was read, and the layout its names have."""

    path: Path
    tensors: Mapping[str, np.ndarray]
    layout: weight_names.Layout


def load_backbone(path: Path, depth: resnet.Depth = 50) -> Tree:
    """Read a ResNet from any file of a known layout, the authors' included.

    Args:
        path: Checkpoint file.
        depth: Of the network wanted: 18 or 50.

    Returns:
        Variables (`params`, `batch_stats`) of `resnet.ResNet(depth)`.

    Raises:
        UserError: If the file does not hold this network exactly.
    """
    model = resnet.ResNet(depth=depth)
    frames = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(
        lambda key: model.init(key, frames, train=False), jax.random.key(0)
    )
    return _fill_resnet(shapes, recognise(path, torch_files.read_checkpoint(path)))


def load_into(variables: Tree, path: Path, averaged: bool = False) -> Tree:
    """Replace what a file holds of a network: its backbone, or all of it.

    Args:
        variables: Of `imas.IMAS`; shapes decide what the file must hold.
        path: Checkpoint file of a known layout.
        averaged: Take the authors' moving averages (`_ema`) where the file has them.

    Returns:
        New variables; parts that the file's layout does not have are kept.

    Raises:
        UserError: If the file does not hold exactly what the network needs.
    """
    if "conv1" not in variables["params"]["backbone"]:
        raise errors.UserError(
            f"weights {path} for a backbone that is not a ResNet",
            "model.backbone resnet50 or resnet18 with model.weights",
            "change model.backbone, or set --config.model.weights=",
        )
    file = recognise(path, torch_files.read_checkpoint(path))
    others = variables["params"].keys() - weight_names.PARTS.keys()
    if file.layout.whole and others:
        raise errors.UserError(
            f"{path} holds the authors' whole network, which has no {min(others)}",
            "weights of a backbone alone, or model.name imas",
            "set --config.model.weights= or --config.model.name=imas",
        )
    return fill_network(variables, file, averaged)


def fill_network(variables: Tree, file: Checkpoint, averaged: bool = False) -> Tree:
    """Do the work of `load_into` with a file that was read already."""
    if file.layout.whole:
        root = file.layout.prefix.removesuffix("backbone2.")
        wanted = weight_names.authors_names(variables, root, averaged)
        twins = weight_names.authors_names(variables, root, not averaged)
        foreign = (root + head for head in weight_names.FOREIGN_HEADS)
        return _fill(variables, wanted, file, (*twins.values(), *foreign))
    part = {kind: tree["backbone"] for kind, tree in variables.items()}
    filled = _fill_resnet(part, file)
    return {
        kind: {**tree, "backbone": filled[kind]} for kind, tree in variables.items()
    }


def recognise(path: Path, tensors: Mapping[str, np.ndarray]) -> Checkpoint:
    """Find the family of a file by its tensors' names.

    Raises:
        UserError: If no known layout fits.
    """
    for layout in weight_names.LAYOUTS:
        if layout.prefix + "conv1.weight" in tensors:
            file = Checkpoint(path, tensors, layout)
            _warn_of_supervision(file)
            return file
    known = ", ".join(f"{layout.prefix}conv1.weight" for layout in weight_names.LAYOUTS)
    raise errors.UserError(
        f"{path} holds no ResNet of a known layout; its {len(tensors)} names begin "
        f"with {', '.join(list(tensors)[:3])}",
        f"one of {known}",
        "rename the tensors to torchvision's names, e.g. with safetensors",
    )


def _fill_resnet(template: Tree, file: Checkpoint) -> Tree:
    names = weight_names.resnet_names(template)
    wanted = {name: file.layout.prefix + own for name, own in names.items()}
    return _fill(template, wanted, file, file.layout.ignored)


def _fill(
    template: Tree,
    wanted: Mapping[weight_names.Name, str],
    file: Checkpoint,
    ignored: tuple[str, ...],
) -> Tree:
    return fill(
        template,
        wanted,
        file.tensors,
        ignored,
        what=f"checkpoint {file.path} ({file.layout.family}, {_size(file)})",
        fix="set model.backbone, model.width, model.channels, model.feature_merging, "
        "model.pathway and model.motion_width to those of the file",
    )


def fill(
    template: Tree,
    wanted: Mapping[weight_names.Name, str],
    tensors: Mapping[str, np.ndarray],
    ignored: tuple[str, ...],
    *,
    what: str,
    fix: str,
) -> Tree:
    """Fill a tree from a file's tensors.

    Args:
        template: Tree of arrays or shapes.
        wanted: Leaf of the template -> name in the file.
        tensors: The file's, in torch's layout.
        ignored: How names begin that the file may hold besides.
        what: The file, for the message.
        fix: What the user can do, for the message.

    Raises:
        UserError: If a tensor is missing, unexpected, misshapen or not finite; all are
            listed.
    """
    problems = errors.ProblemList()
    values = {}
    for name, leaf in traverse_util.flatten_dict(template).items():
        key, ours = wanted[name], "/".join(name)
        if key not in tensors:
            problems.add(key, f"missing, for {ours} of shape {torch_shape(leaf.shape)}")
            continue
        tensor = tensors[key]
        value = to_ours(tensor)
        if value.shape != leaf.shape:
            needed = torch_shape(leaf.shape)
            problems.add(key, f"has shape {tensor.shape}, {ours} needs {needed}")
        elif value.dtype.kind not in NUMBERS:
            problems.add(key, f"holds {value.dtype}, no numbers")
        elif not np.isfinite(value).all():
            problems.add(key, "holds values that are not finite")
        else:
            values[name] = value.astype(leaf.dtype)
    known = set(wanted.values())
    for key, tensor in tensors.items():
        counter = key.endswith("num_batches_tracked")
        if not (key in known or counter or key.startswith(ignored)):
            problems.add(key, f"unexpected, of shape {tensor.shape}")
    problems.raise_if_any(
        f"{what} does not fit", "every tensor of the network and no other", fix
    )
    return traverse_util.unflatten_dict(values)


def to_ours(tensor: np.ndarray) -> np.ndarray:
    """Turn torch's (out, in, *taps) into (h, w, in, out); vectors stay."""
    if tensor.ndim < 2:
        return tensor
    if tensor.ndim == 3:  # A pointwise Conv1d of the authors' phi_2.
        tensor = tensor[..., None]
    if tensor.ndim != 4:
        return tensor
    return np.ascontiguousarray(tensor.transpose(2, 3, 1, 0))


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Turn the shape of one of our leaves into torch's, for messages."""
    if len(shape) < 4:
        return shape
    h, w, k, d = shape
    return (d, k, h, w)


def _size(file: Checkpoint) -> str:
    """Describe the ResNet a file seems to hold."""
    prefix, names = file.layout.prefix, file.tensors
    blocks = sum(
        f"{prefix}layer{stage}.{i}.conv1.weight" in names
        for stage in (1, 2, 3, 4)
        for i in range(64)
    )
    bottleneck = f"{prefix}layer1.0.conv3.weight" in names
    width = (*names[f"{prefix}conv1.weight"].shape, 0)[0]
    depth = 2 + blocks * (3 if bottleneck else 2)
    return f"a ResNet-{depth} of width {width}"


def _warn_of_supervision(file: Checkpoint) -> None:
    if file.layout.prefix in ("", "module.") and any(
        key.endswith("fc.weight") for key in file.tensors
    ):
        logging.warning(
            "%s has a classifier: a network trained with ImageNet's labels makes the "
            "result no longer one without annotation",
            file.path,
        )
