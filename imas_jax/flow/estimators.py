"""Frame pairs -> forward and backward flow, by the estimator a config names.

`dis` is OpenCV's Dense Inverse Search (Kroeger et al., ECCV 2016): no weights, 20 ms a
direction at 428x240 on one core. `raft` is the paper's network (`raft.py`), one copy an
accelerator. Flow computed elsewhere (`import`) is read by `data/imported_flow.py`.
"""

import dataclasses
import hashlib
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from imas_jax import errors, files

FlowPair = tuple[Float[np.ndarray, "*b h w 2"], Float[np.ndarray, "*b h w 2"]]

NAMES = ("dis", "raft", "import")
PRECISIONS = ("float32", "bfloat16")
CORRELATIONS = ("auto", "volume", "on_demand")
ACCELERATOR_BATCH = 4  # pairs a call: fills an accelerator at 854x480, 3 GB of volume


@dataclasses.dataclass(frozen=True)
class Estimator:
    """Computes flow at a working size, and answers in pixels of the frames given.

    Attributes:
        compute: Frames 0 and 1, (b, h, w, 3) uint8 RGB, to flow 0 -> 1 and 1 -> 0,
            (b, h, w, 2) float32 in pixels of these frames. Threads may share it.
        short_side: Of the frames `compute` sees; 0 leaves frames as they are.
        batch_size: Pairs a call should bring.
        workers: Calls worth running at the same time.
    """

    compute: Callable[[np.ndarray, np.ndarray], FlowPair]
    short_side: int = 0
    batch_size: int = 1
    workers: int = 1

    def __call__(
        self, frame0: UInt8[np.ndarray, "h w 3"], frame1: UInt8[np.ndarray, "h w 3"]
    ) -> FlowPair:
        """Return flow 0 -> 1 and 1 -> 0 of one pair."""
        forward, backward = self.batch(frame0[None], frame1[None])
        return forward[0], backward[0]

    def batch(
        self,
        frames0: UInt8[np.ndarray, "b h w 3"],
        frames1: UInt8[np.ndarray, "b h w 3"],
    ) -> FlowPair:
        """Return flow 0 -> 1 and 1 -> 0 of several pairs."""
        h, w = frames0.shape[1:3]
        scale = self.short_side / min(h, w)
        if not self.short_side or scale == 1:
            return self.compute(frames0, frames1)
        size = (max(round(h * scale), 1), max(round(w * scale), 1))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR

        def resized(frames: np.ndarray) -> np.ndarray:
            return np.stack(
                [cv2.resize(f, size[::-1], None, 0, 0, method) for f in frames]
            )

        flows = self.compute(resized(frames0), resized(frames1))
        forward, backward = (
            np.stack([resize_flow(f, (h, w)) for f in fields]) for fields in flows
        )
        return forward, backward


def make_estimator(flow: ConfigDict) -> Estimator:
    """Build the estimator of `config.flow`.

    Raises:
        UserError: If its weights are missing.
    """
    return {"dis": _dis, "raft": _raft}[flow.estimator](flow)


def digest(flow: ConfigDict) -> str:
    """Name everything the flow of `config.flow` depends on, without computing any.

    Raises:
        UserError: If weights are missing.
    """
    if flow.estimator == "dis":
        # OpenCV's version is noted in `result.json`: another one does not make flow,
        # nor what was trained on it, stale.
        return f"dis-medium-size{flow.size}"
    if flow.estimator == "raft":
        file, how = files.digest(weights(flow))[:16], f"it{flow.iterations}"
        how += f"-{flow.precision}-{flow.correlation}"
        return f"raft-{file}-{how}-size{flow.size}"
    return f"import-{_listing_digest(Path(flow.source))}"


def weights(flow: ConfigDict) -> Path:
    """Return the file of `flow.weights`; what has a name is fetched if need be.

    Raises:
        UserError: If none is given, and as `named.find` raises it.
    """
    # Here and not above: DIS needs neither JAX nor its start-up time.
    from imas_jax.models import named, published

    if flow.weights:
        return named.find(flow.weights, "flow.weights", published.RAFT)
    raise errors.UserError(
        "flow.weights = ''",
        "RAFT as princeton-vl/RAFT or torchvision publish it: a name, such as "
        "raft_things (paper) or raft_small, or a file",
        "set --config.flow.weights=raft_things, or --config.flow.estimator=dis (no "
        "weights)",
    )


