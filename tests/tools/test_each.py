"""The tool that gives every clip a run of its own; its stages are stood in for."""

import dataclasses
import json

import clip_writer
import pytest

from configs import video
from imas_jax import protocol
from imas_jax.errors import UserError
from imas_jax.runs.run import Output, Run
from imas_jax.tools import each

FRAMES = {"a bird": 12, "boat": 150}


@pytest.fixture
def config(tmp_path):
    for name, frames in FRAMES.items():
        clip_writer.write_clip(tmp_path / "clips" / name, frames)
    config = video.get_config()
    config.stage, config.workdir = "each", str(tmp_path / "out")
    config.data.root = str(tmp_path / "clips")
    config.discover.batch_size = config.refine.batch_size = 8  # fake devices
    return config


class Fake:
    """Stages that note the clip they are run for; the given one fails once."""

    def __init__(self, fails_for=None):
        self.worked, self.fails_for = [], fails_for

    def stages(self):
        fakes = (
            dataclasses.replace(
                stage, work=self.work_of(stage), intact=lambda run: True
            )
            for stage in protocol.STAGES
        )
        return (*fakes, *protocol.TOOLS)

    def work_of(self, stage):
        def work(run):
            (name,) = run.config.data.sequences
            if name == self.fails_for:
                raise KeyboardInterrupt
            self.worked.append((name, stage.name))
            if stage.name == "predict":
                masks = run.workdir / "predict/masks" / name
                masks.mkdir(parents=True)
                (masks / "00000.png").write_text(name)
            return Output(name, {})

        return work


def make(config, fake):
    Run(config.lock(), fake.stages()).make("each")


def test_every_clip_is_a_run_of_its_own_with_its_own_choices(config, tmp_path):
    fake = Fake()
    make(config, fake)
    whole = [stage.name for stage in protocol.STAGES]
    assert fake.worked == [(name, stage) for name in FRAMES for stage in whole]
    steps = {}
    for name in FRAMES:
        noted = tmp_path / "out/runs" / name / "discover/config.json"
        steps[name] = json.loads(noted.read_text())["config"]["discover.steps"]
    assert steps == {"a bird": 200, "boat": 300}  # by the clip's frames, not by all


def test_masks_and_reports_of_all_clips_are_found_in_one_place(config, tmp_path):
    make(config, Fake())
    for name in FRAMES:
        assert (tmp_path / "out/masks" / name / "00000.png").read_text() == name
    page = (tmp_path / "out/each/index.html").read_text()
    assert 'href="../runs/a%20bird/report/report.html"' in page
    assert "<h2>a bird</h2>" in page


def test_a_killed_run_goes_on_with_the_clip_it_was_at(config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make(config, Fake(fails_for="boat"))
    assert [path.name for path in (tmp_path / "out/masks").iterdir()] == ["a bird"]
    again = Fake()
    make(config, again)
    assert {name for name, _ in again.worked} == {"boat"}


def test_what_a_later_clip_would_refuse_is_told_before_the_first_works(config):
    config.model.pathway = "residal"
    fake = Fake()
    with pytest.raises(UserError) as refusal:
        make(config, fake)
    assert all(name in str(refusal.value) for name in FRAMES)
    assert fake.worked == []


def test_one_network_for_all_is_not_restored_for_each(config):
    config.restore = "runs/other"
    with pytest.raises(UserError, match="one network"):
        make(config, Fake())
    assert each.GOAL == protocol.LAST
