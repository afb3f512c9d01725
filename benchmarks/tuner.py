r"""How well the tuner ranks masks that people published, without annotations.

    python benchmarks/tuner.py --choose=DAVIS --report=DAVIS-240p --masks=A,B,C,...

Candidates are the methods' masks and four spoiled versions of each: shrunk, grown,
moved aside, and of the next frame. Each judge (score, features, theta) scores judged
frames of every sequence; J of all frames is read after it has spoken. A default is
chosen on all sequences of one data set and reported on those of the other that are not
in it. Only sequences that every folder has count. Columns:

    r         Spearman correlation of mean score and frame mean J, all candidates
    methods   the same of the methods alone
    spoiled   share of spoiled versions that score below their original, as J does

Prints a table for first frames and one for every `stride`-th, and writes
benchmarks/results/tuner.json, which has every theta; the table has the features' own.
"""

import collections
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import other_features
from absl import app, flags
from ml_collections import ConfigDict
from scipy import stats

from imas_jax import protocol
from imas_jax.appearance import alignment, local_features, semantic
from imas_jax.configs import align as align_config
from imas_jax.data import annotations
from imas_jax.data.clips import Clip, find_clips
from imas_jax.evaluation import mask_folders, metrics
from imas_jax.evaluation.mask_folders import MaskFolder
from imas_jax.runs.run import Run
from imas_jax.stages import align, features

CHOOSE = flags.DEFINE_string("choose", None, "DAVIS folder", required=True)
REPORT = flags.DEFINE_string("report", None, "DAVIS folder", required=True)
MASKS = flags.DEFINE_list("masks", None, "folders of masks", required=True)
STRIDE = flags.DEFINE_integer("stride", 10, "frames between judged ones")
THETAS = flags.DEFINE_list("thresholds", ["0.3", "0.4", "0.5", "0.6", "0.7", "0.8"], "")
OUT = flags.DEFINE_string("out", "benchmarks/results/tuner.json", "JSON file")

FEATURES = local_features.LOCAL | other_features.LOCAL
OWN = features.THRESHOLDS | other_features.THRESHOLDS
Judge = tuple[str, str, float]  # score, features, theta
Spoil = Callable[[list[np.ndarray], int], np.ndarray]  # a clip's masks, frame -> mask


def _morph(operation: int) -> Spoil:
    def spoil(masks: list[np.ndarray], t: int) -> np.ndarray:
        radius = round(0.02 * min(masks[t].shape))
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        return cv2.morphologyEx(masks[t].astype(np.uint8), operation, disk) > 0

    return spoil


def _aside(masks: list[np.ndarray], t: int) -> np.ndarray:
    by = round(0.04 * min(masks[t].shape))
    moved = np.roll(masks[t], by, axis=1)
    moved[:, :by] = False
    return moved


SPOILED: dict[str, Spoil] = {
    "": lambda masks, t: masks[t],
    " shrunk": _morph(cv2.MORPH_ERODE),
    " grown": _morph(cv2.MORPH_DILATE),
    " aside": _aside,
    " early": lambda masks, t: masks[min(t + 1, len(masks) - 1)],
}


@dataclasses.dataclass
class Sequence:
    """One sequence, candidates last.

    Attributes:
        jaccard: `(frames, m)`.
        judged: By judge, `(judged frames, m)`, the first frame first.
    """

    jaccard: np.ndarray
    judged: dict[Judge, np.ndarray]


def main(_: list[str]) -> None:
    folders = [mask_folders.open_masks(Path(name)) for name in MASKS.value]
    choose, report = (dict(judge_all(flag.value, folders)) for flag in (CHOOSE, REPORT))
    report = {name: one for name, one in report.items() if name not in choose}
    sets = {"choose": choose, "report": report}
    told: dict = {"candidates": names(folders), "stride": STRIDE.value}
    told["sequences"] = {name: list(found) for name, found in sets.items()}
    told["J"] = {name: jaccard(found).tolist() for name, found in sets.items()}
    for which, count in (("first", 1), ("all", None)):
        told[which] = [
            {"judge": judge}
            | {name: summarize(found, judge, count) for name, found in sets.items()}
            for judge in next(iter(choose.values())).judged
        ]
        print_table(which, told[which])
    Path(OUT.value).write_text(json.dumps(told, separators=(",", ":")) + "\n")


