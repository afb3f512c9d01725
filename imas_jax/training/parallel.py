"""The one place that knows devices.

A step is written for one device; here it is run on all of them by `jax.pmap`, with
gradients, metrics and batch statistics averaged over the axis `AXIS`. The global batch
is split evenly, so any number of devices and processes gives the same step.
"""

import functools
import itertools
import queue
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed

from imas_jax import progress
from imas_jax.errors import UserError

AXIS = "devices"
# Seconds without a word from a process after which it counts as dead.
HEARTBEAT = 60
# What the runtime's service takes as a time limit at most: 24 days.
LONGEST_MS = 2**31 - 1
BLOCK = 16  # rows sent at a time
LONGEST_TEXT = 2**18  # characters of what the service keeps under one name
_BARRIERS = itertools.count()  # each has a name of its own, the same in every process


def check_batch(batch_size: int) -> None:
    """Refuse a global batch that the devices cannot share evenly.

    Raises:
        UserError: If `batch_size` is not a multiple of the number of devices.
    """
    devices = jax.device_count()
    if batch_size < 1 or batch_size % devices:
        below = batch_size - batch_size % devices
        fits = " or ".join(map(str, sorted({below or devices, below + devices})))
        raise UserError(
            f"a global batch of {batch_size} pairs on {devices} device(s)",
            "a batch size that is a multiple of the number of devices",
            f"set batch_size to {fits}, or use another number of devices",
        )


def accelerated() -> bool:
    """Tell whether there is a device that is faster than a processor."""
    return jax.default_backend() != "cpu"


def run_on_devices(
    step: Callable[..., Any],
    devices: Sequence[jax.Device] | None = None,
    donate: bool = True,
) -> Callable[..., Any]:
    """Compile a per-device `step(state, batch)` for the devices.

    Args:
        step: State and batch of one device -> new state and metrics.
        devices: Which; None takes all there are.
        donate: Whether the state's memory is given to the result.
    """
    donated = (0,) if donate else ()
    return jax.pmap(step, axis_name=AXIS, devices=devices, donate_argnums=donated)


def average(tree: Any) -> Any:
    """Average over devices, inside a step."""
    return jax.lax.pmean(tree, AXIS)


def largest(value: jax.Array) -> jax.Array:
    """Return the largest over devices, inside a step."""
    return jax.lax.pmax(value, AXIS)


def example_keys(key: jax.Array, count: int) -> jax.Array:
    """Give each of this device's `count` examples its own key, inside a step.

    Keys depend on the example's place in the global batch only, so augmentation is the
    same however many devices share the batch.
    """
    first = jax.lax.axis_index(AXIS) * count
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(count))


def axis_size() -> int:
    """Return the number of devices, inside a step."""
    return jax.lax.axis_size(AXIS)


def gather(tree: Any) -> Any:
    """Join the devices' parts of a batch along its first axis, inside a step."""
    return jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, tiled=True), tree)


def own_part(tree: Any, count: int) -> Any:
    """Return this device's `count` examples of a joined batch, inside a step."""
    first = jax.lax.axis_index(AXIS) * count
    return jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, first, count, axis=0), tree
    )


def replicate(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Put one copy of a host tree on each device (None: all), on a new first axis.

    Copies are placed as a step returns them; a step that is given host arrays first
    would be compiled a second time for its own output.
    """
    count = jax.local_device_count() if devices is None else len(devices)
    copies = jax.tree.map(lambda x: np.stack([np.asarray(x)] * count), tree)
    return jax.pmap(lambda x: x, axis_name=AXIS, devices=devices)(copies)


def unreplicate(tree: Any) -> Any:
    """Copy what this process's first device holds to the host.

    It asks no other device (`x[0]` would), and shares no memory with a processor that
    is the device: the next step is given that.
    """
    return jax.tree.map(
        lambda x: np.array(x.addressable_data(0)).reshape(x.shape[1:]), tree
    )


def hold(count: int, row: Callable[[int], np.ndarray]) -> jax.Array:
    """Put an array on each of this process's devices, on a new first axis.

    The host never holds more than `BLOCK` of its rows, a device not much more than the
    array.

    Args:
        count: Rows.
        row: Returns one of them; it is laid out flat.
    """
    first, block = row(0), min(BLOCK, count)
    devices = jax.local_devices()
    shape = (1, count, first.size)
    wholes = [jnp.zeros(shape, first.dtype, device=device) for device in devices]
    # The last block ends with the array, so that all have one shape.
    for start in (*range(0, count - block, block), count - block):
        rows = [row(number).reshape(-1) for number in range(start, start + block)]
        part = np.stack(rows)[None]
        for place, device in enumerate(devices):
            sent = jax.device_put((part, np.int32(start)), device)
            wholes[place] = _written(wholes[place], *sent)
    sharding = replicate(np.zeros((), np.int32)).sharding
    return jax.make_array_from_single_device_arrays(
        (len(devices), *shape[1:]), sharding, wholes
    )


@functools.partial(jax.jit, donate_argnums=0)
def _written(whole: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(whole, part, start, axis=1)


def free_memory() -> int | None:
    """Return the bytes that are free on each of this process's devices.

    None where they do not say, as processors do.
    """
    told = [device.memory_stats() for device in jax.local_devices()]
    if not all(told):
        return None
    return min(one["bytes_limit"] - one["bytes_in_use"] for one in told)


def devices_here() -> int:
    """Return how many devices this process has."""
    return jax.local_device_count()


def split(batch: Any, count: int = 0) -> Any:
    """Split this process's batch over its devices (0: every local one).

    What lies on the devices is split already.
    """
    devices = count or jax.local_device_count()

    def part(x: Any) -> Any:
        held = isinstance(x, jax.Array)
        return x if held else x.reshape(devices, -1, *x.shape[1:])

    return jax.tree.map(part, batch)


def send(batch: Any, carried: Any) -> Any:
    """Put a split batch on the devices that hold what a step carries along."""
    return jax.device_put(batch, jax.tree.leaves(carried)[0].sharding)


def on_each_device(value: int) -> np.ndarray:
    """Return a number for each of this process's devices."""
    return np.full(jax.local_device_count(), value, np.int32)


def device_count() -> int:
    """Return how many devices share a batch, of all processes."""
    return jax.device_count()


def process() -> tuple[int, int]:
    """Return (index of this process, number of processes)."""
    return jax.process_index(), jax.process_count()


def place() -> tuple[int, int]:
    """Return (index, number) of processes as the runtime's service knows them.

    It needs no device, and the service is at index 0.
    """
    return distributed.global_state.process_id, distributed.global_state.num_processes


def join(processes: str) -> None:
    """Join the other processes of a run; call before anything touches a device.

    Args:
        processes: "" for a single process; "auto" where the cluster says it all
            (SLURM, TPU pods, Kubernetes); else "HOST:PORT,COUNT,INDEX": where the first
            process is reached, how many there are, which this one is.

    Raises:
        UserError: If it is none of these.
    """
    if not processes:
        return
    # It would swallow SIGTERM, which is ours: `training/stopping.py`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        if processes == "auto":
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT)
            return
        address, count, index = processes.split(",")
        jax.distributed.initialize(
            address, int(count), int(index), heartbeat_timeout_seconds=HEARTBEAT
        )
    except ValueError as error:
        raise UserError(
            f"distributed = {processes!r}: {error}",
            "'', auto (in SLURM, TPU pods, Kubernetes), or HOST:PORT,COUNT,INDEX",
            "correct the field, e.g. --config.distributed=127.0.0.1:9911,2,0",
        ) from error


