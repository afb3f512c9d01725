"""What the first process has written is waited for, and its absence is told."""

import hashlib
import threading

import pytest

from imas_jax.errors import UserError
from imas_jax.training import exchange, parallel, shared_disk


@pytest.fixture
def second(monkeypatch):
    """Be the second of two processes; the first has written `text`."""
    monkeypatch.setattr(parallel, "process", lambda: (1, 2))
    monkeypatch.setattr(shared_disk, "_LOOK_EVERY", 0.01)
    digest = hashlib.sha256(b"text").hexdigest()
    monkeypatch.setattr(exchange, "gather", lambda value: [digest, value])


def test_a_file_that_comes_late_is_waited_for(tmp_path, second):
    path = tmp_path / "stage/result.json"
    path.parent.mkdir()
    path.write_text("of before")
    late = threading.Timer(0.05, lambda: path.write_text("text"))
    late.start()
    shared_disk.see(path)
    assert path.read_text() == "text"
    late.join()


def test_a_file_that_never_comes_is_told_with_path_process_and_seconds(
    tmp_path, second
):
    with pytest.raises(UserError, match=r"process 1 of 2 on .* 0\.1 s after") as error:
        shared_disk.see(tmp_path / "result.json", lag=0.1)
    assert str(tmp_path / "result.json") in error.value.found
    assert "every host mounts" in error.value.fix


def test_one_process_waits_for_nothing(tmp_path):
    shared_disk.see(tmp_path / "nothing")
