"""How stages are run once: order, inputs, `result.json`, and what makes them stale.

A stage folder holds `config.json` from the moment work starts and `result.json` from
the moment it is finished. A finished stage is never repeated. One whose config or
inputs have changed since is refused, with the differing fields named, unless
`config.overwrite` is set; nothing is ever mixed.
"""

import datetime
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from imas_jax import files
from imas_jax.errors import UserError, bullet
from imas_jax.progress import duration
from imas_jax.runs.records import (
    differences,
    digest,
    flatten,
    read_json,
    versions,
    write_json,
)
from imas_jax.training import parallel

# Fields that change how a stage works but not what it makes.
NEUTRAL = {
    "data.partial",
    "flow.root",
    "target.workers",
    "predict.batch_size",
    # Of stage score, which is done anew each time; stage evaluate reads none of them.
    *(f"evaluate.{f}" for f in ("masks", "encoding", "label", "threshold", "partial")),
    "evaluate.baseline",
    *(f"{s}.{f}" for s in ("discover", "refine") for f in ("log_every",)),
    *(f"{s}.{f}" for s in ("discover", "refine") for f in ("checkpoint_every",)),
}
TRAINED = ("discover", "align", "refine")  # what `config.restore` can bring in


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
        work: Does it; restartable at any moment.
        shared: Whether every process takes part; else the first works for all.
        repeat: Whether it is done anew each time, finished or not.
        also: Names further stages that this run's data make it need.
        intact: Tells whether what a finished stage made is still there; one that is not
            intact works again, and remakes only what is missing.
    """

    name: str
    needs: tuple[str, ...]
    sections: tuple[str, ...]
    work: Callable[["Run"], Output]
    shared: bool = False
    repeat: bool = False
    also: Callable[["Run"], tuple[str, ...]] = lambda run: ()
    intact: Callable[["Run"], bool] = lambda run: True


class Run:
    """A workdir, its config, and the stages of the protocol.

    Args:
        config: The whole config; with `config.restore`, the network's fields are taken
            from that run.
        stages: All stages in order.
    """

    def __init__(self, config: ConfigDict, stages: tuple[Stage, ...]):
        self.config = config
        self.workdir = Path(config.workdir)
        self.stages = {stage.name: stage for stage in stages}
        self.restored = Path(config.restore) if config.restore else None
        self._needs: dict[str, tuple[str, ...]] = {}
        self._told: set[str] = set()

    def brought_in(self, name: str) -> bool:
        """Tell whether a stage's result is the restored run's.

        A run that is restored to be evaluated brings all it trained. One that is
        restored to train a stage further brings what comes before that stage.
        """
        if self.restored is None or name not in TRAINED:
            return False
        stage = self.config.stage
        return stage not in TRAINED or TRAINED.index(name) < TRAINED.index(stage)

    def folder(self, name: str) -> Path:
        """Return a stage's folder, the restored run's for what was trained there."""
        if self.restored is not None and self.brought_in(name):
            return self.restored / name
        return self.workdir / name

    def result(self, name: str) -> dict[str, Any]:
        """Read what a finished stage says of itself.

        Raises:
            UserError: If it is not finished.
        """
        path = self.folder(name) / "result.json"
        try:
            return json.loads(path.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise UserError(
                f"no result of stage {name} at {path}",
                "a finished stage",
                f"run --config.stage={name} first",
            ) from error

    def values(self, name: str) -> dict[str, Any]:
        """Return what a finished stage made."""
        return self.result(name)["outputs"]

    def make(self, name: str) -> None:
        """Finish a stage, and before it every stage it needs."""
        stage = self.stages[name]
        if self.brought_in(name):
            self.result(name)  # must be there
            return
        for needed in self.needs(stage):
            self.make(needed)
        self._make_one(stage)

    def needs(self, stage: Stage) -> tuple[str, ...]:
        """Return all stages whose results a stage reads."""
        if stage.name not in self._needs:
            self._needs[stage.name] = (*stage.needs, *stage.also(self))
        return self._needs[stage.name]

    def _make_one(self, stage: Stage) -> None:
        folder = self.workdir / stage.name
        wanted = self.subset(stage)
        needed = self.needs(stage)
        inputs = {name: self.result(name)["identity"] for name in needed}
        done = self._is_finished(stage, folder, wanted, inputs)
        parallel.wait_for_all()  # nobody works before everybody has looked
        if done:
            if stage.name not in self._told:  # several stages may need it
                logging.info("%s: already done, in %s", stage.name, folder)
        elif stage.shared or parallel.process()[0] == 0:
            self._work(stage, folder, wanted, inputs)
        self._told.add(stage.name)
        parallel.wait_for_all()

    def _work(
        self, stage: Stage, folder: Path, wanted: dict[str, Any], inputs: dict[str, str]
    ) -> None:
        """Do a stage and write down what made it."""
        logging.info("%s: starting, in %s", stage.name, folder)
        write_json(folder / "config.json", {"config": wanted, "inputs": inputs})
        start = time.monotonic()
        try:
            output = stage.work(self)
        except OSError as error:
            if error.errno not in files.DISK_FULL:
                raise
            raise UserError(
                f"stage {stage.name}: no room left on the disk of {folder} ({error})",
                "room for what this stage still has to write",
                "make room, or choose another disk with --config.workdir; then run "
                "the same command: what is written is whole and is kept",
            ) from error
        seconds = time.monotonic() - start
        now = datetime.datetime.now(datetime.UTC)
        result = {
            "stage": stage.name,
            "finished": now.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "config": wanted,
            "config_digest": digest(wanted),
            "inputs": inputs,
            "identity": output.identity,
            "outputs": output.values,
            "versions": versions(),
        }
        write_json(folder / "result.json", result)
        logging.info("%s: done in %s", stage.name, duration(seconds))

    def subset(self, stage: Stage) -> dict[str, Any]:
        """Return the config fields that decide a stage's result, flat."""
        sections: set[str] = set()
        todo = [stage]
        while todo:
            one = todo.pop()
            sections |= set(one.sections)
            needed = self.needs(one)
            todo += [self.stages[n] for n in needed if not self.brought_in(n)]
        flat = flatten(self.config)
        kept = {
            key: value
            for key, value in flat.items()
            if {key, key.split(".")[0]} & sections and key not in NEUTRAL
        }
        if any(self.brought_in(name) for name in TRAINED) or "discover" in sections:
            kept["restore"] = str(self.restored or "")
        return json.loads(json.dumps(kept))

    def _is_finished(
        self, stage: Stage, folder: Path, wanted: dict[str, Any], inputs: dict[str, str]
    ) -> bool:
        """Tell whether nothing is to be done; refuse or clear what is stale."""
        started, finished = folder / "config.json", folder / "result.json"
        if stage.repeat or not started.is_file():
            return False
        was = read_json(started)
        # Fields that were written down once but decide nothing any more may change.
        told = {key: value for key, value in was["config"].items() if key in wanted}
        stale = differences(told, wanted)
        if not stale:
            stale = [
                f"stage {name} was made again"
                for name, identity in inputs.items()
                if was["inputs"].get(name) != identity
            ]
        if not stale:
            return finished.is_file() and stage.intact(self)
        if not any(path.name != "config.json" for path in folder.iterdir()):
            return False  # it failed before it made anything: nothing can be mixed
        if not self.config.overwrite:
            raise UserError(
                f"stage {stage.name} in {folder} was made with another config:\n"
                + bullet(stale),
                "the config it was made with",
                "set these fields back, choose another --config.workdir, or redo the "
                "stage and those after it with --config.overwrite=True",
            )
        logging.warning("%s: made again (%s)", stage.name, "; ".join(stale))
        if parallel.process()[0] == 0:
            shutil.rmtree(folder)
        return False


def adopt_network(config: ConfigDict) -> ConfigDict:
    """Return the config with the restored run's network in place of its own.

    What decides shapes and which checkpoint is final is read from that run, so that
    nobody has to repeat it: `model`, `precision`, and the stages' `steps` and `ema`.

    Raises:
        UserError: If there is no run at `config.restore`.
    """
    if not config.restore:
        return config
    folder = Path(config.restore)
    found = [folder / stage / "config.json" for stage in reversed(TRAINED)]
    found = [path for path in found if path.is_file()]
    if not found:
        raise UserError(
            f"restore = {config.restore!r} is not a run",
            "the workdir of a run that trained: it has discover/config.json",
            "name the folder that was that run's --config.workdir",
        )
    adopted = config.copy_and_resolve_references().unlock()
    known = flatten(config)
    for field, value in read_json(found[0])["config"].items():
        section, _, name = field.partition(".")
        decisive = section in ("model", "precision") or name in ("steps", "ema")
        if decisive and field in known:
            trained_here = section == config.stage and name in ("steps", "ema")
            if not trained_here:
                adopted.update_from_flattened_dict({field: value})
    return adopted.lock()
