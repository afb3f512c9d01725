"""The ablation tool: what rows share, what a killed one repeats, and its table."""

import dataclasses
import json
from pathlib import Path

import pytest
from tiny import get_config as tiny

from configs import ablation, davis
from imas_jax import protocol
from imas_jax.demo import render
from imas_jax.errors import UserError
from imas_jax.evaluation import ablations
from imas_jax.evaluation.ablations import ABLATIONS
from imas_jax.evaluation.protocol import Entry, SequenceScore
from imas_jax.runs.restoring import adopt_network
from imas_jax.runs.run import Output, Run
from imas_jax.tools import ablate

pytestmark = pytest.mark.usefixtures("made_up_stages")

NAMES = ("cat-sway", "cup-pan")
TRAINABLE = [row.name for row in ABLATIONS if "semantic" not in row.name]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablate") / "clips"
    render.render_demo(folder, 0, frames=4, size=(48, 80), names=NAMES)
    return folder


def entry(label, kind, value):
    score = SequenceScore("a", 3, (0, 1, 2), (value,) * 3, (value,) * 3, (False,) * 3)
    return dataclasses.asdict(Entry(label, kind, (score,)))


class Fake:
    """The protocol's stages without their work; notes what works, and on what."""

    def __init__(self, fails_at=None):
        self.worked, self.fails_at = [], fails_at

    def stages(self):
        return tuple(
            dataclasses.replace(
                stage,
                work=self.work_of(stage),
                intact=lambda run: True,
                reads=protocol.EVERYTHING,
            )
            if stage in protocol.STAGES
            else stage
            for stage in (*protocol.STAGES, *protocol.TOOLS)
        )

    def work_of(self, stage):
        def work(run):
            if len(self.worked) == self.fails_at:
                raise KeyboardInterrupt
            self.worked.append((stage.name, run.config.seed))
            wanted = run.subset(stage)
            value = (0.5 + 0.01 * run.config.seed) * (
                0.9 if run.config.model.pathway == "none" else 1.0
            )
            value -= 0.2 * (run.config.data.sequences == (NAMES[0],))
            entries = [entry("motion baseline", "baseline", 0.4)]
            entries += [entry("stage", "aligned", value)]
            entries += [entry("stage", "oracle", 0.99)]
            if run.config.predict.crf:
                entries.insert(2, entry("stage, CRF", "aligned", value + 0.1))
            values = {"annotated": True, "entries": entries}
            return Output(json.dumps(wanted), values)

        return work


def config_of(root, workdir, rows, seeds=(0,), base=None):
    config = base or davis.get_config("runlocal")
    config.stage, config.workdir, config.data.root = "ablate", str(workdir), str(root)
    config.ablate.rows, config.ablate.seeds = rows, seeds
    config.evaluate.split = ""
    config.discover.batch_size = config.refine.batch_size = 8  # fake devices
    return config.lock()


def run(config, stages):
    Run(config, stages).make(protocol.goal(config))
    return json.loads((Path(config.workdir) / "ablate/metrics.json").read_text())


def test_rows_that_agree_so_far_share_the_work(root, tmp_path):
    fake = Fake()
    rows = "stage-1,stage-2,post-stage-1-crf,post-stage-2-crf,residual"
    run(config_of(root, tmp_path, rows, (0, 1)), fake.stages())
    counts = {name: sum(n == name for n, _ in fake.worked) for name, _ in fake.worked}
    assert counts == {
        "flow": 1,  # no row and no seed changes it
        "motion": 1,
        "prepare": 1,
        "discover": 4,  # with and without feature merging, two seeds
        "align": 4,
        "refine": 6,  # none after residual; none and one after the others
        "predict": 10,
        "evaluate": 10,
    }


def test_all_rows_are_seven_trainings_of_stage_1_and_one_of_stage_2(root, tmp_path):
    fake = Fake()
    run(config_of(root, tmp_path, ",".join(TRAINABLE)), fake.stages())
    assert sum(name == "discover" for name, _ in fake.worked) == 7
    # Every row has a folder that holds a whole run.
    for name in TRAINABLE:
        folder = tmp_path / "rows" / name / "seed-0"
        assert json.loads((folder / "evaluate/result.json").read_text())["outputs"]


