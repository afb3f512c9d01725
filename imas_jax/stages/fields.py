"""Every field of a config: what it may be and what it means, in one table.

Checked before any work, whatever the stage. Whether fields fit each other, the data,
the weights or the devices is asked where that is known (`checks.py` and the stages).
Where a value is from (paper, RCF or ours) is told in configs/davis.py.
"""

from collections.abc import Sequence
from typing import Any, get_args

from ml_collections import ConfigDict

from imas_jax.appearance import crf
from imas_jax.data import clip_checks, decoded, layouts, training_set
from imas_jax.errors import ProblemList, suggestion
from imas_jax.evaluation import mask_folders
from imas_jax.flow import estimators
from imas_jax.losses import LossKind
from imas_jax.models import imas, segmenter
from imas_jax.models.segmenter import BACKBONES
from imas_jax.report import exports
from imas_jax.runs import hub, restoring
from imas_jax.runs.records import flatten
from imas_jax.stages import align, features, flow_export, inputs, motion, settle
from imas_jax.stages.rules import Flag, Number, Rule, Several, Text, Word


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
_CRF = Text(read=crf.get_preset)
_STRIDES = tuple(sorted({s for one in BACKBONES.values() for s in one.strides}))

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
    "hung_after": (_WEIGHT, "seconds without progress of one of several; 0 is never"),
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
    "data.source": (Word(("memory", "device", "tfrecord")), "where batches come from"),
    "data.cache": (Text(), f"folder of what is decoded; {decoded.OFF} keeps none"),
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
    "loss.compactness": (_WEIGHT, "of the first channel's spread, in stage 1"),
    "loss.scales": (_RHYTHM, "of AMD's loss, each half as fine as the last"),
    "loss.ssim": (_SHARE, "of SSIM in AMD's loss"),
    **{f"discover.{name}": row for name, row in _TRAINING.items()},
    "discover.motion_weight": (_WEIGHT, "of equation 6; 0 reads no flow"),
    "discover.evidence_weight": (_WEIGHT, "of the motion evidence in stage 1"),
    "motion.evidence": (Word(motion.KINDS), "who says what moves on its own"),
    "motion.also": (Word(("", motion.ALSO)), "an estimator whose flow is seen besides"),
    "motion.crf": (_CRF, "a CRF preset over the network's evidence; '' is none"),
    "motion.border_contact": (_WEIGHT, "of refined parts that go; 0 keeps all"),
    "align.score": (Word(tuple(align.PARTS)), "the judge of channels"),
    "align.features": (Word(("auto", *features.THRESHOLDS)), "of the semantic judge"),
    "align.weights": (Text(), "of frozen features; '' takes model.weights"),
    "align.backbone": (Word(tuple(BACKBONES)), "of that checkpoint"),
    "align.judged": (Word(("first", "all")), "frames of a sequence"),
    "align.largest": (_RHYTHM, "channels that together may be the object"),
    "align.threshold": (_SHARE, "theta; 0 takes the features' own value"),
    "align.masks": (Text(), "folders that stage tune ranks"),
    "align.sweep": (Text(), "runs that stage tune ranks"),
    "target.crf": (Text(blank=False, read=crf.get_preset), "a CRF preset"),
    "target.when": (Word(("between", "online")), "the stages, or while training"),
    "target.resolution": (Word(("mask", "frame")), "where the CRF runs"),
    "target.semantic_constraint": (Flag(), "equation 12, or what stands for it"),
    "target.constrained_by": (Word(("match", "cut")), "what features say of a mask"),
    "target.disagreement": (_SHARE, "of the frame, beyond which a cut is dropped"),
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
    "predict.formats": (
        Several(Word(tuple(exports.FORMATS)), relation="no value twice"),
        "of masks; PNG is always written",
    ),
    "predict.evidence": (_SHARE, "of the motion evidence in final masks"),
    "predict.steady": (_BELOW_1, "kept of neighbours' masks a step along the flow"),
    "predict.crf": (_CRF, "a CRF preset; '' is none"),
    "predict.crf_agreement": (_SHARE, "IoU below which a frame goes without it"),
    "predict.border_contact": (_WEIGHT, "of parts of masks that go; 0 keeps all"),
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
    "evaluate.published": (Flag(), "print the paper's Table 2 beside the scores"),
    "report.frames_per_sequence": (_RHYTHM, "spread evenly; the worst come beside"),
    "report.sequences": (_RHYTHM, "shown, the worst"),
    "watch.tensorboard": (Flag(), "write event files"),
    "watch.wandb": (Text(), "a project"),
    "watch.trackio": (Text(), "a project"),
    "watch.images_every": (_COUNT, "steps; 0 never"),
    "watch.jaccard_every": (_COUNT, "steps; 0 never"),
    "push.to": (Text(read=hub.read_address), "a repository: hf://user/name"),
    "push.private": (Flag(), "a new repository is"),
    "push.report": (Flag(), "push the report, which shows frames"),
    "ablate.rows": (Text(), "of the paper's tables; '' is all"),
    "ablate.seeds": (Several(_SEED, 1, relation="no value twice"), "of each row"),
    "ablate.crf": (Text(blank=False, read=crf.get_preset), "of rows with a CRF"),
    "ablate.alone": (Flag(), "a network of its own for every sequence"),
    "evidence.clips": (Number("[2, inf)", whole=True), "rendered"),
    "evidence.held_out": (Number("[2, inf)", whole=True), "every so many is watched"),
    "evidence.workers": (_COUNT, "rendering processes; 0 is one a core"),
    "evidence.widths": (Several(_RHYTHM, 2), "channels by scale, finest first"),
    "evidence.context": (Flag(), "the frame's mean beside the coarsest scale"),
    "evidence.crop": (
        Several(Number("[16, 160]", whole=True), 2, 2),
        "(h, w) of the grid that a step sees",
    ),
    "evidence.steps": (Several(_RHYTHM, 1), "of training, by network"),
    "evidence.batch_size": (_RHYTHM, "samples a step"),
    "evidence.learning_rate": (_ABOVE_0, "of Adam after the warm-up"),
    "evidence.warm_up": (_COUNT, "steps"),
    "evidence.weight_decay": (_WEIGHT, "decoupled"),
    "evidence.ema": (_BELOW_1, "decay of the averaged parameters"),
    "evidence.dice_weight": (_WEIGHT, "beside cross-entropy"),
    "evidence.log_every": (_RHYTHM, "steps"),
    "pretrain.steps": (_STEPS, "of training"),
    "pretrain.batch_size": (_RHYTHM, "images a step over all devices"),
    "pretrain.groups": (_RHYTHM, "parts of a batch that batch norm sees alone"),
    "pretrain.learning_rate": (_ABOVE_0, "of SGD at the first step"),
    "pretrain.weight_decay": (_WEIGHT, "coupled"),
    "pretrain.momentum": (_SHARE, "of the key encoder's average"),
    "pretrain.temperature": (_ABOVE_0, "of both losses"),
    "pretrain.dense_weight": (_SHARE, "of the dense loss; the rest is the global's"),
    "pretrain.warm_up": (_COUNT, "first steps without the dense loss"),
    "pretrain.queue": (_RHYTHM, "negatives"),
    "pretrain.hidden": (_RHYTHM, "width of the heads"),
    "pretrain.features": (_RHYTHM, "of an embedding"),
    "pretrain.stage": (
        Number("[-1, 3]", whole=True),
        "of the backbone under the heads; -1 is the deepest",
    ),
    "pretrain.neighbours": (_COUNT, "frames away the other view may be; 0 is none"),
    "pretrain.short_side": (Number(_SIDE, whole=True), "of stored frames, pixels"),
    "pretrain.crop": (Number(_SIDE, whole=True), "side of a view, pixels"),
    "pretrain.scale": (
        Several(Number("(0, 1]"), 2, 2, "the lower one first"),
        "range of a crop's share of the frame",
    ),
    "pretrain.jitter": (_SHARE, "probability of other colours"),
    "pretrain.grey": (_SHARE, "probability of none"),
    "pretrain.blurred": (_SHARE, "probability of blur"),
    "pretrain.blur": (
        Several(_ABOVE_0, 2, 2, "the lower one first"),
        "range of its sigma, pixels of the view",
    ),
    "pretrain.checkpoint_every": (_RHYTHM, "steps"),
    "pretrain.log_every": (_RHYTHM, "steps"),
    "pretrain.keep_every": (_COUNT, "steps between weights that stay; 0 is none"),
}
