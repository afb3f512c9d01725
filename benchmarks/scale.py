"""What a training step costs on hardware that is not here: from the compiled program.

    python benchmarks/scale.py

Compiles stage 1's step of `configs/davis.py` (ResNet-50, crops of 384x384, with
augmentation, optimiser and statistics over devices) for one and for two pairs, runs
nothing, and takes from XLA: floating-point operations, bytes the program reads and
writes, and memory. What two pairs add to one is a pair's share; the rest is the step's.
From these, and from what makers say of their hardware (`HARDWARE`), it derives the
least time of a step, what a device must hold, what it must be fed, and what goes over
the network, for 16 to 1024 pairs.

It is a bound, not a forecast: a device reaches neither its peak arithmetic nor its peak
bandwidth, and XLA fuses differently there, so that bytes are those of the CPU's program
(in bfloat16 half of a pair's are assumed; a step's own stay float32). Writes
benchmarks/results/scale.json and prints the tables of docs/scale.md.
"""

import dataclasses
import json
import platform
import re
from pathlib import Path

import jax
import numpy as np
import plain_config  # before anything that reads a config
from absl import app, flags

from configs import davis
from imas_jax.conventions import Batch
from imas_jax.models import imas
from imas_jax.training import parallel, steps
from imas_jax.training import state as states

del plain_config
FROM = flags.DEFINE_string("from", "", "take what was measured from this JSON file")
OUT = flags.DEFINE_string("out", "benchmarks/results/scale.json", "JSON file")
FRAME = (480, 854)  # (h, w) of DAVIS 480p
PAIRS = (16, 64, 256, 1024)
SHARE = 0.4  # of the bound's speed: a plan's, not a measurement


@dataclasses.dataclass(frozen=True)
class Machine:
    """Accelerators as their makers describe them; bytes and FLOP per second.

    Attributes:
        name: With the number of devices.
        devices: Of the job.
        float32: Of matrix products of float32 inputs, as XLA runs them by default.
        bfloat16: The same of bfloat16, dense.
        bandwidth: Of the device's memory.
        memory: Of a device, bytes.
        network: A device's share of the slowest link on the way round all devices, one
            way; 0 for a single device.
        latency: Seconds that a small exchange of all devices takes: our assumption of
            its order of magnitude, no maker's.
        host_devices: Devices a host feeds.
    """

    name: str
    devices: int
    float32: float
    bfloat16: float
    bandwidth: float
    memory: float
    network: float
    latency: float
    host_devices: int


# NVIDIA H100 SXM5 data sheet: 494.7 TFLOP/s TF32 and 989.4 bfloat16, dense; 80 GB at
# 3.35 TB/s; NVLink 900 GB/s both ways together; DGX H100: eight with 400 Gbit/s each.
_H100 = {
    "float32": 494.7e12,
    "bfloat16": 989.4e12,
    "bandwidth": 3.35e12,
    "memory": 80e9,
    "host_devices": 8,
}
# cloud.google.com/tpu/docs/v5e: 197 TFLOP/s bfloat16, 16 GB at 819 GB/s, 400 GB/s
# between chips both ways together, 8 chips a host. XLA multiplies float32 in one
# bfloat16 pass there unless told otherwise.
HARDWARE = (
    Machine("1 H100", 1, network=0.0, latency=0.0, **_H100),
    Machine("8 H100, one host", 8, network=450e9, latency=15e-6, **_H100),
    Machine("32 H100, four hosts", 32, network=50e9, latency=40e-6, **_H100),
    Machine(
        *("TPU v5e-64", 64, 197e12, 197e12, 819e9, 16e9),
        *(200e9, 10e-6, 8),
    ),
)


def main(_: list[str]) -> None:
    if FROM.value:
        measured = json.loads(Path(FROM.value).read_text())["measured"]
    else:
        measured = measure()
    report = {"measured": measured, "rows": derive(measured)}
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    Path(OUT.value).write_text(json.dumps(report, indent=1) + "\n")
    print(tables(report))


def measure() -> dict:
    """Compile the step for one and two pairs; return a pair's share and the rest."""
    one, two = compiled(1), compiled(2)
    counted = ("flops", "bytes", "temporaries")
    pair = {name: two[name] - one[name] for name in counted}
    return {
        "versions": {"jax": jax.__version__},
        "compiled_for": f"{jax.default_backend()} ({platform.machine()})",
        "one_pair": one,
        "two_pairs": two,
        "of_a_pair": pair,
        "of_a_step": {name: max(one[name] - pair[name], 0.0) for name in counted},
        **of_the_state(),
    }


def compiled(pairs: int) -> dict[str, float]:
    """Return what XLA says of a device's step of so many pairs."""
    run, state = make()
    example = batch(pairs)
    program = run.lower(state, jax.tree.map(lambda x: x[None], example)).compile()
    cost, memory = program.cost_analysis(), program.memory_analysis()
    return {
        "flops": cost["flops"],
        "bytes": cost["bytes accessed"],
        "temporaries": float(memory.temp_size_in_bytes),
        "arguments": float(memory.argument_size_in_bytes),
        "input": float(sum(x.nbytes for x in jax.tree.leaves(example))),
    }


