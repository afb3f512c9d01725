"""Foreign checkpoints -> our variables, by explicit name tables.

Two kinds of file are understood: a backbone alone, by the names its own record has
(`backbone.Foreign`), and the authors' stage-1 and stage-2 checkpoints, which fill the
whole network. What is missing, unexpected or misshapen is listed in one error; nothing
is loaded halfway.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import traverse_util

from imas_jax import errors
from imas_jax.conventions import Tree
from imas_jax.models import resnet, torch_files
from imas_jax.models.backbone import Foreign, Layout, Name
from imas_jax.models.segmenter import BACKBONES

# Our part -> the authors' module.
PARTS = {
    "backbone": "backbone2",
    "segmentation_head": "decode_head2",
    "residual_head": "decode_head3",
    "motion_pooling": "decode_head",
}
# Parts of which the authors also keep an exponential moving average.
AVERAGED = ("backbone", "segmentation_head")
# Part -> our modules and what the authors call them.
HEAD_LAYERS = {
    "conv1": "convs.0.conv",
    "bn1": "convs.0.bn",
    "conv2": "convs.1.conv",
    "bn2": "convs.1.bn",
    "classifier": "conv_seg",
}
LAYERS: dict[str, Mapping[str, str]] = {
    "backbone": resnet.LAYERS,
    "segmentation_head": HEAD_LAYERS,
    "residual_head": HEAD_LAYERS,
    "motion_pooling": {
        "phi_1_0": "flow_feat_before_agg.0",
        "phi_1_1": "flow_feat_before_agg.2",
        "phi_2_0": "flow_feat_after_agg.0",
        "phi_2_1": "flow_feat_after_agg.2",
    },
}

NUMBERS = "fiub"  # NumPy's kinds of type that a weight may have


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A file that was read, and how it holds a backbone."""

    path: Path
    tensors: Mapping[str, np.ndarray]
    foreign: Foreign
    layout: Layout


def load_backbone(path: Path, backbone: str) -> Tree:
    """Read a backbone alone from any file of a known layout, the authors' included.

    Args:
        path: Checkpoint file.
        backbone: A name of `BACKBONES`.

    Returns:
        Variables of that backbone's `published()` network.

    Raises:
        UserError: If the file does not hold this network exactly.
    """
    return _fill_published(path, torch_files.read_checkpoint(path), backbone)


@functools.lru_cache(maxsize=1)
def identify(path: Path) -> str:
    """Return the name of the backbone that a file holds, by its tensors.

    Raises:
        UserError: If it holds none exactly; what each lacks is told.
    """
    tensors, problems = torch_files.read_checkpoint(path), errors.ProblemList()
    for name in BACKBONES:
        try:
            _fill_published(path, tensors, name)
        except errors.UserError as error:
            problems.add(name, "\n".join(error.found.splitlines()[:2]).strip())
        else:
            return name
    problems.raise_if_any(
        f"{path} holds no backbone that is known",
        f"the weights of one of {', '.join(BACKBONES)}, and no others",
        "take another file; if the backbone is one of your own sizes, say which with "
        "--config.model.backbone and --config.model.width",
    )
    raise AssertionError("no backbone has weights")


def load_into(
    variables: Tree, path: Path, backbone: str, averaged: bool = False
) -> Tree:
    """Replace what a file holds of a network: its backbone, or all of it.

    Args:
        variables: Of `imas.IMAS` or `amd.AMD`; shapes decide what the file must hold.
        path: Checkpoint file of a known layout.
        backbone: The network's, a name of `BACKBONES`.
        averaged: Take the authors' moving averages (`_ema`) where the file has them.

    Returns:
        New variables; parts that the file's layout does not have are kept.

    Raises:
        UserError: If the file does not hold exactly what the network needs.
    """
    file = recognise(path, torch_files.read_checkpoint(path), backbone)
    others = variables["params"].keys() - PARTS.keys()
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
        wanted = authors_names(variables, root, averaged)
        twins = authors_names(variables, root, not averaged)
        foreign = (root + head for head in resnet.FOREIGN_HEADS)
        return _fill(variables, wanted, file, (*twins.values(), *foreign))
    # Of a backbone without batch norm there are no statistics.
    having = {kind: tree for kind, tree in variables.items() if "backbone" in tree}
    part = {kind: tree["backbone"] for kind, tree in having.items()}
    filled = fill_backbone(part, file)
    return variables | {
        kind: {**tree, "backbone": filled[kind]} for kind, tree in having.items()
    }


