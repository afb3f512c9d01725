"""Closed forms; the authors' numbers are in tests/parity/test_densecl_parity.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imas_jax.models import densecl
from imas_jax.models.densecl import Embedding


def embedding(seed, b=2, s=6, k=5, d=4):
    rng = np.random.default_rng(seed)
    parts = [(b, s, k), (b, d), (b, s, d), (b, d)]
    return Embedding(
        *(densecl.unit(jnp.asarray(rng.normal(size=x), jnp.float32)) for x in parts)
    )


def test_the_contrast_of_nothing_known_is_the_logarithm_of_the_choices():
    same = jnp.zeros((3, 7))
    found = densecl.contrast(same[:, :1], same, temperature=0.2)
    np.testing.assert_allclose(found, np.log(8), rtol=1e-6)


def test_a_place_matches_where_the_same_features_went():
    key = embedding(0)
    moved = jax.tree.map(lambda x: x, key)
    order = np.array([3, 0, 5, 1, 4, 2])
    query = moved.replace(grid=key.grid[:, order], dense=key.dense[:, order])
    np.testing.assert_array_equal(densecl.matches(query, key), [order, order])
    positive, negative = densecl.dense_logits(query, key, jnp.eye(4)[:3])
    np.testing.assert_allclose(positive, 1.0, atol=1e-6)
    np.testing.assert_allclose(negative, query.dense.reshape(-1, 4)[:, :3], atol=1e-6)


def test_no_gradient_flows_through_the_matching():
    query, key = embedding(1), embedding(2)

    def loss(grid):
        positive, negative = densecl.dense_logits(
            query.replace(grid=grid), key, jnp.eye(4)
        )
        return densecl.contrast(positive, negative, 0.2)

    assert np.abs(jax.grad(loss)(query.grid)).max() == 0


def test_a_vector_of_length_0_has_a_finite_slope():
    slope = jax.grad(lambda x: densecl.unit(x).sum())(jnp.zeros(3))
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("backbone", ["resnet18", "unet", "vit_s16"])
def test_an_encoder_embeds_with_any_backbone(backbone):
    width = 384 if backbone == "vit_s16" else 4
    stride = {"resnet18": 32, "unet": 8, "vit_s16": 16}[backbone]
    model = densecl.Encoder(backbone, width, stride, hidden=8, features=4)
    frames = jax.ShapeDtypeStruct((2, 32, 64, 3), jnp.float32)

    def run(frames):
        return model.init_with_output(jax.random.key(0), frames, True)

    seen, variables = jax.eval_shape(run, frames)
    assert seen.image.shape == seen.pooled.shape == (2, 4)
    assert seen.dense.shape == (2, seen.grid.shape[1], 4)
    assert set(variables["params"]) == {"backbone", "neck"}
