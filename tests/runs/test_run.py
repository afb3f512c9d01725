import copy
import dataclasses
import errno
import json

import jax
import pytest
from ml_collections import ConfigDict

from imas_jax.errors import UserError
from imas_jax.runs import agreement, records
from imas_jax.runs.records import differences
from imas_jax.runs.run import Output, Run, Stage
from imas_jax.training import exchange

pytestmark = pytest.mark.usefixtures("made_up_stages")


@pytest.fixture
def config(tmp_path):
    return ConfigDict(
        {
            "workdir": str(tmp_path / "run"),
            "restore": "",
            "restore_until": "refine",
            "stage": "all",
            "overwrite": False,
            "first": {"x": 1, "pair": (1, 2)},
            "second": {"y": 1},
            "target": {"workers": 0},
        }
    )


class Counter:
    """Two stages, the second needing the first; counts how often each works."""

    def __init__(self):
        self.calls = []

    def stages(self):
        def work(name):
            def do(run):
                self.calls.append(name)
                section = run.config.first if name == "discover" else run.config.second
                return Output(f"{name} {section.to_dict()}", {"made": name})

            return do

        return (
            Stage("discover", (), ("first", "target"), work("discover")),
            Stage("predict", ("discover",), ("second", "predict"), work("predict")),
        )


def make(config, counter, name="predict"):
    Run(config, counter.stages()).make(name)


def test_a_stage_makes_what_it_needs_and_nothing_twice(config):
    counter = Counter()
    make(config, counter)
    make(config, counter)
    assert counter.calls == ["discover", "predict"]


def test_the_result_says_what_made_it(config, tmp_path):
    make(config, Counter())
    result = json.loads((tmp_path / "run/predict/result.json").read_text())
    assert result["config"] == {
        "first.pair": [1, 2],
        "first.x": 1,
        "second.y": 1,
    }
    assert result["inputs"] == {"discover": result["inputs"]["discover"]}
    assert result["inputs"]["discover"].startswith("discover {")
    assert result["outputs"] == {"made": "predict"}
    assert {"seconds", "versions", "config_digest", "finished"} <= result.keys()
    assert result["versions"].keys() >= {"jax", "flax", "numpy"}


def test_a_changed_field_is_refused_by_name_and_nothing_is_lost(config, tmp_path):
    make(config, Counter())
    config.first.x = 5
    counter = Counter()
    with pytest.raises(UserError, match=r"first\.x: was 1, is 5"):
        make(config, counter)
    assert counter.calls == []
    assert (tmp_path / "run/predict/result.json").is_file()


def test_a_changed_field_of_a_later_stage_leaves_the_earlier_alone(config):
    make(config, Counter())
    config.second.y = 7
    config.overwrite = True
    counter = Counter()
    make(config, counter)
    assert counter.calls == ["predict"]


def test_overwrite_redoes_a_stale_stage_and_what_follows(config, tmp_path):
    make(config, Counter())
    (tmp_path / "run/discover/leftover").write_text("of the old config")
    config.first.x = 5
    config.overwrite = True
    counter = Counter()
    make(config, counter)
    assert counter.calls == ["discover", "predict"]
    assert not (tmp_path / "run/discover/leftover").exists()
    (aside,) = (tmp_path / "run").glob("discover.aside-*")
    assert (aside / "leftover").read_text() == "of the old config"
    assert (aside / "result.json").is_file()


def test_a_half_done_stage_of_another_config_is_refused_too(config, tmp_path):
    make(config, Counter())
    (tmp_path / "run/discover/result.json").unlink()  # killed before the end
    (tmp_path / "run/discover/half").write_text("of the work")
    config.first.x = 5
    with pytest.raises(UserError, match=r"first\.x"):
        make(config, Counter())


def test_a_stage_that_made_nothing_does_not_block_a_corrected_config(config, tmp_path):
    make(config, Counter())
    (tmp_path / "run/discover/result.json").unlink()  # failed on its input
    config.first.x, config.overwrite = 5, False
    counter = Counter()
    make(config, counter, "discover")
    assert counter.calls == ["discover"]


def test_an_input_with_another_outcome_makes_a_stage_stale(config, tmp_path):
    make(config, Counter())
    path = tmp_path / "run/discover/result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "identity": "something else"}))
    with pytest.raises(UserError, match="discover was made again"):
        make(config, Counter())


