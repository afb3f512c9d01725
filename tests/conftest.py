"""Fixtures: eight fake CPU devices, strict rank promotion, and the shared material."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Tests compile the same tiny networks again and again, also in processes of their own:
# once is enough, for all processes of pytest-xdist. Of this session alone, so that no
# test meets what another version compiled. A size makes JAX lock what it reads and
# writes.
WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not WORKER:  # which inherits the folder
    COMPILED = tempfile.mkdtemp(prefix="imas-jax-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(4 * 1024**3)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
os.environ["JAX_PLATFORMS"] = "cpu"
# Most of a tiny run is compiling. XLA's own passes all run; LLVM, behind them, is asked
# for less: a fifth to a third of the processor's time goes, results are as exact.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true "
    "--xla_force_host_platform_device_count=8 " + os.environ.get("XLA_FLAGS", "")
)

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

from imas_jax.runs import outcomes  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = Path(
    os.environ.get("IMAS_SHARED_DIR", Path(__file__).parents[1].parent / "shared")
)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Leave out the check of shapes: the package's own message is what is tested."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real data and parity files; tests skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared material at {SHARED} (set IMAS_SHARED_DIR)")
    return SHARED


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Folder with the numbers of the authors' code; tests skip where it is missing."""
    folder = Path(os.environ.get("IMAS_PARITY_DIR", SHARED / "parity"))
    if not (folder / "meta.json").is_file():
        pytest.skip(f"no parity files at {folder} (set IMAS_PARITY_DIR)")
    return folder


def pytest_unconfigure() -> None:
    """Remove what was compiled."""
    if not WORKER:
        shutil.rmtree(COMPILED, ignore_errors=True)


@pytest.fixture
def made_up_stages(monkeypatch):
    """Let stages of the protocol's names be replaced: nobody tells what they made."""
    monkeypatch.setattr(outcomes, "told", lambda *what: "made")