def test_the_table_has_mean_and_spread_beside_the_papers_number(root, tmp_path):
    told = run(
        config_of(root, tmp_path, "table-4,post-stage-1-crf", (0, 1)), Fake().stages()
    )
    by_row = {row["row"]: row for row in told["rows"]}
    assert told["baseline"]["frame_mean"] == pytest.approx(0.4)
    assert [row["row"] for row in told["rows"]] == [
        *(row.name for row in ABLATIONS if row.table == 4),
        "post-stage-1-crf",
    ]
    plain, crf = by_row["pathway-residual"], by_row["post-stage-1-crf"]
    assert plain["jaccard"]["frame_mean"]["mean"] == pytest.approx(0.505)
    assert plain["jaccard"]["frame_mean"]["std"] == pytest.approx(0.01 / 2**0.5)
    assert crf["jaccard"]["frame_mean"]["mean"] == pytest.approx(0.605)
    assert plain["paper_percent"] == 73.0
    assert crf["overrides"]["predict.crf"] == "weak_unary"  # the miniature's ablate.crf
    text = (tmp_path / "ablate/tables.md").read_text()
    assert "| motion baseline |" in text
    assert "| pathway-residual | Table 4 | 50.5 | 0.7 | 2 | 73.0 |" in text
    assert text.index("frame_mean") < text.index("official")


def test_a_killed_run_repeats_nothing(root, tmp_path):
    rows = "stage-1,stage-2,residual"
    whole, first, second = Fake(), Fake(fails_at=9), Fake()
    expected = run(config_of(root, tmp_path / "a", rows, (0, 1)), whole.stages())
    config = config_of(root, tmp_path / "b", rows, (0, 1))
    with pytest.raises(KeyboardInterrupt):
        run(config, first.stages())
    partial = (tmp_path / "b/ablate/tables.md").read_text()
    assert "not run" in partial
    assert run(config, second.stages()) == expected
    assert sorted(first.worked + second.worked) == sorted(whole.worked)


def test_a_changed_schedule_is_trained_anew_beside_the_old(root, tmp_path):
    run(config_of(root, tmp_path, "stage-1"), Fake().stages())
    base = davis.get_config("runlocal")
    base.discover.steps += 1
    fake = Fake()
    run(config_of(root, tmp_path, "stage-1", base=base), fake.stages())
    assert [name for name, _ in fake.worked] == [
        "discover",
        "align",
        "refine",
        "predict",
        "evaluate",
    ]


def test_rows_that_cannot_be_trained_are_told_before_anything_is(root, tmp_path):
    fake = Fake()
    with pytest.raises(UserError, match="stage-2-semantic") as error:
        run(config_of(root, tmp_path, "stage-1,stage-2-semantic"), fake.stages())
    assert "--config.ablate.rows=stage-1" in str(error.value)
    assert fake.worked == []


def test_stage_2_rows_want_steps_of_stage_2(root, tmp_path):
    base = ablation.get_config("stage-1,runlocal")
    with pytest.raises(
        UserError, match=r"stage-2: a row of stage 2, but refine\.steps = 0"
    ):
        run(config_of(root, tmp_path, "stage-1,stage-2", base=base), Fake().stages())


def test_an_unknown_row_is_refused_with_all_names():
    with pytest.raises(UserError, match="pathway-affine"):
        ablate.choose("table-3, pathway-afine")
    assert len(ablate.choose("")) == len(ABLATIONS)
    assert [row.table for row in ablate.choose("table-5")] == [5] * 4


def test_sequences_that_train_alone_are_one_row_together(root, tmp_path):
    fake = Fake()
    base = davis.get_config("runlocal")
    base.ablate.alone = True
    told = run(config_of(root, tmp_path, "stage-1,stage-2", base=base), fake.stages())
    counts = {name: sum(n == name for n, _ in fake.worked) for name, _ in fake.worked}
    assert counts["discover"] == len(NAMES)
    for name in NAMES:
        folder = tmp_path / "rows/stage-2/seed-0" / name
        config = json.loads((folder / "flow/config.json").read_text())["config"]
        (clip,) = config["clips trained on"]
        assert clip.startswith(f"{name}, ")
    (one, _) = told["rows"]
    assert one["jaccard"]["frame_mean"]["mean"] == pytest.approx((0.3 + 0.5) / 2)
    assert "2 sequences" in (tmp_path / "ablate/tables.md").read_text()