def names(folders: list[MaskFolder]) -> list[str]:
    """Name the candidates, methods first."""
    return [folder.root.name + spoiled for spoiled in SPOILED for folder in folders]


def judge_all(root: str, folders: list[MaskFolder]) -> Iterator[tuple[str, Sequence]]:
    """Judge and score every sequence that all folders have."""
    config = align_config.get_config()
    config.align.frames, config.data.layout = root, "davis"
    run = Run(config.lock(), protocol.STAGES)
    moving = align.moving_from_frames(run)
    for clip in find_clips(config.data):
        if all(clip.name in folder.files for folder in folders):
            print(root, clip.name, flush=True)
            masks = [read(folder, clip) for folder in folders]
            judged = collections.defaultdict(list)
            for t in range(0, len(clip.frames), STRIDE.value):
                found = np.stack(list(candidates(masks, t)), axis=-1)
                for judge, values in say(clip, t, found, moving):
                    judged[judge].append(values)
            scores = {judge: np.array(rows) for judge, rows in judged.items()}
            yield clip.name, Sequence(score(config.data, clip, masks), scores)


def read(folder: MaskFolder, clip: Clip) -> list[np.ndarray]:
    """Read a method's masks of a clip."""
    return [folder.read(clip.name, frame.name, clip.size) for frame in clip.frames]


def candidates(masks: list[list[np.ndarray]], t: int) -> Iterator[np.ndarray]:
    for spoil in SPOILED.values():
        for method in masks:
            yield spoil(method, t)


def score(data: ConfigDict, clip: Clip, masks: list[list[np.ndarray]]) -> np.ndarray:
    """Return J by frame and candidate."""
    rows = []
    for t, annotation in annotations.annotated_frames(data, clip).items():
        truth = annotations.read_annotation(annotation)
        rows.append([metrics.jaccard(mask, truth) for mask in candidates(masks, t)])
    return np.array(rows)


def say(
    clip: Clip, t: int, masks: np.ndarray, moving: align.Moving
) -> Iterator[tuple[Judge, np.ndarray]]:
    """Let all judges speak of one frame."""
    frame = clip.read(t)
    found = alignment.CandidateMasks(masks.astype(np.float32), masks)
    by_motion = alignment.judge_by_motion(found, moving(clip, t)).values
    yield ("motion", "-", 0.0), by_motion
    for kind, see in FEATURES.items():
        similar = semantic.mask_similarity(see(frame), found.soft)
        for theta in map(float, THETAS.value):
            matches = alignment.unstack(similar > theta)
            pairs = zip(alignment.unstack(masks), matches, strict=True)
            values = np.array([semantic.alignment_score(*pair) for pair in pairs])
            yield ("semantic", kind, theta), values
            yield ("both", kind, theta), (values + by_motion) / 2


def jaccard(found: dict[str, Sequence]) -> np.ndarray:
    """Return the frame mean J of every candidate."""
    return np.concatenate([one.jaccard for one in found.values()]).mean(0)


def summarize(found: dict[str, Sequence], judge: Judge, first: int | None) -> dict:
    """Compare a judge's ranking with that by J, on some sequences."""
    said = np.mean([s.judged[judge][:first].mean(0) for s in found.values()], axis=0)
    real, count = jaccard(found), len(MASKS.value)
    said_of, real_of = said.reshape(-1, count), real.reshape(-1, count)
    worse = real_of[1:] < real_of[0]
    return {
        "r": correlation(said, real),
        "methods": correlation(said_of[0], real_of[0]),
        "spoiled": float((said_of[1:] < said_of[0])[worse].mean()),
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's; 0 where one side is constant and the rank says nothing."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(stats.spearmanr(a, b).statistic)


def print_table(which: str, rows: list[dict]) -> None:
    columns = ["r", "methods", "spoiled"]
    print(f"\n{which} frames{'':18s}{'choose':>27s}{'report':>27s}")
    print(f"{'score, features, theta':26s}" + "".join(f"{c:>9s}" for c in 2 * columns))
    for row in sorted(rows, key=lambda row: -row["choose"]["r"]):
        score, kind, theta = row["judge"]
        if kind == "-" or theta == OWN[kind]:
            cells = [row[name][c] for name in ("choose", "report") for c in columns]
            numbers = "".join(f"{cell:9.2f}" for cell in cells)
            print(f"{score:9s}{kind:12s}{theta:5.1f}{numbers}")


if __name__ == "__main__":
    app.run(main)
