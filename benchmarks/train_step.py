"""One training step of stage 1, ResNet-50 at output stride 8: here and in PyTorch.

    python benchmarks/train_step.py                              # a CPU
    python benchmarks/train_step.py --cases=16x384 --precisions=float32,bfloat16 \
        --torch=False --profile=trace                            # an accelerator

A step is forward, backward and update on given samples (no augmentation). The PyTorch
twin (`step_torch.py`, channels last, extra `bench`; left out where torch is not
installed) starts from the same weights and must give the same loss and the same
parameters' change at a small size before anything is timed. Every round then runs both
once, on as many threads, so that whatever else the machine does falls on both alike.

Compile time is apart. Memory: what XLA says the program holds at its peak, and the
resident peak of a process of its own that only runs this case (device memory on an
accelerator). FLOP/s come from XLA's count for our step, for both engines (the twin
convolves merged features at their full size, as anyone would write it; ours does the
same with a fifth fewer operations, `layers.MergingConv`); the share is of the best
matrix product measured here in the same precision. On an accelerator both may round
float32 products to TF32. Prints one table, writes a JSON file.
"""

import concurrent.futures
import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

# Peaks would else show what JAX reserves, not what it uses.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plain_config  # before anything that reads a config
from absl import app, flags
from flax import traverse_util

from imas_jax.configs import davis
from imas_jax.conventions import Sample
from imas_jax.models import imas
from imas_jax.training import state as states
from imas_jax.training import steps

del plain_config
CASES = flags.DEFINE_list("cases", ["1x384", "4x192"], "pairs x crop side")
PRECISIONS = flags.DEFINE_list("precisions", ["float32"], "float32, bfloat16")
ROUNDS = flags.DEFINE_integer("rounds", 7, "times each engine runs; the median counts")
TORCH = flags.DEFINE_bool("torch", True, "compare with the twin where there is torch")
CHECK = flags.DEFINE_bool("check", True, "check first that the twin is one")
MEMORY = flags.DEFINE_bool("memory", True, "measure peak memory, a process a case")
PROFILE = flags.DEFINE_string("profile", "", "folder for a jax.profiler trace")
OUT = flags.DEFINE_string("out", "benchmarks/results/train_step.json", "JSON file")


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing to time: engine ("imas_jax" or "torch"), pairs, crop and precision."""

    engine: str
    pairs: int
    side: int
    precision: str

    @property
    def label(self) -> str:
        """Return the table's first columns."""
        size = f"{self.pairs} x {self.side}"
        return f"{self.engine:9s} {size:9s} {self.precision:9s}"


@dataclasses.dataclass(frozen=True)
class Runner:
    """A case ready to run.

    Attributes:
        step: Takes one step and waits for it; returns the loss.
        compile_seconds: Spent on tracing and compiling.
        flops: Of a step, by XLA's count; None for the twin.
        peak_mib: Arguments and temporaries of the program; None for the twin.
    """

    step: Callable[[], float]
    compile_seconds: float = 0.0
    flops: float | None = None
    peak_mib: float | None = None


def main(_: list[str]) -> None:
    with_torch = TORCH.value and importlib.util.find_spec("torch") is not None
    engines = ("imas_jax", "torch") if with_torch else ("imas_jax",)
    if with_torch and CHECK.value:
        check_twin()
    rows = []
    for precision in PRECISIONS.value:
        peak = matmul_peak(precision)
        print(f"matrix product, {precision}: {peak / 1e9:.0f} GFLOP/s", flush=True)
        for name in CASES.value:
            pairs, side = (int(number) for number in name.split("x"))
            group = [Case(engine, pairs, side, precision) for engine in engines]
            rows += measure(group, peak)
    report = {
        "rounds": ROUNDS.value,
        "device": jax.devices()[0].device_kind,
        "threads": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "versions": {"jax": jax.__version__, **torch_version(with_torch)},
        "rows": rows,
    }
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(OUT.value).write_text(json.dumps(report, indent=1) + "\n")


