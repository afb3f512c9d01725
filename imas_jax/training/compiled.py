"""What XLA compiled: kept on disk for later runs, let go of in memory.

A small network compiles for longer than many of its stages run, and every clip of a
folder, every row of an ablation and every run of tomorrow compiles the same one. JAX
keeps compiled programs in a folder; here it is given one, and nothing else is done to
it: the programs' keys (code, shapes, versions) are JAX's.
"""

import gc
import hashlib
import os
import platform
from pathlib import Path

import jax
from absl import logging

from imas_jax import files

LARGEST = 2 * 10**9  # bytes of the folder, beyond which its oldest programs go
# JAX's own bound is a second; most of a run's programs are below it, together seconds.
WORTH_KEEPING = 0.0  # seconds
CPUINFO = Path("/proc/cpuinfo")  # of Linux


def keep() -> None:
    """Keep compiled programs in the user's cache folder; call before anything compiles.

    JAX's own settings stand: a folder that `JAX_COMPILATION_CACHE_DIR` names is used as
    it is, and `JAX_ENABLE_COMPILATION_CACHE=0` keeps nothing. A folder that cannot be
    made costs a warning.
    """
    chosen = jax.config.values
    if not chosen["jax_enable_compilation_cache"]:
        return
    if chosen["jax_compilation_cache_dir"]:
        return
    kept = folder()
    try:
        kept.mkdir(parents=True, exist_ok=True)
        trim(kept, LARGEST)
    except OSError as error:
        logging.warning("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(kept))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)


def folder() -> Path:
    """Return the folder in the user's cache.

    One for each kind of processor: homes are shared between machines, and a program may
    hold instructions that another one lacks.
    """
    return files.user_cache() / "compiled" / _processor()


def _processor() -> str:
    """Return a name for what this machine's processor can do."""
    told = [platform.machine(), platform.processor()]
    if CPUINFO.is_file():
        lines = CPUINFO.read_text(errors="replace").splitlines()
        flags = [ln for ln in lines if ln.lower().startswith(("flags", "features"))]
        told += flags[:1]
    return hashlib.sha256(" ".join(told).encode()).hexdigest()[:12]


def trim(kept: Path, largest: int) -> None:
    """Remove the oldest files until the folder holds at most `largest` bytes."""
    found = [(path, path.stat()) for path in kept.iterdir() if path.is_file()]
    total = sum(stat.st_size for _, stat in found)
    for path, stat in sorted(found, key=lambda file: file[1].st_mtime):
        if total <= largest:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size


def forget() -> None:
    """Let go of all compiled programs in memory, between runs in one process.

    A program lives as long as JAX's caches know the function it was made from, in some
    hundreds of mappings each: forty runs would end the process.
    """
    jax.clear_caches()
    gc.collect()
