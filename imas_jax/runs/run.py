"""How stages are run once: order, inputs, `result.json`, and what makes them stale.

A stage folder holds `config.json` from the moment work starts and `result.json` from
the moment it is finished. A finished stage is never repeated. One whose fields, facts
or inputs have changed since is refused, with the differences named, unless
`config.overwrite` is set; then it is set aside by renaming. Nothing is ever mixed, and
nothing is ever removed.
"""

import copy
import dataclasses
import datetime
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from imas_jax import files
from imas_jax.data.found import Clips
from imas_jax.errors import UserError, bullet, is_out_of_memory
from imas_jax.progress import duration
from imas_jax.runs import agreement, lock, outcomes, records, restoring, view
from imas_jax.training import exchange, parallel, shared_disk

# Fields that change how a stage works but not what it makes, and those that only name
# what a fact of `stages/facts.py` tells by content.
NEUTRAL = {
    "model.weights",
    "model.allow_supervised",
    "target.workers",
    "predict.batch_size",
    "predict.formats",  # more files of the same masks
    # Of stage score, which is done anew each time; stage evaluate reads none of them.
    *(f"evaluate.{f}" for f in ("masks", "encoding", "label", "threshold", "partial")),
    "evaluate.baseline",
    *(f"{s}.{f}" for s in ("discover", "refine") for f in ("init", "log_every")),
    *(f"{s}.{f}" for s in ("discover", "refine") for f in ("checkpoint_every",)),
    *(f"pretrain.{f}" for f in ("checkpoint_every", "log_every", "keep_every")),
}


