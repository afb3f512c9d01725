"""IMAS in JAX/Flax: masks of what moves in a video, without annotations.

    import imas_jax

    result = imas_jax.segment("clip.mp4")   # trains on this clip alone, a minute or so
    for mask in result.masks: ...           # bool (h, w), one a frame
    result.report()                         # path of an HTML page

    network = imas_jax.load("runs/clip")    # what another run has learned
    for mask in network.segment(frames): ...  # frames as they come

    imas_jax.score(result, "Annotations/480p/bear").jaccard
    imas_jax.train("davis", overrides={"data.root": "/data/DAVIS"})

Importing this loads nothing else; JAX is loaded by what needs it. Nothing is printed:
what a run says goes to the logger "imas_jax", how far it is to the function given as
`progress`. Bad input raises `UserError`, which tells what was found, what was expected
and what to do (where it names `--config.FIELD=VALUE`, here that is
`overrides={"FIELD": VALUE}`). Losses and composition are `imas_jax.losses` and
`imas_jax.composition`: docs/library.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imas_jax import composition, losses
    from imas_jax.api import Masks, Network, Result, load, score, segment, train
    from imas_jax.errors import Stopped, UserError
    from imas_jax.evaluation.one_clip import Score
    from imas_jax.progress import Progress
    from imas_jax.tools.push import push

__all__ = [
    "Masks",
    "Network",
    "Progress",
    "Result",
    "Score",
    "Stopped",
    "UserError",
    "composition",
    "load",
    "losses",
    "push",
    "score",
    "segment",
    "train",
]

_WHERE = {
    **dict.fromkeys(
        ("Masks", "Network", "Result", "load", "score", "segment", "train"), "api"
    ),
    **dict.fromkeys(("Stopped", "UserError"), "errors"),
    "Score": "evaluation.one_clip",
    "push": "tools.push",
    "Progress": "progress",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562)."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"imas_jax.{_WHERE[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"imas_jax.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
