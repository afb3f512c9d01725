"""Many threads read array files at once."""

import concurrent.futures
import gc
import sys
import time

import numpy as np
import pytest

from imas_jax import files


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
