"""All processes of a run see the same: one config, one set of clips, one workdir.

They would else wait for each other for ever, or make parts of different things: a node
with half of the data finds fewer clips, and shares them out differently.
"""

import socket
from collections.abc import Mapping
from typing import Any

from imas_jax.errors import UserError, bullet
from imas_jax.runs import records
from imas_jax.training import exchange


def check(stage: str, seen: Mapping[str, Any]) -> None:
    """Return when every process has come here, if all see the same.

    Args:
        stage: About to be made.
        seen: What this process sees: plain values by name.

    Raises:
        UserError: In every process, with what the first that differs sees otherwise.
    """
    every = exchange.gather({"host": socket.gethostname(), "seen": dict(seen)})
    first = every[0]
    for index, one in enumerate(every):
        if told := records.differences(first["seen"], one["seen"]):
            raise UserError(
                f"stage {stage}: process {index} on {one['host']} sees other things "
                f"than process 0 on {first['host']} (which sees what was):\n"
                + bullet(told),
                "the same arguments, the same data and one workdir in all processes",
                "give every node the whole data set (data.root), all processes the "
                "same command, and the workdir a disk that all nodes share",
            )
