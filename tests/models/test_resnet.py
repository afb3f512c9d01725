import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from imas_jax.models import resnet


def shapes_of(model, size=(64, 96)):
    frames = jnp.zeros((1, *size, 3))
    return jax.eval_shape(
        lambda key: model.init_with_output(key, frames, train=False), jax.random.key(0)
    )


@pytest.mark.parametrize(
    ("stride", "sizes"),
    [(8, [16, 8, 8, 8]), (16, [16, 8, 4, 4]), (32, [16, 8, 4, 2])],
)
def test_stages_have_the_grids_of_the_output_stride(stride, sizes):
    stages, _ = shapes_of(resnet.ResNet(18, 8, output_stride=stride))
    assert [stage.shape[1] for stage in stages] == sizes
    assert [stage.shape[-1] for stage in stages] == [8, 16, 32, 64]


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_176_512), (50, 23_508_032)])
def test_parameters_are_as_many_as_published(depth, parameters):
    # torchvision's resnet18 and resnet50 without their classifiers.
    _, variables = shapes_of(resnet.ResNet(depth))
    leaves = jax.tree.leaves(variables["params"])
    assert sum(leaf.size for leaf in leaves) == parameters


def test_a_fresh_residual_block_is_its_shortcut():
    # The last scale of every block starts at zero.
    block = resnet.Block(width=4, bottleneck=True)
    x = jax.nn.relu(jax.random.normal(jax.random.key(0), (1, 5, 6, 16)))
    variables = jax.jit(lambda: block.init(jax.random.key(1), x, False))()
    np.testing.assert_array_equal(block.apply(variables, x, False), x)


def test_first_blocks_of_dilated_stages_have_half_the_dilation():
    seen = {}

    def note(module, _):
        if isinstance(module, resnet.Block):
            seen[module.name] = (module.stride, module.dilation)
        return False

    model = resnet.ResNet(50, 4)
    frames = jnp.zeros((1, 32, 32, 3))
    jax.eval_shape(
        lambda key: model.init(key, frames, train=False, capture_intermediates=note),
        jax.random.key(0),
    )
    assert seen["layer2_0"] == (2, 1)
    assert seen["layer3_0"] == (1, 1)
    assert seen["layer3_1"] == (1, 2)
    assert seen["layer4_0"] == (1, 2)
    assert seen["layer4_2"] == (1, 4)


def test_names_are_torchvisions_with_underscores():
    _, variables = shapes_of(resnet.ResNet(50))
    names = {"/".join(name) for name in traverse_util.flatten_dict(variables)}
    for name in (
        "params/conv1/kernel",
        "params/layer1_0/downsample_conv/kernel",
        "params/layer3_5/bn3/scale",
        "batch_stats/layer4_2/bn2/var",
    ):
        assert name in names
