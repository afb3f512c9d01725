"""The parts of `accelerator.py`, each run in a process of its own.

    python benchmarks/accelerator_parts.py crf --seconds=20 --rows=crf.jsonl

What a part finds is appended to `--rows`, one JSON object a line, as soon as it is
found. A case that fails is a row that says so. Cases stand in the order of what is
asked first; those that time does not reach are rows too. Sizes, networks and twins are
those of the other benchmarks, which are imported.
"""

import argparse
import contextlib
import gc
import glob
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# What a case needs shall be free for the next.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

HERE = Path(__file__).parent
SIDE, FRAME = 384, (480, 854)  # of a crop (paper), and (h, w) of DAVIS
PAIRS = (16, 64, 8, 32)
PRECISIONS = ("bfloat16", "tf32", "float32")
# Of one device, dense, by its maker's data sheet; of others the best matrix product
# measured here stands in. H100 and H200 SXM5 have the same arithmetic.
PEAKS = {"float32": 67e12, "tf32": 494.7e12, "bfloat16": 989.4e12}
KNOWN = ("H100", "H200")
ROUNDS = 20
TOP = 10


class Rows:
    """Where a part's findings go, and how long it has.

    Args:
        path: File of JSON lines.
        seconds: For the part.
    """

    def __init__(self, path: Path, seconds: float):
        self._path, self._end = path, time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._end - time.monotonic()

    def add(self, **row: object) -> None:
        """Write a row, and say it."""
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()

    def cases(self, cases: Sequence[dict]) -> Iterator[dict]:
        """Yield cases as long as there is time for one like those before."""
        longest, begun = 0.0, time.monotonic()
        for case in cases:
            if self.left() < longest:
                self.add(**case, skipped="no time left for it")
                continue
            yield case
            begun, took = time.monotonic(), time.monotonic() - begun
            longest = max(longest, took)

    @contextlib.contextmanager
    def trying(self, **case: object) -> Iterator[None]:
        """Let a case fail alone."""
        try:
            yield
        except Exception as error:  # of whatever library: out of memory above all
            first = (str(error).splitlines() or [""])[0]
            self.add(**case, failed=f"{type(error).__name__}: {first[:200]}")
        gc.collect()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=sorted(RUN))
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--data", default="")
    parser.add_argument("--recipe", default="davis:runlocal")
    parser.add_argument("--miniature", action="store_true")
    given = parser.parse_args()
    rows = Rows(Path(given.rows), given.seconds)
    try:
        RUN[given.part](rows, given)
    except ImportError as error:
        rows.add(skipped=f"not installed: {error}")


def steps(rows: Rows, given: argparse.Namespace) -> None:
    """Time our training step; trace the first case."""
    import jax
    import train_step

    rows.add(device=jax.devices()[0].device_kind, jax=jax.__version__)
    peaks: dict[str, float] = {}
    for number, case in enumerate(rows.cases(step_cases(given))):
        precision, pairs, side = case["precision"], case["pairs"], case["side"]
        with rows.trying(engine="imas_jax", **case), exactly(precision):
            if precision not in peaks:
                peaks[precision] = peak_of(precision, given.miniature)
            config = train_step.davis.get_config()
            config.precision = short(precision)
            sample = train_step.make_sample(config, pairs, side)
            runner = train_step.jax_runner(config, sample)
            seconds = timed(runner.step, rows.left())
            flops = flops_of(pairs, side) or runner.flops
            rows.add(
                engine="imas_jax",
                **case,
                seconds=seconds,
                compile_seconds=runner.compile_seconds,
                flops=flops,
                share_of_peak=flops / seconds / peaks[precision],
                peak_flops=peaks[precision],
                xla_peak_mib=runner.peak_mib,
            )
            if number == 0:
                for name, share in traced(runner.step):
                    rows.add(operation=name, share_of_time=share, **case)


def twin(rows: Rows, given: argparse.Namespace) -> None:
    """Time the PyTorch twin's step, eager and compiled."""
    if importlib.util.find_spec("torch") is None:
        rows.add(skipped="torch is not installed: pip install -e '.[bench]'")
        return
    import torch
    import train_step

    rows.add(torch=torch.__version__, cuda=torch.cuda.is_available())
    both = [
        {"engine": engine, **case}
        for case in step_cases(given)
        for engine in ("torch", "torch.compile")
    ]
    for case in rows.cases(both):
        with rows.trying(**case):
            config = train_step.davis.get_config()
            config.precision = short(case["precision"])
            sample = train_step.make_sample(config, case["pairs"], case["side"])
            runner = train_step.torch_runner(
                config,
                sample,
                tf32=case["precision"] != "float32",
                compiled=case["engine"] == "torch.compile",
            )
            rows.add(**case, seconds=timed(runner.step, rows.left()))