def fill_backbone(template: Tree, file: Checkpoint) -> Tree:
    """Fill the variables of a backbone alone, arrays or shapes, from a file."""
    names = file.foreign.names(template)
    wanted = {name: file.layout.prefix + own for name, own in names.items()}
    return _fill(template, wanted, file, file.layout.ignored)


def recognise(
    path: Path, tensors: Mapping[str, np.ndarray], backbone: str
) -> Checkpoint:
    """Find the layout of a file by its tensors' names.

    Raises:
        UserError: If no layout known for this backbone fits, or only by its names.
    """
    foreign = BACKBONES[backbone].foreign
    for layout in foreign.layouts:
        if layout.prefix + foreign.landmark in tensors:
            if told := foreign.objection(tensors, layout.prefix):
                raise errors.UserError(
                    f"{path} is no {backbone}: {told}",
                    f"weights of {backbone} as published",
                    "take others: python -m imas_jax.weights lists them",
                )
            _warn_of_supervision(path, tensors, layout)
            return Checkpoint(path, tensors, foreign, layout)
    known = ", ".join(layout.prefix + foreign.landmark for layout in foreign.layouts)
    raise errors.UserError(
        f"{path} holds no {foreign.kind} of a known layout; its {len(tensors)} names "
        f"begin with {', '.join(list(tensors)[:3])}",
        f"one of {known}",
        "rename the tensors to one of these layouts, e.g. with safetensors, or set "
        "model.backbone (of frozen features: align.backbone) to what the file holds",
    )


def authors_names(variables: Tree, root: str, averaged: bool) -> dict[Name, str]:
    """Return our leaf -> the authors' name.

    Args:
        variables: Of the whole network, arrays or shapes.
        root: What stands before the authors' module names: "model." or "".
        averaged: Name their moving averages where they have them.
    """
    names = {}
    for name in traverse_util.flatten_dict(variables):
        _, part, *rest = name
        module = PARTS[part]
        if averaged and part in AVERAGED:
            module += "_ema"
        inner = torch_files.torch_name(tuple(rest), LAYERS[part])
        names[name] = f"{root}{module}.{inner}"
    return names


def _fill_published(
    path: Path, tensors: Mapping[str, np.ndarray], backbone: str
) -> Tree:
    """Fill a backbone as it is published."""
    file = recognise(path, tensors, backbone)
    model = BACKBONES[backbone].published()
    frames = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(
        lambda key: model.init(key, frames, train=False), jax.random.key(0)
    )
    return fill_backbone(shapes, file)


def _fill(
    template: Tree,
    wanted: Mapping[Name, str],
    file: Checkpoint,
    ignored: tuple[str, ...],
) -> Tree:
    held = file.foreign.describe(file.tensors, file.layout.prefix)
    return fill(
        template,
        wanted,
        file.tensors,
        ignored,
        what=f"checkpoint {file.path} ({file.layout.family}, {held})",
        fix="set model.backbone, model.width, model.channels, model.feature_merging, "
        "model.pathway and model.motion_width to those of the file",
    )


def fill(
    template: Tree,
    wanted: Mapping[Name, str],
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
        needed = torch_files.torch_shape(leaf.shape)
        if key not in tensors:
            problems.add(key, f"missing, for {ours} of shape {needed}")
            continue
        tensor = tensors[key]
        value = torch_files.to_kernel(tensor) if name[-1] == "kernel" else tensor
        if value.shape != leaf.shape:
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


def _warn_of_supervision(
    path: Path, tensors: Mapping[str, np.ndarray], layout: Layout
) -> None:
    if layout.classifier in tensors:
        logging.warning(
            "%s has a classifier: a network trained with ImageNet's labels makes the "
            "result no longer one without annotation",
            path,
        )
