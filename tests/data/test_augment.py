"""Augmentation: flow stays true, colours are the authors', draws are fair."""

import dataclasses
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import davis
from imas_jax import conventions, errors, geometry
from imas_jax.conventions import Batch
from imas_jax.data import augment

SIZE = (60, 100)
MASK = (12, 12)
warp_all = jax.jit(jax.vmap(geometry.warp))


def recipe(**changes) -> ConfigDict:
    config = davis.augment()
    config.update({"short_side": 56, "crop": (48, 48), **changes})
    return config


def smooth(shape: tuple[int, ...], seed: int, scale: float) -> np.ndarray:
    """Make random maps that a bilinear resample barely blurs."""
    noise = np.random.default_rng(seed).normal(size=shape)
    maps = np.stack([cv2.GaussianBlur(m, (0, 0), 6.0) for m in noise])
    return (maps / np.abs(maps).max() * scale).astype(np.float32)


def make_batch(b: int = 2, seed: int = 0, target: bool = False) -> Batch:
    """Make pairs whose second frame is the first, moved by a smooth flow."""
    h, w = SIZE
    second = smooth((b, h, w, 3), seed, 120.0) + 128.0
    flow = np.stack([smooth((1, h, w, 2), seed + 1 + i, 5.0)[0] for i in range(b)])
    first = warp_all(jnp.asarray(second), jnp.asarray(flow))
    frames = np.stack([np.asarray(first), second], axis=1)
    rng = np.random.default_rng(seed)
    return Batch(
        frames=np.round(frames).astype(np.uint8),
        flow_forward=flow,
        flow_backward=rng.normal(size=(b, h, w, 2)).astype(np.float32),
        target=rng.integers(0, 256, (b, 2, 30, 50), np.uint8) if target else None,
        pair=np.arange(b),
    )


# These tests compile far more than they compute.
QUICK = {"xla_backend_optimization_level": 0}


def run(batch, keys, config, mask_size=MASK, train=True):
    """Augment under jit, as the train step does."""

    def step(batch, keys):
        return augment.augment(batch, keys, config, mask_size, train)

    return jax.jit(step, compiler_options=QUICK)(batch, keys)


def keys(n: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), n)


def to_levels(frames: jax.Array) -> np.ndarray:
    """Undo the normalisation."""
    levels = frames * np.float32(conventions.IMAGENET_STD).reshape(
        *(1,) * (frames.ndim - 1), 3
    ) + np.float32(conventions.IMAGENET_MEAN).reshape(*(1,) * (frames.ndim - 1), 3)
    return np.asarray(levels * 255.0)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_warping_the_second_frame_by_the_augmented_flow_gives_the_first(flip):
    config = recipe(flip=flip, photometric=False, scale=(0.9, 1.0), scale_flow=True)
    batch = make_batch(b=6)
    sample = run(batch, keys(6), config, (48, 48))
    frames = to_levels(sample.frames)
    warped = warp_all(jnp.asarray(frames[:, 1]), sample.flow_forward)
    inside = np.s_[:, 6:-6, 6:-6]
    error = np.abs(frames[:, 0] - np.asarray(warped))[inside].mean()
    still = np.abs(frames[:, 0] - frames[:, 1])[inside].mean()
    assert error < 0.08 * still

    wrong = sample.flow_forward * jnp.asarray([-1.0, 1.0]).reshape(1, 1, 1, 2)
    warped = warp_all(jnp.asarray(frames[:, 1]), wrong)
    assert np.abs(frames[:, 0] - np.asarray(warped))[inside].mean() > 5 * error


def test_flow_keeps_the_units_of_the_stored_frame_unless_scaled():
    batch = make_batch().replace(
        flow_forward=np.full((2, 30, 50, 2), 4.0, np.float16),
        flow_backward=np.full((2, 30, 50, 2), -3.0, np.float16),
    )
    config = recipe(flip=0.0, scale=(0.96, 0.96))
    kept = run(batch, keys(2), config, MASK)
    np.testing.assert_allclose(kept.flow_forward, 4.0, rtol=1e-6)
    np.testing.assert_allclose(kept.flow_backward, -3.0, rtol=1e-6)
    config.scale_flow = True
    scaled = run(batch, keys(2), config, MASK)
    np.testing.assert_allclose(scaled.flow_forward[..., 0], 4.0 * 88 / 100, rtol=1e-6)
    np.testing.assert_allclose(scaled.flow_forward[..., 1], 4.0 * 53 / 60, rtol=1e-6)


