"""Weights that have a name: what each is, how it was supervised, where it is published.

`model.weights`, `align.weights` and `flow.weights` take these names in place of a path;
`fetching.py` brings the files. A hash is written down here only if it was seen: in the
publisher's file name or read-me, or in the records of projects that fetched the file
and pinned it (several agree for raft-things, DINOv2 and VICReg). Where there is none,
a file's own SHA-256 is noted when it is first used.
"""

import dataclasses
from typing import Literal

Supervision = Literal["self-supervised", "synthetic flow", "human labels"]

FACEBOOK = "https://dl.fbaipublicfiles.com"
TORCH = "https://download.pytorch.org/models"
CC_BY_NC = "CC BY-NC 4.0"
CHAIRS_THINGS = "FlyingChairs and FlyingThings3D, rendered"
IMAGENET = "ImageNet-1k without labels"


@dataclasses.dataclass(frozen=True)
class Published:
    """One file of weights.

    Attributes:
        title: What it is.
        network: A name of `segmenter.BACKBONES`, or "raft": flow.
        layout: Family of names it is written in, as its reader calls it.
        supervision: What told the network what to learn.
        trained_on: Data, and what of them was used.
        licence: Of the weights, as their publisher states it.
        page: Where they are published.
        file: The file's own name there.
        url: Of the file; "" if no link works.
        hashes: What the file must have, as `sha256:<hex>` or `md5:<hex>`; shorter than
            a whole hash, its first digits. Empty if nothing is known.
        size: Bytes, or None if not known.
        gone: Why there is no link, and what else there is.
    """

    title: str
    network: str
    layout: str
    supervision: Supervision
    trained_on: str
    licence: str
    page: str
    file: str
    url: str = ""
    hashes: tuple[str, ...] = ()
    size: int | None = None
    gone: str = ""

    @property
    def is_flow(self) -> bool:
        """Whether it computes flow rather than features."""
        return self.network == RAFT

    @property
    def is_whole(self) -> bool:
        """Whether the whole SHA-256 is known, so that nothing else need be asked."""
        return any(len(one) == len("sha256:") + 64 for one in self.hashes)


RAFT = "raft"


def _torchvision_raft(title: str, file: str, *hashes: str) -> Published:
    """Describe RAFT as torchvision publishes it (torchvision/models/optical_flow)."""
    return Published(
        title,
        RAFT,
        "torchvision",
        "synthetic flow",
        CHAIRS_THINGS,
        "BSD-3-Clause",
        "https://github.com/pytorch/vision",
        file,
        f"{TORCH}/{file}",
        hashes,
    )


def _supervised_resnet(title: str, network: str, file: str, sha256: str) -> Published:
    """Describe a classifier of torchvision (torchvision/models/resnet.py)."""
    return Published(
        title,
        network,
        "DenseCL, torchvision or timm",
        "human labels",
        "ImageNet-1k with its class labels",
        "BSD-3-Clause",
        "https://github.com/pytorch/vision",
        file,
        f"{TORCH}/{file}",
        (f"sha256:{sha256}",),
    )


def _dino(network: str, title: str, stem: str, *hashes: str) -> Published:
    """Describe a network of facebookresearch/dino (its hubconf.py)."""
    return Published(
        title,
        network,
        "DenseCL, torchvision or timm" if network == "resnet50" else "DINO",
        "self-supervised",
        IMAGENET,
        "Apache-2.0",
        "https://github.com/facebookresearch/dino",
        f"{stem}.pth",
        f"{FACEBOOK}/dino/{stem}/{stem}.pth",
        hashes,
    )


