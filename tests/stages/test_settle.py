"""What is looked at before a run, and what is made of it."""

import clip_writer
import pytest
from ml_collections import ConfigDict

from configs import video
from imas_jax.data import clips
from imas_jax.stages import settle


def config_of(folder) -> ConfigDict:
    config = video.get_config()
    config.data.root = str(folder)
    return config.lock()


def test_every_choice_is_logged_with_its_reason(tmp_path, caplog):
    clip_writer.write_clip(tmp_path / "clip", 12)
    with caplog.at_level("INFO"):
        config = settle.settle(config_of(tmp_path / "clip"))
    assert settle.open_fields(config) == ()
    for field in settle.FIELDS:
        assert any(f"{field} = " in line for line in caplog.messages)
    assert "flow.gaps = (1,) (neighbouring frames move enough" in caplog.text
    assert tuple(config.flow.gaps) == (1,)
    assert settle.settle(config) is config


def test_slow_motion_gets_a_stride(tmp_path):
    frames = clip_writer.moving_frames(12, step=1, side=30)
    for t in range(36):  # every frame three times: a third of the speed
        clip_writer.save(tmp_path / f"{t:05d}.png", frames[t // 3])
    (clip,) = clips.find_clips(clip_writer.config(tmp_path, "folder").data)
    moved = settle.measure_motion((clip,))
    assert moved[1] < settle.SLOW
    assert moved[8] > settle.ENOUGH
    assert settle.settle(config_of(tmp_path)).flow.gaps[0] > 1


def test_a_very_short_clip_is_worth_a_warning(tmp_path, caplog):
    clip_writer.write_clip(tmp_path / "clip", 3)
    with caplog.at_level("WARNING"):
        config = settle.settle(config_of(tmp_path / "clip"))
    assert "clip has 3 frames: little to learn from" in caplog.text
    assert tuple(config.flow.gaps) == (1,)


def test_several_clips_from_scratch_are_told_of_a_network_for_each(tmp_path, caplog):
    for name in ("a", "b"):
        clip_writer.write_clip(tmp_path / name, 12)
    with caplog.at_level("INFO"):
        settle.settle(config_of(tmp_path / "a"))
        assert "--config.stage=each" not in caplog.text
        settle.settle(config_of(tmp_path))
    assert "--config.stage=each" in caplog.text


@pytest.mark.parametrize(
    ("estimator", "kept"), [("dis", 0.8), ("raft", 0.0), ("import", 0.0)]
)
def test_masks_are_steadied_along_the_flow_of_dis_alone(estimator, kept):
    config = video.get_config()
    config.flow.estimator = estimator
    facts = settle.Facts((12,), ((48, 64),), {1: 2.0})
    assert settle.apply(config, settle.choose(config, facts)).predict.steady == kept


@pytest.mark.parametrize(("until", "moves"), [("refine", False), ("discover", True)])
def test_motion_is_measured_where_something_is_trained(
    tmp_path, monkeypatch, until, moves
):
    clip_writer.write_clip(tmp_path / "clip", 4)
    config = config_of(tmp_path / "clip").unlock()
    config.restore, config.restore_until = "another", until
    looked = []
    monkeypatch.setattr(
        settle, "measure_motion", lambda clips: looked.append(clips) or {1: 2.0}
    )
    assert tuple(settle.settle(config).flow.gaps) == (1,)
    assert bool(looked) == moves


SET = {
    "data.size": (48, 64),
    "data.frames": 9,
    "flow.gaps": (2,),
    "flow.size": 64,
    "model.backbone": "resnet18",
    "model.width": 8,
    "model.head_width": 24,
    "model.head_dilation": 3,
    "model.output_stride": 16,
    "model.trained": "all",
    "discover.steps": 7,
    "discover.learning_rate": 0.5,
    "refine.steps": 3,
    "refine.learning_rate": 0.25,
    "predict.short_side": 96,
    "predict.steady": 0.5,
}


@pytest.mark.parametrize("field", settle.FIELDS)
def test_a_value_that_is_given_stands_and_the_rest_is_chosen(tmp_path, field):
    clip_writer.write_clip(tmp_path / "clip", 12)
    config = config_of(tmp_path / "clip").unlock()
    config.update_from_flattened_dict({field: SET[field]})
    settled = settle.settle(config.lock())
    section, name = field.split(".")
    assert settled[section][name] == SET[field]
    assert settle.open_fields(settled) == ()


@pytest.mark.parametrize("open_field", settle.FIELDS)
def test_any_field_may_be_the_only_open_one(tmp_path, open_field):
    clip_writer.write_clip(tmp_path / "clip", 12)
    config = config_of(tmp_path / "clip").unlock()
    given = {field: value for field, value in SET.items() if field != open_field}
    config.update_from_flattened_dict(given)
    settled = settle.settle(config.lock())
    assert settle.open_fields(settled) == ()
    for field, value in given.items():
        section, name = field.split(".")
        assert settled[section][name] == value
