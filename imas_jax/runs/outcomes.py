"""What a stage made, in a line, and the command that comes next.

The one place for these words. What was made is read off the values of `result.json`;
the next command is the one that was typed, with another stage or field.
"""

import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Values = Mapping[str, Any]


def told(stage: str, values: Values, folder: Path) -> str:
    """Return what a finished stage made, and where it lies.

    Args:
        stage: Its name; of one that is not known the folder is told.
        values: Of its result.
        folder: Its own.
    """
    return _WORDS.get(stage, lambda _, where: f"all in {where}")(values, folder)


def command(original: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Return the words of the command line, with the program as people type it.

    Args:
        original: `sys.orig_argv`, which begins with the interpreter.
        arguments: `sys.argv`, which begins with the program.
    """
    program, *given = arguments
    if Path(program).parts[-2:] == ("imas_jax", "main.py"):
        return [original[0], "-m", "imas_jax.main", *given]
    if (name := Path(program).name) == "imas-jax":
        found = shutil.which(name)
        here = found is not None and Path(found).absolute() == Path(program).absolute()
        return [name if here else program, *given]
    return [original[0], program, *given]


def next_steps(
    goal: str, words: Sequence[str], workdir: Path, following: str, values: Values
) -> list[str]:
    """Return one or two lines on what people do after a stage.

    Args:
        goal: The stage that was asked for, and is finished.
        words: The command, as `command` returns it.
        workdir: Of the run, as it was given.
        following: The next stage of the protocol to be made, "" after the last.
        values: Of the stage's result.
    """
    if following:
        lines = [f"next: {_with(words, 'stage', following)}"]
        if following != "report":
            lines.append(f"all that is left: {_with(words, 'stage', 'all')}")
        return lines
    if goal in ("report", "each"):
        page = values.get("report", workdir / "each" / "index.html")
        return [f"next: open {page} in a browser", *_after_report(words)]
    if goal == "pretrain":
        return [
            f"next: {_program(words)} --config=davis --config.data.root=DATA "
            f"--config.model.backbone={values['backbone']} "
            f"--config.model.weights={shlex.quote(values['weights'])}"
        ]
    if goal == "evidence":
        package = Path(__file__).parents[1] / "flow"
        return [
            f"next: {shlex.join(['cp', values['weights'], f'{package}/'])}",
            "every run with motion.evidence=network takes it from there",
        ]
    if goal == "tune":
        return [
            f"next: what they score, if annotated: {_program(words)} "
            "--config=evaluate --config.evaluate.masks=FOLDERS --config.data.root=DATA"
        ]
    if goal == "push":
        here = f"--config.restore={values['address']}"
        return [f"next, wherever it is wanted: {_program(words)} clip.mp4 {here}"]
    tables = f"next: read {workdir / goal / 'tables.md'}"
    if goal == "score" and len(values.get("folders", ())) == 1:
        (folder,) = values["folders"].values()
        more = _with(words, "evaluate.masks", f"{folder},OTHER")
        return [tables, f"against other masks: {more}"]
    if goal == "ablate":
        return [tables, f"more seeds: {_with(words, 'ablate.seeds', '0,1,2,3,4')}"]
    return [tables]


def _after_report(words: Sequence[str]) -> list[str]:
    if re.search(r"--?config[= ](\S*/)?demo(\.py)?( |$)", " ".join(words)):
        return [f"your own video: {_program(words)} clip.mp4"]
    if any("config.predict.formats" in one for one in words):
        return []
    formats = _with(words, "predict.formats", "webm_alpha,overlay")
    return [f"masks as other files, docs/formats.md: {formats}"]


def _program(words: Sequence[str]) -> str:
    """Return the command without its arguments."""
    return shlex.join(words[: 3 if words[1:3] == ["-m", "imas_jax.main"] else 1])


def _with(words: Sequence[str], field: str, value: str) -> str:
    """Return the command with a field set, in place of what it was given."""
    flag, kept, skip = f"config.{field}", [], False
    for word in words:
        if skip:
            skip = False
        elif re.fullmatch(rf"--?{re.escape(flag)}", word):
            skip = True  # its value is the next word
        elif not re.match(rf"--?{re.escape(flag)}=", word):
            kept.append(word)
    return shlex.join([*kept, f"--{flag}={value}"])


def _flow(values: Values, folder: Path) -> str:
    where = values.get("folder", folder)
    size = f"{values['bytes'] / 1e6:.1f} MB"
    return f"flow of {_count(values['pairs'], 'pair')}, {size}, in {where}"


def _motion(values: Values, folder: Path) -> str:
    if "moving" not in values:
        return "no files: what moves is told from flow when asked for"
    clips = _count(len(values["moving"]), "clip")
    return f"where something moves on its own, in {clips}, in {folder}"


def _prepare(values: Values, folder: Path) -> str:
    height, width = values["size"]
    clips, frames = _count(values["clips"], "clip"), _count(values["frames"], "frame")
    return (
        f"{clips}, {frames} of {width}x{height}, {_count(values['pairs'], 'pair')} "
        f"are sound, counted in {folder / 'result.json'}"
    )


def _trained(values: Values, folder: Path) -> str:
    if not values["steps"]:
        return "no step asked for, nothing trained"
    return f"{_count(values['steps'], 'step')}, weights in {folder / 'checkpoints'}"


def _align(values: Values, folder: Path) -> str:
    channels = "+".join(map(str, values["channels"]))
    scores = ", ".join(f"{n} {value:.3f}" for n, value in values["scores"].items())
    return (
        f"object channel {channels} by the {values['judge']} judge, scores {scores}, "
        f"in {folder / 'result.json'}"
    )


def _predict(values: Values, folder: Path) -> str:
    del folder  # the values know where
    frames = _count(sum(values["clips"].values()), "frame")
    places = [values["masks"], *values["formats"].values()]
    return f"masks of {frames} in {', '.join(places)}"


def _evaluate(values: Values, folder: Path) -> str:
    if not values["annotated"]:
        return "no annotations, so no scores"
    return f"scores by all protocols in {folder / 'tables.md'}"


_WORDS: Mapping[str, Callable[[Values, Path], str]] = {
    "flow": _flow,
    "motion": _motion,
    "prepare": _prepare,
    "discover": _trained,
    "align": _align,
    "refine": _trained,
    "predict": _predict,
    "evaluate": _evaluate,
    "report": lambda values, _: f"{values['report']}",
    "tune": lambda _, folder: f"the ranking in {folder / 'ranking.txt'}",
    "score": lambda _, folder: f"scores by all protocols in {folder / 'tables.md'}",
    "ablate": lambda _, folder: f"scores by all protocols in {folder / 'tables.md'}",
    "each": lambda values, folder: (
        f"{_count(len(values['clips']), 'clip')}, all reports: {folder / 'index.html'}"
    ),
    "push": lambda values, _: (
        f"{_count(values['files'], 'file')}, {values['bytes'] / 1e6:.1f} MB, "
        f"at {values['address']}"
    ),
    "evidence": lambda values, _: f"weights in {values['weights']}",
    "pretrain": lambda values, _: f"weights in {values['weights']}",
}


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"
