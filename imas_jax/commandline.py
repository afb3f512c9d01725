"""What the command line says to people: help, nearest names, one-line messages.

Also its short forms: `imas-jax clip.mp4` and the names of recipes become what absl's
flags understand, before anything is parsed.
"""

import logging as python_logging
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from imas_jax import progress
from imas_jax.errors import UserError
from imas_jax.runs import recipes

OWN = "video"  # the recipe of `imas-jax PATH`
EACH, ALL = "--config.stage=each", "--config.stage=all"
# Fields by which it is said what is done with several clips.
WHICH = ("stage", "restore", "data.sequences")
WORDS = re.compile(r"[A-Za-z_][\w-]*(,[A-Za-z_][\w-]*)*")
HELP = """imas-jax: masks of what moves in a video, learned from that video alone.

  imas-jax clip.mp4               a video file, or a folder of frames
  imas-jax FOLDER                 of several clips: each trains its own network
  imas-jax --config=demo          a first try: renders its clips, needs no data
  imas-jax --config=RECIPE[:VARIANT] --config.data.root=DATA

RECIPE is the path of a file, or one of:
{recipes}
  --config=RECIPE --help          what it does, its commands, where its file is
  --config.FIELD=VALUE            any field; each has a comment in
{fields}
  --config.workdir=DIR            where everything is written
  --config.restore=RUN            network of a workdir, or of hf://user/name
  --config.predict.formats=A,B    png, webm_alpha, coco, ...: docs/formats.md
  --config.stage=STAGE            what is to be finished:
{stages}

Ctrl-C saves, and the same command goes on. Look at WORKDIR/report/report.html.
In Python: import imas_jax; help(imas_jax). Read on: README.md, docs/.
"""
STAGES = (
    *("all", "flow", "motion", "prepare", "discover", "align", "refine", "predict"),
    *("evaluate", "report", "tune", "score", "ablate", "each", "evidence", "pretrain"),
    "push",
)


class PlainFormatter(python_logging.Formatter):
    """Time, and for warnings their rank; no file names, no thread numbers."""

    def format(self, record: python_logging.LogRecord) -> str:
        """Format one line."""
        clock = self.formatTime(record, "%H:%M:%S")
        rank = "" if record.levelno <= python_logging.INFO else record.levelname + ": "
        return f"{clock} {rank}{record.getMessage()}"


