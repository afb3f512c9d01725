"""A name, a path, and the file behind both; what each name's file looks like inside."""

import dataclasses
import re

import numpy as np
import pytest
from torch_writer import renamed, torch_resnet

from imas_jax import files
from imas_jax.errors import UserError
from imas_jax.flow import raft_weights
from imas_jax.models import fetching, named, pretrained, published, torch_files
from imas_jax.models.segmenter import BACKBONES

ENTRIES = sorted(published.TABLE.items())
RESNETS = [(n, one) for n, one in ENTRIES if one.network.startswith("resnet")]
FLOWS = [(n, one) for n, one in ENTRIES if one.is_flow]


def each(entries):
    names = [name for name, _ in entries]
    return pytest.mark.parametrize(("name", "entry"), entries, ids=names)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def kept(monkeypatch):
    """Keep a file for a name, as if it had been fetched."""

    def keep(name, content=b"weights"):
        path = fetching.place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        known = (f"sha256:{files.digest(path)}",)
        entry = dataclasses.replace(
            published.TABLE[name], url="", hashes=known, size=None
        )
        monkeypatch.setitem(published.TABLE, name, entry)
        return path

    return keep


def find(text, field="model.weights", network="resnet50", **how):
    return named.find(text, field, network, **how)


def refused(*arguments, **how):
    with pytest.raises(UserError) as refusal:
        find(*arguments, **how)
    return str(refusal.value)


def test_a_name_is_its_file_and_a_path_that_exists_wins(kept, tmp_path, monkeypatch):
    path = kept("dino_resnet50")
    assert find("dino_resnet50") == path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dino_resnet50").write_bytes(b"own")
    assert find("dino_resnet50").resolve() == tmp_path / "dino_resnet50"


def test_what_is_not_there_is_told_without_being_fetched(kept):
    assert named.present("dino_resnet50") is None
    assert named.present("lost.pth") is None
    path = kept("dino_resnet50")
    assert named.present("dino_resnet50") == path
    assert named.present(str(path)) == path


def test_an_unknown_name_is_refused_with_the_nearest_ones():
    message = refused("dino_resnet")
    assert "model.weights = 'dino_resnet' is no file, and no weights have that" in (
        message
    )
    assert "did you mean dino_resnet50" in message
    assert "raft_small" not in message
    assert "resnet50_imagenet" not in message
    assert "did you mean raft_small" in refused("raft_smal", "flow.weights", "raft")


def test_a_path_that_is_not_there_is_refused_as_a_path():
    assert "model.weights: no file runs/lost.pth" in refused("runs/lost.pth")


def test_weights_of_another_backbone_say_which_it_is():
    message = refused("resnet18_imagenet", allow_supervised=True)
    assert "but model.backbone = 'resnet50'" in message
    assert (
        "set --config.model.backbone=resnet18 --config.model.width=64 "
        "--config.model.output_stride=8, or name other weights"
    ) in message
    message = refused(
        "dino_resnet50", "align.weights", "resnet18", backbone="align.backbone"
    )
    assert "set --config.align.backbone=resnet50, or name other weights" in message


def test_flow_and_features_are_not_taken_for_each_other():
    message = refused("raft_large")
    assert "it computes flow" in message
    assert "dino_vits16" in message
    message = refused("dino_vits16", "flow.weights", published.RAFT)
    assert "it computes features" in message
    assert "raft_small" in message


def test_human_labels_are_refused_by_name_and_by_content_unless_allowed(kept, tmp_path):
    path = kept("resnet50_imagenet")
    copy = tmp_path / "mine.pth"
    copy.write_bytes(path.read_bytes())
    for text in ("resnet50_imagenet", str(path), str(copy)):
        message = refused(text)
        assert "learned from human labels" in message
        assert "ImageNet-1k with its class labels" in message
        assert "--config.model.allow_supervised=True" in message
    assert find("resnet50_imagenet", allow_supervised=True) == path
    assert find(str(copy), allow_supervised=True) == copy


