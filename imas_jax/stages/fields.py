"""Every field of a config: what it may be and what it means, in one table.

Checked before any work, whatever the stage. Whether fields fit each other, the data,
the weights or the devices is asked where that is known (`checks.py` and the stages).
Where a value is from (paper, RCF or ours) is told in configs/davis.py.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, get_args, runtime_checkable

from ml_collections import ConfigDict

from imas_jax.appearance import crf, whole_clip
from imas_jax.data import clip_checks, layouts, training_set
from imas_jax.errors import ProblemList, UserError, suggestion
from imas_jax.evaluation import mask_folders
from imas_jax.flow import estimators
from imas_jax.losses import LossKind
from imas_jax.models import imas, segmenter
from imas_jax.models.segmenter import BACKBONES
from imas_jax.runs import restoring
from imas_jax.runs.records import flatten
from imas_jax.stages import align, features, flow_export, inputs, motion, settle


@runtime_checkable
class Rule(Protocol):
    """Tells what is wrong with a value."""

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or "" for a sound value."""


@dataclasses.dataclass(frozen=True)
class Number:
    """A finite number.

    Attributes:
        interval: E.g. "[0, 1)".
        whole: Whether only whole numbers are meant.
        also: Values outside the interval that have a meaning of their own.
    """

    interval: str
    whole: bool = False
    also: tuple[int, ...] = ()

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or ""."""
        kinds = (int,) if self.whole else (int, float)
        if isinstance(value, kinds) and not isinstance(value, bool):
            if value in self.also or _is_inside(value, self.interval):
                return ""
        also = "".join(f"{one} or " for one in self.also)
        return f"{also}a {'whole ' * self.whole}number in {self.interval}"


@dataclasses.dataclass(frozen=True)
class Word:
    """One of a few words (or numbers)."""

    words: tuple[str | int, ...]

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or ""."""
        # A list has no place among words; True is no 1.
        if isinstance(value, str | int) and not isinstance(value, bool):
            if value in self.words:
                return ""
        known = [str(word) for word in self.words if word != ""]
        blank = "'' or " if "" in self.words else ""
        return f"{blank}one of {', '.join(known)}; {suggestion(value, known)}"


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or False."""

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or ""."""
        return "" if isinstance(value, bool) else "True or False"


