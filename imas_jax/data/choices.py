"""Choices for clips that nobody has tuned for, each with its reason.

A field that a config leaves open (-1, or "auto" for the network) is chosen by what the
clips are; any other value stands. Pure: facts and config in, choices out.

All numbers are ours. An ordinary clip (up to 100 frames, short side up to 480, motion
as in DAVIS, no weights) gets what benchmarks/results/video.md was measured with.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

OPEN = (-1, -1.0, "auto")
FIELDS = (
    "data.size",
    "data.frames",
    "flow.gaps",
    "model.backbone",
    "model.width",
    "model.head_width",
    "model.head_dilation",
    "discover.steps",
    "discover.learning_rate",
    "refine.steps",
    "refine.learning_rate",
)

LARGEST = 480  # px of the short side; DAVIS's, beyond which masks gain little
MEASURED_AT = 240  # px of the short side at which `Facts.motion` counts pixels
# The slowest of 30 sequences of DAVIS moves by 1.25 px between frames at that size.
SLOW = 0.75  # px below which flow of neighbours is mostly its own error
ENOUGH = 1.25  # px that a wider gap should reach
GAPS = (1, 2, 4, 8)
ORDINARY = 100  # frames up to which a clip gets STEPS
STEPS, REFINE_STEPS = 200, 80
LONGEST = 500  # frames of a clip to train on: five times an ordinary clip's steps
SHORT = 10  # frames below which a clip is worth a warning

# A small network learns from scratch; a given one has its shape and the paper's rates.
SCRATCH = {
    "model.backbone": "unet",
    "model.width": 16,
    "model.head_width": 32,
    "model.head_dilation": 2,
    "discover.learning_rate": 2e-3,
    "refine.learning_rate": 5e-4,
}
GIVEN = {
    "model.backbone": "resnet50",
    "model.width": 64,
    "model.head_width": 256,
    "model.head_dilation": 6,
    "discover.learning_rate": 1e-4,
    "refine.learning_rate": 1e-5,
}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What clips are.

    Attributes:
        frames: Number of frames of each clip.
        sizes: (h, w) of each clip.
        motion: By gap, pixels that the fastest hundredth of a frame moves against the
            camera, median over some pairs, at a short side of `MEASURED_AT`.
        trains: Whether anything is trained; a restored network only predicts.
    """

    frames: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    motion: Mapping[int, float] = dataclasses.field(default_factory=dict)
    trains: bool = True


@dataclasses.dataclass(frozen=True)
class Choice:
    """A field, its value, and why."""

    field: str
    value: Any
    reason: str


def open_fields(config: ConfigDict) -> tuple[str, ...]:
    """Return the fields that are left to choose."""
    return tuple(field for field in FIELDS if _is_open(_get(config, field)))


def choose(config: ConfigDict, facts: Facts) -> tuple[Choice, ...]:
    """Choose what is open."""
    wanted = open_fields(config)
    return tuple(choice for choice in _all(config, facts) if choice.field in wanted)


def settle(config: ConfigDict, choices: tuple[Choice, ...]) -> ConfigDict:
    """Return the config with the choices in place."""
    settled = config.copy_and_resolve_references().unlock()
    settled.update_from_flattened_dict({c.field: c.value for c in choices})
    return settled.lock()


def _all(config: ConfigDict, facts: Facts) -> Iterator[Choice]:
    yield _size(facts)
    yield _frames(facts)
    yield _gaps(facts)
    weights = config.model.weights
    network = GIVEN if weights else SCRATCH
    reason = f"{weights} is given" if weights else "no weights: learns from scratch"
    yield from (Choice(field, value, reason) for field, value in network.items())
    most = _get(config, "data.frames")
    most = LONGEST if _is_open(most) else most
    trained = sum(min(count, most or count) for count in facts.frames)
    factor = min(max(trained, ORDINARY), LONGEST) / ORDINARY
    reason = f"{trained} frames to learn from, at 4 pairs a step"
    yield Choice("discover.steps", round(STEPS * factor), reason)
    yield Choice("refine.steps", round(REFINE_STEPS * factor), reason)


def _size(facts: Facts) -> Choice:
    usual = max(sorted(set(facts.sizes)), key=facts.sizes.count)
    h, w = usual
    scale = LARGEST / min(h, w)
    if scale < 1:
        usual = (round(h * scale), round(w * scale))
        reason = f"{w}x{h} is more than is needed; masks are written at {w}x{h}"
    elif len(set(facts.sizes)) > 1:
        reason = "clips of several sizes train together; masks keep each one's own"
    else:
        return Choice("data.size", (0, 0), f"{w}x{h} is worked on as it is")
    return Choice("data.size", usual, reason)


def _frames(facts: Facts) -> Choice:
    longest = max(facts.frames)
    if not facts.trains:
        return Choice("data.frames", 0, "nothing is trained")
    if longest <= LONGEST:
        return Choice("data.frames", 0, f"{longest} frames are few enough to train on")
    reason = f"{longest} frames are much alike; every frame gets a mask all the same"
    return Choice("data.frames", LONGEST, reason)


def _gaps(facts: Facts) -> Choice:
    motion = dict(facts.motion)
    if not facts.trains:
        return Choice("flow.gaps", (1,), "nothing is trained")
    told = ", ".join(f"{value:.2f} px at gap {gap}" for gap, value in motion.items())
    if motion[1] >= SLOW:
        return Choice("flow.gaps", (1,), f"neighbouring frames move enough ({told})")
    wide = [gap for gap, value in motion.items() if value >= ENOUGH]
    if not wide:
        return Choice("flow.gaps", (1,), f"no stride shows more motion ({told})")
    return Choice("flow.gaps", (min(wide),), f"slow motion ({told})")


def _is_open(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(part in OPEN for part in value)
    return value in OPEN


def _get(config: ConfigDict, field: str) -> Any:
    section, name = field.split(".")
    return config[section][name]
