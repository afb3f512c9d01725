"""Optical flow: RAFT here, RAFT in PyTorch, and DIS; alternately, in one run.

    python benchmarks/flow.py --small_weights=raft-small.pth

On a CPU it compares with the official code's arithmetic (`raft_torch.py`; needs the
extra `bench`, and is left out where torch is not installed): every round runs every
case once, so that whatever else the machine does falls on all alike. "one way" is the
flow 0 -> 1, what the official code computes in a call; "both" is what the flow stage
needs of a pair: one call here, two calls there. On an accelerator it sweeps precision
and batch size instead. Weights are random where none are given; frames are made up.

Compile time is the first call's beyond a later one's. Peak memory is measured in a
process of its own, compilation included: resident on a CPU, device memory elsewhere.
Prints one table and writes benchmarks/results/flow.json.
"""

import concurrent.futures
import dataclasses
import functools
import importlib.util
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# Peaks would else show what JAX reserves, not what it uses.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import cv2
import jax
import numpy as np
from absl import app, flags
from flax import traverse_util

from imas_jax.flow import estimators, raft, raft_layers, raft_weights

SIZE = flags.DEFINE_list("size", ["480", "854"], "h,w of the frames")
NETWORKS = flags.DEFINE_list("networks", ["small", "large"], "small, large")
ITERATIONS = flags.DEFINE_list("iterations", ["12", "20"], "refinements")
ROUNDS = flags.DEFINE_integer("rounds", 5, "times each case runs; the median counts")
BATCHES = flags.DEFINE_list("batches", ["1", "2", "4", "8"], "on an accelerator")
SMALL = flags.DEFINE_string("small_weights", "", "RAFT-small under official names")
LARGE = flags.DEFINE_string("large_weights", "", "RAFT-large under official names")
MEMORY = flags.DEFINE_bool("memory", True, "measure peak memory, a process a case")
OUT = flags.DEFINE_string("out", "benchmarks/results/flow.json", "JSON file")


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes:
        engine: "imas_jax", "torch" (one way or both) or "dis" (both).
        network: small, large, or "" for DIS.
    """

    engine: str
    network: str
    iterations: int
    ways: int
    precision: raft.Precision = "float32"
    batch: int = 1

    @property
    def label(self) -> str:
        """Return the table's first columns."""
        ways = "one way" if self.ways == 1 else "both"
        return (
            f"{self.engine:9s} {self.network or '-':6s} {self.iterations or '-':>3} "
            f"{ways:8s} {self.precision:9s} {self.batch:5d}"
        )


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        weights = {
            network: Path(given) if given else random_weights(network, Path(folder))
            for network, given in (("small", SMALL.value), ("large", LARGE.value))
            if network in NETWORKS.value
        }
        size = (int(SIZE.value[0]), int(SIZE.value[1]))
        rows = []
        for group in groups():
            rows += measure(group, weights, size)
            if MEMORY.value:
                for row in rows[-len(group) :]:
                    row["peak_mib"] = peak_in_a_process(row["case"], weights, size)
    for row in rows:
        row["case"] = dataclasses.asdict(row["case"])
    report = {
        "size": list(size),
        "rounds": ROUNDS.value,
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "jax": jax.__version__,
        "weights": {
            network: "random" if path.suffix == ".npz" else path.name
            for network, path in weights.items()
        },
        "rows": rows,
    }
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(OUT.value).write_text(json.dumps(report, indent=1) + "\n")


def groups() -> list[list[Case]]:
    """Return the cases; those of one group run alternately."""
    found = [[Case("dis", "", 0, 2)]]
    settings = itertools.product(NETWORKS.value, map(int, ITERATIONS.value))
    for network, iterations in settings:
        if jax.default_backend() != "cpu":
            sweep = itertools.product(("float32", "bfloat16"), map(int, BATCHES.value))
            found.append(
                [Case("imas_jax", network, iterations, 2, *each) for each in sweep]
            )
            continue
        with_torch = importlib.util.find_spec("torch") is not None
        engines = ("imas_jax", "torch") if with_torch else ("imas_jax",)
        found.append(
            [
                Case(engine, network, iterations, ways)
                for ways, engine in itertools.product((1, 2), engines)
            ]
        )
    return found


