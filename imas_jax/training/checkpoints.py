"""Checkpoints by orbax: written aside and renamed, verified when read.

Training does not wait for the disk: a thread writes while steps go on, one checkpoint
at a time. Orbax's own asynchronous saving would still have a step wait for the digest
and for a copy of its own.

A checkpoint holds the whole `TrainState` and a digest of its bytes. On restore the
newest one is tried first; one that cannot be read, or whose bytes do not match its
digest, is reported loudly and the one before is taken.

Any process may read at any time: orbax, which would have all of them wait for each
other even to read, is told that each is alone. The first process writes.
"""

import errno
import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from imas_jax import files
from imas_jax.conventions import Tree
from imas_jax.errors import UserError
from imas_jax.training import exchange, parallel, shared_disk
from imas_jax.training.state import TrainState

KEEP = 3
DAMAGED = "damaged-"


class Checkpoints:
    """The checkpoints of one run, newest first.

    Args:
        folder: Where they live; made if missing.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        index, _ = parallel.process()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP,
            enable_async_checkpointing=False,
            create=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=index, active_processes={index}
            ),
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, state: TrainState) -> None:
        """Begin to write the state under its step, once the one before is on disk.

        Of several processes the first calls it.

        Args:
            state: On the host; it must stay as it is until `finish` has returned.

        Raises:
            UserError: If a number is not finite: it would be continued for ever.
            OSError: If the one before failed, as `look` raises it.
        """
        tree = as_tree(state)
        if bad := not_finite(tree):
            raise UserError(
                f"the state after step {int(state.step)}: " + "; ".join(bad),
                "finite numbers",
                f"lower the learning rate; {self.last_good()}",
            )
        self._wait()
        self._writing = self._writer.submit(self._write, int(state.step), tree)

    def look(self) -> None:
        """Raise what went wrong with the last write, if that is known already.

        Raises:
            OSError: If the disk is full, with one of `files.DISK_FULL`.
        """
        if self._writing is not None and self._writing.done():
            self._wait()

    def finish(self) -> None:
        """Return when everything is safely on disk, and every process can read it.

        Every process of the run must call this.

        Raises:
            OSError: As `look` raises it.
            UserError: If another process does not see what the first has written.
        """
        steps = self.steps()
        newest = exchange.gather(steps[-1] if steps else None)[0]
        if newest is not None:
            shared_disk.see(self.folder / str(newest))
        self._manager.reload()

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, step: int, tree: Tree) -> None:
        """Write, or leave nothing behind.

        Raises:
            OSError: If the disk is full, with one of `files.DISK_FULL`.
        """
        # Asked before: tensorstore tells a full disk in a trace a tensor.
        needed = sum(leaf.nbytes for leaf in tree.values())
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            said = f"checkpoint {step} takes {needed:,} bytes, {free:,} are free"
            raise OSError(errno.ENOSPC, said)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(tree),
                    digest=ocp.args.JsonSave({"sha256": digest(tree)}),
                ),
                force=True,
            )
            self._manager.wait_until_finished()
        except ValueError as error:
            self._remove_drafts()
            if not files.tells_full(error):
                raise
            raise OSError(errno.ENOSPC, f"checkpoint {step}: {error}") from error

    def _remove_drafts(self) -> None:
        """Remove what was being written when a run was killed or the disk was full."""
        for draft in self.folder.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"):
            shutil.rmtree(draft)

    def restore(self, template: TrainState) -> TrainState | None:
        """Return the newest sound checkpoint, or None if there is none at all.

        Nothing is changed on disk.

        Args:
            template: A state of the same structure; its leaves need only a shape and a
                type (`jax.eval_shape`).

        Raises:
            UserError: If checkpoints exist but none is sound or none fits the config.
        """
        problems: list[str] = []
        for step in reversed(self.steps()):
            try:
                state = self.restore_step(step, template)
            # Orbax, tensorstore and the file system each fail in their own ways on a
            # damaged checkpoint; whatever it was, the one before is worth trying.
            except Exception as error:
                first = (str(error).splitlines() or [""])[0]
                problems.append(
                    f"step {step} is unusable ({type(error).__name__}: {first})"
                )
                continue
            if problems:
                logging.warning(
                    "checkpoints in %s: %s; step %d, the one before, is taken",
                    self.folder,
                    "; ".join(problems),
                    step,
                )
            return state
        if problems:
            raise UserError(
                f"no usable checkpoint in {self.folder}: " + "; ".join(problems),
                "a checkpoint of a network with this config's shapes",
                "use the config the run was made with, or delete the folder to restart",
            )
        return None

    def resume(self, template: TrainState) -> TrainState | None:
        """Return what training continues from, the same in every process; or None.

        As `restore`, and unusable checkpoints are set aside, or training could not
        save their steps again. Every process of the run must call this.
        """
        index, _ = parallel.process()
        state = self.restore(template) if index == 0 else None
        chosen = exchange.gather(None if state is None else int(state.step))[0]
        if index == 0:
            self._remove_drafts()
            for step in self.steps():
                if chosen is None or step > chosen:
                    (self.folder / str(step)).rename(self.folder / f"{DAMAGED}{step}")
        if chosen is not None:
            shared_disk.see(self.folder / str(chosen))
        self._manager.reload()
        if index and chosen is not None:
            state = self.restore_step(chosen, template)
        return state

    def steps(self) -> tuple[int, ...]:
        """Return the steps there are checkpoints of, oldest first; waits as `finish`.

        Raises:
            OSError: As `look` raises it.
        """
        self._wait()
        return tuple(sorted(self._manager.all_steps()))

    def last_good(self) -> str:
        """Say which checkpoint is the newest."""
        if self._writing is not None:
            wait([self._writing])  # that it failed is told by who asks for it
        self._manager.reload()  # of what another process wrote
        if not (steps := tuple(self._manager.all_steps())):
            return "no checkpoint was written before"
        return f"the last good one, of step {max(steps)}, is kept in {self.folder}"

    def restore_step(self, step: int, template: TrainState) -> TrainState:
        """Read one checkpoint; raises whatever is wrong with it."""
        shapes = named(template, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype))
        saved = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(shapes), digest=ocp.args.JsonRestore()
            ),
        )
        found = jax.tree.map(np.asarray, saved["state"])
        check_shapes(shapes, found)
        if digest(found) != saved["digest"]["sha256"]:
            raise ValueError("its bytes do not match its digest")
        if bad := not_finite(found):
            raise ValueError("; ".join(bad))
        structure = jax.tree.structure(template)
        return jax.tree.unflatten(structure, [found[name] for name in shapes])

    def close(self) -> None:
        """Wait for what is being written, and release all threads."""
        self._writer.shutdown()
        self._manager.close()


def as_tree(state: TrainState) -> Tree:
    """Turn a state into the flat dict that is stored: names are the contract."""
    return named(state, np.asarray)


def named(state: TrainState | Tree, read: Callable[[Any], Any]) -> Tree:
    """Return `{name: read(leaf)}` in the order of the state's, or a tree's, leaves."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): read(leaf)
        for path, leaf in leaves
    }


def not_finite(tree: Tree) -> list[str]:
    """Say which tensors of a flat tree hold numbers that are not finite."""
    counts = {
        name: np.count_nonzero(~np.isfinite(leaf))
        for name, leaf in tree.items()
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    return [f"{name} has {n} not finite" for name, n in counts.items() if n]


def check_shapes(expected: Tree, found: Tree) -> None:
    """Compare two flat trees; all differences are told in one error.

    Raises:
        ValueError: If a name is missing, unexpected or of another shape.
    """
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    problems += [
        f"{name} has shape {found[name].shape}, expected {expected[name].shape}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    if problems:
        raise ValueError(f"{len(problems)} tensor(s) differ: " + "; ".join(problems))


def digest(tree: Any) -> str:
    """Hash names, shapes and bytes of a flat dict of arrays."""
    value = hashlib.sha256()
    for name in sorted(tree):
        array = np.ascontiguousarray(tree[name])
        value.update(f"{name} {array.dtype} {array.shape}".encode())
        value.update(array.tobytes())
    return value.hexdigest()