def measure(group: list[Case], peak: float) -> list[dict]:
    """Time the cases of a group in turn, print their rows and return them.

    Args:
        group: The same step on each engine.
        peak: FLOP/s of the best matrix product.
    """
    runners = {case: make_runner(case) for case in group}
    for runner in runners.values():
        runner.step()
    rounds = [
        {case: seconds(runner.step) for case, runner in runners.items()}
        for _ in range(ROUNDS.value)
    ]
    if PROFILE.value:
        with jax.profiler.trace(PROFILE.value):
            runners[group[0]].step()
    resident = {case: peak_in_a_process(case) if MEMORY.value else 0 for case in group}
    print(
        "engine    step      precision   s/step  pairs/s  GFLOP/s  of peak  compile s"
        "  XLA MiB  peak MiB  of torch"
    )
    rows, flops = [], runners[group[0]].flops
    for case, runner in runners.items():
        median = statistics.median(each[case] for each in rounds)
        twin = dataclasses.replace(case, engine="torch")
        row = {
            **dataclasses.asdict(case),
            "seconds": median,
            "pairs_per_second": case.pairs / median,
            "flops": flops,
            "flops_per_second": flops / median,
            "share_of_matmul_peak": flops / median / peak,
            "compile_seconds": runner.compile_seconds,
            "xla_peak_mib": runner.peak_mib,
            "process_peak_mib": resident[case],
            "seconds_of_each_round": [each[case] for each in rounds],
            "time_relative_to_torch": statistics.median(
                each[case] / each[twin] for each in rounds
            )
            if twin in runners
            else None,
        }
        rows.append(row)
        show(case, row)
    return rows


def show(case: Case, row: dict) -> None:
    """Print a row."""
    ratio = row["time_relative_to_torch"]
    print(
        f"{case.label} {row['seconds']:8.3f} {row['pairs_per_second']:8.2f} "
        f"{row['flops_per_second'] / 1e9:8.0f} "
        f"{100 * row['share_of_matmul_peak']:6.0f} % {row['compile_seconds']:10.1f} "
        f"{row['xla_peak_mib'] or 0:8.0f} {row['process_peak_mib']:9.0f}  "
        + (f"{ratio:8.2f}" if ratio else ""),
        flush=True,
    )


def seconds(run: Callable[[], float]) -> float:
    """Run once and return the time it takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def make_runner(case: Case) -> Runner:
    """Build a case's network, optimiser and sample."""
    config = davis.get_config()
    config.precision = case.precision
    sample = make_sample(config, case.pairs, case.side)
    if case.engine == "torch":
        return torch_runner(config, sample)
    return jax_runner(config, sample)