def measure(
    group: list[Case], weights: dict[str, Path], size: tuple[int, int]
) -> list[dict]:
    """Time the cases of a group in turn, print their rows and return them."""
    runners = {case: make_runner(case, weights, size) for case in group}
    first = {case: seconds(runner) for case, runner in runners.items()}
    rounds = [
        {case: seconds(runner) for case, runner in runners.items()}
        for _ in range(ROUNDS.value)
    ]
    print(
        f"{'engine':9s} {'net':6s} {'it':>3} {'flow':8s} {'precision':9s} batch "
        "   s/pair  pairs/s  first call s  of torch"
    )
    rows = []
    for case in group:
        median = statistics.median(each[case] for each in rounds)
        twin = dataclasses.replace(case, engine="torch")
        ratio = None
        if twin in runners:
            ratio = statistics.median(each[case] / each[twin] for each in rounds)
        row = {
            "case": case,
            "seconds_per_pair": median / case.batch,
            "pairs_per_second": case.batch / median,
            "compile_seconds": max(first[case] - median, 0.0),
            "seconds_of_each_round": [each[case] for each in rounds],
            "time_relative_to_torch": ratio,
        }
        rows.append(row)
        print(
            f"{case.label} {row['seconds_per_pair']:9.3f} "
            f"{row['pairs_per_second']:8.2f} {first[case]:13.2f}  "
            + (f"{ratio:8.2f}" if ratio else ""),
            flush=True,
        )
    return rows


def seconds(runner: Callable[[], object]) -> float:
    """Run once and return the time it takes."""
    start = time.perf_counter()
    runner()
    return time.perf_counter() - start


def make_runner(
    case: Case, weights: dict[str, Path], size: tuple[int, int]
) -> Callable[[], object]:
    """Return a function that computes the case's flow and waits for it."""
    frames = [np.stack([frame] * case.batch) for frame in make_frames(size)]
    if case.engine == "dis":
        return functools.partial(estimators.Dis(), *frames)
    path = weights[case.network]
    if case.engine == "torch":
        return torch_runner(case, path, frames)
    if case.ways == 2:
        estimator = raft.make_raft(path, case.iterations, case.precision, "volume")
        return functools.partial(estimator.batch, *frames)
    network, (_, variables) = raft.Raft(case.network), raft.load_weights(path)

    @jax.jit
    def one_way(variables, frame0, frame1):
        prepared = raft.prepare(frame0), raft.prepare(frame1)
        flow = network.apply(variables, *prepared, case.iterations)
        return raft.unpad(flow, size)

    variables = jax.device_put(variables)
    return lambda: one_way(variables, *frames).block_until_ready()


def torch_runner(
    case: Case, path: Path, frames: list[np.ndarray]
) -> Callable[[], object]:
    """Return the same for the PyTorch twin."""
    import raft_torch
    import torch

    torch.set_grad_enabled(False)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    torch.set_default_device(device)  # of what the twin makes itself, too
    tensors = raft.torch_files.read_checkpoint(path)
    state = {
        name.removeprefix("module."): torch.from_numpy(np.ascontiguousarray(tensor)).to(
            device
        )
        for name, tensor in tensors.items()
    }
    first, second = (
        torch.from_numpy(frame).to(device).permute(0, 3, 1, 2).float()
        for frame in frames
    )

    def run() -> None:
        raft_torch.raft(state, first, second, case.iterations)
        if case.ways == 2:
            raft_torch.raft(state, second, first, case.iterations)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def make_frames(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return smooth noise, and the same moved by a few pixels."""
    h, w = size
    noise = np.random.default_rng(0).uniform(0, 255, (h + 8, w + 8, 3))
    blurred = 127 + 6 * (cv2.GaussianBlur(noise, (0, 0), 3) - 127)
    picture = np.clip(blurred, 0, 255).astype(np.uint8)
    return picture[:h, :w].copy(), picture[3 : h + 3, 5 : w + 5].copy()


def random_weights(network: raft_layers.Size, folder: Path) -> Path:
    """Write random weights under official names."""
    frames = np.zeros((1, 64, 64, 3), np.float32)
    init = functools.partial(raft.Raft(network).init, iterations=1)
    variables = jax.jit(init)(jax.random.key(0), frames, frames)
    names = raft_weights.foreign_names(variables, network, "official")
    tensors = {}
    for path, leaf in traverse_util.flatten_dict(variables).items():
        tensor = np.asarray(leaf)
        tensor = tensor.transpose(3, 2, 0, 1) if tensor.ndim == 4 else tensor
        # Flow that explodes would leave the frame, and windows would read nothing.
        tensors[names[path]] = tensor * np.float32(
            0.01 if "flow_head.conv2" in names[path] else 1
        )
    np.savez(folder / f"{network}.npz", **tensors)
    return folder / f"{network}.npz"


def peak_in_a_process(
    case: Case, weights: dict[str, Path], size: tuple[int, int]
) -> float | None:
    """Return the MiB a first call adds at its peak, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        peak = pool.submit(peak_memory, case, weights, size).result()
    print(f"{case.label} {'peak' if peak else 'no peak known'} {peak or 0:9.0f} MiB")
    return peak


def peak_memory(
    case: Case, weights: dict[str, Path], size: tuple[int, int]
) -> float | None:
    """Run once and return the MiB it added at most."""
    runner = make_runner(case, weights, size)
    before = resident("VmRSS")
    runner()
    stats = jax.devices()[0].memory_stats() if case.engine == "imas_jax" else None
    if stats:
        return stats["peak_bytes_in_use"] / 2**20
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """Return a line of this process's memory statistics (Linux), in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    app.run(main)
