r"""Which label-free judge picks the channel that annotations would pick.

    python benchmarks/alignment.py --runs=runs/c4_s0,runs/c4_s1,...[--stride=5]

Every run is a workdir of the protocol that got as far as stage discover, on a data set
with annotations. All channels of all kept checkpoints are judged; annotations are read
here, after the judges have spoken, to see how right they were. Columns:

    dataset   checkpoints for which the judge's channel over the whole data set is the
              one with the best J
    clip      the same, choosing for every clip alone
    J, union  mean J over clips of the chosen channel, choosing for every clip alone:
              among channels, and among channels and unions of two
    r         Spearman correlation of score and J over all checkpoints and channels
    top       mean score of the winner: what a label-free sweep of theta maximises
    ms        a judged frame, features included

The first line is what choosing by annotation would give (oracle, no method). Prints one
table for first frames and one for every `stride`-th frame, and writes
benchmarks/results/alignment.json, which benchmarks/figure5.py draws; it also has what
unions gain in every run.
"""

import collections
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import other_features
from absl import app, flags
from ml_collections import ConfigDict
from scipy import stats

from imas_jax import protocol
from imas_jax.appearance import alignment, local_features, semantic
from imas_jax.configs import davis
from imas_jax.data import annotations
from imas_jax.data.clips import Clip
from imas_jax.evaluation import metrics
from imas_jax.runs.run import Run
from imas_jax.stages import align, features, inputs
from imas_jax.stages.predictor import Predictor, to_frame
from imas_jax.tools import tune

RUNS = flags.DEFINE_list("runs", None, "workdirs", required=True)
STRIDE = flags.DEFINE_integer("stride", 5, "frames between those that are scored")
FEATURES = flags.DEFINE_list(
    "features",
    [*local_features.LOCAL, *other_features.LOCAL, "stage1"],
    "frozen features",
)
ROOT = flags.DEFINE_string(
    "root", "", "DAVIS folder with the annotations of runs on one clip's folder"
)
THETAS = flags.DEFINE_list("thresholds", ["0.3", "0.4", "0.5", "0.6", "0.7", "0.8"], "")
CHECKPOINTS = flags.DEFINE_enum("checkpoints", "all", ["all", "last"], "of every run")
OUT = flags.DEFINE_string("out", "benchmarks/results/alignment.json", "JSON file")

# (judge, features, theta)
Judge = tuple[str, str, float]


@dataclasses.dataclass
class Scores:
    """By clip, `(frames, candidates)`: J of one checkpoint, and what judges say."""

    run: str
    step: int
    singles: int
    jaccard: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    judged: dict[Judge, dict[str, np.ndarray]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(dict)
    )


def main(_: list[str]) -> None:
    seconds: dict[Judge, list[float]] = collections.defaultdict(list)
    checkpoints = [scores for run in RUNS.value for scores in score(Path(run), seconds)]
    told = {"runs": RUNS.value, "checkpoints": len(checkpoints), "stride": STRIDE.value}
    told["points"] = [
        point(one, judge) for one in checkpoints for judge in filter(usual, seconds)
    ]
    for which, count in (("first", 1), ("all", None)):
        rows = [summarize(checkpoints, None, count)]
        rows += [summarize(checkpoints, judge, count) for judge in seconds]
        for row in rows:
            row["ms"] = 1000 * float(np.mean(seconds.get(row.pop("judge"), [0.0])))
        print(f"{which} frames, {len(checkpoints)} checkpoints")
        print_table(rows)
        told[which] = rows
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(OUT.value).write_text(json.dumps(told, separators=(",", ":")) + "\n")


def score(workdir: Path, seconds: dict[Judge, list[float]]) -> Iterator[Scores]:
    """Judge and score every checkpoint of one run."""
    config = read_config(workdir)
    run = Run(config.lock(), protocol.STAGES)
    clips = inputs.clips(run, config.evaluate.split)
    moving = align.moving_from_frames(run)
    candidates = alignment.list_candidates(config.model.channels, largest=2)
    opened = tune.predictors(config, workdir)
    if CHECKPOINTS.value == "last":
        opened = collections.deque(opened, maxlen=1)
    for step, predictor in opened:
        print(f"{workdir} step {step}", flush=True)
        scores = Scores(workdir.name, step, config.model.channels)
        for clip in clips:
            truth = annotations.annotated_frames(config.data, clip)
            rows, said = [], collections.defaultdict(list)
            for t, masks in frame_masks(clip, predictor, candidates):
                if t not in truth:
                    continue
                real = annotations.read_annotation(truth[t])
                hard = alignment.unstack(masks.hard)
                rows.append([metrics.jaccard(mask, real) for mask in hard])
                for judge, values, spent in say(run, clip, t, masks, moving):
                    said[judge].append(values)
                    seconds[judge].append(spent)
            scores.jaccard[clip.name] = np.array(rows)
            for judge, values in said.items():
                scores.judged[judge][clip.name] = np.array(values)
        yield scores


def read_config(workdir: Path) -> ConfigDict:
    """Rebuild a run's config from what its stages noted."""
    config = davis.get_config()
    noted = json.loads((workdir / "discover" / "config.json").read_text())["config"]
    known = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in noted.items()
    }
    config.update_from_flattened_dict(known)
    config.workdir = str(workdir)
    config.evaluate.split, config.data.partial = "", True
    if ROOT.value:
        clip = Path(config.data.root).name
        found = {"root": ROOT.value, "layout": "davis", "sequences": (clip,)}
        config.data.update({**found, "split": ""})
    return config