# By name, flow first; whoever learned from human labels comes last.
TABLE: dict[str, Published] = {
    "raft_small": _torchvision_raft(
        "RAFT small, C_T_V2",
        "raft_small_C_T_V2-01064c6d.pth",
        # The first eight digits are the publisher's, the rest another project's record.
        "sha256:01064c6dba73b0fc9fc8edf772248560a00a3acfd62ac6677e9eeebad9680e27",
    ),
    "raft_small_v1": _torchvision_raft(
        "RAFT small, C_T_V1: princeton-vl's own, converted",
        "raft_small_C_T_V1-ad48884c.pth",
        "sha256:ad48884c",
    ),
    "raft_large": _torchvision_raft(
        "RAFT, C_T_V2",
        "raft_large_C_T_V2-1bb1363a.pth",
        "sha256:1bb1363a43b40f8dea96c530217a7e8b1804ffc77506058db2ec0afa428ad4f6",
    ),
    "raft_large_v1": _torchvision_raft(
        "RAFT, C_T_V1: raft-things.pth, converted",
        "raft_large_C_T_V1-22a6c225.pth",
        "sha256:22a6c225",
    ),
    "raft_things": Published(
        "RAFT, raft-things.pth of princeton-vl (the paper's flow)",
        RAFT,
        "official",
        "synthetic flow",
        CHAIRS_THINGS,
        "BSD-3-Clause",
        "https://github.com/princeton-vl/RAFT",
        "raft-things.pth",
        # Its own link is an archive of all; this release has the file itself, bit for
        # bit: the hash is that of the file in the archive.
        "https://github.com/sczhou/ProPainter/releases/download/v0.1.0/raft-things.pth",
        ("sha256:fcfa4125d6418f4de95d84aec20a3c5f4e205101715a79f193243c186ac9a7e1",),
        21_108_000,
    ),
    "dino_resnet50": _dino("resnet50", "DINO ResNet-50", "dino_resnet50_pretrain"),
    "dino_vits16": _dino(
        "vit_s16", "DINO ViT-S/16", "dino_deitsmall16_pretrain", "md5:cf0f22"
    ),
    "dino_vits8": dataclasses.replace(
        _dino(
            "vit_s8",
            "DINO ViT-S/8",
            "dino_deitsmall8_pretrain",
            "sha256:55c8b267f479b614ec20858947ce361ba804846c193e20be74263a096bb6d75e",
            "md5:230cd5",
        ),
        size=86_728_949,
    ),
    "dinov2_vits14": Published(
        "DINOv2 ViT-S/14, distilled",
        "vit_s14",
        "DINOv2",
        "self-supervised",
        "LVD-142M without labels",
        "Apache-2.0",
        "https://github.com/facebookresearch/dinov2",
        "dinov2_vits14_pretrain.pth",
        f"{FACEBOOK}/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
        ("sha256:b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",),
        88_283_115,
    ),
    "dinov2_vits14_reg": Published(
        "DINOv2 ViT-S/14 with registers, distilled",
        "vit_s14_reg",
        "DINOv2",
        "self-supervised",
        "LVD-142M without labels",
        "Apache-2.0",
        "https://github.com/facebookresearch/dinov2",
        "dinov2_vits14_reg4_pretrain.pth",
        f"{FACEBOOK}/dinov2/dinov2_vits14/dinov2_vits14_reg4_pretrain.pth",
        ("sha256:f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",),
    ),
    "moco_v2_resnet50": Published(
        "MoCo v2 ResNet-50, 800 epochs",
        "resnet50",
        "MoCo v2",
        "self-supervised",
        IMAGENET,
        CC_BY_NC,
        "https://github.com/facebookresearch/moco",
        "moco_v2_800ep_pretrain.pth.tar",
        f"{FACEBOOK}/moco/moco_checkpoints/moco_v2_800ep/"
        "moco_v2_800ep_pretrain.pth.tar",
        ("md5:a04e12f8",),  # of its read-me
    ),
    "moco_v3_resnet50": Published(
        "MoCo v3 ResNet-50, 1000 epochs",
        "resnet50",
        "MoCo v3",
        "self-supervised",
        IMAGENET,
        CC_BY_NC,
        "https://github.com/facebookresearch/moco-v3",
        "r-50-1000ep.pth.tar",
        f"{FACEBOOK}/moco-v3/r-50-1000ep/r-50-1000ep.pth.tar",
    ),
    "swav_resnet50": Published(
        "SwAV ResNet-50, 800 epochs",
        "resnet50",
        "data-parallel",
        "self-supervised",
        IMAGENET,
        CC_BY_NC,
        "https://github.com/facebookresearch/swav",
        "swav_800ep_pretrain.pth.tar",
        f"{FACEBOOK}/deepcluster/swav_800ep_pretrain.pth.tar",
    ),
    "vicreg_resnet50": Published(
        "VICReg ResNet-50",
        "resnet50",
        "DenseCL, torchvision or timm",
        "self-supervised",
        IMAGENET,
        "MIT",
        "https://github.com/facebookresearch/vicreg",
        "resnet50.pth",
        f"{FACEBOOK}/vicreg/resnet50.pth",
        ("sha256:c843e7652491ff2f712734619fd74d85e5e92ac902615665ad3fd50dc6ada591",),
        94_345_885,
    ),
    "densecl_resnet50": Published(
        "DenseCL ResNet-50, 200 epochs (the paper's)",
        "resnet50",
        "DenseCL, torchvision or timm",
        "self-supervised",
        IMAGENET,
        "Apache-2.0",
        "https://github.com/WXinlong/DenseCL",
        "densecl_r50_imagenet_200ep.pth",
        gone="its published link is dead (cloudstor.aarnet.edu.au has closed); "
        "densecl_openmmlab_resnet50 is the same method, trained by others",
    ),
    "densecl_openmmlab_resnet50": Published(
        "DenseCL ResNet-50, 200 epochs, trained by OpenMMLab",
        "resnet50",
        "OpenMMLab",
        "self-supervised",
        IMAGENET,
        "Apache-2.0",
        "https://github.com/open-mmlab/mmselfsup",
        "densecl_resnet50_8xb32-coslr-200e_in1k_20220825-3078723b.pth",
        "https://download.openmmlab.com/mmselfsup/1.x/densecl/"
        "densecl_resnet50_8xb32-coslr-200e_in1k/"
        "densecl_resnet50_8xb32-coslr-200e_in1k_20220825-3078723b.pth",
        ("sha256:3078723b",),
    ),
    "resnet50_imagenet": dataclasses.replace(
        _supervised_resnet(
            "ResNet-50, a classifier (IMAGENET1K_V1)",
            "resnet50",
            "resnet50-0676ba61.pth",
            "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        ),
        size=102_530_333,
    ),
    "resnet50_imagenet_v2": _supervised_resnet(
        "ResNet-50, a classifier (IMAGENET1K_V2)",
        "resnet50",
        "resnet50-11ad3fa6.pth",
        "11ad3fa62ca79e40addfd354a8ec4b7c75143b3038b8d2a807fbc68deab379ca",
    ),
    "resnet18_imagenet": _supervised_resnet(
        "ResNet-18, a classifier (IMAGENET1K_V1)",
        "resnet18",
        "resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
}