def step_cases(given: argparse.Namespace) -> list[dict]:
    """List what is timed of a step, what is asked first in front."""
    pairs, side = ((1,), 64) if given.miniature else (PAIRS, SIDE)
    return [
        {"precision": precision, "pairs": count, "side": side}
        for count in pairs
        for precision in PRECISIONS
    ]


def raft(rows: Rows, given: argparse.Namespace) -> None:
    """Time RAFT of both sizes, ours and, where there is torch, the twin."""
    import flow

    size, refinements = ((64, 64), 2) if given.miniature else (FRAME, 12)
    batches = (1,) if given.miniature else (1, 4)
    with_torch = importlib.util.find_spec("torch") is not None
    if not with_torch:
        rows.add(skipped="the twin: torch is not installed")
    cases = [
        {"engine": engine, "network": net, "precision": precision, "batch": batch}
        for batch, net, precision, engine in itertools.product(
            batches,
            ("small", "large"),
            ("float32", "bfloat16"),
            ("imas_jax", "torch") if with_torch else ("imas_jax",),
        )
        if engine == "imas_jax" or precision == "float32"
    ]
    with tempfile.TemporaryDirectory() as folder:
        weights = {
            net: flow.random_weights(net, Path(folder)) for net in ("small", "large")
        }
        for case in rows.cases(cases):
            with rows.trying(**case):
                wanted = flow.Case(iterations=refinements, ways=2, **case)
                runner = flow.make_runner(wanted, weights, size)
                seconds = timed(runner, rows.left())
                rows.add(
                    **case,
                    refinements=refinements,
                    pairs_a_second=case["batch"] / seconds,
                )


def crf(rows: Rows, given: argparse.Namespace) -> None:
    """Time the dense CRF where it runs."""
    import crf as benchmark

    rows.add(note="the CRF runs on the host: there is no solver for a device")
    size = (48, 64) if given.miniature else FRAME
    pairs = benchmark.photographs(size, 2)
    presets = [{"preset": name} for name in benchmark.PRESETS]
    for case in rows.cases(presets):
        with rows.trying(**case):
            seconds = timed(
                lambda name=case["preset"]: benchmark.crf.refine(*pairs[0], name),
                rows.left(),
            )
            rows.add(**case, seconds_a_frame=seconds, processes=1)


def predict(rows: Rows, given: argparse.Namespace) -> None:
    """Time masks of frames that are in memory: to the device, through it, and back."""
    import numpy as np
    import train_step

    from imas_jax.models import imas
    from imas_jax.stages.predictor import Predictor

    size = (48, 64) if given.miniature else FRAME
    frame = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    batches = (1,) if given.miniature else (4, 16)
    cases = [
        {"precision": precision, "batch": batch}
        for batch in batches
        for precision in ("bfloat16", "float32")
    ]
    for case in rows.cases(cases):
        with rows.trying(**case):
            config = train_step.davis.get_config()
            config.precision = case["precision"]
            config.predict.batch_size = case["batch"]
            config.predict.short_side = min(config.predict.short_side, size[0])
            variables = train_step.initial_variables()
            predictor = Predictor(imas.make_model(config), variables, config.predict)
            frames = [frame] * case["batch"]
            seconds = timed(lambda p=predictor, f=frames: list(p(f)), rows.left())
            rows.add(**case, frames_a_second=case["batch"] / seconds)