def test_a_flip_negates_horizontal_flow_only_and_mirrors_everything():
    batch = make_batch(target=True)
    whole = {"short_side": min(SIZE), "scale": (1.0, 1.0), "crop": SIZE}
    config = recipe(photometric=False, flip=0.0, **whole)
    plain = run(batch, keys(2), config, MASK)
    config.flip = 1.0
    flipped = run(batch, keys(2), config, MASK)
    for name in ("flow_forward", "flow_backward"):
        mirrored = getattr(plain, name)[:, :, ::-1] * np.float32([-1, 1]).reshape(
            1, 1, 1, 2
        )
        np.testing.assert_allclose(getattr(flipped, name), mirrored, atol=1e-5)
    np.testing.assert_allclose(flipped.frames, plain.frames[:, :, :, ::-1], atol=1e-5)
    np.testing.assert_allclose(flipped.target, plain.target[:, :, :, ::-1], atol=1e-6)


def test_the_crop_is_the_window_of_the_plainly_resized_frame():
    batch = make_batch(target=True)
    config = recipe(photometric=False, flip=0.0)
    key = keys(2)
    sample = run(batch, key, config, MASK)
    for i in range(2):
        draw = augment.draw_parameters(key[i], SIZE, config)
        h, w = (int(side) for side in draw.scaled)
        y, x = (int(side) for side in draw.offset)
        resized = geometry.resize(jnp.asarray(batch.frames[i], jnp.float32), (h, w))
        window = resized[:, y : y + 48, x : x + 48]
        np.testing.assert_allclose(to_levels(sample.frames[i]), window, atol=0.02)


def test_frames_and_masks_see_the_same_window():
    ramp = np.linspace(0, 255, SIZE[1]).round().astype(np.uint8)
    frames = np.broadcast_to(ramp.reshape(1, 1, 1, -1, 1), (4, 2, *SIZE, 3))
    batch = make_batch(b=4).replace(frames=frames, target=frames[..., 0])
    config = recipe(photometric=False, scale=(0.9, 1.0))
    sample = run(batch, keys(4, seed=3), config, MASK)
    small = to_levels(sample.frames)[..., 0].reshape(4, 2, 12, 4, 12, 4).mean((3, 5))
    np.testing.assert_allclose(np.asarray(sample.target) * 255, small, atol=1.0)


def test_both_frames_of_a_pair_get_the_same_colours_and_pairs_differ():
    batch = make_batch(b=4)
    batch = batch.replace(frames=np.repeat(batch.frames[:1, :1], 2, 1).repeat(4, 0))
    frames = run(batch, keys(4), recipe(), MASK).frames
    np.testing.assert_array_equal(frames[:, 0], frames[:, 1])
    assert len({np.asarray(f).tobytes() for f in frames}) == 4


@pytest.mark.parametrize("contrast_first", [True, False])
def test_colours_change_in_mmsegmentation_s_order(contrast_first):
    pixels = make_batch(b=1).frames[0].astype(np.float32)
    draw = augment.centre(SIZE, recipe()).replace(
        brightness=jnp.asarray(60.0),
        contrast=jnp.asarray(1.4),
        contrast_first=jnp.asarray(contrast_first),
        saturation=jnp.asarray(1.5),
        hue=jnp.asarray(14.0),
    )
    wanted = np.clip(pixels + 60.0, 0, 255)
    if contrast_first:
        wanted = np.clip(wanted * 1.4, 0, 255)
    hsv = cv2.cvtColor(wanted.reshape(-1, 1, 3) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = np.clip(hsv[..., 1] * 1.5, 0, 1)
    hsv[..., 0] = (hsv[..., 0] + 28.0) % 360
    wanted = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).reshape(pixels.shape) * 255
    if not contrast_first:
        wanted = np.clip(wanted * 1.4, 0, 255)
    ours = augment.distort(jnp.asarray(pixels), draw)
    np.testing.assert_allclose(ours, wanted, atol=0.05)