def start_logging() -> None:
    """Show our own lines plainly, and of libraries their warnings."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().setFormatter(PlainFormatter())
    logging.get_absl_handler().addFilter(progress.is_for_people)


def help_for(arguments: Sequence[str]) -> str | None:
    """Return what is printed in place of a run: help, a recipe's page, or None.

    Args:
        arguments: The command line without the program.

    Raises:
        UserError: If help is asked for a recipe that is not there, or fails.
    """
    asked = {"--help", "-h", "-help", "--helpfull", "--helpshort"} & {*arguments}
    if arguments and not asked:
        return None
    if recipe := _recipe(arguments):
        return recipes.page(recipe) + "\n"
    return HELP.format(
        recipes=_filled(", ".join(recipes.names())),
        fields=f"    {recipes.FOLDER / 'davis.py'}",
        stages=_filled(" | ".join(STAGES)),
    )


def _filled(words: str) -> str:
    margin = 4 * " "
    return textwrap.fill(words, 79, initial_indent=margin, subsequent_indent=margin)


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """Return arguments in the one form that is parsed, `--NAME=VALUE`.

    A recipe's name becomes its file, `--NAME VALUE` is joined, words with commas become
    a tuple, and the path of a clip, or of a folder of clips, becomes the flags that it
    is short for (`told` says so).

    Args:
        arguments: The command line without the program.

    Raises:
        UserError: If a recipe or a path is not there, or there are several paths or
            none of both.
    """
    recipe = _recipe(arguments)
    config = recipes.load(recipe or OWN)
    values = recipes.values_of(config)
    waiting, given, paths = list(arguments), [], []
    while waiting:
        one = waiting.pop(0)
        if not one.startswith("-"):
            paths.append(one)
            continue
        if "=" not in one and waiting and _wants_value(one.lstrip("-"), values):
            one += f"={waiting.pop(0)}"
        given.append(_as_tuple(one, values))
    given = [one for one in given if not re.match(r"--?config=", one)]
    start = [f"--config={_file(recipe)}"] if recipe else []
    if paths:
        start += _of_path(paths, given, recipe)
    if not start:
        raise UserError(
            f"no config file, only {shlex.join(given)}",
            "--config=RECIPE, or the path of a clip",
            "see --help; for a start try --config=demo",
        )
    return [*start, *given]


def told(typed: Sequence[str], meant: Sequence[str]) -> Iterator[str]:
    """Say what a path was short for, once it can be logged.

    Args:
        typed: The command line without the program.
        meant: What `spelled_out` made of it.
    """
    if f"--config={_file(OWN)}" in meant and not _recipe(typed):
        given = {one.partition("=")[0] for one in (*typed, "--config")}
        named = [one for one in meant if one.partition("=")[0] not in given]
        yield f"short for {shlex.join(['imas-jax', f'--config={OWN}', *named])}"
        if EACH in meant and EACH not in typed:
            yield "several clips: each trains its own network; all one: " + ALL


def _recipe(arguments: Sequence[str]) -> str:
    """Return what the last `--config` names; "" for none."""
    found = ""
    for at, one in enumerate(arguments):
        following = "".join(arguments[at + 1 : at + 2])
        if match := re.fullmatch(r"--?config(?:=(.*))?", one, re.DOTALL):
            found = following if match[1] is None else match[1]
    return found


def _file(recipe: str) -> str:
    path, variant = recipes.find(recipe)
    return f"{path}:{variant}" if variant else str(path)


def _wants_value(name: str, values: Mapping[str, Any]) -> bool:
    """Tell whether a flag without a value takes the next argument for it."""
    if name in flags.FLAGS:
        return not flags.FLAGS[name].boolean
    field = name.removeprefix("config.")
    return name == "config" or not isinstance(values.get(field, True), bool)


def _as_tuple(argument: str, values: Mapping[str, Any]) -> str:
    """Quote the words of a field that holds several: `png,coco` is no Python."""
    name, _, value = argument.partition("=")
    several = isinstance(values.get(name.lstrip("-").removeprefix("config.")), tuple)
    if several and WORDS.fullmatch(value):
        return f"{name}={tuple(value.split(','))!r}"
    return argument


def _of_path(paths: Sequence[str], given: Sequence[str], recipe: str) -> list[str]:
    """Return the flags that a path is short for, less those that are given."""
    path, named = paths[0], {one.lstrip("-").partition("=")[0] for one in given}
    if len(paths) > 1 or "config.data.root" in named:
        raise UserError(
            f"several paths: {', '.join(paths)}"
            if len(paths) > 1
            else f"{path}, and a --config.data.root",
            "one video file, folder of frames, or folder of either",
            "put the clips into one folder and name that, or run one after the other",
        )
    if not Path(path).exists() and path.partition(":")[0] in recipes.names():
        raise UserError(
            f"{path!r} does not exist", "a path", f"for the recipe: --config={path}"
        )
    meant = [f"--config.data.root={path}"]
    if recipe:
        return meant
    meant.insert(0, f"--config={_file(OWN)}")
    whole = Path(path).resolve()
    name = (whole.stem if whole.is_file() else whole.name) or OWN
    if "config.workdir" not in named:
        meant.append(f"--config.workdir=runs/{name}")
    if _clips(path) > 1 and not named & {f"config.{n}" for n in WHICH}:
        meant.append(EACH)
    return meant


def _clips(path: str) -> int:
    """Count the clips below a path as `configs/video.py` finds them."""
    from imas_jax.data import layouts  # decoders load for a while; help needs none

    data = recipes.load(OWN).data
    data.root = path
    return len(layouts.list_clips(data, layouts.image_set(data, data.split)))


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parse flags as absl does, but say what is wrong without a trace.

    Raises:
        UserError: For an unknown flag, a value of the wrong type, an unknown field.
    """
    try:
        return flags.FLAGS(argv)
    except (flags.Error, KeyError, AttributeError, ValueError, TypeError) as error:
        raise UserError(
            f"the command line cannot be read: {error}",
            "--config=RECIPE and --config.FIELD=VALUE of the field's type",
            "see --help, and the config file for its fields",
        ) from error


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse unknown fields before anything runs, with the nearest known ones.

    Args:
        arguments: The command line without the program.

    Raises:
        UserError: If the config file is not there, or a field is not one of its own.
    """
    named = [a for a in arguments if re.match(r"--?config=", a)]
    if not named:
        return
    config = recipes.load(named[-1].split("=", 1)[1])
    given = (re.match(r"--?(?:no)?config\.([^=]+)", one) for one in arguments)
    recipes.check_known(
        [match[1] for match in given if match], recipes.values_of(config)
    )