@dataclass(frozen=True)
class Output:
    """What a stage made.

    Attributes:
        identity: Changes whenever anything a later stage reads has changed.
        values: Plain values for people and later stages.
    """

    identity: str
    values: dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: Also its folder below the workdir.
        needs: Stages whose results it reads, all of them earlier.
        sections: Config sections, or single fields, that decide its result, beyond
            those of `needs`.
        work: Does it; restartable at any moment. The run it is given has a config of
            what this stage and its `needs` declare, in `sections` and `reads`.
        facts: What else decides its result, by name: plain values that tell contents
            (clips, files of weights), or None where that cannot be told any more.
        reads: Sections and fields that it reads besides, which change nothing of its
            result or are told by a fact.
        shared: Whether every process takes part; else the first works for all.
        repeat: Whether it is done anew each time, finished or not.
        in_place: Whether its files name their own content, so that what is stale need
            not be set aside.
        also: Names further stages that this run's data make it need.
        lighter: Fields by which it takes less of a device's memory, for a message.
        intact: Tells whether all that a finished stage is asked for is there; one that
            is not intact works again, and makes only what is missing.
    """

    name: str
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    work: Callable[["Run"], Output]
    facts: Mapping[str, Callable[["Run"], Any]] = dataclasses.field(
        default_factory=dict
    )
    reads: tuple[str, ...] = ()
    shared: bool = False
    repeat: bool = False
    in_place: bool = False
    also: Callable[["Run"], tuple[str, ...]] = lambda run: ()
    lighter: tuple[str, ...] = ()
    intact: Callable[["Run"], bool] = lambda run: True


class Run:
    """A workdir, its config, and the stages of the protocol.

    Args:
        config: The whole config; with `config.restore`, the network's fields are taken
            from that run (`restoring.adopt_network`).
        stages: All stages in order.
        clips: What has been found so far.

    Raises:
        UserError: If no workdir is named.
    """

    def __init__(
        self, config: ConfigDict, stages: tuple[Stage, ...], clips: Clips | None = None
    ):
        self.config = config
        self.workdir = workdir_of(config)
        self.stages = {stage.name: stage for stage in stages}
        self.clips = clips or Clips()
        self._needs: dict[str, tuple[str, ...]] = {}
        self._facts: dict[str, Any] = {}
        self._told: set[str] = set()

    def brought_in(self, name: str) -> bool:
        """Tell whether a stage's result is the restored run's."""
        return restoring.brought_in(self.config, name)

    def folder(self, name: str) -> Path:
        """Return a stage's folder, the restored run's for what is taken from there."""
        if self.brought_in(name):
            return restoring.origin(Path(self.config.restore), name)
        return self.workdir / name

    def result(self, name: str) -> dict[str, Any]:
        """Read what a finished stage says of itself.

        Raises:
            UserError: If it is not finished, or damaged.
        """
        path = self.folder(name) / "result.json"
        if path.is_file():
            return records.read_json(path, "identity", "outputs")
        fix = f"run --config.stage={name} first"
        if self.brought_in(name):
            fix = (
                f"finish that run with --config.stage={name}, or take less of it "
                "with --config.restore_until"
            )
        raise UserError(f"no result of stage {name} at {path}", "a finished stage", fix)

    def values(self, name: str) -> dict[str, Any]:
        """Return what a finished stage made."""
        return self.result(name)["outputs"]

    def make(self, goal: str) -> None:
        """Finish a stage, and before it every stage it needs.

        Raises:
            UserError: If it is taken from another run, is stale, or another process
                works in this workdir.
        """
        if self.brought_in(goal):
            raise restoring.nothing_to_do(self.config, goal)
        with lock.hold(self.workdir):
            self._make(goal)

    def needs(self, stage: Stage) -> tuple[str, ...]:
        """Return all stages whose results a stage reads."""
        if stage.name not in self._needs:
            self._needs[stage.name] = (*stage.needs, *stage.also(self))
        return self._needs[stage.name]

    def subset(self, stage: Stage) -> dict[str, Any]:
        """Return the fields and facts that decide a stage's result, flat.

        Those of stages it needs are among them, where these are made here.
        """
        sections: set[str] = set()
        facts: dict[str, Any] = {}
        for one in self._with_needs(stage, self.brought_in):
            sections |= set(one.sections)
            for name, tell in one.facts.items():
                if name not in self._facts:
                    self._facts[name] = tell(self)
                facts[name] = self._facts[name]
        fields = {
            key: value
            for key, value in records.flatten(self.config).items()
            if {key, key.split(".")[0]} & sections and key not in NEUTRAL
        }
        return json.loads(json.dumps(fields | facts))

    def _with_needs(
        self, stage: Stage, but: Callable[[str], bool] = lambda name: False
    ) -> list[Stage]:
        """Return a stage and all it needs, but for some and what only those need."""
        found, todo = {stage.name: stage}, [stage]
        while todo:
            for name in self.needs(todo.pop()):
                if name not in found and not but(name):
                    found[name] = self.stages[name]
                    todo.append(found[name])
        return list(found.values())

    def _as_seen_by(self, stage: Stage) -> "Run":
        """Return this run with a config of nothing but what a stage declares."""
        declared = {
            field
            for one in self._with_needs(stage)
            for field in (*one.sections, *one.reads)
        }
        seen = copy.copy(self)
        seen.config = view.narrow(self.config, declared)
        return seen

    def _make(self, name: str) -> None:
        stage = self.stages[name]
        if self.brought_in(name):
            self.result(name)  # must be there
            return
        for needed in self.needs(stage):
            self._make(needed)
        self._make_one(stage)

    def _make_one(self, stage: Stage) -> None:
        folder, first = self.workdir / stage.name, parallel.process()[0] == 0
        wanted = self.subset(stage)
        needed = self.needs(stage)
        inputs = {name: self.result(name)["identity"] for name in needed}
        agreement.check(stage.name, wanted | {"inputs": inputs})
        stale = self._stale(stage, folder, wanted, inputs)
        # Nobody changes anything before everybody has looked; the first decides, since
        # a disk may show others less.
        done = exchange.gather(not stale and self._is_finished(stage, folder))[0]
        if done:
            if stage.name not in self._told:  # several stages may need it
                logging.info("%s: already done, in %s", stage.name, folder)
        else:
            if stale and first:
                self._clear(stage, folder, stale)
            parallel.wait_for_all()
            if stage.shared or first:
                self._work(stage, folder, wanted, inputs)
        self._told.add(stage.name)
        shared_disk.see(folder / "result.json")

    def _work(
        self, stage: Stage, folder: Path, wanted: dict[str, Any], inputs: dict[str, str]
    ) -> None:
        """Do a stage and write down what made it."""
        logging.info("%s: starting, in %s", stage.name, folder)
        about = {
            "format": records.FORMAT,
            "config": wanted,
            "inputs": inputs,
            **restoring.told(self.config),
        }
        records.write_json(folder / "config.json", about)
        start = time.monotonic()
        try:
            output = stage.work(self._as_seen_by(stage))
        except Exception as error:
            if told := self._too_small(stage, folder, error):
                raise told from error
            raise
        seconds = time.monotonic() - start
        now = datetime.datetime.now(datetime.UTC)
        result = {
            "stage": stage.name,
            "finished": now.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "config": wanted,
            "config_digest": records.digest(wanted),
            "inputs": inputs,
            "identity": output.identity,
            "outputs": output.values,
            "versions": records.versions(),
        }
        records.write_json(folder / "result.json", result)
        logging.info(
            "%s: done in %s: %s",
            stage.name,
            duration(seconds),
            outcomes.told(stage.name, output.values, folder),
        )

    def _too_small(
        self, stage: Stage, folder: Path, error: Exception
    ) -> UserError | None:
        """Say what to do where a disk or a device is too small; None for all else."""
        if isinstance(error, OSError) and error.errno in files.DISK_FULL:
            return UserError(
                f"stage {stage.name}: no room left on the disk of {folder} ({error})",
                "room for what this stage still has to write",
                "make room, or choose another disk with --config.workdir; then run "
                "the same command: what is written is whole and is kept",
            )
        if not is_out_of_memory(error):
            return None
        fields = records.flatten(self.config)
        known = [field for field in stage.lighter if field in fields]
        lower = [f"{field} (is {fields[field]!r})" for field in known]
        first = str(error).splitlines()[0]
        return UserError(
            f"stage {stage.name}: a device has no memory left ({first})",
            "a device with room for this stage",
            f"lower {' or '.join(lower) or 'what it works on'}, take precision="
            "bfloat16, or a device that nobody else uses; then run the same command",
        )

    def _is_finished(self, stage: Stage, folder: Path) -> bool:
        there = all((folder / f"{n}.json").is_file() for n in ("config", "result"))
        return there and not stage.repeat and stage.intact(self)

    def _stale(
        self, stage: Stage, folder: Path, wanted: dict[str, Any], inputs: dict[str, str]
    ) -> list[str]:
        """Say what has changed since a stage was begun; refuse it without `overwrite`.

        Raises:
            UserError: With all that has changed, or for a workdir of before `FORMAT`.
        """
        started = folder / "config.json"
        if stage.repeat or not started.is_file():
            return []
        was = records.read_json(started)
        if was.get("format") != records.FORMAT:
            raise UserError(
                f"{folder} was made by another version of imas_jax",
                "a workdir of this version",
                "choose another --config.workdir; what was trained there can be used "
                f"with --config.restore={self.workdir}",
            )
        # Fields that were written down once but decide nothing any more may change, and
        # facts that cannot be told any more stand.
        gone = [key for key, value in wanted.items() if value is None]
        for key in (key for key in gone if was["config"].get(key)):
            logging.warning("%s: %s cannot be read any more", stage.name, key)
        now = {key: value for key, value in wanted.items() if key not in gone}
        before = {key: value for key, value in was["config"].items() if key in now}
        stale = records.differences(before, now) or [
            f"stage {name} was made again"
            for name, identity in inputs.items()
            if was["inputs"].get(name) != identity
        ]
        if not any(path.name != "config.json" for path in folder.iterdir()):
            return []  # it failed before it made anything: nothing can be mixed
        if stale and not self.config.overwrite:
            raise UserError(
                f"stage {stage.name} in {folder} was made with another config:\n"
                + bullet(stale),
                "the config it was made with",
                "set these fields back, choose another --config.workdir, or redo the "
                "stage and those after it with --config.overwrite=True: what is there "
                "is kept beside it, under another name",
            )
        return stale

    def _clear(self, stage: Stage, folder: Path, stale: list[str]) -> None:
        """Make room for a stage that is made again; what is there is kept."""
        logging.warning("%s: made again (%s)", stage.name, "; ".join(stale))
        if stage.in_place:
            (folder / "result.json").unlink(missing_ok=True)
            return
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        aside = folder.with_name(f"{stage.name}.aside-{now}")
        while aside.exists():  # made twice within a second
            aside = aside.with_name(aside.name + "x")
        folder.rename(aside)
        logging.warning("%s: what was there is kept in %s", stage.name, aside)


def workdir_of(config: ConfigDict) -> Path:
    """Return the folder of a run.

    Raises:
        UserError: If it is empty: everything would be written where the shell happens
            to be.
    """
    if not config.workdir.strip():
        raise UserError(
            "workdir is empty",
            "a folder that everything is written to",
            "set --config.workdir=DIR, --config.workdir=. for the current folder",
        )
    return Path(config.workdir)