@dataclasses.dataclass(frozen=True)
class Text:
    """A name, a path, a list of them: what it names is looked for where it is used.

    Attributes:
        blank: Whether it may be empty.
        read: Raises `UserError` if the text means nothing, or None.
    """

    blank: bool = True
    read: Callable[[str], object] | None = None

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or ""."""
        if not isinstance(value, str):
            return "text in quotes"
        if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
            return "text in UTF-8"
        if value == "~" or value.startswith("~/"):
            return "the path in full: shells leave ~ alone behind ="
        if not value.strip():
            return "" if self.blank and not value else "text that is not empty"
        if self.read is not None:
            try:
                self.read(value)
            except UserError as error:
                return f"{error.expected} ({error.found})"
        return ""


RELATIONS: dict[str, Callable[[Sequence[Any]], bool]] = {
    "no value twice": lambda values: len(set(values)) == len(values),
    "the lower one first": lambda values: list(values) == sorted(values),
    "both 0 or neither": lambda values: all(values) or not any(values),
}


@dataclasses.dataclass(frozen=True)
class Several:
    """A tuple of values of one kind.

    Attributes:
        rule: Of each value.
        least: How many there must be.
        most: How many there may be.
        relation: One of `RELATIONS`, or "".
    """

    rule: Rule
    least: int = 0
    most: float = math.inf
    relation: str = ""

    def problem(self, value: Any) -> str:
        """Return what was expected instead, or ""."""
        few = isinstance(value, list | tuple) and self.least <= len(value) <= self.most
        if not few:
            more = "" if self.least == self.most else " or more"
            return f"a tuple of {self.least}{more}"
        for one in value:
            if told := self.rule.problem(one):
                return f"a tuple, each of it {told}"
        if self.relation and not RELATIONS[self.relation](value):
            return self.relation
        return ""


def check(config: ConfigDict, stages: Sequence[str]) -> None:
    """Refuse a config some field of which cannot mean anything.

    Args:
        config: The whole config; what `settle.FIELDS` may leave open may be open.
        stages: What `config.stage` may be.

    Raises:
        UserError: One list of all wrong, unknown and missing fields.
    """
    table = {**TABLE, "stage": (Word(tuple(stages)), "what is to be finished")}
    values, problems = flatten(config), ProblemList()
    for field in sorted(table.keys() - values.keys()):
        problems.add(field, f"is missing ({table[field][1]})")
    for field, value in values.items():
        if field not in table and field not in ALIASES:
            problems.add(field, f"no such field; {suggestion(field, [*table])}")
            continue
        rule, meaning = table[ALIASES.get(field, field)]
        told = "" if _is_open(field, value) else rule.problem(value)
        if told:
            shown = tuple(value) if isinstance(value, list) else value
            problems.add(field, f"{shown!r}, but wants {told} ({meaning})")
    problems.raise_if_any(
        "config",
        "fields as in configs/davis.py, where each has a comment",
        "correct these fields, with --config.FIELD=VALUE or in the config file",
    )


def _is_open(field: str, value: Any) -> bool:
    """Tell whether a value is left to be chosen, as a whole."""
    parts = value if isinstance(value, list) else [value]
    left = bool(parts) and all(part in settle.OPEN for part in parts)
    return left and field in settle.FIELDS


def _is_inside(value: float, interval: str) -> bool:
    """Tell whether a number is finite and in "[low, high)"; brackets as in maths."""
    low, high = map(float, interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    return abs(value) <= sys.float_info.max and above and below


_SIDE = f"[{clip_checks.SHORTEST_SIDE}, 16384]"
_SEED = Number("[0, 4294967295]", whole=True)  # uint32 in the state
_STEPS = Number("[0, 2147483647]", whole=True)  # int32 in the state
_RHYTHM = Number("[1, inf)", whole=True)
_COUNT = Number("[0, inf)", whole=True)
_OWN_SIDE = Number(_SIDE, whole=True, also=(0,))
_WEIGHT = Number("[0, inf)")
_ABOVE_0 = Number("(0, inf)")
_SHARE = Number("[0, 1]")
_BELOW_1 = Number("[0, 1)")
_TOGETHER = Text(blank=False, read=whole_clip.get_settings)
_CRF = Text(read=crf.get_preset)
_STRIDES = tuple(sorted({s for one in BACKBONES.values() for s in one.strides}))
_PUBLISHED = tuple(name for name, one in BACKBONES.items() if one.foreign)

ALIASES = {"align.frames": "data.root"}  # configs/align.py's name for it

Row = tuple[Rule, str]

_TRAINING: dict[str, Row] = {
    "init": (Text(), "another run's workdir, whose weights training starts from"),
    "steps": (_STEPS, "of training; 0 trains nothing"),
    "batch_size": (_RHYTHM, "pairs a step over all devices"),
    "learning_rate": (_ABOVE_0, "of Adam at the first step"),
    "min_learning_rate": (_WEIGHT, "of Adam at the end"),
    "power": (_WEIGHT, "of the polynomial decay"),
    "steps_per_decay": (_RHYTHM, "steps between which the rate is constant"),
    "weight_decay": (_WEIGHT, "coupled with Adam"),
    "ema": (_BELOW_1, "decay of averaged parameters; 0 is off"),
    "checkpoint_every": (_RHYTHM, "steps"),
    "log_every": (_RHYTHM, "steps"),
}

# `stage` is not here: the list of stages is the protocol's.
TABLE: dict[str, Row] = {
    "workdir": (Text(blank=False), "folder of everything that is written"),
    "restore": (Text(), "another run's workdir"),
    "restore_until": (Word(restoring.TRAINED), "last stage taken from that run"),
    "overwrite": (Flag(), "redo stages whose config changed"),
    "distributed": (Text(), "auto, or HOST:PORT,COUNT,INDEX"),
    "seed": (_SEED, "of everything random"),
    "precision": (Word(tuple(imas.DTYPES)), "of the network"),
    "data.root": (Text(), "folder of frames, data set, or video file"),
    "data.layout": (
        Word(("auto", inputs.DEMO, *layouts.LAYOUTS)),
        "how the root is arranged",
    ),
    "data.resolution": (Text(), "DAVIS's subfolder"),
    "data.split": (Text(), "image set to train on"),
    "data.sequences": (
        Several(Text(blank=False), relation="no value twice"),
        "only these; () is all",
    ),
    "data.size": (
        Several(_OWN_SIDE, 2, 2, "both 0 or neither"),
        "(h, w) of all frames, pixels; (0, 0) is the file's",
    ),
    "data.cuts": (Word(("off", "find")), "whether pairs keep to one shot"),
    "data.frames": (
        Number("[2, inf)", whole=True, also=(0,)),
        "of each clip to train on; 0 is all",
    ),
    "data.source": (Word(("memory", "tfrecord")), "where batches come from"),
    "data.partial": (Flag(), "accept missing sequences and frames"),
    "flow.estimator": (Word(estimators.NAMES), "what computes flow"),
    "flow.source": (Text(), "folder of flow computed elsewhere"),
    "flow.weights": (Text(), "of RAFT: a file or a name"),
    "flow.iterations": (_RHYTHM, "of RAFT"),
    "flow.precision": (Word(estimators.PRECISIONS), "of RAFT"),
    "flow.correlation": (Word(estimators.CORRELATIONS), "of RAFT"),
    "flow.gaps": (
        Several(Number("[1, inf)", whole=True), 1, relation="no value twice"),
        "frames from one of a pair to the other",
    ),
    "flow.size": (_OWN_SIDE, "short side of flow, pixels; 0 is the frame's"),
    "flow.root": (Text(), "folder of flow files"),
    "flow.export": (Word(("", *flow_export.FOLDERS)), "flow for other programs"),
    "flow.background": (Word(training_set.BACKGROUNDS), "what is subtracted from flow"),
    "augment.short_side": (Number(_SIDE, whole=True), "before the crop, pixels"),
    "augment.scale": (
        Several(_ABOVE_0, 2, 2, "the lower one first"),
        "range of the factor on short_side",
    ),
    "augment.crop": (
        Several(Number(_SIDE, whole=True), 2, 2),
        "(h, w) the network sees, pixels",
    ),
    "augment.flip": (_SHARE, "probability"),
    "augment.photometric": (Flag(), "change colours"),
    "augment.scale_flow": (Flag(), "flow values follow the resize"),
    "augment.fit_crop": (Flag(), "turn or shrink a crop larger than frames"),
    "model.name": (Word(("imas", "amd")), "the method"),
    "model.backbone": (Word(tuple(BACKBONES)), "of the network"),
    "model.width": (_RHYTHM, "channels of the first stage"),
    "model.output_stride": (Word(_STRIDES), "of the backbone"),
    "model.weights": (Text(), "self-supervised: a file or a name"),
    "model.allow_supervised": (Flag(), "take weights from human labels too"),
    "model.trained": (Word(("all", "heads")), "or the backbone frozen, features kept"),
    "model.averaged": (Flag(), "take the checkpoint's moving averages"),
    "model.channels": (Number("[2, inf)", whole=True), "C, masks of a frame"),
    "model.feature_merging": (Flag(), "masks at stride 4"),
    "model.head_width": (_RHYTHM, "channels"),
    "model.head_dilation": (_COUNT, "of the head's convolutions; 0 makes them 1x1"),
    "model.dropout": (_BELOW_1, "probability"),
    "model.pathway": (Word(get_args(segmenter.Pathway)), "beside the constant one"),
    "model.motion_width": (_COUNT, "hidden units of phi; 0 makes it the identity"),
    "model.residual_bound": (_ABOVE_0, "lambda, pixels"),
    "model.residual_divisor": (_ABOVE_0, "d"),
    "model.flow_clamp": (_ABOVE_0, "fastest flow that is told apart, pixels"),
    "model.still_background": (Flag(), "the first channel explains no motion"),
    "loss.kind": (Word(get_args(LossKind)), "of reconstructed flow"),
    "loss.symmetric": (Flag(), "forward and backward flow"),
    "loss.entropy": (Word(("off", "rcf", "intended")), "of masks"),
    "loss.entropy_weight": (_WEIGHT, "of the entropy"),
    "loss.ssim": (_SHARE, "of SSIM in AMD's loss"),
    **{f"discover.{name}": row for name, row in _TRAINING.items()},
    "discover.motion_weight": (_WEIGHT, "of equation 6; 0 reads no flow"),
    "discover.evidence_weight": (_WEIGHT, "of the motion evidence in stage 1"),
    "motion.evidence": (Word(motion.KINDS), "who says what moves on its own"),
    "motion.crf": (_CRF, "a CRF preset over the network's evidence; '' is none"),
    "align.score": (Word(tuple(align.PARTS)), "the judge of channels"),
    "align.features": (Word(("auto", *features.THRESHOLDS)), "of the semantic judge"),
    "align.weights": (Text(), "of frozen features; '' takes model.weights"),
    "align.backbone": (Word(_PUBLISHED), "of that checkpoint"),
    "align.judged": (Word(("first", "all")), "frames of a sequence"),
    "align.largest": (_RHYTHM, "channels that together may be the object"),
    "align.threshold": (_SHARE, "theta; 0 takes the features' own value"),
    "align.masks": (Text(), "folders that stage tune ranks"),
    "align.sweep": (Text(), "runs that stage tune ranks"),
    "target.crf": (Text(blank=False, read=crf.get_preset), "a CRF preset"),
    "target.when": (Word(("between", "online")), "the stages, or while training"),
    "target.resolution": (Word(("mask", "frame")), "where the CRF runs"),
    "target.whole_clip": (_TOGETHER, "masks agree over the clip"),
    "target.semantic_constraint": (Flag(), "equation 12"),
    "target.dilation": (_RHYTHM, "side of equation 11's square, pixels"),
    "target.workers": (_COUNT, "CRF threads or processes; 0 is one a core"),
    "crf.solver": (Word(get_args(crf.Solver)), "what computes the mean field"),
    **{f"refine.{name}": row for name, row in _TRAINING.items()},
    "refine.appearance_weight": (_WEIGHT, "of equation 8"),
    "refine.motion_weight": (_WEIGHT, "of equation 6; 0 reads no flow"),
    "refine.positive_weight": (_WEIGHT, "where the target is above the mask"),
    "refine.negative_weight": (_WEIGHT, "where the target is below the mask"),
    "predict.short_side": (_OWN_SIDE, "pixels; 0 keeps the stored size"),
    "predict.batch_size": (_RHYTHM, "frames a forward pass"),
    "predict.flip": (Flag(), "average with the mirrored frame's masks"),
    "predict.binarize": (Word(("argmax", "threshold")), "soft masks to binary ones"),
    "predict.threshold": (_BELOW_1, "above it a pixel is object"),
    "predict.whole_clip": (_TOGETHER, "masks agree over the clip"),
    "predict.soft_masks": (Flag(), "write probabilities too"),
    "predict.evidence": (_SHARE, "of the motion evidence in final masks"),
    "predict.crf": (_CRF, "a CRF preset; '' is none"),
    "evaluate.split": (Text(), "image set to score; '' is every sequence"),
    "evaluate.oracle": (Flag(), "score every channel too"),
    "evaluate.masks": (Text(), "folders to score"),
    "evaluate.encoding": (
        Word(("auto", *get_args(mask_folders.Encoding))),
        "of the masks' pixels",
    ),
    "evaluate.label": (Number("[0, 65535]", whole=True), "0 unites all objects"),
    "evaluate.threshold": (_BELOW_1, "above it a soft mask is object"),
    "evaluate.partial": (Flag(), "score what is there"),
    "evaluate.baseline": (Flag(), "score the motion baseline too"),
    "report.frames_per_sequence": (_RHYTHM, "spread evenly; the worst come beside"),
    "report.sequences": (_RHYTHM, "shown, the worst"),
    "watch.tensorboard": (Flag(), "write event files"),
    "watch.wandb": (Text(), "a project"),
    "watch.images_every": (_COUNT, "steps; 0 never"),
    "watch.jaccard_every": (_COUNT, "steps; 0 never"),
    "ablate.rows": (Text(), "of the paper's tables; '' is all"),
    "ablate.seeds": (Several(_SEED, 1, relation="no value twice"), "of each row"),
    "ablate.crf": (Text(blank=False, read=crf.get_preset), "of rows with a CRF"),
    "ablate.alone": (Flag(), "a network of its own for every sequence"),
    "evidence.clips": (Number("[2, inf)", whole=True), "rendered"),
    "evidence.held_out": (Number("[2, inf)", whole=True), "every so many is watched"),
    "evidence.workers": (_COUNT, "rendering processes; 0 is one a core"),
    "evidence.widths": (Several(_RHYTHM, 2), "channels by scale, finest first"),
    "evidence.crop": (
        Several(Number("[16, 160]", whole=True), 2, 2),
        "(h, w) of the grid that a step sees",
    ),
    "evidence.steps": (_RHYTHM, "of training"),
    "evidence.batch_size": (_RHYTHM, "samples a step"),
    "evidence.learning_rate": (_ABOVE_0, "of Adam after the warm-up"),
    "evidence.warm_up": (_COUNT, "steps"),
    "evidence.weight_decay": (_WEIGHT, "decoupled"),
    "evidence.ema": (_BELOW_1, "decay of the averaged parameters"),
    "evidence.dice_weight": (_WEIGHT, "beside cross-entropy"),
    "evidence.log_every": (_RHYTHM, "steps"),
}
