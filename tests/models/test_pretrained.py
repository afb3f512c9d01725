"""Stand-in checkpoints have the published names and random values."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util
from torch_writer import renamed, torch_resnet

from configs import davis
from imas_jax import errors
from imas_jax.models import imas, pretrained

WIDTH = 4


def save(path, tensors):
    np.savez(path, **tensors)
    return path.with_suffix(".npz")


def small_model(**model):
    config = davis.get_config()
    config.model.update(
        {"backbone": "resnet18", "width": WIDTH, "head_width": 6, "motion_width": 5}
        | model
    )
    network = imas.make_model(config)
    frames = jax.numpy.zeros((1, 2, 32, 32, 3))
    shapes = jax.eval_shape(
        functools.partial(network.init, train=False), jax.random.key(0), frames
    )
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def authors_checkpoint(root="model.", averaged=True, channels=4):
    """Return the authors' names for the small network, with moving averages."""
    rng = np.random.default_rng(7)
    backbone = torch_resnet()
    tensors = renamed(f"{root}backbone2.", backbone)
    deep, shallow = 8 * WIDTH, WIDTH

    def head(name, into, out):
        for i, k in enumerate((into, 6)):
            tensors[f"{name}.convs.{i}.conv.weight"] = rng.normal(size=(6, k, 3, 3))
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                tensors[f"{name}.convs.{i}.bn.{leaf}"] = rng.uniform(1, 2, size=6)
            tensors[f"{name}.convs.{i}.bn.num_batches_tracked"] = np.array(3)
        tensors[f"{name}.conv_seg.weight"] = rng.normal(size=(out, 6, 1, 1))
        tensors[f"{name}.conv_seg.bias"] = rng.normal(size=out)

    head(f"{root}decode_head2", shallow + deep, channels)
    head(f"{root}decode_head3", 2 * deep, 4 * channels)
    shapes = {
        "before_agg.0": (5, 2, 3, 3),
        "before_agg.2": (5, 5, 3, 3),
        "after_agg.0": (5, 5, 1),
        "after_agg.2": (2, 5, 1),
    }
    for name, shape in shapes.items():
        tensors[f"{root}decode_head.flow_feat_{name}.weight"] = rng.normal(size=shape)
        tensors[f"{root}decode_head.flow_feat_{name}.bias"] = rng.normal(size=shape[0])
    if averaged:
        twins = {
            name.replace("backbone2.", "backbone2_ema.").replace(
                "decode_head2.", "decode_head2_ema."
            ): value + 100
            for name, value in tensors.items()
            if "backbone2" in name or "decode_head2" in name
        }
        tensors |= twins
    return tensors