def test_a_finished_stage_that_lost_what_it_made_works_again(config):
    counter = Counter()
    first, second = counter.stages()
    there = dataclasses.replace(first, intact=lambda run: False)
    for _ in range(2):
        Run(config, (there, second)).make("predict")
    assert counter.calls == ["discover", "predict", "discover"]


def test_fields_that_do_not_decide_results_may_change(config):
    make(config, Counter())
    config.target.workers = 8
    config.stage = "predict"
    counter = Counter()
    make(config, counter)
    assert counter.calls == []


def test_a_restored_run_brings_its_trained_stages_along(config, tmp_path):
    make(config, Counter(), "discover")
    config.restore, config.workdir = config.workdir, str(tmp_path / "other")
    counter = Counter()
    make(config, counter)
    assert counter.calls == ["predict"]
    result = json.loads((tmp_path / "other/predict/result.json").read_text())
    assert result["inputs"]["discover"].startswith("discover {")


def test_a_restored_run_without_training_is_refused(config, tmp_path):
    config.restore = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="discover"):
        make(config, Counter())


def test_what_a_restored_run_brings_does_not_depend_on_the_stage(config, tmp_path):
    make(config, Counter(), "discover")
    config.restore, config.workdir = config.workdir, str(tmp_path / "other")
    config.stage = "discover"
    with pytest.raises(UserError, match="taken from") as refusal:
        make(config, Counter(), "discover")
    assert "--config.discover.init=" in refusal.value.fix
    counter = Counter()
    make(config, counter)
    assert counter.calls == ["predict"]


def test_a_run_is_restored_through_the_run_it_restored_itself(config, tmp_path):
    def stages(calls):
        def work(name):
            return lambda run: calls.append(name) or Output(name, {"made": name})

        return (
            Stage("discover", (), ("first",), work("discover")),
            Stage("refine", ("discover",), ("second",), work("refine")),
            Stage("predict", ("refine", "discover"), (), work("predict")),
        )

    for name in ("a", "b", "c"):
        calls = []
        config.workdir = str(tmp_path / name)
        Run(config, stages(calls)).make("predict" if name == "c" else "refine")
        expected = {"a": ["discover", "refine"], "b": ["refine"], "c": ["predict"]}
        assert calls == expected[name]
        config.restore = config.workdir
        config.restore_until = "discover" if name == "a" else "refine"
    told = json.loads((tmp_path / "c/predict/result.json").read_text())
    assert told["inputs"] == {"refine": "refine", "discover": "discover"}


def test_facts_are_compared_by_what_they_tell(config):
    calls, told = [], {"clips": ["a, 8 frames (12)", "b, 9 frames (34)"]}

    def stages():
        def work(run):
            calls.append(1)
            return Output("x", {})

        facts = {name: lambda run, name=name: told[name] for name in told}
        return (Stage("predict", (), ("first",), work, facts),)

    for _ in range(2):
        Run(config, stages()).make("predict")
    assert calls == [1]
    told["clips"] = None  # can no longer be told: what is finished stands
    Run(config, stages()).make("predict")
    assert calls == [1]
    told["clips"] = ["a, 8 frames (12)", "b, 9 frames (35)"]
    with pytest.raises(UserError) as refusal:
        Run(config, stages()).make("predict")
    assert "clips: was b, 9 frames (34)" in refusal.value.found
    assert "clips: is b, 9 frames (35)" in refusal.value.found
    assert "a, 8" not in refusal.value.found


def test_a_workdir_of_another_version_is_refused_in_one_sentence(config, tmp_path):
    make(config, Counter())
    path = tmp_path / "run/discover/config.json"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k != "format"}
    path.write_text(json.dumps(old))
    with pytest.raises(UserError, match="another version of imas_jax") as refusal:
        make(config, Counter())
    assert "--config.restore=" in refusal.value.fix


def test_nan_is_the_same_nan_when_a_run_goes_on(config):
    config.first = {"x": float("nan"), "pair": (1, float("nan"))}
    make(config, Counter())
    counter = Counter()
    make(config, counter)
    assert counter.calls == []


@pytest.mark.parametrize("workdir", ["", " "])
def test_an_empty_workdir_is_refused(config, workdir):
    config.workdir = workdir
    with pytest.raises(UserError, match="workdir is empty"):
        make(config, Counter())


