import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_writer import texture

from imas_jax.configs import densecl
from imas_jax.data import augment, views
from imas_jax.geometry import resize

CONFIG = densecl.get_config("small").pretrain
FRAME = texture((40, 60))


def plain(side=40, corner=(0, 0), size=(40, 40)):
    """Return the draw that changes nothing but the crop."""
    return views.Draw(
        corner=jnp.asarray(corner),
        size=jnp.asarray(size),
        flip=jnp.asarray(False),
        order=jnp.arange(4),
        factors=jnp.ones(3),
        hue=jnp.asarray(0.0),
        grey=jnp.asarray(False),
        sigma=jnp.asarray(0.0),
    )


def apply(draw, frame=FRAME, side=40, widest=1.0):
    return np.asarray(views.apply(jnp.asarray(frame), draw, side, widest))


def test_without_changes_a_view_is_the_crop_itself():
    got = apply(plain(corner=(0, 15)))
    np.testing.assert_allclose(got, FRAME[:, 15:55], atol=2e-3)


def test_a_crop_is_resized_as_a_cut_out_image_but_for_its_border():
    got = apply(plain(corner=(4, 10), size=(20, 20)))
    cut = resize(jnp.asarray(FRAME[4:24, 10:30], jnp.float32), (40, 40))
    np.testing.assert_allclose(got[1:-1, 1:-1], cut[1:-1, 1:-1], atol=2e-3)


def test_a_flip_mirrors_the_view():
    draw = plain(corner=(0, 5))
    flipped = dataclasses.replace(draw, flip=jnp.asarray(True))
    np.testing.assert_allclose(apply(flipped), apply(draw)[:, ::-1], atol=2e-3)


def test_jitter_blends_in_the_drawn_order():
    """Against the definition, for two orders that differ."""
    pixels = FRAME[:, :40].astype(np.float32)
    factors = np.array([1.3, 0.7, 1.4], np.float32)

    def grey(x):
        return (x @ np.array(views.GREY, np.float32))[..., None]

    def blended(x, kind):
        other = (0.0, grey(x).mean(), grey(x))[kind]
        return np.clip(x * factors[kind] + other * (1 - factors[kind]), 0, 255)

    for places in ([0, 1, 2, 3], [3, 1, 0, 2]):
        draw = dataclasses.replace(
            plain(), order=jnp.asarray(places), factors=jnp.asarray(factors)
        )
        wanted = pixels
        for place in range(4):
            kind = places.index(place)
            wanted = blended(wanted, kind) if kind < 3 else wanted
        np.testing.assert_allclose(apply(draw), wanted, atol=0.05)


def test_grey_has_three_equal_channels_and_a_full_turn_of_hue_changes_nothing():
    grey = apply(dataclasses.replace(plain(), grey=jnp.asarray(True)))
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])
    turned = apply(dataclasses.replace(plain(), hue=jnp.asarray(1.0)))
    np.testing.assert_allclose(turned, FRAME[:, :40], atol=0.1)


def test_a_blur_keeps_a_plane_and_spreads_a_point_by_its_sigma():
    draw = dataclasses.replace(plain(), sigma=jnp.asarray(1.5))
    flat = np.full((40, 40, 3), 77, np.uint8)
    np.testing.assert_allclose(apply(draw, flat, widest=2.0), 77, atol=1e-3)
    point = np.zeros((41, 41, 3), np.float32)
    point[20, 20] = 255
    got = np.asarray(views.blur(jnp.asarray(point), jnp.asarray(1.5), 2.0))[..., 0]
    np.testing.assert_allclose(got.sum(), 255, rtol=1e-5)
    spread = (got.sum(axis=0) * (np.arange(41) - 20) ** 2).sum() / 255
    np.testing.assert_allclose(np.sqrt(spread), 1.5, rtol=0.01)


@pytest.mark.parametrize("size", [(40, 60), (16, 200), (200, 16)])
def test_every_crop_lies_in_the_frame_and_has_the_drawn_area(size):
    keys = jax.random.split(jax.random.key(0), 300)
    draws = jax.vmap(lambda key: views.draw_view(key, size, CONFIG))(keys)
    corner, crop = np.asarray(draws.corner), np.asarray(draws.size)
    assert (corner >= 0).all()
    assert (crop >= 1).all()
    assert (corner + crop <= size).all()
    if size == (40, 60):
        share = crop.prod(axis=1) / (40 * 60)
        low, high = CONFIG.scale
        assert low * 0.8 < share.min() < 2 * low
        assert 0.8 * high < share.max() < high * 1.1
        assert len(np.unique(corner, axis=0)) > 100


def test_the_same_key_gives_the_same_view_and_the_two_of_a_pair_differ():
    frames = np.stack([[FRAME, FRAME]] * 2)
    keys = jax.random.split(jax.random.key(3), 2)
    small = CONFIG.copy_and_resolve_references()
    small.crop = 32
    run = jax.jit(lambda frames, keys: views.augment(frames, keys, small))
    first, again = run(frames, keys), run(frames, keys)
    np.testing.assert_array_equal(first, again)
    assert first.shape == (2, 2, 32, 32, 3)
    assert not np.allclose(first[0, 0], first[0, 1])
    assert not np.allclose(first[0], first[1])
    levels = np.asarray(augment.denormalize(first))
    assert levels.min() > -1e-5
    assert levels.max() < 1 + 1e-5