def make():
    """Build the recipe's step for one device, and its state's shapes."""
    config = davis.get_config()
    config.precision = "float32"
    model = imas.make_model(config, parallel.AXIS)
    discover, crop = config.discover, tuple(config.augment.crop)
    rate = states.polynomial_schedule(
        discover.learning_rate,
        discover.min_learning_rate,
        discover.power,
        discover.steps,
        discover.steps_per_decay,
    )
    optimizer = states.make_optimizer(rate, discover.weight_decay)
    step = steps.make_step(
        steps.make_loss(model, config, "discover"),
        optimizer,
        config,
        discover.ema,
        imas.mask_size(config.model, crop),
    )
    frames = jax.ShapeDtypeStruct((1, 2, *crop, 3), np.float32)
    plain = imas.make_model(config)
    variables = jax.eval_shape(
        lambda key, x: plain.init(key, x, train=False), jax.random.key(0), frames
    )
    state = jax.eval_shape(
        lambda v: states.create_state(v, optimizer, 0, discover.ema), variables
    )
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), state)
    return parallel.run_on_devices(step, jax.local_devices()[:1]), state


def batch(pairs: int) -> Batch:
    """Make a batch of black frames, with flow at half their size as files hold it."""
    h, w = FRAME
    flow = np.zeros((pairs, -(-h // 2), -(-w // 2), 2), np.float16)
    frames = np.zeros((pairs, 2, h, w, 3), np.uint8)
    return Batch(frames, flow, flow, None, np.arange(pairs, dtype=np.int32))


def of_the_state() -> dict[str, float]:
    """Return bytes of state and gradients, and how often devices wait for each other.

    Gradients are exchanged together at the end; what is left are batch statistics,
    layer after layer, there and back.
    """
    run, state = make()
    text = run.lower(state, jax.tree.map(lambda x: x[None], batch(1))).as_text()
    return {
        "state": float(sum(np.prod(x.shape) * 4 for x in jax.tree.leaves(state))),
        "gradients": float(
            sum(np.prod(x.shape) * 4 for x in jax.tree.leaves(state.params))
        ),
        "exchanges": len(re.findall(r"stablehlo\.all_reduce", text))
        - len(jax.tree.leaves(state.params)),
    }


def derive(measured: dict) -> list[dict]:
    """Derive a row for each machine, precision and number of pairs."""
    return [
        row(measured, machine, precision, pairs)
        for machine in HARDWARE
        for precision in ("float32", "bfloat16")
        for pairs in PAIRS
        if pairs % machine.devices == 0
    ]


def row(measured: dict, machine: Machine, precision: str, pairs: int) -> dict:
    """Derive what one case costs; seconds and bytes, a device's unless named."""
    mine = pairs // machine.devices
    short = 0.5 if precision == "bfloat16" else 1.0
    pair, step = measured["of_a_pair"], measured["of_a_step"]
    seconds = {
        "arithmetic": (mine * pair["flops"] + step["flops"])
        / getattr(machine, precision),
        "memory traffic": (short * mine * pair["bytes"] + step["bytes"])
        / machine.bandwidth,
        "network": 0.0,
    }
    sent = 0.0
    if machine.devices > 1:  # a ring: every byte goes round, summed and then told
        sent = 2 * (machine.devices - 1) / machine.devices * measured["gradients"]
        waits = measured["exchanges"] * machine.latency
        seconds["network"] = sent / machine.network + waits
    # Exchanges for batch statistics stand in the way; gradients could overlap.
    bound = max(seconds["arithmetic"], seconds["memory traffic"]) + seconds["network"]
    held = short * mine * pair["temporaries"] + step["temporaries"] + measured["state"]
    hosts = -(-machine.devices // machine.host_devices)
    fed = pairs / bound * measured["one_pair"]["input"] / hosts
    return {
        "machine": machine.name,
        "precision": precision,
        "pairs": pairs,
        "pairs_a_device": mine,
        "seconds": seconds,
        "bound": bound,
        "first": max(seconds, key=lambda name: seconds[name]),
        "held": held,
        "fits": held < machine.memory,
        "input_a_host": fed,
        "pairs_a_second": pairs / bound,
        "sent": sent,
    }


def tables(report: dict) -> str:
    """Write the tables of docs/scale.md."""
    measured = report["measured"]
    pair, step = measured["of_a_pair"], measured["of_a_step"]
    lines = [
        "| | a pair | a step besides |",
        "|---|---:|---:|",
        f"| operations, GFLOP | {pair['flops'] / 1e9:.0f} "
        f"| {step['flops'] / 1e9:.1f} |",
        f"| read and written, GB | {pair['bytes'] / 1e9:.1f} "
        f"| {step['bytes'] / 1e9:.2f} |",
        f"| temporaries, GB | {pair['temporaries'] / 1e9:.2f} "
        f"| {step['temporaries'] / 1e9:.2f} |",
        f"| from the host, MB | {measured['one_pair']['input'] / 1e6:.2f} | |",
        f"| state, MB | | {measured['state'] / 1e6:.0f} |",
        f"| gradients, MB | | {measured['gradients'] / 1e6:.0f} |",
        f"| waits for other devices | | {measured['exchanges']} |",
        "",
        "| machine | precision | pairs | step, ms | limit | device memory, GB "
        f"| pairs/s | at {100 * SHARE:.0f} % | input a host, GB/s | sent, MB |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|---:|",
    ]
    for case in report["rows"]:
        held = f"{case['held'] / 1e9:.1f}" + ("" if case["fits"] else " (too much)")
        lines.append(
            f"| {case['machine']} | {case['precision']} | {case['pairs']} "
            f"| {1000 * case['bound']:.0f} | {case['first']} | {held} "
            f"| {case['pairs_a_second']:.0f} | {SHARE * case['pairs_a_second']:.0f} "
            f"| {case['input_a_host'] / 1e9:.2f} | {case['sent'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    app.run(main)
