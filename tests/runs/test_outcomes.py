"""What a stage says it made, and the command that comes after it."""

import shlex
from pathlib import Path

import pytest

from imas_jax import protocol
from imas_jax.runs import outcomes

RUN = Path("runs/clip")
TYPED = ["imas-jax", "a b.mp4", "--config.workdir=runs/clip"]
MADE = {
    "flow": (
        {"pairs": 7, "bytes": 2_500_000, "folder": "flow/abc"},
        "flow of 7 pairs, 2.5 MB, in flow/abc",
    ),
    "motion": ({"moving": {"a": 0.2}}, "in 1 clip, in runs/clip/motion"),
    "prepare": (
        {"clips": 1, "frames": 8, "size": [48, 64], "pairs": 7},
        "1 clip, 8 frames of 64x48, 7 pairs are sound, counted in runs/clip/prepare",
    ),
    "discover": ({"steps": 6}, "6 steps, weights in runs/clip/discover/checkpoints"),
    "align": (
        {"channels": [0, 2], "judge": "motion", "scores": {"1": 0.25, "0+2": 0.5}},
        "channel 0+2 by the motion judge, scores 1 0.250, 0+2 0.500, in runs/clip/al",
    ),
    "refine": ({"steps": 0}, "nothing trained"),
    "predict": (
        {"clips": {"a": 8}, "masks": "M", "formats": {"coco": "C"}},
        "masks of 8 frames in M, C",
    ),
    "evaluate": ({"annotated": True}, "in runs/clip/evaluate/tables.md"),
    "report": ({"report": "R.html"}, "R.html"),
    "tune": ({}, "runs/clip/tune/ranking.txt"),
    "score": ({"folders": {"m": "M"}}, "runs/clip/score/tables.md"),
    "ablate": ({}, "runs/clip/ablate/tables.md"),
    "each": ({"clips": ["a", "b"]}, "2 clips, all reports: runs/clip/each/index.html"),
    "push": (
        {"files": 9, "bytes": 5_400_000, "address": "hf://a/b@c"},
        "9 files, 5.4 MB, at hf://a/b@c",
    ),
    "evidence": ({"weights": "W.npz"}, "weights in W.npz"),
    "pretrain": ({"weights": "W", "backbone": "unet"}, "weights in W"),
}
STAGES = [stage.name for stage in (*protocol.STAGES, *protocol.TOOLS)]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_what_it_made(stage):
    values, said = MADE[stage]
    assert said in outcomes.told(stage, values, RUN / stage)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_leads_on(stage):
    order = [one.name for one in protocol.STAGES]
    following = (*order[order.index(stage) + 1 :], "")[0] if stage in order else ""
    lines = outcomes.next_steps(stage, TYPED, RUN, following, MADE[stage][0])
    assert lines[0].startswith("next")
    assert len(lines) <= 2
    if following:
        whole = shlex.split(lines[0].removeprefix("next: "))
        assert whole == [*TYPED, f"--config.stage={following}"]


def test_what_decided_nothing_is_said_so():
    assert "no files" in outcomes.told("motion", {}, RUN)
    assert "no annotations" in outcomes.told("evaluate", {"annotated": False}, RUN)
    assert outcomes.told("mine", {}, RUN) == "all in runs/clip"


@pytest.mark.parametrize("given", [["--config.stage=flow"], ["--config.stage", "flow"]])
def test_the_next_stage_stands_in_place_of_the_one_that_was_typed(given):
    words = [*TYPED[:2], *given, *TYPED[2:]]
    one, rest = outcomes.next_steps("flow", words, RUN, "motion", MADE["flow"][0])
    assert one == (
        "next: imas-jax 'a b.mp4' --config.workdir=runs/clip --config.stage=motion"
    )
    assert rest.endswith("--config.workdir=runs/clip --config.stage=all")
    assert "=flow" not in one + rest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["imas-jax", "--config=demo"], "imas-jax clip.mp4"),
        (
            ["py", "-m", "imas_jax.main", "--config=configs/demo.py"],
            "py -m imas_jax.main clip.mp4",
        ),
        (TYPED, "runs/clip --config.predict.formats=webm_alpha,overlay"),
        ([*TYPED, "--config.predict.formats=gif"], ""),
    ],
)
def test_after_the_report_comes_what_was_not_asked_for_yet(words, said):
    opened, *more = outcomes.next_steps("report", words, RUN, "", {"report": "R.html"})
    assert opened == "next: open R.html in a browser"
    assert "".join(more).endswith(said)
    assert bool(more) == bool(said)


def test_other_masks_are_scored_beside_those_that_were():
    words = ["imas-jax", "--config=evaluate", "--config.evaluate.masks=M"]
    _, more = outcomes.next_steps("score", words, RUN, "", {"folders": {"m": "M"}})
    assert more.endswith("imas-jax --config=evaluate --config.evaluate.masks=M,OTHER")


@pytest.mark.parametrize(
    ("original", "arguments", "words"),
    [
        (
            [".venv/bin/python", "-m", "imas_jax.main", "a"],
            ["/src/imas_jax/main.py", "a"],
            [".venv/bin/python", "-m", "imas_jax.main", "a"],
        ),
        (
            ["/bin/python", "/elsewhere/imas-jax", "a"],
            ["/elsewhere/imas-jax", "a"],
            ["/elsewhere/imas-jax", "a"],
        ),
        (["python", "mine.py", "a"], ["mine.py", "a"], ["python", "mine.py", "a"]),
    ],
)
def test_the_program_is_named_as_it_was_typed(original, arguments, words):
    assert outcomes.command(original, arguments) == words


def test_a_program_that_is_found_by_its_name_is_called_by_it(monkeypatch):
    monkeypatch.setattr(outcomes.shutil, "which", lambda name: f"/bin/{name}")
    words = outcomes.command(["python"], ["/bin/imas-jax", "a"])
    assert words == ["imas-jax", "a"]
