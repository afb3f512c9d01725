import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import davis
from imas_jax import errors
from imas_jax.models import imas, segmenter


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


def start(config, size=(16, 24)):
    """Return model, random variables (drawn, not compiled: quick) and frames."""
    model = imas.make_model(config)
    rng = np.random.default_rng(0)
    frames = jnp.asarray(rng.normal(size=(2, 2, *size, 3)), jnp.float32)
    shapes = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), frames
    )

    def draw(leaf):
        return rng.uniform(0.1, 0.6, leaf.shape).astype(leaf.dtype)

    return model, jax.tree.map(draw, shapes), frames


@pytest.mark.parametrize("backbone", ["resnet18", "unet"])
@pytest.mark.parametrize("merging", [True, False])
def test_masks_have_the_size_mask_size_promises(backbone, merging):
    config = small_config(backbone=backbone, feature_merging=merging)
    size = (35, 49)
    model = imas.make_model(config)
    frames = jnp.zeros((1, 2, *size, 3))

    def predict(key):
        out, _ = model.init_with_output(key, frames, train=False)
        return out.logits, out.residual_forward

    logits, residual = jax.eval_shape(predict, jax.random.key(0))
    assert logits.shape == (1, 2, *imas.mask_size(config.model, size), 4)
    assert residual.shape[-1] == 8


def test_inference_size_of_the_paper_is_98_by_175():
    assert imas.mask_size(davis.get_config().model, (392, 697)) == (98, 175)


@pytest.mark.parametrize("pathway", typing.get_args(segmenter.Pathway))
def test_every_pathway_owns_only_what_it_uses(pathway):
    model, variables, _ = start(small_config(pathway=pathway))
    has_head = pathway in ("residual", "scaling", "residual_affine")
    assert ("residual_head" in variables["params"]) == has_head
    rng = np.random.default_rng(1)
    flow = jnp.asarray(rng.normal(size=(2, 4, 6, 2)), jnp.float32)
    masks = jax.nn.softmax(jnp.asarray(rng.normal(size=(2, 4, 6, 4)), jnp.float32))
    maps = jnp.asarray(rng.normal(size=(2, 2, 3, 8)), jnp.float32)
    maps = maps if has_head else None

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2))
    def slopes(pooling, masks, maps):
        params = {**variables["params"], "motion_pooling": pooling}
        got = model.apply({"params": params}, flow, masks, maps, method="reconstruct")
        return jnp.square(got - flow).mean()

    grads = slopes(variables["params"]["motion_pooling"], masks, maps)
    assert all(np.abs(grad).max() > 0 for grad in jax.tree.leaves(grads))


def test_training_reaches_every_parameter():
    model, variables, frames = start(small_config(dropout=0.0))

    @jax.jit
    @jax.grad
    def slopes(params):
        tree = {**variables, "params": params}
        out, _ = model.apply(tree, frames, train=True, mutable=["batch_stats"])
        maps = out.residual_forward + out.residual_backward
        return jnp.square(jax.nn.softmax(out.logits)).mean() + jnp.square(maps).mean()

    grads = traverse_util.flatten_dict(slopes(variables["params"]))
    silent = ["/".join(k) for k, v in grads.items() if not np.any(v)]
    assert all(name.startswith("motion_pooling") for name in silent)
    assert len(silent) == 8


def test_without_motion_units_phi_is_the_identity():
    model, variables, _ = start(small_config(motion_width=0, pathway="none"))
    assert "motion_pooling" not in variables["params"]
    flow = jnp.asarray(np.broadcast_to(np.float32([3, -2]), (2, 8, 12, 2)))
    masks = jax.nn.softmax(jax.random.normal(jax.random.key(3), (2, 8, 12, 4)))
    got = model.apply(variables, flow, masks, None, method="reconstruct")
    np.testing.assert_allclose(got, flow, rtol=1e-5)


def test_single_frames_are_segmented_as_in_pairs():
    model, variables, frames = start(small_config())
    pairs = jax.jit(lambda: model.apply(variables, frames, train=False).logits)()
    single = jax.jit(lambda: model.apply(variables, frames[:, 1], method="segment"))()
    np.testing.assert_allclose(single, pairs[:, 1], atol=1e-5)


def test_fields_that_exclude_each_other_are_all_named():
    config = small_config(name="amd", motion_width=0, still_background=True)
    config.model.update({"backbone": "unet", "output_stride": 16})
    with pytest.raises(errors.UserError) as refusal:
        imas.make_model(config)
    fields = ("pathway", "output_stride", "motion_width", "still_background")
    for field in fields:
        assert f"model.{field}" in str(refusal.value)


def test_bfloat16_keeps_parameters_statistics_and_outputs_in_float32():
    config = small_config()
    config.precision = "bfloat16"
    model, variables, frames = start(config)

    def leaves(tree):
        results = model.apply(
            tree,
            frames,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(4)},
        )
        return jax.tree.leaves(results)

    for leaf in jax.tree.leaves(variables) + jax.eval_shape(leaves, variables):
        assert leaf.dtype == jnp.float32
    deep = jax.eval_shape(
        lambda tree: model.apply(tree, frames[:, 0], False, method="features").deep,
        variables,
    )
    assert deep.dtype == jnp.bfloat16
    # The head's last layer is computed in float32, not only returned as such.
    logits = model.apply(variables, frames[:, 0], method="segment")
    assert (logits != logits.astype(jnp.bfloat16).astype(jnp.float32)).any()
