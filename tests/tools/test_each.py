"""The tool that gives every clip a run of its own; its stages are stood in for."""

import dataclasses
import itertools
import json
import logging
import re
from pathlib import Path

import clip_writer
import jax
import numpy as np
import pytest

from configs import video
from imas_jax import protocol as stages
from imas_jax.errors import UserError
from imas_jax.evaluation import protocol
from imas_jax.runs.run import Output, Run
from imas_jax.stages import flow, motion
from imas_jax.tools import each
from imas_jax.training import parallel

pytestmark = pytest.mark.usefixtures("made_up_stages")

FRAMES = {"a bird": 12, "boat": 150}
BLUR = {"no_motion": 0.0, "inconsistent": 1.0}  # of a clip's flow


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
    """Stages that note the clip they are run for.

    Args:
        fails_for: The clip whose first stage fails.
        scores: By clip, what its stage evaluate says.
        discover: Called by stage discover.
    """

    def __init__(self, fails_for=None, scores=None, discover=lambda: None):
        self.worked, self.fails_for = [], fails_for
        self.scores, self.discover = scores or {}, discover

    def stages(self):
        fakes = (
            dataclasses.replace(
                stage, work=self.work_of(stage), intact=lambda run: True
            )
            for stage in stages.STAGES
        )
        return (*fakes, *stages.TOOLS)

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
            if stage.name == "discover":
                self.discover()
            if stage.name == "evaluate":
                entries = [dataclasses.asdict(e) for e in self.scores.get(name, ())]
                return Output(name, {"annotated": bool(entries), "entries": entries})
            found = {
                "flow": {"quality": {name: BLUR if name == "boat" else {}}},
                "motion": {"moving": {name: 0.0 if name == "boat" else 0.2}},
                "report": {"unsure": {name: 0.25}},
            }
            return Output(name, found.get(stage.name, {}))

        return work


def scored(label, kind, name, *jaccard):
    """Make a row of one clip."""
    count = len(jaccard)
    score = protocol.SequenceScore(
        name, count, tuple(range(count)), jaccard, jaccard, (False,) * count
    )
    return protocol.Entry(label, kind, (score,))


def make(config, fake):
    Run(config.lock(), fake.stages()).make("each")


def test_every_clip_is_a_run_of_its_own_with_its_own_choices(config, tmp_path):
    fake = Fake()
    make(config, fake)
    clips = [name for name, _ in itertools.groupby(name for name, _ in fake.worked)]
    assert clips == list(FRAMES)  # one after the other
    for name in FRAMES:
        made = [stage for clip, stage in fake.worked if clip == name]
        assert sorted(made) == sorted(stage.name for stage in stages.STAGES)
    steps = {}
    for name in FRAMES:
        noted = tmp_path / "out/runs" / name / "discover/config.json"
        steps[name] = json.loads(noted.read_text())["config"]["discover.steps"]
    assert steps == {"a bird": 100, "boat": 150}  # by the clip's frames, not by all


def test_masks_and_reports_of_all_clips_are_found_in_one_place(config, tmp_path):
    make(config, Fake())
    for name in FRAMES:
        assert (tmp_path / "out/masks" / name / "00000.png").read_text() == name
    page = (tmp_path / "out/each/index.html").read_text()
    assert 'href="../runs/a%20bird/report/report.html"' in page
    assert re.findall(r"<h3>(.*?)</h3>", page) == list(FRAMES)
    assert not (tmp_path / "out/each/metrics.json").exists()  # nothing is annotated


