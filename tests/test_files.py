"""Files come to disk whole; many threads read array files at once."""

import concurrent.futures
import errno
import gc
import os
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from imas_jax import files
from imas_jax.errors import UserError


@pytest.fixture
def callbacks_of_the_collector():
    """Collect often, and let other threads in meanwhile, as JAX's callback does."""

    def let_others_in(phase: str, info: dict) -> None:
        time.sleep(0)

    before = gc.get_threshold(), sys.getswitchinterval()
    gc.callbacks.append(let_others_in)
    gc.set_threshold(7)
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before[1])
    gc.set_threshold(*before[0])
    gc.callbacks.remove(let_others_in)


def test_threads_read_files_at_once(tmp_path, callbacks_of_the_collector):
    # On Python 3.11 the same with plain np.load ends in SystemError two times of three.
    arrays = {f"array {n}": np.full((n + 1, 2), n, np.float16) for n in range(4)}
    np.savez(tmp_path / "all.npz", **arrays)
    np.save(tmp_path / "one.npy", arrays["array 3"])

    def read(number: int) -> float:
        whole = files.read_npz(tmp_path / "all.npz")
        one = files.read_npy(tmp_path / "one.npy", "r")
        return float(whole[f"array {number % 4}"].mean() + one.sum())

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        sums = list(pool.map(read, range(400)))
    assert sums == [number % 4 + 24.0 for number in range(400)]


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        files.read_npz(tmp_path / "objects.npz")


def test_a_file_gets_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "made" / "result.json"
    with files.aside(path) as draft:
        draft.write_text("new")
        assert not path.exists()
        assert draft.parent == path.parent
        assert draft.suffix == path.suffix  # by which writers choose a format
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_what_was_there_stays_when_writing_fails(tmp_path, error):
    path = tmp_path / "result.json"
    files.write_text(path, "old")

    def fail(draft):
        draft.write_text("half of the n")
        raise error

    with pytest.raises(type(error)), files.aside(path) as draft:
        fail(draft)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_are_on_the_disk_before_the_name_and_the_name_after(
    tmp_path, monkeypatch
):
    path, told = tmp_path / "result.json", []

    def fsync(descriptor):
        place = os.readlink(f"/proc/self/fd/{descriptor}")
        told.append((place, path.exists()))

    monkeypatch.setattr(files.os, "fsync", fsync)
    files.write_text(path, "new")
    assert told == [(str(files.draft_name(path)), False), (str(tmp_path), True)]


def test_a_draft_of_a_killed_run_is_written_over(tmp_path):
    path = tmp_path / "result.json"
    killed = f"""
import os, pathlib, signal
from imas_jax import files
with files.aside(pathlib.Path({str(path)!r})) as draft:
    draft.write_text("a long draft of a run that is killed")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", killed], check=False)
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == [files.draft_name(path)]
    files.write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "result.json"
    with files.aside(path) as draft:
        draft.write_text("first")
        with pytest.raises(UserError, match="by another process"):
            files.write_text(path, "second")
    assert path.read_text() == "first"


@pytest.mark.parametrize("length", [1, 250])
def test_a_draft_has_a_name_that_file_systems_take(tmp_path, length):
    path = tmp_path / ("ä" * (length // 2) + "a.npz")
    files.write_text(path, "new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_gets_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "clips"
    files.draft_name(path).mkdir()
    (files.draft_name(path) / "of a killed run").touch()
    path.mkdir()
    with files.folder_aside(path) as draft:
        (draft / "new").touch()
        assert not any(path.iterdir())
    assert [p.name for p in path.iterdir()] == ["new"]
    with pytest.raises(OSError, match="not empty"), files.folder_aside(path) as draft:
        (draft / "newer").touch()
    assert list(tmp_path.iterdir()) == [path]
    assert [p.name for p in path.iterdir()] == ["new"]


def npz(path, header, data):
    """Write an `.npz` whose only array has a header of our own."""
    text = repr(header).encode().ljust(117) + b"\n"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flow.npy", member)


def test_a_header_that_claims_more_than_the_file_holds_reserves_no_memory(tmp_path):
    claimed = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**7)}
    npz(tmp_path / "claim.npz", claimed, bytes(64))
    with pytest.raises(ValueError, match="40000000000000 bytes"):
        files.read_npz(tmp_path / "claim.npz")
    data = zipfile.ZipFile(tmp_path / "claim.npz").read("flow.npy")
    (tmp_path / "claim.npy").write_bytes(data)
    for mode in (None, "r"):
        with pytest.raises(ValueError, match="40000000000000 bytes"):
            files.read_npy(tmp_path / "claim.npy", mode)


def test_an_archive_that_unpacks_to_far_more_than_itself_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "HARMLESS", 2**20)
    np.savez_compressed(tmp_path / "bomb.npz", flow=np.zeros(2**21, np.uint8))
    with pytest.raises(ValueError, match="unpacks to 2 MB"):
        files.read_npz(tmp_path / "bomb.npz")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_they_were(tmp_path, order, save):
    rng = np.random.default_rng(0)
    arrays = {
        "flow": np.asarray(rng.normal(size=(5, 4, 2)).astype(np.float16), order=order),
        "big_endian": np.asarray(rng.normal(size=(3, 2)).astype(">f8"), order=order),
        "scalar": np.array(7),
        "empty": np.zeros((0, 3), np.uint8),
        "text": np.array(["a", "bcd"]),
    }
    save(tmp_path / "all.npz", **arrays)
    read = files.read_npz(tmp_path / "all.npz")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype
        assert read[name].flags.writeable
