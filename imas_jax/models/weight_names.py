"""Names that foreign checkpoints give the tensors of our networks: explicit tables.

A ResNet alone comes in the layouts users have (DenseCL, the paper's; MoCo v2;
torchvision; timm; data-parallel); the authors' stage-1 and stage-2 checkpoints hold the
whole network.
"""

import dataclasses
from collections.abc import Mapping

from flax import traverse_util

from imas_jax.conventions import Tree

Name = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one family of files names a ResNet's tensors.

    Attributes:
        family: Who writes it.
        prefix: What stands before `conv1.weight` and all other names.
        ignored: How names begin that such files hold beside the ResNet's.
        whole: Whether the file holds our whole network.
    """

    family: str
    prefix: str
    ignored: tuple[str, ...] = ()
    whole: bool = False


# Modules of the authors' later method that IMAS does not have.
FOREIGN_HEADS = ("crf_head.", "compactness_head.")
# All but the backbone in the authors' files.
NOT_BACKBONE = ("decode_head", "backbone2_ema.", *FOREIGN_HEADS)

# The first layout with `prefix + "conv1.weight"` in the file is the file's.
LAYOUTS = (
    Layout(
        "authors' checkpoint",
        "model.backbone2.",
        tuple(f"model.{module}" for module in NOT_BACKBONE),
        whole=True,
    ),
    Layout("authors' network", "backbone2.", NOT_BACKBONE, whole=True),
    Layout(
        "MoCo v2",
        "module.encoder_q.",
        ("module.encoder_q.fc.", "module.encoder_k.", "module.queue"),
    ),
    Layout(
        "DenseCL in training",
        "encoder_q.0.",
        ("encoder_q.1.", "encoder_k.", "backbone.", "queue"),
    ),
    Layout(
        "OpenMMLab",
        "backbone.",
        (
            "neck.",
            "head.",
            "decode_head.",
            "auxiliary_head.",
            "encoder_k.",
            "queue",
            "data_preprocessor.",
        ),
    ),
    Layout("data-parallel", "module.", ("module.fc.",)),
    Layout("DenseCL, torchvision or timm", "", ("fc.",)),
)

# Our part -> the authors' module.
PARTS = {
    "backbone": "backbone2",
    "segmentation_head": "decode_head2",
    "residual_head": "decode_head3",
    "motion_pooling": "decode_head",
}
# Parts of which the authors also keep an exponential moving average.
AVERAGED = ("backbone", "segmentation_head")
HEAD_LAYERS = {
    "conv1": "convs.0.conv",
    "bn1": "convs.0.bn",
    "conv2": "convs.1.conv",
    "bn2": "convs.1.bn",
    "classifier": "conv_seg",
}
LAYERS = {
    "downsample_conv": "downsample.0",
    "downsample_bn": "downsample.1",
    "phi_1_0": "flow_feat_before_agg.0",
    "phi_1_1": "flow_feat_before_agg.2",
    "phi_2_0": "flow_feat_after_agg.0",
    "phi_2_1": "flow_feat_after_agg.2",
}
LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_name(path: Name, layers: Mapping[str, str] = LAYERS) -> str:
    """Translate a leaf's path in our tree, e.g. ("layer1_0", "bn1", "mean")."""
    *modules, leaf = path
    translated = [
        layers.get(
            module, module.replace("_", ".") if module.startswith("layer") else module
        )
        for module in modules
    ]
    return ".".join([*translated, LEAVES[leaf]])


def resnet_names(variables: Tree) -> dict[Name, str]:
    """Return our leaf -> torchvision's name, for a ResNet's variables."""
    leaves = traverse_util.flatten_dict(variables)
    return {name: torch_name(name[1:]) for name in leaves}


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
        layers = HEAD_LAYERS if part.endswith("_head") else LAYERS
        names[name] = f"{root}{module}.{torch_name(tuple(rest), layers)}"
    return names