def test_one_table_adds_up_what_all_clips_scored(config, tmp_path, caplog):
    bird = [
        scored("motion baseline", "baseline", "a bird", 0.2, 0.4),
        scored("stage 2", "aligned", "a bird", 0.6, 0.8),
        scored("stage 2", "oracle", "a bird", 0.9, 0.9),
    ]
    boat = [scored("stage 2", "aligned", "boat", 0.1, 0.1, 0.1, 0.3, 0.4, 0.2)]
    caplog.set_level(logging.INFO)
    make(config, Fake(scores={"a bird": bird, "boat": boat}))
    told = json.loads((tmp_path / "out/each/metrics.json").read_text())["methods"]
    rows = {(method["label"], method["kind"]): method for method in told}
    means = {
        name: rows["stage 2", "aligned"]["protocols"][name]["jaccard"]["mean"]
        for name in protocol.PROTOCOLS
    }
    assert means["frame_mean"] == pytest.approx((0.6 + 0.8 + 1.2) / 8)
    assert means["sequence_mean"] == pytest.approx((0.7 + 0.2) / 2)
    assert means["official"] == pytest.approx((0.1 + 0.1 + 0.3 + 0.4) / 4)
    baseline = rows["motion baseline", "baseline"]["protocols"]["frame_mean"]
    assert (baseline["sequences"], baseline["frames"]) == (1, 2)  # the boat has none
    assert ("stage 2", "oracle") in rows
    (printed,) = [line for line in caplog.messages if "J by sequence" in line]
    assert "boat" in printed
    assert "a bird" in printed
    page = (tmp_path / "out/each/index.html").read_text()
    assert "<td>32.5</td>" in page
    assert re.findall(r'data-score="([\d.]+)"', page) == [
        "70.0",
        "20.0",
    ]  # of the result


def test_the_page_says_which_clips_to_look_at(config, tmp_path):
    make(config, Fake())
    page = (tmp_path / "out/each/index.html").read_text()
    assert re.findall(r'data-warnings="(\d)"', page) == ["0", "2"]
    assert re.findall(r'data-unsure="([\d.]+)"', page) == ["0.25", "0.25"]
    lines = re.findall(r"<li>(.*?)</li>", page)
    assert lines == [motion.NOTHING, flow.WARNINGS["inconsistent"]]  # the boat's
    assert "J at most" not in page  # nothing is annotated


def test_a_clips_choices_are_told_when_its_turn_comes(config, caplog):
    caplog.set_level(logging.INFO)
    make(config, Fake())
    lines = caplog.messages
    turn = next(i for i, line in enumerate(lines) if "boat (2 of 2)" in line)
    steps = [i for i, line in enumerate(lines) if "discover.steps = 150" in line]
    assert len(steps) == 1
    assert steps[0] > turn


def test_what_a_clip_compiled_is_let_go_of(config):
    alive = []

    def discover():
        client = jax.local_devices()[0].client
        alive.append(len(client.live_executables()))

        def step(state, batch):
            return parallel.average(state * 3 + batch), {}

        state = parallel.replicate(np.float32(len(alive)))
        shape = (jax.local_device_count(),)
        parallel.run_on_devices(step)(state, np.ones(shape, np.float32))

    for name in ("cat", "dog", "eel"):
        clip_writer.write_clip(Path(config.data.root) / name, 12)
    make(config, Fake(discover=discover))
    assert len(alive) == 5
    assert alive[1:] == alive[1:2] * 4


def test_a_killed_run_goes_on_with_the_clip_it_was_at(config, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        make(config, Fake(fails_for="boat"))
    assert [path.name for path in (tmp_path / "out/masks").iterdir()] == ["a bird"]
    again = Fake()
    make(config, again)
    assert {name for name, _ in again.worked} == {"boat"}


def test_what_a_later_clip_would_refuse_is_told_before_the_first_works(config):
    config.discover.batch_size = 12  # of eight devices
    fake = Fake()
    with pytest.raises(UserError) as refusal:
        make(config, fake)
    assert all(name in str(refusal.value) for name in FRAMES)
    assert fake.worked == []


def test_one_network_for_all_is_not_restored_for_each(config):
    config.restore = "runs/other"
    with pytest.raises(UserError, match="one network"):
        make(config, Fake())
    assert each.GOAL == stages.LAST
