import pytest

from configs import davis, video
from imas_jax.stages import settle
from imas_jax.stages.settle import Facts

ORDINARY = Facts((80,), ((240, 426),), {1: 2.0})


def chosen(facts, **overrides):
    config = video.get_config()
    config.update_from_flattened_dict(overrides)
    found = settle.choose(config, facts)
    return settle.apply(config, found), {c.field: c for c in found}


@pytest.mark.parametrize("frames", [40, 79, 100])
def test_an_ordinary_clip_gets_what_was_measured(frames):
    config, found = chosen(Facts((frames,), ((240, 426),), {1: 1.25}))
    assert set(found) == set(settle.FIELDS)
    measured = video.get_config()
    davis.small_network(measured)
    measured.data.update({"size": (0, 0), "frames": 0})
    measured.flow.gaps = (1,)
    assert config.to_dict() == measured.to_dict()


def test_what_the_user_sets_stands():
    config, found = chosen(
        Facts((5000,), ((1080, 1920),), {1: 0.1, 2: 0.2, 4: 2.0}),
        **{"discover.steps": 7, "data.size": (0, 0), "flow.gaps": (2,)},
    )
    assert config.discover.steps == 7
    assert tuple(config.data.size) == (0, 0)
    assert tuple(config.flow.gaps) == (2,)
    assert not {"discover.steps", "data.size", "flow.gaps"} & set(found)
    assert settle.open_fields(config) == ()
    assert settle.open_fields(davis.get_config()) == ()


def test_large_frames_are_worked_on_smaller():
    config, found = chosen(Facts((80,), ((1080, 1920),), {1: 2.0}))
    assert tuple(config.data.size) == (480, 853)
    assert "1920x1080" in found["data.size"].reason
    config, _ = chosen(Facts((80,), ((1920, 1080),), {1: 2.0}))
    assert tuple(config.data.size) == (853, 480)


def test_clips_of_several_sizes_get_the_usual_one():
    sizes = ((240, 426), (480, 854), (480, 854))
    config, _ = chosen(Facts((9, 9, 9), sizes, {1: 2.0}))
    assert tuple(config.data.size) == (480, 854)


def test_clips_of_about_one_length_train_alike_and_share_what_is_compiled():
    lengths = (104, 110, 140, 155, 300)
    found = [chosen(Facts((n,), ((240, 426),), {1: 2.0}))[0] for n in lengths]
    assert [c.discover.steps for c in found] == [200, 200, 300, 300, 600]
    assert [c.refine.steps for c in found] == [80, 80, 120, 120, 240]


@pytest.mark.parametrize(
    ("frames", "most", "steps"),
    [((12,), 0, (200, 80)), ((250,), 0, (500, 200)), ((18000,), 500, (1000, 400))],
)
def test_steps_grow_with_length_up_to_a_bound(frames, most, steps):
    config, found = chosen(Facts(frames, ((240, 426),), {1: 2.0}))
    assert config.data.frames == most
    assert (config.discover.steps, config.refine.steps) == steps
    assert "frames to learn from" in found["discover.steps"].reason


@pytest.mark.parametrize(
    ("motion", "gap", "said"),
    [
        ({1: 0.9}, 1, "enough"),
        ({1: 0.4, 2: 0.9, 4: 1.7, 8: 3.5}, 4, "slow motion"),
        ({1: 0.1, 2: 0.1, 4: 0.2, 8: 0.3}, 1, "no stride"),
    ],
)
def test_the_stride_is_the_smallest_that_shows_motion(motion, gap, said):
    config, found = chosen(Facts((80,), ((240, 426),), motion))
    assert tuple(config.flow.gaps) == (gap,)
    assert said in found["flow.gaps"].reason


def test_where_nothing_is_trained_every_frame_counts():
    config, found = chosen(Facts((18000,), ((240, 426),), {}, trains=False))
    assert config.data.frames == 0
    assert tuple(config.flow.gaps) == (1,)
    assert found["flow.gaps"].reason == "nothing is trained"


def test_given_weights_choose_their_network_and_the_papers_rates():
    config, found = chosen(ORDINARY, **{"model.weights": "densecl.pth"})
    paper = davis.get_config()
    for field in ("backbone", "width", "head_width", "head_dilation"):
        assert config.model[field] == paper.model[field]
    assert config.discover.learning_rate == paper.discover.learning_rate
    assert config.refine.learning_rate == paper.refine.learning_rate
    assert "densecl.pth" in found["model.backbone"].reason
