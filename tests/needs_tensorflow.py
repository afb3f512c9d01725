"""Skips what reads or writes shards where the extra `tfrecord` is not installed.

`make test` installs it.
"""

import importlib
import importlib.util
from types import ModuleType

import pytest

# Looked for, not imported: that takes seconds in every process.
MISSING = importlib.util.find_spec("tensorflow") is None

mark = pytest.mark.skipif(MISSING, reason="needs the extra tfrecord (TensorFlow)")


def builders() -> ModuleType | None:
    """Import what writes shards, or return None where it does not import."""
    return None if MISSING else importlib.import_module("imas_jax.data.builders")