def test_what_tables_have_to_say_of_weights(kept, tmp_path):
    kept("resnet50_imagenet")
    said = named.supervision("resnet50_imagenet")
    assert said == (
        "ResNet-50, a classifier (IMAGENET1K_V1), trained on ImageNet-1k with its "
        "class labels"
    )
    copy = tmp_path / "mine.pth"
    copy.write_bytes(fetching.place("resnet50_imagenet").read_bytes())
    assert named.supervision(str(copy)) == said
    assert named.supervision("dino_resnet50") == ""
    copy.write_bytes(b"another")
    assert "mine.pth, of which it is not known" in named.supervision(str(copy))


@each(ENTRIES)
def test_every_entry_says_what_a_user_has_to_know(name, entry):
    assert named.is_name(name)
    assert entry.url.startswith("https://") != bool(entry.gone)
    assert entry.page.startswith("https://")
    assert entry.licence
    assert entry.title
    assert entry.file in entry.url or entry.gone
    if not entry.is_flow:
        known = [one.family for one in BACKBONES[entry.network].foreign.layouts]
        assert entry.layout in known
    assert entry.is_flow == (entry.supervision == "synthetic flow")
    for one in entry.hashes:
        kind, digits = one.split(":")
        assert len(digits) <= {"sha256": 64, "md5": 32}[kind]
        assert re.fullmatch(r"[0-9a-f]{6,}", digits)
    # torch.hub's way: a file's name ends with the first digits of its SHA-256.
    if told := re.search(r"-([0-9a-f]{8})\.pth$", entry.file):
        assert entry.hashes[0].startswith(f"sha256:{told[1]}")


def head(name, width=8):
    return {f"{name}.{leaf}": np.ones(width) for leaf in ("weight", "bias")}


RESNET = torch_resnet(50)
PREDICTOR = head("module.predictor.0") | head("module.momentum_encoder.fc.0")
# What the publishers' files hold beside the network, by the layout's name.
INSIDE = {
    "DenseCL, torchvision or timm": RESNET,
    "MoCo v2": renamed("module.encoder_q.", RESNET | head("fc.0") | head("fc.2"))
    | renamed("module.encoder_k.", RESNET | head("fc.0"))
    | {"module.queue": np.ones((8, 8)), "module.queue_ptr": np.zeros(1)},
    "MoCo v3": renamed("module.base_encoder.", RESNET | head("fc.0") | head("fc.1"))
    | renamed("module.momentum_encoder.", RESNET)
    | PREDICTOR,
    "data-parallel": renamed("module.", RESNET)
    | head("module.projection_head.0")
    | head("module.projection_head.1")
    | {"module.prototypes.weight": np.ones((8, 8))},
    "OpenMMLab": renamed("backbone.", RESNET)
    | head("neck.mlp.0")
    | renamed("encoder_k.module.0.", RESNET)
    | {"queue": np.ones((8, 8)), "queue2": np.ones((8, 8)), "encoder_k.steps": 3},
}


@each(RESNETS)
def test_the_file_of_every_resnet_is_read_in_its_layout(
    name, entry, tmp_path, monkeypatch
):
    small = dataclasses.replace(BACKBONES[entry.network], width=4)
    monkeypatch.setitem(BACKBONES, "small", small)
    tensors = INSIDE[entry.layout]
    if entry.network == "resnet18":
        tensors = torch_resnet(18)
    if entry.supervision == "human labels":
        tensors = tensors | head("fc")
    np.savez(tmp_path / "file.npz", **tensors)
    read = torch_files.read_checkpoint(tmp_path / "file.npz")
    file = pretrained.recognise(tmp_path / "file.npz", read, "small")
    assert file.layout.family == entry.layout
    variables = pretrained.load_backbone(tmp_path / "file.npz", "small")
    np.testing.assert_allclose(
        variables["params"]["layer3_0"]["conv1"]["kernel"].transpose(3, 2, 0, 1),
        tensors[file.layout.prefix + "layer3.0.conv1.weight"],
        rtol=1e-6,
    )


@each(FLOWS)
def test_the_file_of_every_raft_has_a_layout_that_is_known(name, entry):
    assert entry.layout in raft_weights.FIRST