def jax_runner(config, sample: Sample) -> Runner:
    """Compile our step."""
    model, optimizer = imas.make_model(config), make_optimizer(config)
    gradient = jax.grad(steps.make_loss(model, config, "discover"), has_aux=True)

    def step(state: states.TrainState, sample: Sample):
        key = jax.random.fold_in(jax.random.key(0), state.step)
        grads, (metrics, stats) = gradient(state.params, state.batch_stats, sample, key)
        return steps.apply_gradients(state, grads, stats, optimizer, 0.0), metrics

    variables = jax.device_put(initial_variables())
    state = states.create_state(variables, optimizer, seed=0, ema=0.0)
    sample = jax.device_put(sample)
    start = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, sample).compile()
    compile_seconds = time.perf_counter() - start
    held, memory = [state], compiled.memory_analysis()

    def run() -> float:
        held[0], metrics = compiled(held[0], sample)
        return float(jax.block_until_ready((held[0], metrics))[1]["loss"])

    return Runner(
        run,
        compile_seconds,
        compiled.cost_analysis()["flops"],
        (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**20,
    )


def torch_runner(
    config, sample: Sample, tf32: bool = True, compiled: bool = False
) -> Runner:
    """Prepare the twin's step.

    Args:
        config: The recipe.
        sample: What it learns from.
        tf32: Whether float32 products may be rounded on an accelerator, as in XLA.
        compiled: By torch.compile; else eager.
    """
    import torch

    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    step = torch_step(config, device, compiled)
    arrays = twin_sample(sample, device)

    def run() -> float:
        loss = step(*arrays)
        if device == "cuda":
            torch.cuda.synchronize()
        return float(loss)

    return Runner(run)


def torch_step(config, device: str, compiled: bool = False):
    """Return the twin's step from the weights we start with."""
    import step_torch

    trees = initial_variables()
    params, stats = (
        {
            "/".join(name): step_torch.tensor_of(leaf).to(device)
            for name, leaf in traverse_util.flatten_dict(trees[kind]).items()
        }
        for kind in ("params", "batch_stats")
    )
    return step_torch.make_step(
        params, stats, config, config.precision, config.model.dropout, compiled
    )


def twin_sample(sample: Sample, device: str):
    """Return frames (t of all pairs, then t + 1) and both flows, channels last."""
    import torch

    frames = np.moveaxis(sample.frames, 1, 0).reshape(-1, *sample.frames.shape[2:])
    return [
        torch.from_numpy(np.ascontiguousarray(array)).to(device).permute(0, 3, 1, 2)
        for array in (frames, sample.flow_forward, sample.flow_backward)
    ]


def check_twin() -> None:
    """Refuse to time a twin that does something else."""
    config = davis.get_config()
    config.model.dropout = 0.0
    sample = make_sample(config, pairs=2, side=64)
    ours = jax_runner(config, sample).step
    step = torch_step(config, "cpu")
    arrays = twin_sample(sample, "cpu")
    # The second loss depends on every gradient of the first step.
    for _ in range(2):
        loss, twin = ours(), float(step(*arrays))
        print(f"twin: loss {twin:.6f}, ours {loss:.6f}", flush=True)
        if abs(loss - twin) > 1e-3 * abs(loss):
            raise SystemExit("step_torch.py is another network: nothing is timed")


@functools.cache
def initial_variables() -> dict:
    """Draw the weights that both engines start from (He's variance; no zero scales)."""
    config, rng = davis.get_config(), np.random.default_rng(0)
    model = imas.make_model(config)
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 2, 64, 64, 3)))

    def draw(path, leaf) -> np.ndarray:
        kind = path[-1].key
        if kind == "kernel":
            spread = (2 / np.prod(leaf.shape[:-1])) ** 0.5
            return rng.normal(0, spread, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, {"scale": 0.5, "var": 1.0}.get(kind, 0), np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def make_optimizer(config) -> optax.GradientTransformation:
    """Build stage 1's optimiser at a constant rate, which the twin has too."""
    return states.make_optimizer(
        config.discover.learning_rate, config.discover.weight_decay
    )


def make_sample(config, pairs: int, side: int) -> Sample:
    """Make up normalised frames and flow of a few pixels."""
    rng = np.random.default_rng(0)
    size = imas.mask_size(config.model, (side, side))
    frames = rng.normal(size=(pairs, 2, side, side, 3)).astype(np.float32)
    flow = rng.normal(0, 4, size=(2, pairs, *size, 2)).astype(np.float32)
    return Sample(frames, flow[0], flow[1], None)


def matmul_peak(precision: str, sizes: tuple[int, ...] | None = None) -> float:
    """Return the FLOP/s of the best of some square matrix products."""
    if sizes is None:
        cpu = jax.default_backend() == "cpu"
        sizes = (1024, 2048, 4096) if cpu else (4096, 8192)
    multiply, best = jax.jit(jnp.matmul), 0.0
    for n in sizes:
        a = jnp.ones((n, n), precision)
        multiply(a, a).block_until_ready()
        for _ in range(3):
            start = time.perf_counter()
            multiply(a, a).block_until_ready()
            best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


def peak_in_a_process(case: Case) -> float:
    """Return the MiB a few steps add at their peak, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(peak_memory, case).result()


def peak_memory(case: Case) -> float:
    """Take two steps and return the MiB they held at most, compilation included."""
    before = resident("VmRSS")
    runner = make_runner(case)
    runner.step()
    runner.step()
    if jax.default_backend() == "cpu":
        return resident("VmHWM") - before
    if case.engine == "imas_jax":
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    import torch

    return torch.cuda.max_memory_allocated() / 2**20


def resident(field: str) -> float:
    """Return a line of this process's memory statistics (Linux), in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


def torch_version(installed: bool) -> dict[str, str]:
    """Return PyTorch's version where it takes part."""
    return {"torch": importlib.metadata.version("torch")} if installed else {}


if __name__ == "__main__":
    app.run(main)