def test_a_workdir_that_cannot_be_written_is_one_clear_error(config, tmp_path):
    (tmp_path / "file").write_text("")
    config.workdir = str(tmp_path / "file" / "run")
    with pytest.raises(UserError, match="cannot write"):
        make(config, Counter())


def test_differences_name_new_and_lost_fields():
    assert differences({"a": 1, "b": 2}, {"a": 1, "c": 3}) == [
        "b: was 2, is '(no such field)'",
        "c: was '(no such field)', is 3",
    ]


def test_a_full_disk_in_any_stage_is_told_without_a_trace(config):
    def full(run):
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere")

    stages = (Stage("predict", (), ("first",), full),)
    with pytest.raises(UserError, match="no room left on the disk"):
        Run(config, stages).make("predict")

    def forbidden(run):
        raise PermissionError("not a matter of room")

    with pytest.raises(PermissionError):
        Run(config, (Stage("align", (), ("first",), forbidden),)).make("align")


@pytest.mark.parametrize(
    "read", [lambda c: c.second.y, lambda c: c.first.pair, lambda c: c["target"]]
)
def test_a_stage_cannot_read_what_it_does_not_declare(config, read):
    stages = (Stage("predict", (), ("first.x",), lambda run: read(run.config)),)
    with pytest.raises((AttributeError, KeyError), match="not declared by the stage"):
        Run(config, stages).make("predict")


def test_a_stage_reads_what_it_and_its_needs_declare(config):
    def work(run):
        fields = records.flatten(run.config)
        whole = run.config.copy_and_resolve_references()
        return Output("x", {"fields": sorted(fields), "x": whole.first.x})

    stages = (
        Stage("discover", (), ("first.x",), work, reads=("target",)),
        Stage("predict", ("discover",), ("second",), work),
    )
    run = Run(config.lock(), stages)
    run.make("predict")
    of_the_run = {"overwrite", "restore", "restore_until", "stage", "workdir"}
    seen = {name: set(run.values(name)["fields"]) for name in ("discover", "predict")}
    assert seen["discover"] == {"first.x", "target.workers"} | of_the_run
    assert seen["predict"] == seen["discover"] | {"second.y"}
    assert run.result("discover")["config"] == {"first.x": 1}


@pytest.mark.parametrize("text", [b"\xff\xfe", b"[]", b"null", b'{"a"', b"{}", b""])
@pytest.mark.parametrize("name", ["result", "config"])
def test_a_damaged_record_is_one_clear_error(config, tmp_path, name, text):
    make(config, Counter())
    (tmp_path / f"run/discover/{name}.json").write_bytes(text)
    with pytest.raises(UserError) as told:
        make(config, Counter())
    assert "discover" in str(told.value)


def test_a_device_without_memory_is_told_with_what_to_lower(config):
    def work(run):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nand a trace"
        )

    stage = Stage("discover", (), ("first",), work, lighter=("first.x",))
    with pytest.raises(UserError, match="a device has no memory left") as told:
        Run(config, (stage,)).make("discover")
    assert "allocating 9 bytes" in told.value.found
    assert "trace" not in told.value.found
    assert "lower first.x (is 1)" in told.value.fix

    def fail(run):
        raise jax.errors.JaxRuntimeError("INTERNAL: a defect")

    stage = dataclasses.replace(stage, work=fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a defect"):
        Run(config, (stage,)).make("discover")


def test_a_process_that_sees_other_clips_or_files_is_named_by_all(config, monkeypatch):
    """A node with half the data would share it out differently and be waited for."""

    def gather(value):
        other = copy.deepcopy(value)
        other["host"] = "node2"
        other["seen"]["clips"] = ["a"]
        return [value, copy.deepcopy(value), other]

    monkeypatch.setattr(exchange, "gather", gather)
    counter = Counter()
    with pytest.raises(UserError, match="process 2 on node2 sees") as told:
        agreement.check("predict", {"clips": ["a", "b"], "inputs": {}})
    assert "clips: was b" in told.value.found
    assert "data.root" in told.value.fix
    facts = {"clips": lambda run: ["a", "b"]}
    stages = [dataclasses.replace(s, facts=facts) for s in counter.stages()]
    with pytest.raises(UserError, match="stage discover: process 2"):
        Run(config, tuple(stages)).make("predict")
    assert counter.calls == []
