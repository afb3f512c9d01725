import numpy as np
import pytest

from imas_jax.rendered import bodies, lights, sheets

SIZE = (80, 120)
LENGTH = 40.0


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def card(colour=(0.9, 0.6, 0.3)):
    """Return an opaque body of 20 x 40 px, its centre at the origin."""
    image = np.ones((20, 40, 4), np.float32)
    image[..., :3] = colour
    return bodies.Part(image, lambda time: sheets.move(np.array([-20.0, -10.0])))


def filmed(parts):
    """Film parts of a body whose centre stands in the middle of a dark frame."""
    middle = sheets.move(np.array([60.0, 40.0]))
    shown = tuple(
        sheets.Sheet(
            p.image, lambda time, p=p: middle @ p.pose(time), "light", p.wobble
        )
        for p in parts
    )
    dark = np.zeros((*SIZE, 3), np.float32)
    return sheets.Scene(SIZE, lambda time: dark, shown, 0.0)


def test_a_reflection_lies_below_the_line_darker_and_is_no_object(rng):
    scene = filmed(lights.reflection(rng, [card()], LENGTH, 12.0, unit=0.3))
    image = sheets.expose(scene, 0.0, 1)
    # The card ends 2 px above the line, its image begins as far below: row 54.
    assert image[:48].max() == 0  # waves shake it by less than 5 px
    assert image[58:66, 60].min() > 0.05
    assert image.max() < 0.9
    assert not sheets.object_mask(scene, 0.0).any()


def test_waves_shake_a_reflection_and_more_so_further_from_the_line(rng):
    part = lights.reflection(rng, [card()], LENGTH, 10.0, unit=1.0)[0]
    now, later = part.wobble(0.0), part.wobble(1.0)
    assert now.shape == (20, 40, 2)
    assert np.abs(later - now).max() > 0.05
    top, bottom = np.abs(now[:3]).mean(), np.abs(now[-3:]).mean()
    assert top > bottom  # the card's lower edge touches the water


def test_of_what_floats_the_part_above_the_water_is_left():
    cut = lights.afloat([card()], 4.0)[0]
    np.testing.assert_array_equal(cut.image[:14], card().image[:14])
    assert not cut.image[16:].any()


def test_a_shadow_is_dark_and_a_shining_floor_is_not():
    kinds = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        image = lights.shadow(rng, [card()], LENGTH)[0].image
        assert 0.1 < image[..., 3].max() <= 0.6
        kinds.add(bool(image[..., :3].any()))
    assert kinds == {True, False}


@pytest.mark.parametrize("water", [True, False])
def test_puffs_are_soft_coloured_and_boil(rng, water):
    found = lights.puffs(rng, LENGTH, np.array([3.0, 0.0]), water)
    assert 2 <= len(found) <= 6
    for puff in found:
        alpha = puff.image[..., 3:]
        assert 0 < alpha.max() < 1
        assert (puff.image[..., :3] <= alpha + 1e-6).all()
        assert not alpha[0].any()  # ends in nothing
        assert np.abs(puff.wobble(3.0) - puff.wobble(0.0)).max() > 0
        assert puff.place[0] < 0  # behind what goes to the right


def test_a_puff_on_the_body_goes_with_it_and_one_left_behind_does_not(rng):
    def body_at(time):
        return np.array([10.0 * time, 0.0])

    image = np.zeros((4, 4, 4), np.float32)
    place, drift = np.array([-5.0, 2.0]), np.array([0.5, 0.0])

    def centre(age, time):
        puff = lights.Puff(image, lambda time: image[..., :2], place, age, drift, 0.0)
        return (lights.puff_pose(puff, body_at)(time) @ (2, 2, 1))[:2]

    np.testing.assert_allclose(centre(None, 3.0) - centre(None, 0.0), (30, 0))
    np.testing.assert_allclose(centre(4.0, 3.0) - centre(4.0, 0.0), (1.5, 0))
    np.testing.assert_allclose(centre(4.0, -4.0), place + body_at(-4.0))