@pytest.mark.parametrize("row", ablations.ROWS, ids=lambda row: row.name)
def test_the_tool_trains_what_the_rows_own_config_says(row):
    base = davis.get_config("runlocal")
    alone = ablation.get_config(f"{row.name},runlocal")
    row = ablations.with_crf(row, base.ablate.crf)
    made = ablate.row_config(base.lock(), row, alone.seed)
    for section in ("data", "model", "loss", "discover", "target", "refine", "predict"):
        assert made[section].to_json() == alone[section].to_json()


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """Two rows that were trained for real, as little as can be."""
    folder = tmp_path_factory.mktemp("rows")
    config = config_of(root, folder, "post-stage-2,post-stage-2-crf", base=tiny_base())
    return folder, run(config, (*protocol.STAGES, *protocol.TOOLS))


def tiny_base():
    base = tiny()
    base.discover.steps = base.refine.steps = 2
    base.data.layout = "davis"
    return base


def labels(told):
    return [m["label"] for m in told["methods"] if m["kind"] == "aligned"]


@pytest.mark.slow
def test_a_tiny_ablation_from_clips_to_table(trained):
    folder, told = trained
    seen = [row["jaccard"]["frame_mean"]["mean"] for row in told["rows"]]
    assert all(0 <= value <= 1 for value in seen)
    crf = folder / "rows/post-stage-2-crf/seed-0/evaluate/metrics.json"
    assert labels(json.loads(crf.read_text())) == [
        "stage 1",
        "stage 2",
        "stage 2, CRF weak_unary",
    ]
    homes = list((folder / "stages").iterdir())
    assert sum(home.name.startswith("discover") for home in homes) == 1
    assert sum(home.name.startswith("refine") for home in homes) == 1


@pytest.mark.slow
def test_a_restored_run_is_scored_before_and_after_the_crf_twice_alike(
    trained, root, tmp_path
):
    folder, told = trained
    written = []
    for workdir in (tmp_path / "a", tmp_path / "b"):
        config = config_of(root, workdir, "", base=tiny_base()).unlock()
        config.stage, config.predict.crf = "evaluate", config.ablate.crf
        config.restore = str(folder / "rows/post-stage-2/seed-0")
        config.model.width = 16  # the restored run's network is taken, not this
        Run(adopt_network(config.lock()), protocol.STAGES).make("evaluate")
        files = ("metrics.json", "per_sequence.csv", "tables.md")
        written.append([(workdir / "evaluate" / name).read_bytes() for name in files])
        assert not (workdir / "discover").exists()
    assert written[0] == written[1]
    restored = json.loads(written[0][0])
    assert labels(restored) == ["stage 2", "stage 2, CRF weak_unary"]
    plain, crf = (m for m in restored["methods"] if m["kind"] == "aligned")
    for method, row in zip((plain, crf), told["rows"], strict=True):
        mean = method["protocols"]["frame_mean"]["jaccard"]["mean"]
        assert mean == row["jaccard"]["frame_mean"]["mean"]


@pytest.mark.slow
def test_the_successors_three_trainings_follow_each_other(root, tmp_path):
    base = tiny_base()
    base.align.features = "superpixels"
    run(
        config_of(root, tmp_path, "rcf-2.2", base=base),
        (*protocol.STAGES, *protocol.TOOLS),
    )
    last = tmp_path / "rows/rcf-2.2/seed-0"
    told = json.loads((last / "refine/result.json").read_text())["outputs"]
    assert told["targets"]["provenance"]["constraint"]["cut"] == "superpixels"
    assert "appearance" in told["last"]
    first = json.loads((tmp_path / "rows/rcf-2.1/seed-0/align/result.json").read_text())
    assert first["outputs"]["judge"] == "cut"
    start = json.loads((last / "discover/result.json").read_text())["outputs"]
    assert start["steps"] == 0
