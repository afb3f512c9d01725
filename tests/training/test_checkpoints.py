import errno
import shutil
import threading
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imas_jax.errors import UserError
from imas_jax.training import parallel
from imas_jax.training.checkpoints import KEEP, Checkpoints, as_tree, digest
from imas_jax.training.state import create_state


def state_at(step, value=1.0, width=3):
    variables = {
        "params": {"a": {"kernel": np.full((width, 2), value, np.float32)}},
        "batch_stats": {"bn": {"mean": np.arange(2.0, dtype=np.float32)}},
    }
    state = create_state(variables, optax.adam(1e-3), seed=7, ema=0.9)
    return state.replace(step=jnp.asarray(step, jnp.int32))


def damage(folder, step):
    """Cut the largest file of a checkpoint in half."""
    files = [p for p in (folder / str(step)).rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    data = largest.read_bytes()
    largest.write_bytes(data[: len(data) // 2])


def test_a_restored_state_has_the_same_bits(tmp_path):
    saved = state_at(5, value=0.1)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(saved)
    checkpoints.close()
    again = Checkpoints(tmp_path)
    found = again.restore(jax.eval_shape(lambda: state_at(0)))
    again.close()
    assert digest(as_tree(found)) == digest(as_tree(saved))
    assert int(found.step) == 5


def test_an_empty_folder_has_nothing_to_restore(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore(state_at(0)) is None
    checkpoints.close()


def test_a_damaged_newest_checkpoint_falls_back_loudly(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(state_at(step, value=float(step)))
    checkpoints.finish()
    damage(tmp_path, 2)
    found = checkpoints.restore(state_at(0))
    checkpoints.close()
    assert int(found.step) == 1
    assert np.all(np.asarray(found.params["a"]["kernel"]) == 1.0)
    (told,) = (r.message for r in caplog.records if r.levelname == "WARNING")
    assert "step 2 is unusable" in told
    assert "step 1, the one before, is taken" in told


def test_a_checkpoint_of_numbers_that_are_not_finite_is_not_restored(
    tmp_path, monkeypatch
):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_at(1))
    with monkeypatch.context() as earlier_versions:
        earlier_versions.setattr(
            "imas_jax.training.checkpoints.not_finite", lambda tree: []
        )
        checkpoints.save(state_at(2, value=np.nan))
    assert int(checkpoints.restore(state_at(0)).step) == 1
    with pytest.raises(UserError, match="not finite"):
        checkpoints.save(state_at(3, value=np.inf))
    assert checkpoints.steps() == (1, 2)
    checkpoints.close()


def test_a_run_that_fell_back_can_save_the_damaged_step_again(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(state_at(step))
    checkpoints.finish()
    damage(tmp_path, 2)
    assert int(checkpoints.resume(state_at(0)).step) == 1
    checkpoints.save(state_at(2, value=5.0))
    found = checkpoints.restore(state_at(0))
    checkpoints.close()
    assert int(found.step) == 2
    assert np.all(np.asarray(found.params["a"]["kernel"]) == 5.0)


def test_reading_changes_nothing_on_disk(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(state_at(step))
    checkpoints.finish()
    damage(tmp_path, 2)
    before = sorted(tmp_path.rglob("*"))
    checkpoints.restore(state_at(0))
    checkpoints.close()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_at(1))
    with pytest.raises(UserError, match="no usable checkpoint"):
        checkpoints.restore(state_at(0, width=4))
    checkpoints.close()


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_at(1))
    checkpoints.finish()
    full = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: full)
    checkpoints.save(state_at(2))
    with pytest.raises(OSError, match="100 are free") as error:
        checkpoints.finish()
    assert error.value.errno == errno.ENOSPC
    monkeypatch.undo()
    checkpoints.save(state_at(2))
    assert checkpoints.steps() == (1, 2)
    checkpoints.close()


def test_a_disk_that_fills_up_while_a_checkpoint_is_written_leaves_nothing_behind(
    tmp_path, monkeypatch
):
    """Tensorstore raises ValueError with the system's words in it."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_at(1))
    checkpoints.finish()

    def fill_up(*_, **__):
        (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
        said = "[OS error 28: ENOSPC No space left on device]"
        raise ValueError(f"RESOURCE_EXHAUSTED: Error writing local file: {said}")

    with monkeypatch.context() as full:
        full.setattr(checkpoints._manager, "save", fill_up)
        checkpoints.save(state_at(2))
        with pytest.raises(OSError, match="No space left") as error:
            checkpoints.finish()
    assert error.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    checkpoints.save(state_at(2))
    assert checkpoints.steps() == (1, 2)
    checkpoints.close()


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """Checkpoints whose disk waits for the event `go`."""
    checkpoints, go = Checkpoints(tmp_path), threading.Event()
    save = checkpoints._manager.save

    def wait(*what, **how):
        assert go.wait(30)
        return save(*what, **how)

    monkeypatch.setattr(checkpoints._manager, "save", wait)
    yield checkpoints, go
    go.set()
    checkpoints.close()


def test_steps_go_on_while_a_checkpoint_is_written_and_do_not_change_it(tmp_path, slow):
    checkpoints, go = slow
    step = parallel.run_on_devices(lambda x: jax.tree.map(lambda leaf: leaf + 1, x))
    carried = parallel.replicate(state_at(1, value=3.0))
    checkpoints.save(parallel.unreplicate(carried))
    for _ in range(3):  # each in the memory of the one before
        carried = step(carried)
    checkpoints.look()
    assert not (tmp_path / "1").exists()
    assert int(parallel.unreplicate(carried).step) == 4
    go.set()
    checkpoints.finish()
    found = checkpoints.restore(state_at(0))
    assert digest(as_tree(found)) == digest(as_tree(state_at(1, value=3.0)))


def test_a_write_that_fails_is_told_at_the_next_look(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    full = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: full)
    checkpoints.save(state_at(1))
    futures.wait([checkpoints._writing])
    with pytest.raises(OSError, match="100 are free"):
        checkpoints.look()
    assert checkpoints.last_good() == "no checkpoint was written before"
    checkpoints.close()


def test_what_a_killed_run_was_writing_is_removed_when_training_goes_on(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state_at(1))
    draft = tmp_path / "2.orbax-checkpoint-tmp" / "state"
    draft.mkdir(parents=True)
    checkpoints.restore(state_at(0))
    assert draft.is_dir()  # it may be being written by the run it belongs to
    checkpoints.resume(state_at(0))
    assert not draft.parent.exists()
    checkpoints.close()


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in range(1, KEEP + 3):
        checkpoints.save(state_at(step))
    checkpoints.close()
    kept = sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit())
    assert kept == list(range(3, KEEP + 3))


def test_the_digest_sees_every_value_and_name():
    base = {"a": np.zeros(3), "b": np.ones(2)}
    assert digest(base) == digest(dict(reversed(base.items())))
    assert digest(base) != digest({**base, "a": np.array([0.0, 0.0, 1e-300])})
    assert digest(base) != digest({"a": base["a"], "c": base["b"]})
