import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import amd as recipe
from imas_jax import errors, geometry, losses
from imas_jax.models import amd, imas


@pytest.fixture(scope="module")
def small():
    """Return model, variables (drawn, not compiled: quick) and frames."""
    config = recipe.get_config("runlocal")
    config.model.update({"width": 4, "head_width": 8, "motion_width": 4, "dropout": 0})
    model = imas.make_model(config)
    rng = np.random.default_rng(0)
    frames = jnp.asarray(rng.normal(size=(2, 2, 32, 48, 3)), jnp.float32)
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), frames)

    def draw(leaf):
        return rng.uniform(0.1, 0.6, leaf.shape).astype(leaf.dtype)

    return model, jax.tree.map(draw, shapes), frames


def test_a_shift_has_its_highest_correlation_where_it_came_from():
    rng = np.random.default_rng(0)
    here = jnp.asarray(rng.normal(size=(1, 12, 14, 6)), jnp.float32)
    there = jnp.roll(here, (2, -1), axis=(1, 2))  # 2 down, 1 to the left
    maps = np.asarray(jax.jit(amd.correlate)(here, there))
    inside = maps[0, 3:-3, 3:-3]
    reach = 2 * amd.RADIUS + 1
    assert (inside.argmax(-1) == (amd.RADIUS + 2) * reach + amd.RADIUS - 1).all()
    np.testing.assert_allclose(inside.max(-1), 1.0, atol=1e-5)
    assert maps[0, 0, 0, 0] == 0  # beyond the border


def test_the_flow_is_one_bounded_motion_a_channel(small):
    model, variables, frames = small
    prediction = jax.jit(lambda: model.apply(variables, frames, train=False))()
    assert prediction.logits.shape == (2, 2, 8, 12, 5)
    labels = np.random.default_rng(1).integers(0, 5, (2, 8, 12))
    masks = jax.nn.one_hot(labels, 5)
    flow = np.asarray(
        jax.jit(
            lambda: model.apply(
                variables, masks, prediction.motion_forward, method="flow"
            )
        )()
    )
    for n in range(2):
        for c in range(5):
            assert np.ptp(flow[n][labels[n] == c], axis=0).max() < 1e-5
    assert np.abs(flow).max() <= 20.0


def test_the_right_translation_of_one_segment_reconstructs_the_frame():
    rng = np.random.default_rng(2)
    scene = jnp.asarray(rng.random((1, 24, 40, 3)), jnp.float32)
    first, second = scene[:, :, 4:34], scene[:, :, 1:31]  # all moves 3 px to the right
    flow = jnp.broadcast_to(jnp.asarray([3.0, 0.0]), (1, 24, 30, 2))
    warped = jax.vmap(geometry.warp)(second, flow)
    inside = (slice(None), slice(None), slice(0, 27))
    np.testing.assert_allclose(warped[inside], first[inside], atol=1e-6)
    good = losses.photometric_loss(first[inside], warped[inside])
    bad = losses.photometric_loss(first[inside], second[inside])
    assert float(good) == pytest.approx(0.0, abs=1e-6)
    assert float(bad) > 0.2


def test_the_loss_has_the_slope_of_its_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        first, second = jnp.asarray(rng.random((2, 1, 9, 11, 3)))

        def value(shift):
            flow = jnp.broadcast_to(shift, (1, 9, 11, 2))
            warped = jax.vmap(geometry.warp)(second, flow)
            return losses.photometric_loss(first, warped)

        at, step = jnp.asarray([0.37, -0.21]), 1e-6
        slope = jax.jit(jax.grad(value))(at)
        for axis in range(2):
            nudge = step * jnp.eye(2)[axis]
            measured = (value(at + nudge) - value(at - nudge)) / (2 * step)
            assert float(slope[axis]) == pytest.approx(float(measured), rel=1e-5)


def test_images_are_as_similar_as_the_formula_says():
    # Constant windows: no variance, only the brightness term is left.
    a, b = jnp.full((1, 4, 4, 1), 0.2), jnp.full((1, 4, 4, 1), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    np.testing.assert_allclose(losses.ssim(a, b), expected, rtol=1e-4)
    # A variance is a difference of squares: float32's rounding over 0.03^2.
    np.testing.assert_allclose(losses.ssim(a, a), 1.0, rtol=1e-4)


def test_training_reaches_every_parameter(small):
    model, variables, frames = small

    @jax.jit
    @jax.grad
    def slopes(params):
        tree = {**variables, "params": params}
        out, _ = model.apply(tree, frames, train=True, mutable=["batch_stats"])
        masks = jax.nn.softmax(out.logits)
        flow = model.apply(tree, masks[:, 0], out.motion_forward, method="flow")
        return jnp.square(flow - 1).mean() + jnp.square(masks).mean()

    grads = traverse_util.flatten_dict(slopes(variables["params"]))
    assert ["/".join(k) for k, v in grads.items() if not np.any(v)] == []


def test_what_amd_does_not_have_is_refused():
    config = recipe.get_config("runlocal")
    config.model.pathway, config.model.still_background = "residual", True
    with pytest.raises(errors.UserError) as refusal:
        imas.make_model(config)
    for field in ("model.pathway", "model.still_background"):
        assert field in str(refusal.value)
