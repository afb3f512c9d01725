import numpy as np
import pytest

from imas_jax.rendered import film, sheets, textures, worlds

SIZE = (60, 90)


def card(left, top, size, kind, speed=(0.0, 0.0)):
    """Return an opaque white card of whole pixels."""
    image = np.ones((*size, 4), np.float32)
    place, speed = np.array([left, top], float), np.array(speed)
    return sheets.Sheet(image, lambda time: sheets.move(place + speed * time), kind)


def filmed(*cards, shutter=0.0):
    dark = np.zeros((*SIZE, 3), np.float32)
    return sheets.Scene(SIZE, lambda time: dark, cards, shutter)


def test_the_same_seed_and_number_give_the_same_bytes():
    first, again = (film.render(3, 5, SIZE, (-1, 0, 1)) for _ in "ab")
    assert sorted(first.frames) == [-1, 0, 1]
    for time, frame in first.frames.items():
        assert frame.dtype == np.uint8
        np.testing.assert_array_equal(frame, again.frames[time])
    np.testing.assert_array_equal(first.mask, again.mask)


def test_other_seeds_and_numbers_give_other_clips():
    frames = [
        film.render(*which, SIZE, (0,)).frames[0] for which in ((0, 0), (0, 1), (1, 0))
    ]
    assert not np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])


def test_a_frame_does_not_depend_on_how_many_come_after():
    few, many = film.render(0, 2, SIZE, (0,)), film.render(0, 2, SIZE, (0, 1, 2))
    np.testing.assert_array_equal(few.frames[0], many.frames[0])
    np.testing.assert_array_equal(few.mask, many.mask)


@pytest.mark.parametrize("time", [0.0, 3.0])
def test_the_mask_is_the_objects_pixels_where_it_is_at_that_time(time):
    scene = filmed(card(10, 20, (12, 16), "object", speed=(4.0, 1.0)))
    mask = sheets.object_mask(scene, time)
    expected = np.zeros(SIZE, bool)
    x, y = 10 + int(4 * time), 20 + int(time)
    expected[y : y + 12, x : x + 16] = True
    np.testing.assert_array_equal(mask, expected)


def test_a_pixel_is_object_from_half_of_it_on():
    covered = [
        sheets.object_mask(filmed(card(10 - shift, 20, (12, 16), "object")), 0.0)[25, 9]
        for shift in (0.4, 0.6)
    ]
    assert covered == [False, True]


def test_what_stands_in_front_hides_and_light_does_not():
    thing = card(10, 20, (12, 16), "object")
    before = sheets.object_mask(filmed(thing, card(18, 0, (60, 4), "world")), 0.0)
    assert not before[:, 18:22].any()
    assert before[25, 12]
    lit = sheets.object_mask(filmed(thing, card(18, 0, (60, 4), "light")), 0.0)
    np.testing.assert_array_equal(lit, sheets.object_mask(filmed(thing), 0.0))
    alone = filmed(card(18, 0, (60, 4), "light"), card(40, 0, (60, 4), "world"))
    assert not sheets.object_mask(alone, 0.0).any()


def test_an_open_shutter_smears_what_moves_and_leaves_the_mask_sharp():
    def scene(shutter):
        return filmed(
            card(20, 20, (12, 16), "object", speed=(10.0, 0.0)), shutter=shutter
        )

    sharp, smeared = (sheets.expose(scene(s), 0.0, steps=5) for s in (0.0, 1.0))
    assert set(np.unique(sharp)) == {0.0, 1.0}
    assert ((smeared > 0.05) & (smeared < 0.95)).any()
    np.testing.assert_allclose(smeared.sum(), sharp.sum(), rtol=1e-5)
    np.testing.assert_array_equal(
        sheets.object_mask(scene(0.0), 0.0), sheets.object_mask(scene(1.0), 0.0)
    )


@pytest.mark.parametrize("kind", textures.KINDS, ids=lambda kind: kind.__name__)
def test_textures_have_the_size_asked_for_and_some_detail(kind):
    image = kind(np.random.default_rng(0), (50, 70))
    assert image.shape == (50, 70, 3)
    assert np.isfinite(image).all()
    assert image.std() > 0.003


def test_colours_are_colours():
    image = textures.draw_texture(np.random.default_rng(1), (40, 60))
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1


def test_no_photograph_of_an_object_of_the_demo_is_used():
    shown = {name.split(".")[0] for name in textures.PHOTOGRAPHS}
    assert not shown & {"astronaut", "chelsea", "coffee"}


def test_some_scenes_hold_nothing_that_moves_and_most_do():
    masks = [
        sheets.object_mask(worlds.draw_scene(np.random.default_rng(n), SIZE), 0.0)
        for n in range(40)
    ]
    shares = np.array([mask.mean() for mask in masks])
    assert 0 < (shares == 0).mean() < 0.4
    assert 0.01 < shares.mean() < 0.4


def test_the_world_stands_still_under_a_camera_that_does():
    camera = worlds.Camera(
        sheets.Track(np.zeros(2)),
        sheets.Track(np.zeros(2)),
        sheets.Track(),
        sheets.Track(),
        np.array([45.0, 30.0]),
    )
    found = worlds.draw_standing(np.random.default_rng(0), SIZE, camera, (0.5, 3.0), 4)
    assert len(found) == 4
    for sheet in found:
        np.testing.assert_allclose(sheet.pose(0.0), sheet.pose(3.0))
        assert sheet.kind == "world"


def test_water_stirs_below_its_line_alone_and_otherwise_a_moment_later():
    rng, below = np.random.default_rng(0), np.zeros(SIZE, np.float32)
    below[30:] = 1
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    for stir in (
        worlds.draw_ripples(rng, SIZE, below),
        worlds.draw_waves(rng, SIZE, below, 30.0),
    ):
        (offset, light), (later, _) = stir(0.0, x, y), stir(1.0, x, y)
        assert not offset[:30].any()
        np.testing.assert_array_equal(light[:30], 1)
        assert np.ptp(offset[30:]) > 0.01
        assert np.abs(later - offset)[30:].max() > 0.01


def test_waves_stay_where_they_are_in_the_world_when_the_camera_turns():
    below = np.ones(SIZE, np.float32)
    stir = worlds.draw_waves(np.random.default_rng(0), SIZE, below, 0.0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    here, panned = stir(2.0, x, y)[0], stir(2.0, x + 5, y)[0]
    np.testing.assert_allclose(panned[:, :-5], here[:, 5:], atol=1e-4)


def test_near_things_pass_faster_than_far_ones():
    camera = worlds.Camera(
        sheets.Track(np.zeros(2), np.array([2.0, 0.0])),
        sheets.Track(np.zeros(2)),
        sheets.Track(),
        sheets.Track(),
        np.zeros(2),
    )
    far, near = (camera.view(1.0, nearness)[0, 2] for nearness in (0.5, 3.0))
    assert (far, near) == (1.0, 6.0)
