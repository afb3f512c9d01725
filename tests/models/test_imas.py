import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import davis
from imas_jax import composition, errors
from imas_jax.models import imas


def small_config(**model):
    config = davis.get_config()
    tiny = {
        "backbone": "unet",
        "width": 4,
        "head_width": 8,
        "head_dilation": 1,
        "motion_width": 4,
    }
    config.model.update(tiny | model)
    return config


def start(config, size=(32, 48)):
    model = imas.make_model(config)
    frames = jax.random.normal(jax.random.key(1), (2, 2, *size, 3))
    initialise = jax.jit(functools.partial(model.init, train=False))
    return model, initialise(jax.random.key(0), frames), frames


@pytest.mark.parametrize("backbone", ["resnet18", "unet"])
@pytest.mark.parametrize("merging", [True, False])
def test_masks_have_the_size_mask_size_promises(backbone, merging):
    config = small_config(backbone=backbone, feature_merging=merging)
    size = (35, 49)
    model = imas.make_model(config)
    frames = jnp.zeros((1, 2, *size, 3))
    shapes = jax.eval_shape(
        lambda key: model.init_with_output(key, frames, train=False)[0],
        jax.random.key(0),
    )
    expected = imas.mask_size(config.model, size)
    assert shapes.logits.shape == (1, 2, *expected, 4)
    assert shapes.residual_forward.shape[-1] == 8


def test_inference_size_of_the_paper_is_98_by_175():
    assert imas.mask_size(davis.get_config().model, (392, 697)) == (98, 175)


@pytest.mark.parametrize("pathway", ["residual", "scaling", "none", "affine"])
def test_every_pathway_owns_only_what_it_uses_and_all_of_it_gets_gradients(pathway):
    config = small_config(pathway=pathway, dropout=0.0)
    model, variables, frames = start(config)
    assert ("residual_head" in variables["params"]) == (
        pathway in ("residual", "scaling")
    )
    size = imas.mask_size(config.model, frames.shape[2:4])
    flow = composition.clamp_flow(
        10 * jax.random.normal(jax.random.key(2), (2, *size, 2)), 20.0
    )

    def loss(params):
        tree = {**variables, "params": params}
        out, _ = model.apply(tree, frames, train=True, mutable=["batch_stats"])
        total = 0.0
        for i, maps in enumerate((out.residual_forward, out.residual_backward)):
            masks = jax.nn.softmax(out.logits[:, i])
            got = model.apply(tree, flow, masks, maps, method="reconstruct")
            total += jnp.square(got - flow).mean()
        return total

    grads = jax.jit(jax.grad(loss))(variables["params"])
    silent = [
        "/".join(name)
        for name, grad in traverse_util.flatten_dict(grads).items()
        if not np.any(grad)
    ]
    assert silent == []


def test_without_motion_units_phi_is_the_identity():
    model, variables, _ = start(small_config(motion_width=0, pathway="none"))
    assert "motion_pooling" not in variables["params"]
    flow = jnp.broadcast_to(jnp.array([3.0, -2.0])[None, None, None], (2, 8, 12, 2))
    masks = jax.nn.softmax(jax.random.normal(jax.random.key(3), (2, 8, 12, 4)))
    got = model.apply(variables, flow, masks, None, method="reconstruct")
    np.testing.assert_allclose(got, flow, rtol=1e-5)


def test_single_frames_are_segmented_as_in_pairs():
    model, variables, frames = start(small_config())
    pairs = model.apply(variables, frames, train=False).logits
    single = model.apply(variables, frames[:, 1], method="segment")
    np.testing.assert_allclose(single, pairs[:, 1], atol=1e-5)


def test_a_bad_network_is_refused_with_every_field_named():
    config = small_config(backbone="resnet34", pathway="resdual", channels=1)
    with pytest.raises(errors.UserError) as refusal:
        imas.make_model(config)
    for field in ("model.backbone", "model.pathway", "model.channels", "resnet50"):
        assert field in str(refusal.value)


def test_bfloat16_keeps_parameters_statistics_and_outputs_in_float32():
    config = small_config()
    config.precision = "bfloat16"
    model, variables, frames = start(config)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
        jnp.dtype(jnp.float32)
    }
    out, updates = model.apply(
        variables,
        frames,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(4)},
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((out, updates))} == {
        jnp.dtype(jnp.float32)
    }
    features = model.apply(variables, frames[:, 0], False, method="features")
    assert features.deep.dtype == jnp.bfloat16
