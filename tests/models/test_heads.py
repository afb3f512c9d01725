import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imas_jax.conventions import Features
from imas_jax.models import heads


def test_dropout_acts_on_whole_channels_of_one_image_and_by_its_key():
    head = heads.ConvHead(1, width=64, dilation=1, dropout=0.5)
    x = Features(None, jax.random.normal(jax.random.key(0), (2, 4, 4, 2)))
    variables = jax.jit(lambda: head.init(jax.random.key(1), x, False))()

    @jax.jit
    def before_classifier(key):
        _, state = head.apply(
            variables,
            x,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: module.name == "Dropout_0",
        )
        return state["intermediates"]["Dropout_0"]["__call__"][0]

    kept = [np.asarray(before_classifier(jax.random.key(i)) > 0) for i in (2, 2, 3)]
    np.testing.assert_array_equal(kept[0], kept[1])
    assert (kept[0] != kept[2]).any()
    # A normalised channel is positive somewhere unless it was dropped.
    dropped = ~kept[0].any(axis=(1, 2))
    assert 0.3 < dropped.mean() < 0.7
    assert (dropped[0] != dropped[1]).any()


def test_without_dilation_every_pixel_is_judged_by_its_own_features():
    head = heads.ConvHead(2, width=4, dilation=0)
    x = jax.random.normal(jax.random.key(0), (1, 3, 4, 5))
    variables = jax.jit(
        lambda: head.init(jax.random.key(1), Features(None, x), False)
    )()

    def outputs(x):
        return head.apply(variables, Features(None, x), False)

    # Summed: a pixel's own output is all that may move.
    slope = jax.jit(jax.grad(lambda x: outputs(x)[0, 1, 2].sum()))(x)
    moved = np.abs(slope).sum(axis=-1)[0] > 0
    assert moved[1, 2]
    assert moved.sum() == 1


@pytest.mark.parametrize("width", [0, 8])
def test_motion_pooling_maps_flow_and_vectors_to_their_shapes(width):
    pooling = heads.MotionPooling(width)
    flow = jax.random.normal(jax.random.key(0), (2, 4, 5, 2))
    variables = pooling.init(jax.random.key(1), flow)
    features = pooling.apply(variables, flow, method="phi_1")
    assert features.shape == (2, 4, 5, width or 2)
    vectors = pooling.apply(variables, features[:, 0], method="phi_2")
    assert vectors.shape == (2, 5, 2)
    if width == 0:
        np.testing.assert_array_equal(features, flow)


def test_phi_2_treats_every_channel_alike():
    pooling = heads.MotionPooling(8)
    flow = jnp.zeros((1, 2, 2, 2))
    variables = pooling.init(jax.random.key(0), flow)
    pooled = jax.random.normal(jax.random.key(1), (1, 3, 8))
    vectors = pooling.apply(variables, pooled, method="phi_2")
    order = jnp.asarray([2, 0, 1])
    again = pooling.apply(variables, pooled[:, order], method="phi_2")
    np.testing.assert_allclose(again, vectors[:, order], rtol=1e-6)