def test_random_parameters_have_their_distribution_over_many_keys():
    n = 4000
    config = davis.augment()
    draw = jax.vmap(lambda k: vars(augment.draw_parameters(k, (480, 854), config)))
    draws = jax.tree.map(np.asarray, jax.jit(draw)(keys(n)))
    draws = types.SimpleNamespace(**draws)
    assert set(draws.scaled[:, 0]) == set(range(384, 400))
    counts = np.bincount(draws.scaled[:, 0] - 384, minlength=16)
    assert ((counts - n / 16) ** 2 / (n / 16)).sum() < 37.7  # chi2, 15 dof, p = 0.001
    np.testing.assert_array_equal(
        draws.scaled[:, 1], np.floor(854 * draws.scaled[:, 0] / 480 + 0.5)
    )
    room = draws.scaled - 384
    assert (draws.offset >= 0).all()
    assert (draws.offset <= room).all()
    assert (draws.offset == room).any(axis=0).all()
    assert abs((draws.offset[:, 1] / room[:, 1]).mean() - 0.5) < 0.02
    for name, low, high, rest in (
        ("brightness", -32.0, 32.0, 0.0),
        ("contrast", 0.5, 1.5, 1.0),
        ("saturation", 0.5, 1.5, 1.0),
        ("hue", -18.0, 18.0, 0.0),
    ):
        values = getattr(draws, name)
        moved = np.sort(values[values != rest])
        assert abs(len(moved) / n - 0.5) < 0.03, name
        even = np.linspace(low, high, len(moved))
        assert np.abs(moved - even).max() < 0.05 * (high - low), name
    assert abs(draws.flip.mean() - 0.5) < 0.03
    assert abs(draws.contrast_first.mean() - 0.5) < 0.03
    columns = [draws.flip, draws.contrast_first, draws.brightness, draws.contrast]
    columns += [draws.saturation, draws.hue, draws.scaled[:, 0]]
    # Within its room, rounding aside, the place is uniform whatever the scale.
    columns += list(((draws.offset + 0.5) / (room + 1)).T)
    correlation = np.corrcoef(np.stack(columns).astype(float))
    np.fill_diagonal(correlation, 0.0)
    assert np.abs(correlation).max() < 0.07


def test_a_key_gives_the_same_sample_alone_in_a_batch_and_under_pmap():
    config, batch, key = recipe(), make_batch(b=4, target=True), keys(4)

    def step(part: Batch, part_keys: jax.Array):
        return augment.augment(part, part_keys, config, MASK)

    together = jax.jit(step)(batch, key)
    again = jax.jit(step)(batch, key)
    split = jax.tree.map(lambda a: np.asarray(a).reshape(2, 2, *a.shape[1:]), batch)
    mapped = jax.pmap(step, devices=jax.devices()[:2])(split, key.reshape(2, 2))
    alone = jax.jit(step)(jax.tree.map(lambda a: a[2:3], batch), key[2:3])
    for name in ("frames", "flow_forward", "flow_backward", "target"):
        whole = np.asarray(getattr(together, name))
        np.testing.assert_array_equal(whole, getattr(again, name))
        shards = np.asarray(getattr(mapped, name)).reshape(whole.shape)
        np.testing.assert_allclose(shards, whole, atol=2e-6)
        np.testing.assert_allclose(getattr(alone, name), whole[2:3], atol=2e-6)


def test_without_training_the_sample_ignores_the_keys_and_takes_the_centre():
    batch, config = make_batch(), recipe(short_side=60)
    one = run(batch, keys(2, 1), config, MASK, train=False)
    two = run(batch, keys(2, 2), config, MASK, train=False)
    np.testing.assert_array_equal(one.frames, two.frames)
    centre = batch.frames[:, :, 6:54, 26:74]
    np.testing.assert_allclose(to_levels(one.frames), centre, atol=0.02)


def test_features_pass_and_flow_and_targets_are_those_of_the_whole_frame():
    batch = make_batch(target=True)
    seen = np.random.default_rng(0).normal(size=(2, 2, 7, 12, 3)).astype(np.float16)
    held = conventions.Features(seen, seen[..., :1])
    config = recipe(crop=(56, 93), flip=1.0, scale=(1.0, 1.0))
    found = run(dataclasses.replace(batch, frames=held), keys(2), config, (7, 12))
    np.testing.assert_array_equal(found.frames.merge, seen)
    np.testing.assert_array_equal(found.frames.deep, seen[..., :1])
    whole = geometry.resize(jnp.asarray(batch.flow_forward), (7, 12))
    np.testing.assert_allclose(found.flow_forward, whole, atol=1e-4)
    levels = jnp.asarray(batch.target, jnp.float32)[..., None]
    target = geometry.resize(levels, (7, 12))[..., 0] / 255
    np.testing.assert_allclose(found.target, target, atol=1e-5)


def test_evaluation_frames_are_only_normalised():
    frames = make_batch().frames
    whole = augment.eval_sample(frames)
    assert whole.shape == frames.shape
    np.testing.assert_allclose(to_levels(whole), frames, atol=1e-3)
    assert augment.eval_sample(frames, (30, 50)).shape == (2, 2, 30, 50, 3)


