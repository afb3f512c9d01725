"""Tests that need a cluster's own programs: only `make cluster` runs them."""

import pytest
from tiny import write_clip


def pytest_collection_modifyitems(config, items):
    """Leave them out unless they are asked for: they take minutes, and ports."""
    if "cluster" in config.getoption("-m"):
        return
    skip = pytest.mark.skip(reason="run by `make cluster`")
    for item in items:
        if "cluster" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Return variables by which processes on the CPU compile once for all."""
    return {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return a folder of frames."""
    write_clip(folder := tmp_path_factory.mktemp("clips") / "a clip")
    return folder