def train(rows: Rows, given: argparse.Namespace) -> None:
    """Train on real clips as long as there is time, and score the masks.

    A short run tells how long a step takes; the whole one has as many as then fit in
    three quarters of what is left: starting again, masks and scores take time too.
    """
    if not given.data:
        rows.add(skipped="no data: --data=DAVIS")
        return
    few, start = 4 if given.miniature else 40, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        ours = [f"--config={given.recipe}", f"--config.data.root={given.data}"]
        ours += [f"--config.flow.root={folder}/flow", "--config.watch.images_every=0"]
        probe, whole = Path(folder) / "probe", Path(folder) / "whole"
        go(rows, probe, *ours, f"--config.discover.steps={few}", stage="discover")
        timing = json.loads((probe / "discover/timing.json").read_text())
        step = timing["seconds"] / max(timing["steps"], 1)
        rows.add(
            recipe=given.recipe,
            seconds_before_training=time.monotonic() - start - timing["seconds"],
            seconds_a_step=step,
            waiting=timing["waiting"],
        )
        count = few if given.miniature else max(int(0.75 * rows.left() / step), few)
        second = max(count // 5, 2)  # as the recipe has it, of stage 2
        first = count - second
        ours += [
            f"--config.discover.steps={first}",
            f"--config.refine.steps={second}",
            f"--config.watch.jaccard_every={max(first // 4, 1)}",
        ]
        try:
            go(rows, whole, *ours, stage="evaluate")
        finally:  # what was seen on the way stays, whatever became of it
            for line in lines_of(whole / "discover/watched.jsonl"):
                rows.add(watched=json.loads(line))
        told = json.loads((whole / "evaluate/metrics.json").read_text())
        for method in told["methods"]:
            score = method["protocols"]["frame_mean"]["jaccard"]["mean"]
            rows.add(masks=method["label"], J=score, steps=[first, second])


def go(rows: Rows, workdir: Path, *arguments: str, stage: str) -> None:
    """Run our own command, at most until the part's time is over."""
    ours = [f"--config.stage={stage}", f"--config.workdir={workdir}"]
    command = [sys.executable, "-m", "imas_jax.main", *arguments, *ours]
    subprocess.run(command, check=True, timeout=max(rows.left(), 1.0))


def lines_of(path: Path) -> list[str]:
    """Return a file's lines, none if it is not there."""
    return path.read_text().splitlines() if path.is_file() else []


def timed(run: Callable[[], object], left: float) -> float:
    """Return the median seconds of some runs, after one that compiles."""
    run()
    end, found = time.monotonic() + min(left / 2, 5.0), []
    while not found or (len(found) < ROUNDS and time.monotonic() < end):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


@contextlib.contextmanager
def exactly(precision: str) -> Iterator[None]:
    """Multiply float32 as it is, or by TF32; of bfloat16 it changes nothing."""
    import jax

    how = {"float32": "highest", "tf32": "tensorfloat32"}.get(precision)
    with jax.default_matmul_precision(how) if how else contextlib.nullcontext():
        yield


def short(precision: str) -> str:
    """Return the config's word for a precision."""
    return "bfloat16" if precision == "bfloat16" else "float32"


def peak_of(precision: str, miniature: bool) -> float:
    """Return FLOP/s: the maker's, or of the best matrix product here."""
    import jax
    import train_step

    kind = jax.devices()[0].device_kind
    if any(name in kind for name in KNOWN):
        return PEAKS[precision]
    return train_step.matmul_peak(short(precision), (256,) if miniature else None)


def flops_of(pairs: int, side: int) -> float | None:
    """Return a step's operations by `scale.py`'s count, None for another size.

    Where libraries do the work, XLA counts none of it.
    """
    if side != SIDE:
        return None
    told = json.loads((HERE / "results/scale.json").read_text())["measured"]
    return pairs * told["of_a_pair"]["flops"] + told["of_a_step"]["flops"]


def traced(run: Callable[[], object]) -> list[tuple[str, float]]:
    """Return the ten operations that take longest in a run, with their shares."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        return longest(jax.profiler.ProfileData.from_file(path))


def longest(profile) -> list[tuple[str, float]]:
    """Add up a trace's operations: the device's, on a CPU those of XLA's threads."""
    planes = list(profile.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    total: dict[str, float] = {}
    for plane in devices or planes:
        for line in plane.lines:
            if devices and "Stream" not in line.name and line.name != "XLA Ops":
                continue
            if not devices and "XLA" not in line.name:
                continue
            for event in line.events:
                if "::" in event.name:  # of XLA itself, around the operations
                    continue
                total[event.name] = total.get(event.name, 0.0) + event.duration_ns
    whole = sum(total.values())
    ranked = sorted(total.items(), key=lambda item: -item[1])[:TOP]
    return [(name, spent / whole) for name, spent in ranked]


RUN = {
    "steps": steps,
    "twin": twin,
    "raft": raft,
    "crf": crf,
    "predict": predict,
    "train": train,
}

if __name__ == "__main__":
    main()