def frame_masks(
    clip: Clip, predictor: Predictor, candidates: tuple[alignment.Candidate, ...]
) -> Iterator[tuple[int, alignment.CandidateMasks]]:
    wanted = range(0, len(clip.frames), STRIDE.value)
    for t, soft in zip(wanted, predictor(clip.read(t) for t in wanted), strict=True):
        yield t, alignment.candidate_masks(to_frame(soft, clip.size), candidates)


def say(
    run: Run,
    clip: Clip,
    t: int,
    masks: alignment.CandidateMasks,
    moving: align.Moving,
) -> Iterator[tuple[Judge, np.ndarray, float]]:
    """Let all judges speak of one frame."""
    start = time.perf_counter()
    by_motion = alignment.judge_by_motion(masks, moving(clip, t)).values
    for_motion = time.perf_counter() - start
    yield ("motion", "-", 0.0), by_motion, for_motion
    for kind in FEATURES.value:
        seen, shared = look(run, clip, t, kind)
        start = time.perf_counter()
        similar = semantic.mask_similarity(seen, masks.soft)
        shared += time.perf_counter() - start
        for theta in map(float, THETAS.value):
            start = time.perf_counter()
            values = np.array(
                [
                    semantic.alignment_score(hard, match)
                    for hard, match in zip(
                        alignment.unstack(masks.hard),
                        alignment.unstack(similar > theta),
                        strict=True,
                    )
                ]
            )
            spent = shared + time.perf_counter() - start
            yield ("semantic", kind, theta), values, spent
            yield ("both", kind, theta), (values + by_motion) / 2, spent + for_motion


_seen: dict[tuple[str, int, str], tuple[np.ndarray, float]] = {}


def look(run: Run, clip: Clip, t: int, kind: str) -> tuple[np.ndarray, float]:
    """Return a frame's features and the seconds they took when first computed."""
    key = (clip.name, t, kind)
    if key in _seen:
        return _seen[key]
    see, frame = extractor(run, kind), clip.read(t)
    start = time.perf_counter()
    found = see(frame), time.perf_counter() - start
    if kind != "stage1":  # of which every run has its own
        _seen[key] = found
    return found


_extractors: dict[tuple[str, str], features.Features] = {}


def extractor(run: Run, kind: str) -> features.Features:
    if kind in other_features.LOCAL:
        return other_features.LOCAL[kind]
    key = (str(run.workdir) if kind == "stage1" else "", kind)
    if key not in _extractors:
        config = run.config.copy_and_resolve_references().unlock()
        config.align.features = kind
        _extractors[key] = features.judging(Run(config, protocol.STAGES))
    return _extractors[key]


def summarize(
    checkpoints: list[Scores], judge: Judge | None, count: int | None
) -> dict:
    """Compare what a judge picks with what annotations pick; None is the oracle."""
    whole, alone, single, union, points, top = [], [], [], [], [], []
    gains: dict[str, list[float]] = collections.defaultdict(list)
    for scores in checkpoints:
        said = scores.jaccard if judge is None else scores.judged[judge]
        n = scores.singles
        means = {name: table[:count].mean(axis=0) for name, table in said.items()}
        real = {name: table.mean(axis=0) for name, table in scores.jaccard.items()}
        mean_score = np.mean([m[:n] for m in means.values()], axis=0)
        mean_real = np.mean([r[:n] for r in real.values()], axis=0)
        whole.append(mean_score.argmax() == mean_real.argmax())
        points += list(zip(mean_score, mean_real, strict=True))
        for name, values in means.items():
            alone.append(values[:n].argmax() == real[name][:n].argmax())
            single.append(real[name][values[:n].argmax()])
            union.append(real[name][values.argmax()])
            gains[f"{scores.run} {scores.step}"].append(union[-1] - single[-1])
            top.append(values[:n].max())
    return {
        "judge": judge,
        "name": "oracle" if judge is None else named(judge),
        "dataset": float(np.mean(whole)),
        "clip": float(np.mean(alone)),
        "J": float(np.mean(single)),
        "union": float(np.mean(union)),
        "r": correlation(np.array(points)),
        "top": float(np.mean(top)),
        "union_gains": {run: float(np.mean(values)) for run, values in gains.items()},
    }


def named(judge: Judge) -> str:
    return "motion" if judge[0] == "motion" else f"{judge[0]} {judge[1]} {judge[2]:.1f}"


def usual(judge: Judge) -> bool:
    """Tell whether theta is the features' own."""
    own = features.THRESHOLDS | other_features.THRESHOLDS
    return judge[0] == "motion" or judge[2] == own[judge[1]]


def point(scores: Scores, judge: Judge) -> dict:
    """Return what figure5.py draws: mean score and J of every channel."""
    said, n = scores.judged[judge], scores.singles
    return {
        "run": scores.run,
        "step": scores.step,
        "judge": named(judge),
        "scores": np.mean([t[:, :n].mean(axis=0) for t in said.values()], 0).tolist(),
        "J": np.mean(
            [t[:, :n].mean(axis=0) for t in scores.jaccard.values()], 0
        ).tolist(),
    }


def correlation(points: np.ndarray) -> float:
    """Spearman's; 0 where one side is constant and the rank says nothing."""
    if (np.ptp(points, axis=0) == 0).any():
        return 0.0
    return float(stats.spearmanr(points[:, 0], points[:, 1]).statistic)


def print_table(rows: list[dict]) -> None:
    columns = ["dataset", "clip", "J", "union", "r", "top", "ms"]
    print(f"{'judge, features, theta':28s}" + "".join(f"{c:>9s}" for c in columns))
    oracle, *others = rows
    for row in [oracle, *sorted(others, key=lambda row: -row["J"])]:
        numbers = "".join(f"{row[c]:9.3f}" for c in columns[:-1])
        print(f"{row['name']:28s}{numbers}{row['ms']:9.1f}")


if __name__ == "__main__":
    app.run(main)