def test_a_crop_larger_than_the_smallest_resized_frame_is_refused():
    with pytest.raises(errors.UserError, match=r"\(48, 64\).*resized to \(53, 53\)"):
        augment.check_crop((60, 60), recipe(crop=(48, 64)))


def authors_distort(x: np.ndarray, factor: float, shift: float) -> np.ndarray:
    """Scale and shift as mmsegmentation does: in float32, clip, truncate."""
    return np.clip(x.astype(np.float32) * factor + shift, 0, 255).astype(np.uint8)


def authors_saturation(x: np.ndarray, factor: float) -> np.ndarray:
    hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = authors_distort(hsv[..., 1], factor, 0.0)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def authors_hue(x: np.ndarray, shift: float) -> np.ndarray:
    hsv = cv2.cvtColor(x, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = ((hsv[..., 0].astype(int) + shift) % 180).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def pieces(parity: np.lib.npyio.NpzFile, name: str) -> list[tuple[float, np.ndarray]]:
    return [(float(k.split("_")[1]), parity[k]) for k in parity if k.startswith(name)]


@pytest.fixture(scope="module")
def parity(parity_dir):
    with np.load(parity_dir / "augment.npz") as file:
        return dict(file)


@pytest.mark.parity
def test_brightness_and_contrast_truncated_are_the_authors_exactly(parity):
    x = parity["rgb_in"]
    checked = 0
    for name, is_factor in (("brightness", False), ("contrast", True)):
        for value, wanted in pieces(parity, name):
            factor, shift = (value, 0.0) if is_factor else (1.0, value)
            ours = augment.linear(
                jnp.asarray(x, jnp.float32), jnp.asarray(factor), jnp.asarray(shift)
            )
            np.testing.assert_array_equal(np.asarray(ours).astype(np.uint8), wanted)
            checked += 1
    assert checked == 8


@pytest.mark.parity
def test_saturation_and_hue_differ_from_the_authors_by_their_rounding(parity):
    x = parity["rgb_in"]
    levels = jnp.asarray(x, jnp.float32)
    one, zero = jnp.asarray(1.0), jnp.asarray(0.0)
    for value, wanted in pieces(parity, "saturation"):
        np.testing.assert_array_equal(authors_saturation(x, value), wanted)
        ours = augment.saturation_and_hue(levels, jnp.asarray(value), zero)
        assert np.abs(np.asarray(ours) - wanted).max() < 6.0
        assert np.abs(np.asarray(ours) - wanted).mean() < 1.5
    for value, wanted in pieces(parity, "hue"):
        np.testing.assert_array_equal(authors_hue(x, value), wanted)
        # Their hue is whole: compare with the shift that truncation leaves.
        ours = augment.saturation_and_hue(levels, one, jnp.asarray(np.floor(value)))
        assert np.abs(np.asarray(ours) - wanted).max() < 6.0
        assert np.abs(np.asarray(ours) - wanted).mean() < 1.5


@pytest.mark.parity
def test_hue_and_saturation_agree_with_real_valued_hsv(parity):
    x = parity["rgb_in"]
    levels = jnp.asarray(x, jnp.float32)
    for factor, shift in ((1.0, 0.0), (0.6, 11.3), (1.4, -17.9)):
        hsv = parity["hsv_f32_from_unit_rgb"].copy()
        hsv[..., 0] = (hsv[..., 0] + 2 * shift) % 360
        hsv[..., 1] = np.clip(hsv[..., 1] * factor, 0, 1)
        wanted = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
        ours = augment.saturation_and_hue(
            levels, jnp.asarray(factor), jnp.asarray(shift)
        )
        np.testing.assert_allclose(ours, wanted, atol=0.02)


@pytest.mark.parametrize(
    ("size", "crop"),
    [
        ((240, 428), (192, 320)),  # fits as it is
        ((428, 240), (320, 192)),  # a tall video: turned
        ((480, 640), (192, 288)),  # 4:3: shrunk to what the smallest scale leaves
        ((300, 300), (192, 208)),
    ],
)
def test_a_crop_is_turned_or_shrunk_until_every_draw_can_cut_it(size, crop):
    config = davis.get_config().augment
    config.update({"short_side": 240, "scale": (0.9, 1.1), "crop": (192, 320)})
    config.crop = augment.fit_crop(size, config)
    assert tuple(config.crop) == crop
    augment.check_crop(size, config)
