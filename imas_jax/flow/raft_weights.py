"""Released RAFT checkpoints -> our tree, by an explicit table of names.

Two families of names are read: the official ones (princeton-vl/RAFT, with or without
the `module.` of a data-parallel run) and torchvision's (`Raft_Large_Weights.C_T_V1`,
`C_T_V2`, `Raft_Small_Weights.C_T_V1`, `C_T_V2`). Which network a file holds is seen
from its first convolution.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from flax import traverse_util

from imas_jax import conventions, errors
from imas_jax.flow import raft_layers
from imas_jax.models import pretrained, torch_files

Family = Literal["official", "torchvision"]
Checkpoint = Mapping[str, np.ndarray]

FIRST: dict[Family, str] = {
    "official": "fnet.conv1.weight",
    "torchvision": "feature_encoder.convnormrelu.0.weight",
}
# Our module, its official name, its torchvision name; first the two encoders' parts.
ENCODERS = (
    ("feature_encoder", "fnet", "feature_encoder"),
    ("context_encoder", "cnet", "context_encoder"),
)
STEM = (
    ("conv1", "conv1", "convnormrelu.0"),
    ("norm1", "norm1", "convnormrelu.1"),
    ("conv2", "conv2", "conv"),
)
BLOCK = (
    ("conv1", "conv1", "convnormrelu1.0"),
    ("norm1", "norm1", "convnormrelu1.1"),
    ("conv2", "conv2", "convnormrelu2.0"),
    ("norm2", "norm2", "convnormrelu2.1"),
    ("conv3", "conv3", "convnormrelu3.0"),
    ("downsample_conv", "downsample.0", "downsample.0"),
    ("downsample_norm", "downsample.1", "downsample.1"),
)
MOTION = (
    ("correlation1", "convc1", "convcorr1.0"),
    ("correlation2", "convc2", "convcorr2.0"),
    ("flow1", "convf1", "convflow1.0"),
    ("flow2", "convf2", "convflow2.0"),
    ("fuse", "conv", "conv.0"),
)
GATES = (("update", "convz"), ("reset", "convr"), ("proposal", "convq"))
FLOW_HEAD = "update_block.flow_head."
HEADS = (
    ("update/head/conv1", FLOW_HEAD + "conv1", FLOW_HEAD + "conv1"),
    ("update/head/conv2", FLOW_HEAD + "conv2", FLOW_HEAD + "conv2"),
    ("mask_head/conv1", "update_block.mask.0", "mask_predictor.convrelu.0"),
    ("mask_head/conv2", "update_block.mask.2", "mask_predictor.conv"),
)
# A second name of `downsample.1`, which official files hold besides.
ALIASES = ("cnet.layer2.0.norm3.", "cnet.layer3.0.norm3.")


def identify(checkpoint: Checkpoint, where: Path) -> tuple[raft_layers.Size, Family]:
    """Tell network and family of names from the first convolution.

    Args:
        checkpoint: Foreign names, with or without `module.`, and arrays.
        where: The checkpoint's file, for messages.

    Raises:
        UserError: If it is no RAFT.
    """
    for family, name in FIRST.items():
        first = checkpoint.get(name, checkpoint.get("module." + name))
        for size, architecture in raft_layers.ARCHITECTURES.items():
            if first is not None and first.shape[:1] == architecture.widths[:1]:
                return size, family
    some = ", ".join(sorted(checkpoint)[:4])
    raise errors.UserError(
        f"weights {where}: no RAFT, but {len(checkpoint)} tensors: {some}, ...",
        f"{' or '.join(FIRST.values())} with 32 (small) or 64 (large) rows",
        "use raft-things.pth of princeton-vl/RAFT or raft_large_C_T_V2 of torchvision",
    )


def convert(
    checkpoint: Checkpoint, wanted: conventions.Tree, where: Path
) -> conventions.Tree:
    """Translate a checkpoint into the variables of `raft.Raft`.

    Args:
        checkpoint: Foreign names, with or without `module.`, and arrays in torch's
            layout.
        wanted: The variables' shapes, as `jax.eval_shape` of `init` gives them.
        where: The checkpoint's file, for messages.

    Raises:
        UserError: If any name or shape does not fit; all are listed.
    """
    size, family = identify(checkpoint, where)
    prefix = "" if FIRST[family] in checkpoint else "module."
    names = foreign_names(wanted, size, family)
    return pretrained.fill(
        wanted,
        {path: prefix + name for path, name in names.items()},
        checkpoint,
        tuple(prefix + name for name in ALIASES),
        what=f"weights {where} (RAFT-{size}, {family} names)",
        fix="use a checkpoint as princeton-vl/RAFT or torchvision released it",
    )


def foreign_names(
    variables: conventions.Tree, size: raft_layers.Size, family: Family
) -> dict[tuple[str, ...], str]:
    """Return our leaf's path, collection first -> its foreign name."""
    modules = module_names(size, family)
    names = {}
    for path in traverse_util.flatten_dict(variables):
        _, *inner, leaf = path
        # A norm's leaves lie one level deeper in our tree.
        module = "/".join(name for name in inner if name != "batch")
        names[path] = f"{modules[module]}.{torch_files.LEAVES[leaf]}"
    return names


def module_names(size: raft_layers.Size, family: Family) -> dict[str, str]:
    """Return the foreign name of each of our modules.

    Parts that this network lacks are named too; nobody asks for them.
    """
    column = 1 if family == "official" else 2
    names = {row[0]: row[column] for row in HEADS}
    for encoder in ENCODERS:
        ours, theirs = encoder[0], encoder[column]
        names |= {f"{ours}/{row[0]}": f"{theirs}.{row[column]}" for row in STEM}
        for stage, i, row in itertools.product((1, 2, 3), (0, 1), BLOCK):
            name = f"{theirs}.layer{stage}.{i}.{row[column]}"
            names[f"{ours}/layer{stage}_{i}/{row[0]}"] = name
    motion = ("encoder", "motion_encoder")[column - 1]
    for row in MOTION:
        names[f"update/motion_encoder/{row[0]}"] = (
            f"update_block.{motion}.{row[column]}"
        )
    for unit, (ours, gate) in itertools.product((0, 1), GATES):
        if family == "torchvision":
            name = f"recurrent_block.convgru{unit + 1}.{gate}"
        else:  # small has one unit, without a number
            name = f"gru.{gate}" + (str(unit + 1) if size == "large" else "")
        names[f"update/units_{unit}/{ours}"] = f"update_block.{name}"
    return names
