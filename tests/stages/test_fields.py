import math

import pytest

from configs import (
    ablation,
    align,
    amd,
    davis,
    demo,
    evaluate,
    fbms59,
    gwm,
    rcf,
    segtrackv2,
    video,
    youtube_vos,
)
from imas_jax import protocol
from imas_jax.errors import UserError
from imas_jax.evaluation import ablations
from imas_jax.runs.records import flatten
from imas_jax.stages import fields, rules

DAVIS = flatten(davis.get_config())
NAN, INF = math.nan, math.inf
# Wrong for every field whose value is of the type.
WRONG = {
    bool: (None, 1, 0.0, "True", NAN, (True,)),
    int: (None, True, 1.5, NAN, INF, "3", -5, (1,), 10**400),
    float: (None, NAN, INF, -INF, -5.0, "0.5", (0.5,)),
    str: (None, 3, NAN, True, ("a",), "a\0b", "a\udcff"),
    list: (None, 1, "12", (None,), (NAN,), (-5,), (True, False), ((1,),), (1, "a")),
}
SENSELESS = [
    ("augment.crop", (0, 0)),
    ("augment.crop", (32,)),
    ("augment.crop", (32, 32, 3)),
    ("augment.flip", 1.5),
    ("augment.scale", (1.0, 0.9)),
    ("augment.scale", (0.0, 1.0)),
    ("augment.short_side", 0),
    ("align.largest", 0),
    ("align.threshold", 1.5),
    ("ablate.seeds", ()),
    ("ablate.seeds", (0, 0)),
    ("data.frames", 1),
    ("data.frames", -2),
    ("data.sequences", ("bear", "bear")),
    ("data.sequences", ("",)),
    ("data.sequences", "bear"),
    ("data.size", ()),
    ("data.size", (48,)),
    ("data.size", (480, 0)),
    ("data.size", (8, 8)),
    ("data.size", (480, -1)),
    ("discover.batch_size", 0),
    ("discover.checkpoint_every", 0),
    ("discover.ema", 1.0),
    ("discover.learning_rate", 0.0),
    ("discover.log_every", 0),
    ("discover.steps", 2**31),
    ("discover.steps_per_decay", 0),
    ("evaluate.label", 70_000),
    ("flow.gaps", ()),
    ("flow.gaps", (0,)),
    ("flow.gaps", (1, -2)),
    ("flow.gaps", (1, 1)),
    ("flow.iterations", 0),
    ("model.channels", 1),
    ("model.dropout", 1.0),
    ("model.flow_clamp", 0.0),
    ("model.output_stride", 7),
    ("predict.batch_size", 0),
    ("predict.crf", "weak_unary:iterations=-1"),
    ("predict.short_side", -2),
    ("predict.steady", 1.0),
    ("predict.threshold", 1.0),
    ("report.sequences", 0),
    ("seed", -1),
    ("seed", 2**32),
    ("target.crf", ""),
    ("target.dilation", 0),
    ("crf.solver", "densecrf"),
    ("target.when", "before"),
    ("workdir", ""),
    ("workdir", "~/runs"),
    ("data.root", "~"),
    ("data.size", (20_000, 20_000)),
    ("workdir", " "),
]


def config_with(**changes):
    config = davis.get_config()
    with config.ignore_type(), config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


def refused(config):
    with pytest.raises(UserError) as refusal:
        fields.check(config, protocol.names())
    return str(refusal.value)


def test_every_field_is_in_the_table_and_no_other():
    assert DAVIS.keys() - {"stage"} == fields.TABLE.keys()


@pytest.mark.parametrize("field", DAVIS)
def test_a_field_takes_no_value_of_another_type(field):
    for value in WRONG[type(DAVIS[field])]:
        message = refused(config_with(**{field: value}))
        assert f"{field}: {value!r}" in message


@pytest.mark.parametrize(("field", "value"), SENSELESS)
def test_a_field_takes_no_value_without_a_meaning(field, value):
    assert f"{field}: {value!r}" in refused(config_with(**{field: value}))


def words():
    table = fields.TABLE.items()
    return [f for f, (rule, _) in table if isinstance(rule, rules.Word)]


@pytest.mark.parametrize("field", ["stage", *words()])
def test_a_choice_takes_no_other_word_and_names_the_near_one(field):
    meant = str(DAVIS[field])
    message = refused(config_with(**{field: meant + "x"}))
    assert f"{meant}x" in message
    assert not meant or f"did you mean {meant}" in message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.size", (-1, -1)),
        ("data.size", (480, 854)),
        ("flow.gaps", (1, 2)),
        ("flow.gaps", (-1,)),
        ("model.backbone", "auto"),
        ("discover.steps", 0),
        ("discover.steps", -1),
        ("discover.learning_rate", -1.0),
        ("predict.crf", "gwm:iterations=5"),
        ("predict.short_side", 0),
        ("predict.crf_agreement", 1.0),
        ("data.layout", "demo"),
    ],
)
def test_a_sound_value_passes(field, value):
    fields.check(config_with(**{field: value}), protocol.names())


@pytest.mark.parametrize(
    "config",
    [
        *(c.get_config() for c in (davis, demo, video, align, evaluate)),
        video.get_config("quick"),
        *(c.get_config("runlocal") for c in (segtrackv2, fbms59, youtube_vos)),
        *(amd.get_config(v) for v in ("", "demo")),
        *(gwm.get_config(v) for v in ("", "demo")),
        *(rcf.get_config(v) for v in ("", "fbms59,semantic", "demo,semantic")),
        *(ablation.get_config(f"{row.name},runlocal") for row in ablations.ROWS),
        ablation.get_config("all,alone"),
    ],
    ids=lambda config: config.workdir,
)
def test_every_recipe_passes(config):
    fields.check(config, protocol.names())


def test_a_choice_is_open_only_where_it_is_made():
    assert "refine.batch_size" in refused(config_with(**{"refine.batch_size": -1}))


def test_everything_wrong_is_told_at_once_with_what_it_means():
    changes = {"loss.kind": "l3", "flow.gaps": (0,), "predict.crf": "authors"}
    message = refused(config_with(**changes))
    for said in ("'l3'", "robust", "(0,)", "'authors'", "authors_post", "frames"):
        assert said in message


def test_a_field_that_a_config_file_invents_is_refused_with_the_nearest():
    config = davis.get_config()
    config.model.chanels = 3
    assert "did you mean model.channels" in refused(config)


def test_a_field_that_a_config_file_lacks_is_refused():
    config = davis.get_config()
    del config.augment.flip
    assert "augment.flip: is missing" in refused(config)