LAYOUTS = {
    "torchvision": torch_resnet() | {"fc.weight": np.zeros((10, 8))},
    "densecl": torch_resnet(),
    "data-parallel": renamed("module.", torch_resnet()),
    "openmmlab": renamed("backbone.", torch_resnet())
    | renamed("encoder_k.0.", torch_resnet())
    | {"neck.mlp.0.weight": np.ones((2, 2)), "data_preprocessor.mean": np.ones(3)},
    "moco": renamed("module.encoder_q.", torch_resnet())
    | renamed("module.encoder_k.", torch_resnet())
    | {"module.encoder_q.fc.0.weight": np.ones((2, 2)), "module.queue": np.ones(3)},
    "densecl-training": renamed("encoder_q.0.", torch_resnet())
    | renamed("encoder_k.0.", torch_resnet())
    | renamed("backbone.", torch_resnet())
    | {"encoder_q.1.mlp.0.weight": np.ones((2, 2)), "queue2": np.ones(3)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_fills_the_backbone_and_nothing_else(layout, tmp_path):
    path = save(tmp_path / layout, LAYOUTS[layout])
    before = small_model()
    after = pretrained.load_into(before, path, "resnet18")
    weights = torch_resnet()
    params, stats = after["params"]["backbone"], after["batch_stats"]["backbone"]
    np.testing.assert_allclose(
        params["layer2_0"]["conv1"]["kernel"].transpose(3, 2, 0, 1),
        weights["layer2.0.conv1.weight"],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        stats["layer3_0"]["downsample_bn"]["var"],
        weights["layer3.0.downsample.1.running_var"],
        rtol=1e-6,
    )
    for leaf in jax.tree.leaves(params):
        assert np.any(leaf)
        assert leaf.dtype == np.float32
    assert after["params"]["residual_head"] is before["params"]["residual_head"]


def test_a_resnet_50_is_loaded_alone_for_frozen_features(tmp_path):
    weights = torch_resnet(50, 64)
    path = save(tmp_path / "r50", weights)
    variables = pretrained.load_backbone(path, "resnet50")
    leaves = traverse_util.flatten_dict(variables)
    tracked = [name for name in weights if name.endswith("num_batches_tracked")]
    assert len(leaves) == len(weights) - len(tracked)
    np.testing.assert_allclose(
        variables["params"]["layer4_2"]["conv3"]["kernel"][0, 0].T,
        weights["layer4.2.conv3.weight"][:, :, 0, 0],
        rtol=1e-6,
    )


@pytest.mark.parametrize("root", ["model.", ""])
@pytest.mark.parametrize("averaged", [False, True])
def test_the_authors_checkpoint_fills_the_whole_network(root, averaged, tmp_path):
    tensors = authors_checkpoint(root)
    path = save(tmp_path / "rcf", tensors)
    params = pretrained.load_into(small_model(), path, "resnet18", averaged)["params"]
    kernel = params["segmentation_head"]["conv1"]["kernel"].transpose(3, 2, 0, 1)
    expected = tensors[f"{root}decode_head2.convs.0.conv.weight"] + 100 * averaged
    np.testing.assert_allclose(kernel, expected, rtol=1e-5)
    np.testing.assert_allclose(
        params["backbone"]["conv1"]["kernel"].transpose(3, 2, 0, 1),
        tensors[f"{root}backbone2.conv1.weight"] + 100 * averaged,
        rtol=1e-5,
    )
    # Neither the residual head nor the motion pooling has an average.
    np.testing.assert_allclose(
        params["residual_head"]["classifier"]["bias"],
        tensors[f"{root}decode_head3.conv_seg.bias"],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        params["motion_pooling"]["phi_2_1"]["kernel"][0, 0].T,
        tensors[f"{root}decode_head.flow_feat_after_agg.2.weight"][:, :, 0],
        rtol=1e-6,
    )


def test_the_authors_backbone_serves_as_frozen_features_too(tmp_path):
    tensors = renamed("model.backbone2.", torch_resnet(18, 64))
    tensors["model.decode_head2.conv_seg.bias"] = np.zeros(4)
    path = save(tmp_path / "rcf", tensors)
    variables = pretrained.load_backbone(path, "resnet18")
    np.testing.assert_allclose(
        variables["params"]["bn1"]["scale"],
        tensors["model.backbone2.bn1.weight"],
        rtol=1e-6,
    )


def test_all_mismatches_are_listed_in_one_error(tmp_path):
    tensors = dict(torch_resnet())
    del tensors["layer1.0.conv1.weight"]
    tensors["layer2.0.bn1.bias"] = np.zeros(3)
    tensors["layer9.extra"] = np.zeros(2)
    tensors["bn1.weight"] = np.full(WIDTH, np.nan)
    tensors["bn1.bias"] = np.full(WIDTH, "zero")
    tensors["conv1.weight"] = np.array(1.0)
    path = save(tmp_path / "broken", tensors)
    with pytest.raises(errors.UserError) as refusal:
        pretrained.load_into(small_model(), path, "resnet18")
    message = str(refusal.value)
    for part in (
        "6 problem(s)",
        "layer1.0.conv1.weight: missing",
        "(4, 4, 3, 3)",
        "layer2.0.bn1.bias: has shape (3,)",
        "layer9.extra: unexpected",
        "bn1.weight: holds values that are not finite",
        "bn1.bias: holds <U4, no numbers",
        "conv1.weight: has shape ()",
    ):
        assert part in message


def test_wrong_depth_is_told_by_the_depth_the_file_has(tmp_path):
    path = save(tmp_path / "r50", torch_resnet(50, WIDTH))
    with pytest.raises(errors.UserError, match="a ResNet-50 of width 4"):
        pretrained.load_into(small_model(), path, "resnet18")


def test_wrong_number_of_channels_names_the_layers(tmp_path):
    path = save(tmp_path / "rcf", authors_checkpoint(channels=5))
    with pytest.raises(
        errors.UserError, match=r"decode_head2.conv_seg.*\(4, 6, 1, 1\)"
    ):
        pretrained.load_into(small_model(), path, "resnet18")


def test_a_pathway_the_file_was_not_trained_with_is_refused(tmp_path):
    path = save(tmp_path / "rcf", authors_checkpoint())
    with pytest.raises(errors.UserError, match=r"decode_head3.*unexpected"):
        pretrained.load_into(small_model(pathway="none"), path, "resnet18")


def test_weights_of_something_else_are_refused_by_their_names(tmp_path):
    path = save(tmp_path / "vit", {"blocks.0.attn.qkv.weight": np.zeros((3, 3))})
    with pytest.raises(errors.UserError, match=r"blocks\.0\.attn"):
        pretrained.load_into(small_model(), path, "resnet18")


def test_the_authors_whole_network_is_refused_for_another_method(tmp_path):
    path = save(tmp_path / "rcf", authors_checkpoint())
    with pytest.raises(errors.UserError, match=r"has no motion_head"):
        pretrained.load_into(small_model(name="amd", pathway="none"), path, "resnet18")


def test_a_resnets_weights_for_a_unet_are_refused(tmp_path):
    path = save(tmp_path / "densecl", torch_resnet())
    with pytest.raises(errors.UserError, match="holds no U-Net of a known layout"):
        pretrained.load_into(small_model(backbone="unet"), path, "unet")


def test_a_classifier_warns_that_labels_may_have_been_used(tmp_path, caplog):
    path = save(tmp_path / "tv", LAYOUTS["torchvision"])
    with caplog.at_level("WARNING", logger="absl"):
        pretrained.load_into(small_model(), path, "resnet18")
    assert "without annotation" in caplog.text
