"""Rows of the paper's Tables 3, 4 and 5: what each changes in the recipe, and its J.

A row is a set of overrides of `configs/davis.py`; trained over seeds it becomes a line
of `spread_table`, beside the paper's number. The paper reports J on DAVIS16 without
saying a spread; its numbers are frame means.

`METHODS` are whole methods as rows: those of Table 2 that this code can train, and the
paper's successor, on the same clips, flow, network and schedule as IMAS beside them.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from imas_jax.evaluation import protocol, tables
from imas_jax.evaluation.protocol import Empty, Entry, Protocol


@dataclasses.dataclass(frozen=True)
class Ablation:
    """One row.

    Attributes:
        name: For the command line and the table.
        table: Number of the paper's table; 0 is the successor's paper (RCF).
        paper: J printed there on DAVIS16, percent; None where it is not.
        overrides: Config fields and their values.
        after: The row whose network this one starts from (`discover.init`), or "".
    """

    name: str
    table: int
    paper: float | None
    overrides: Mapping[str, Any]
    after: str = ""

    @property
    def source(self) -> str:
        """Where the printed J is from."""
        return f"Table {self.table}" if self.table else "RCF"


_ONE_STAGE = {"refine.steps": 0}
_PLAIN = {"model.feature_merging": False, **_ONE_STAGE}
_NO_RESIDUAL = {"model.pathway": "none"}
_CONSTRAINT = {"target.semantic_constraint": True}
_POST = {"predict.crf": "authors_post"}

ABLATIONS = (
    Ablation("neither", 3, 67.6, {**_PLAIN, **_NO_RESIDUAL}),
    Ablation("residual", 3, 73.0, _PLAIN),
    Ablation("feature-merging", 3, 71.0, {**_ONE_STAGE, **_NO_RESIDUAL}),
    Ablation("stage-1", 3, 76.1, _ONE_STAGE),
    Ablation("stage-2", 3, 77.3, {}),
    Ablation("stage-2-semantic", 3, 77.7, _CONSTRAINT),
    Ablation("stage-2-semantic-crf", 3, 79.8, {**_CONSTRAINT, **_POST}),
    Ablation("pathway-none", 4, 67.6, {**_PLAIN, **_NO_RESIDUAL}),
    Ablation(
        "pathway-none-robust",
        4,
        69.4,
        {**_PLAIN, **_NO_RESIDUAL, "loss.kind": "robust"},
    ),
    Ablation("pathway-scaling", 4, 70.4, {**_PLAIN, "model.pathway": "scaling"}),
    Ablation("pathway-affine", 4, 68.8, {**_PLAIN, "model.pathway": "affine"}),
    Ablation("pathway-residual", 4, 73.0, _PLAIN),
    Ablation("post-stage-1", 5, 76.1, _ONE_STAGE),
    Ablation("post-stage-2", 5, 77.3, {}),
    Ablation("post-stage-1-crf", 5, 78.4, {**_ONE_STAGE, **_POST}),
    Ablation("post-stage-2-crf", 5, 79.5, _POST),
)

# The matching of Guess What Moves: configs/gwm.py says where each value is from.
GWM: Mapping[str, Any] = {
    "model.channels": 2,
    "model.pathway": "affine",
    "model.motion_width": 0,
    "model.still_background": False,
    "loss.kind": "l2",
    "align.largest": 1,
    **_ONE_STAGE,
}
# AMD: configs/amd.py says where each value is from.
AMD: Mapping[str, Any] = {
    "model.name": "amd",
    "model.channels": 5,
    "model.pathway": "none",
    "model.motion_width": 16,
    "model.residual_bound": 20.0,
    "loss.scales": 4,
    "model.still_background": False,
    "flow.background": "none",
    "align.score": "semantic",
    **_ONE_STAGE,
}
# RCF, the paper's successor, stage by stage: configs/rcf.py says where values are from.
RCF_1: Mapping[str, Any] = {"loss.entropy": "rcf", "align.score": "cut"}
RCF_21: Mapping[str, Any] = {
    **RCF_1,
    "target.when": "online",
    "target.resolution": "mask",
    "refine.ema": 0.999,
    "refine.appearance_weight": 10.0,
    "refine.motion_weight": 1.0,
}
RCF_22: Mapping[str, Any] = {
    "align.score": "cut",
    "discover.steps": 0,  # it is the network of 2.1 that makes the masks
    "target.semantic_constraint": True,
    "target.constrained_by": "cut",
    "target.resolution": "frame",
}
METHODS = (
    Ablation("amd", 2, 57.8, AMD),
    Ablation("gwm", 2, 71.2, GWM),
    Ablation("imas-stage-1", 2, 76.1, _ONE_STAGE),
    Ablation("imas-lr", 2, 77.3, {}),
    Ablation("rcf-1", 0, 78.9, {**RCF_1, **_ONE_STAGE}),
    Ablation("rcf-2.1", 0, None, RCF_21),
    Ablation("rcf-2.2", 0, 80.9, RCF_22, after="rcf-2.1"),
)
ROWS = (*ABLATIONS, *METHODS)

# What a row has unless it says otherwise: the recipe's values of all that rows change,
# but for `refine.steps`, which is a matter of the schedule.
RECIPE: Mapping[str, Any] = {
    "model.feature_merging": True,
    "model.pathway": "residual",
    "loss.kind": "l1",
    "target.semantic_constraint": False,
    "predict.crf": "",
}


def with_crf(row: Ablation, preset: str) -> Ablation:
    """Return the row with another post-processing CRF, if it has one.

    Args:
        row: The row.
        preset: A preset of imas_jax/appearance/crf.py.
    """
    if "predict.crf" not in row.overrides:
        return row
    return dataclasses.replace(row, overrides={**row.overrides, "predict.crf": preset})


def distinct(rows: Sequence[Ablation] = ABLATIONS) -> tuple[tuple[Ablation, ...], ...]:
    """Group rows that are one training run: several tables share rows."""
    groups: dict[tuple[tuple[str, str], ...], list[Ablation]] = {}
    for row in rows:
        key = tuple(sorted((name, repr(v)) for name, v in row.overrides.items()))
        groups.setdefault(key, []).append(row)
    return tuple(map(tuple, groups.values()))


def spread_table(
    rows: Sequence[Ablation],
    results: Mapping[str, Sequence[Entry]],
    which: Protocol,
    empty: Empty = "one",
    baseline: Entry | None = None,
) -> tables.Table:
    """Return one line a row: mean and spread over seeds, beside the paper's number.

    Args:
        rows: In the order of the table.
        results: Of each row's name, the scored masks of its seeds; rows without are
            shown as not run.
        which: The protocol.
        empty: What a frame scores in which both masks are empty.
        baseline: The motion baseline on the same flow; it has no seeds.
    """
    lines = []
    if baseline is not None:
        value = protocol.summarize(baseline.scores, which, empty).jaccard.mean
        lines.append((baseline.label, "", tables.percent(value), "", "", "-", ""))
    for row in rows:
        values = [
            protocol.summarize(entry.scores, which, empty).jaccard.mean
            for entry in results.get(row.name, ())
        ]
        mean = statistics.fmean(values) if values else math.nan
        spread = statistics.stdev(values) if len(values) > 1 else math.nan
        lines.append(
            (
                row.name,
                row.source,
                tables.percent(mean),
                tables.percent(spread),
                str(len(values)) if values else "not run",
                "-" if row.paper is None else f"{row.paper:.1f}",
                " ".join(f"{name}={v}" for name, v in row.overrides.items()),
            )
        )
    header = ("row", "paper", f"J {which}", "std", "seeds", "paper's J", "overrides")
    note = "std: sample standard deviation over seeds; the paper's J is DAVIS16 at 480p"
    scored = [entry for entries in results.values() for entry in entries]
    notes = (note, *tables.supervision_notes(scored))
    return tables.Table(f"Ablations, percent, {which}", header, tuple(lines), notes)
