"""Tests that need a cluster's own programs: only `make cluster` runs them."""

import pytest


def pytest_collection_modifyitems(config, items):
    """Leave them out unless they are asked for: they take minutes, and ports."""
    if "cluster" in config.getoption("-m"):
        return
    skip = pytest.mark.skip(reason="run by `make cluster`")
    for item in items:
        if "cluster" in item.keywords:
            item.add_marker(skip)
