"""How much memory this host gives to a run, and whether a data set fits.

A container or a job of a cluster has less than the machine: its control group says how
much (cgroup v2 `memory.max`, v1 `memory.limit_in_bytes`), and so may any group above
it. What is mapped from a file is there once, however many processes map it.
"""

import dataclasses
import os
from pathlib import Path, PurePosixPath

from absl import logging

from imas_jax.errors import UserError

GROUPS = "sys/fs/cgroup"


@dataclasses.dataclass(frozen=True)
class Limit:
    """What can be used at most.

    Attributes:
        size: Bytes.
        of: Who says so.
    """

    size: int
    of: str


def limit(root: Path = Path("/")) -> Limit:
    """Return the smallest limit on this process's memory.

    Args:
        root: Where `proc` and `sys` lie.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [Limit(physical, "this machine"), *_of_groups(root)]
    return min(limits, key=lambda one: one.size)


def check(
    mapped: int,
    own: int,
    processes: int = 1,
    bound: Limit | None = None,
    source: str = "memory",
) -> None:
    """Refuse before decoding what cannot fit.

    Args:
        mapped: Bytes that the processes of this host share.
        own: Bytes that each of them holds for itself.
        processes: Of this run on this host.
        bound: What there is; None asks this host.
        source: `data.source`.

    Raises:
        UserError: With what is needed and who allows how much.
    """
    bound = bound or limit()
    needed = mapped + processes * own
    told = f"{needed / 1e9:.2f} GB"
    if processes > 1:
        told += (
            f" on this host ({mapped / 1e9:.2f} GB shared by {processes} processes, "
            f"{own / 1e9:.2f} GB for each)"
        )
    logging.info("data.source=%s: frames and flow take %s", source, told)
    if needed > bound.size:
        raise UserError(
            f"data.source={source} needs {told}",
            f"at most the {bound.size / 1e9:.2f} GB of {bound.of}",
            "set --config.data.source=tfrecord, or a smaller data.size, or ask for "
            "more memory",
        )


def _of_groups(root: Path) -> list[Limit]:
    """Return the limits of this process's control groups and all above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []  # no Linux
    limits = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            base, name = root / GROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / GROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        at = PurePosixPath(group)
        # A container may see its own group as the top: what is not there is skipped.
        for one in (at, *at.parents):
            path = base / str(one).lstrip("/") / name
            try:
                limits.append(Limit(int(path.read_text()), f"control group {one}"))
            except (OSError, ValueError):
                continue  # not there, or "max"
    return limits