def wait_for_all() -> None:
    """Return when every process has come here, however long the others take.

    The runtime's service waits, for as long as it can, not the devices: a collective
    gives up after a while. It waits in a thread of its own, so that this one still
    hears signals.

    Raises:
        JaxRuntimeError: If another process has died.
    """
    if jax.process_count() == 1:
        return
    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
    name = f"imas_jax/barrier/{next(_BARRIERS)}"

    def wait() -> None:
        try:
            service().wait_at_barrier(name, LONGEST_MS)
        except Exception as error:  # told to the thread that waits
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=wait, name=name, daemon=True).start()
    with progress.waiting():
        error = outcome.get()
    if error is not None:
        raise error


def exchange(text: str) -> list[str]:
    """Return what every process says here, by index; each must call this.

    Raises:
        JaxRuntimeError: If another process has died.
    """
    index, count = process()
    if count == 1:
        return [text]
    name = f"imas_jax/said/{next(_BARRIERS)}"
    parts = [text[i : i + LONGEST_TEXT] for i in range(0, len(text), LONGEST_TEXT)]
    for number, part in enumerate(parts):
        service().key_value_set(f"{name}/{index}/{number}", part)
    service().key_value_set(f"{name}/{index}/parts", str(len(parts)))
    wait_for_all()  # however long the others take; then all of it is there

    def said(key: str) -> str:
        return service().key_value_try_get(f"{name}/{key}")

    return [
        "".join(said(f"{one}/{number}") for number in range(int(said(f"{one}/parts"))))
        for one in range(count)
    ]


def processes_here() -> int:
    """Return how many of the processes are on this host; each must call this."""
    hosts = exchange(socket.gethostname())
    return hosts.count(socket.gethostname())


def service() -> Any:
    """Return the runtime's service; JAX has it, but under no public name."""
    return distributed.global_state.client


class Spread:
    """Runs a function on this process's devices at once, each on a batch of its own.

    Every device runs the program of one device alone, whatever their number, so what
    comes out has the same bits. No device hears of another, nor of other processes.

    Args:
        function: Variables and one batch (a tree of arrays) -> a tree of arrays.
        variables: Copied to every device.
        devices: How many take part; 0 is every one of this process.
    """

    def __init__(
        self, function: Callable[[Any, Any], Any], variables: Any, devices: int = 0
    ):
        self._devices = jax.local_devices()[: devices or None]
        self._run = jax.pmap(function, devices=self._devices)
        self.load(variables)

    def load(self, variables: Any) -> None:
        """Go on with other variables of the same shapes, without compiling again."""
        self._variables = replicate(variables, self._devices)

    def each(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield what the function makes of each batch, on the host and in order.

        So many batches are drawn at a time as there are devices; fewer where another
        shape follows, or nothing: then some devices do again what one of them does.
        """
        waiting: list[Any] = []
        for batch in batches:
            if waiting and _shapes(batch) != _shapes(waiting[0]):
                yield from self._at_once(waiting)
                waiting = []
            waiting.append(batch)
            if len(waiting) == len(self._devices):
                yield from self._at_once(waiting)
                waiting = []
        if waiting:
            yield from self._at_once(waiting)

    def _at_once(self, batches: list[Any]) -> Iterator[Any]:
        again = [batches[-1]] * (len(self._devices) - len(batches))
        stacked = jax.tree.map(lambda *one: np.stack(one), *batches, *again)
        found = jax.tree.map(np.asarray, self._run(self._variables, stacked))
        for place in range(len(batches)):
            yield jax.tree.map(lambda one, place=place: one[place], found)


def _shapes(batch: Any) -> list[tuple[int, ...]]:
    return [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
