"""Compiled programs: kept for later runs, let go of between runs."""

import os
import time

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from imas_jax.training import compiled

HIT = "/jax/compilation_cache/cache_hits"
ASKED = "/jax/compilation_cache/compile_requests_use_cache"


@pytest.fixture
def without_cache(monkeypatch, tmp_path):
    """Undo the cache that the tests' own set-up made; the user's is in `tmp_path`."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_enable_compilation_cache",
    )
    before = {name: jax.config.values[name] for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compile_anew(factor):
    return jax.jit(lambda x: jnp.sin(x) * factor)(jnp.arange(5.0))


def test_a_later_run_finds_what_an_earlier_one_compiled(without_cache, tmp_path):
    events = []
    jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
    compiled.keep()
    compiled.forget()  # what other tests compiled is in no cache
    compile_anew(2)
    assert list((tmp_path / "imas_jax/compiled").glob("*/*-cache"))
    compiled.forget()  # as another process knows nothing
    events.clear()
    compile_anew(2)
    assert events.count(HIT) == events.count(ASKED) > 0
    events.clear()
    compile_anew(3)  # another program is compiled: its own part is no hit
    assert events.count(HIT) < events.count(ASKED)


def test_a_folder_that_the_user_chose_is_left_alone(without_cache, tmp_path):
    chosen = str(tmp_path / "chosen")
    jax.config.update("jax_compilation_cache_dir", chosen)
    compiled.keep()
    assert jax.config.values["jax_compilation_cache_dir"] == chosen
    assert not (tmp_path / "imas_jax").exists()


def test_nothing_is_kept_where_jax_is_told_to_keep_nothing(without_cache, tmp_path):
    jax.config.update("jax_enable_compilation_cache", False)
    compiled.keep()
    compile_anew(4)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_made_costs_a_warning(without_cache, tmp_path, caplog):
    (tmp_path / "imas_jax").write_text("in the way")
    compiled.keep()
    assert "not kept" in caplog.text
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_a_relative_cache_home_is_no_cache_home(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert compiled.folder().is_absolute()


def test_another_processor_has_a_folder_of_its_own(monkeypatch, tmp_path):
    mine = compiled.folder()
    assert compiled.folder() == mine
    monkeypatch.setattr(compiled, "CPUINFO", tmp_path / "cpuinfo")
    compiled.CPUINFO.write_text("processor : 0\nflags : fpu sse2\n")
    old = compiled.folder()
    compiled.CPUINFO.write_text("processor : 0\nflags : fpu sse2 avx512f\n")
    assert len({mine, old, compiled.folder()}) == 3


def test_the_oldest_programs_go_first_when_there_are_too_many(tmp_path):
    for age, name in enumerate("dcba"):
        (tmp_path / name).write_bytes(bytes(10))
        then = time.time() - 100 * age
        os.utime(tmp_path / name, (then, then))
    compiled.trim(tmp_path, 25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "d"]
