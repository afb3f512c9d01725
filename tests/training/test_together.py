"""Several processes stop at the same step, and end together whatever ends one."""

import json
import signal
from types import SimpleNamespace

import numpy as np
import optax
import pytest
from two_processes import STEPS, ended, expected, start, wait_until

from imas_jax.training import parallel, together
from imas_jax.training.checkpoints import Checkpoints
from imas_jax.training.state import create_state

pytestmark = pytest.mark.slow

LIMIT = 120  # seconds


def lines(folder):
    log = folder / "metrics.jsonl"
    return log.read_text().splitlines() if log.is_file() else []


def learned(folder):
    """Return the number that the newest checkpoint holds, and its step."""
    empty = {"params": {"w": np.ones(1, np.float32)}, "batch_stats": {}}
    checkpoints = Checkpoints(folder / "checkpoints")
    state = checkpoints.restore(create_state(empty, optax.sgd(0.1), 0, 0.0))
    checkpoints.close()
    return state.params["w"], int(state.step)


def test_one_of_two_is_stopped_and_the_same_command_ends_with_the_same_bits(tmp_path):
    reached = 0
    for number, who in ((signal.SIGINT, 1), (signal.SIGTERM, 0)):
        codes, said = stop_one(tmp_path, number, who, reached + 3)
        assert codes == [128 + number] * 2, said
        before, (_, reached) = reached, learned(tmp_path)
        assert before + 3 <= reached < STEPS
        for text in said:
            message = f"discover was interrupted at step {reached} of {STEPS}"
            assert message in last_line(text)
    codes, said = stop_one(tmp_path, signal.SIGKILL, 1, reached + 3)
    assert codes == [1, -signal.SIGKILL]
    assert "process 0 of 2: another process has died" in last_line(said[0])
    assert "run the same command again" in last_line(said[0])
    codes, said = ended(start("train", tmp_path), LIMIT)
    assert codes == [0, 0], said
    assert learned(tmp_path) == (expected(STEPS), STEPS)
    told = [json.loads(line) for line in lines(tmp_path)]
    assert told == [{"step": s + 1, "loss": expected(s)} for s in range(STEPS)]


def stop_one(folder, number, who, step):
    """Start both, send one a signal when they come to a step; return how both end."""
    processes = start("train", folder)
    wait_until(lambda: len(lines(folder)) >= step, LIMIT)
    processes[who].send_signal(number)
    return ended(processes, LIMIT)


def test_a_process_that_dies_or_is_stopped_ends_one_that_trains_nothing(tmp_path):
    """Nothing is sent between them then: only the runtime's heartbeat tells."""
    runs = {}
    for who, number in enumerate((signal.SIGKILL, signal.SIGSTOP)):
        (tmp_path / str(who)).mkdir()
        runs[who, number] = start("wait", tmp_path / str(who))
    for (who, number), processes in runs.items():
        wait_until((tmp_path / str(who) / "working").exists, LIMIT)
        processes[who].send_signal(number)
    for (who, _), processes in runs.items():
        (code,), (said,) = ended(processes[1 - who : 2 - who], LIMIT)
        processes[who].kill()
        ended(processes[who : who + 1], LIMIT)
        assert code == 1
        assert f"process {1 - who} of 2: another process has died" in last_line(said)
        assert f"(process {who} " in last_line(said)
        assert "heard of" in last_line(said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_waits_for_another_still_hears_signals(tmp_path, number):
    processes = start("wait", tmp_path)
    wait_until((tmp_path / "working").exists, LIMIT)
    processes[1].send_signal(number)
    codes, said = ended(processes, LIMIT)
    assert codes == [1, 128 + number]
    stopped = "stopped; run the same command again: it continues"
    assert last_line(said[1]) == f"process 1 of 2: {stopped}"
    assert f"another has ended: process 1 of 2: {stopped}" in said[0]


def test_an_error_in_one_process_is_told_by_all(tmp_path):
    codes, said = ended(start("refuse", tmp_path), LIMIT)
    assert codes == [2, 1]
    assert "process 0 of 2: error: no room on the disk" in said[0]
    assert "another has ended: process 0 of 2: error: no room on the disk" in said[1]
    assert "Traceback" not in said[0] + said[1]


def last_line(text):
    return text.rstrip().splitlines()[-1]


def test_an_error_that_all_processes_find_is_told_at_length_by_one(monkeypatch):
    told = "0 process 0 of 2: error: a batch of 3"
    service = SimpleNamespace(key_value_try_get=lambda key: told)
    monkeypatch.setattr(parallel, "service", lambda: service)
    monkeypatch.setattr(parallel, "place", lambda: (1, 2))
    same, other = (
        "error: a batch of 3\n  expected: 4",
        "error: no disk\n  expected: one",
    )
    brief = "ends with the same error as process 0 of 2"
    assert together._shorter(same) == brief
    assert together._shorter(other) == other
    monkeypatch.setattr(parallel, "place", lambda: (0, 2))
    assert together._shorter(same) == same
