import dataclasses

import pytest

from configs import _small, davis, video
from imas_jax.errors import UserError
from imas_jax.models.segmenter import BACKBONES
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
    usual = davis.get_config()
    _small.network(usual)
    for field in settle.FIELDS:
        section, name = field.split(".")
        if section in ("model", "discover", "refine", "predict"):
            measured[section][name] = usual[section][name]
    measured.data.update({"size": (0, 0), "frames": 0})
    measured.flow.update({"gaps": (1, 2, 4), "size": 480})
    measured.discover.steps, measured.refine.steps = 100, 60
    measured.refine.learning_rate = settle.TAUGHT_RATE
    measured.predict.steady = 0.8
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
    assert [c.discover.steps for c in found] == [100, 100, 150, 150, 300]
    assert [c.refine.steps for c in found] == [60, 60, 90, 90, 180]


@pytest.mark.parametrize(
    ("frames", "most", "steps"),
    [((12,), 0, (100, 60)), ((250,), 0, (250, 150)), ((18000,), 500, (500, 300))],
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
    facts = Facts((80,), ((240, 426),), motion)
    config, found = chosen(facts, **{"motion.evidence": "otsu"})
    assert tuple(config.flow.gaps) == (gap,)
    assert said in found["flow.gaps"].reason
    assert chosen(facts)[0].flow.gaps[0] == gap


@pytest.mark.parametrize(
    ("frames", "motion", "gaps"),
    [
        (80, {1: 30.0}, (1,)),
        (80, {1: 3.0}, (1, 2)),
        (80, {1: 1.5}, (1, 2, 4)),
        (80, {1: 0.9}, (1, 2, 4, 8)),
        (80, {1: 0.4, 2: 0.9, 4: 1.7, 8: 3.5}, (4, 1, 2, 8)),
        (10, {1: 0.9}, (1, 2)),
        (2, {1: 0.9}, (1,)),
    ],
)
def test_the_evidence_looks_at_slow_things_over_wider_gaps(frames, motion, gaps):
    config, _ = chosen(Facts((frames,), ((240, 426),), motion))
    assert tuple(config.flow.gaps) == gaps


def test_stage_1_without_the_evidence_gets_the_steps_it_was_measured_with():
    config, _ = chosen(ORDINARY, **{"discover.motion_weight": 1.0})
    assert (config.discover.steps, config.refine.steps) == (200, 80)
    assert config.refine.learning_rate == settle.SCRATCH["refine.learning_rate"]


@pytest.mark.parametrize(
    ("estimator", "size", "wanted"),
    [("dis", (240, 428), 480), ("dis", (480, 854), 0), ("raft", (240, 428), 0)],
)
def test_dis_sees_small_frames_enlarged(estimator, size, wanted):
    facts = Facts((80,), (size,), {1: 2.0})
    config, found = chosen(facts, **{"flow.estimator": estimator})
    assert config.flow.size == wanted
    assert found["flow.size"].reason


def test_where_nothing_is_trained_every_frame_counts():
    config, found = chosen(Facts((18000,), ((240, 426),), {}, trains=False))
    assert config.data.frames == 0
    assert tuple(config.flow.gaps) == (1,)
    assert found["flow.gaps"].reason == "nothing is trained"


GIVEN = {"model.weights": "densecl.pth"}


def facts_of(backbone, accelerated):
    held = {"backbone": backbone, "accelerated": accelerated}
    return dataclasses.replace(ORDINARY, **held)


def test_given_weights_choose_their_network_and_the_papers_rates():
    config, found = chosen(facts_of("resnet50", True), **GIVEN)
    paper = davis.get_config()
    fields = ("backbone", "width", "head_width", "head_dilation", "output_stride")
    for field in (*fields, "trained"):
        assert config.model[field] == paper.model[field]
    assert config.discover.learning_rate == paper.discover.learning_rate
    assert config.refine.learning_rate == paper.refine.learning_rate
    assert "densecl.pth" in found["model.backbone"].reason
    assert "there is an accelerator" in found["model.trained"].reason


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("resnet18_imagenet", "resnet18"), ("dino_vits16", "vit_s16")],
)
def test_weights_by_name_choose_the_network_they_are_of(name, backbone):
    config = video.get_config()
    config.model.weights = name
    assert settle.backbone_of(config) == backbone
    config, found = chosen(facts_of(backbone, True), **{"model.weights": name})
    width = BACKBONES[backbone].width
    assert (config.model.backbone, config.model.width) == (backbone, width)
    assert found["model.backbone"].reason == f"{name} is given"


def test_weights_that_are_nowhere_are_told_before_anything_is_chosen():
    config = video.get_config()
    config.model.weights = "dino_vits15"
    with pytest.raises(UserError, match="no weights have that name"):
        settle.backbone_of(config)
    config.model.backbone = "resnet18"  # nothing left to look for
    assert settle.backbone_of(config) == ""


def test_without_an_accelerator_a_light_head_is_trained_on_given_weights():
    config, found = chosen(facts_of("resnet50", False), **GIVEN)
    assert config.model.trained == "heads"
    assert "there is no accelerator" in found["model.trained"].reason
    assert config.model.head_dilation == 0
    assert config.discover.learning_rate == settle.SCRATCH["discover.learning_rate"]
    assert config.predict.short_side == 240
    # Nothing is frozen where there are no weights, nor where the user says so.
    assert chosen(ORDINARY)[0].model.trained == "all"
    config, _ = chosen(facts_of("", False), **GIVEN, **{"model.backbone": "resnet18"})
    assert (config.model.backbone, config.model.width) == ("resnet18", 64)
    whole = {"model.trained": "all"}
    config, _ = chosen(facts_of("resnet50", False), **GIVEN, **whole)
    assert config.model.head_width == davis.get_config().model.head_width


def test_patches_are_seen_larger_and_every_backbone_at_its_own_stride():
    config, found = chosen(facts_of("vit_s14", False), **GIVEN)
    assert (config.model.width, config.model.output_stride) == (384, 14)
    assert config.predict.short_side == 480
    assert "14 px" in found["predict.short_side"].reason
    config, _ = chosen(facts_of("vit_s8", False), **GIVEN)
    assert config.predict.short_side == 240
