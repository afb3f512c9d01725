"""What runs in a row share on a machine's devices."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from imas_jax.training import parallel


@pytest.fixture
def without_cache():
    """Undo the cache that the tests' own set-up made, for the length of a test."""
    values = {
        "jax_compilation_cache_dir": None,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in values}
    for name, value in values.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compile_anew(factor):
    return jax.jit(lambda x: jnp.sin(x) * factor)(jnp.arange(5.0))


def test_runs_in_a_row_compile_the_same_network_once(without_cache):
    events = []
    jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
    hit = "/jax/compilation_cache/cache_hits"
    with parallel.compile_once():
        folder = Path(jax.config.jax_compilation_cache_dir)
        compile_anew(2)
        assert list(folder.glob("*-cache"))
        events.clear()
        compile_anew(2)
        assert hit in events
        events.clear()
        compile_anew(3)
        # Another network is compiled: its own part is no hit.
        assert events.count(hit) < events.count(
            "/jax/compilation_cache/compile_requests_use_cache"
        )
    assert not folder.exists()
    assert jax.config.jax_compilation_cache_dir is None
    compile_anew(4)  # and nothing misses the folder


def test_a_cache_that_the_user_chose_is_left_alone(without_cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation_cache.reset_cache()
    with parallel.compile_once():
        compile_anew(5)
    assert list(tmp_path.glob("*-cache"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