class Dis:
    """OpenCV's DIS on grey frames; safe to call from several threads.

    Preset "medium", by the motion baseline's mean J on DAVIS-240p: ultrafast 0.352,
    fast 0.400, medium 0.457 (1, 6 and 26 ms a direction on one busy core).
    """

    def __init__(self) -> None:
        self._local = threading.local()  # a DIS object keeps buffers between calls

    def __call__(
        self,
        frames0: UInt8[np.ndarray, "b h w 3"],
        frames1: UInt8[np.ndarray, "b h w 3"],
    ) -> FlowPair:
        """Return flow 0 -> 1 and 1 -> 0 in pixels."""
        if not hasattr(self._local, "dis"):
            preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
            self._local.dis = cv2.DISOpticalFlow.create(preset)
        dis = self._local.dis
        grey0, grey1 = (
            [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
            for frames in (frames0, frames1)
        )
        both = list(zip(grey0, grey1, strict=True))
        forward = np.stack([dis.calc(a, b, None) for a, b in both])
        return forward, np.stack([dis.calc(b, a, None) for a, b in both])


class DevicePool:
    """Runs each call on whichever device is free.

    Args:
        copies: (device, estimator whose arrays live there), at least one.
        batch_size: Shorter batches are filled up to it, so that nothing recompiles.
    """

    def __init__(self, copies: list[tuple[Any, Any]], batch_size: int):
        self._free: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._batch_size = batch_size
        for copy in copies:
            self._free.put(copy)

    def __call__(
        self,
        frames0: UInt8[np.ndarray, "b h w 3"],
        frames1: UInt8[np.ndarray, "b h w 3"],
    ) -> FlowPair:
        """Return flow 0 -> 1 and 1 -> 0 in pixels."""
        import jax

        count = len(frames0)
        padding = ((0, max(self._batch_size - count, 0)), (0, 0), (0, 0), (0, 0))
        device, estimator = self._free.get()
        try:
            with jax.default_device(device):
                forward, backward = estimator.batch(
                    np.pad(frames0, padding, mode="edge"),
                    np.pad(frames1, padding, mode="edge"),
                )
        finally:
            self._free.put((device, estimator))
        return forward[:count], backward[:count]


def resize_flow(
    flow: Float[np.ndarray, "h w 2"], size: tuple[int, int]
) -> Float[np.ndarray, "h2 w2 2"]:
    """Resize grid and values: the result is in pixels of `size`."""
    h, w = flow.shape[:2]
    resized = cv2.resize(flow, size[::-1], interpolation=cv2.INTER_LINEAR)
    return resized * np.array([size[1] / w, size[0] / h], np.float32)


def _listing_digest(folder: Path) -> str:
    """Hash names and lengths of a folder's files, wherever it lies.

    What is in a file is compared when it is read (`Importer.fingerprint`).
    """
    names = sorted(path for path in folder.rglob("*") if path.is_file())
    told = [f"{p.relative_to(folder).as_posix()} {p.stat().st_size}" for p in names]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


def _dis(flow: ConfigDict) -> Estimator:
    return Estimator(Dis(), flow.size, workers=os.cpu_count() or 1)


def _raft(flow: ConfigDict) -> Estimator:
    import jax

    from imas_jax.flow import raft

    file, how = weights(flow), (flow.iterations, flow.precision, flow.correlation)
    on_cpu = jax.default_backend() == "cpu"
    copies = []
    for device in jax.local_devices()[: 1 if on_cpu else None]:
        with jax.default_device(device):
            copies.append((device, raft.make_raft(file, *how)))
    batch_size = 1 if on_cpu else ACCELERATOR_BATCH
    return Estimator(
        DevicePool(copies, batch_size), flow.size, batch_size, 2 * len(copies)
    )
