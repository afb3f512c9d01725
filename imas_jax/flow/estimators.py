"""Frame pair -> forward and backward flow, by the estimator a config names.

`dis` is OpenCV's Dense Inverse Search (Kroeger et al., ECCV 2016): no weights, 20 ms a
direction at 428x240 on one core. `raft` is the paper's network (`raft.py`).
"""

import hashlib
import threading
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from imas_jax import errors

FlowPair = tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w 2"]]


# Frames 0 and 1 (uint8 RGB) -> flow 0 -> 1 and 1 -> 0 in pixels of these frames.
Estimator = Callable[[np.ndarray, np.ndarray], FlowPair]


def make_estimator(flow: ConfigDict) -> Estimator:
    """Build the estimator of `config.flow`.

    Raises:
        UserError: If `flow.estimator` is unknown or its weights are missing.
    """
    if flow.estimator == "dis":
        return Scaled(Dis(), flow.size)
    raise _unknown(flow.estimator)


def digest(flow: ConfigDict) -> str:
    """Name everything the flow of `config.flow` depends on, without computing any.

    Raises:
        UserError: As `make_estimator`.
    """
    if flow.estimator == "dis":
        return f"dis-medium-opencv{cv2.__version__}-size{flow.size}"
    raise _unknown(flow.estimator)


class Dis:
    """OpenCV's DIS on grey frames; safe to call from several threads.

    Preset "medium", by the motion baseline's mean J on DAVIS-240p: ultrafast 0.352,
    fast 0.400, medium 0.457 (1, 6 and 26 ms a direction on one busy core).
    """

    def __init__(self) -> None:
        self._local = threading.local()  # a DIS object keeps buffers between calls

    def __call__(
        self, frame0: UInt8[np.ndarray, "h w 3"], frame1: UInt8[np.ndarray, "h w 3"]
    ) -> FlowPair:
        """Return flow 0 -> 1 and 1 -> 0 in pixels."""
        if not hasattr(self._local, "dis"):
            preset = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
            self._local.dis = cv2.DISOpticalFlow.create(preset)
        dis = self._local.dis
        grey0 = cv2.cvtColor(frame0, cv2.COLOR_RGB2GRAY)
        grey1 = cv2.cvtColor(frame1, cv2.COLOR_RGB2GRAY)
        return dis.calc(grey0, grey1, None), dis.calc(grey1, grey0, None)


class Scaled:
    """Runs an estimator at another resolution, and converts its units back.

    Args:
        estimator: What computes the flow.
        short_side: Of the frames the estimator sees; 0 leaves frames as they are.
    """

    def __init__(
        self,
        estimator: Estimator,
        short_side: int,
    ):
        self._estimator, self._short_side = estimator, short_side

    def __call__(
        self, frame0: UInt8[np.ndarray, "h w 3"], frame1: UInt8[np.ndarray, "h w 3"]
    ) -> FlowPair:
        """Return flow 0 -> 1 and 1 -> 0 in pixels of the frames given."""
        h, w = frame0.shape[:2]
        scale = self._short_side / min(h, w)
        if not self._short_side or scale == 1:
            return self._estimator(frame0, frame1)
        size = (max(round(h * scale), 1), max(round(w * scale), 1))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small0, small1 = (
            cv2.resize(f, size[::-1], interpolation=method) for f in (frame0, frame1)
        )
        forward, backward = self._estimator(small0, small1)
        return resize_flow(forward, (h, w)), resize_flow(backward, (h, w))


def resize_flow(
    flow: Float[np.ndarray, "h w 2"], size: tuple[int, int]
) -> Float[np.ndarray, "h2 w2 2"]:
    """Resize grid and values: the result is in pixels of `size`."""
    h, w = flow.shape[:2]
    resized = cv2.resize(flow, size[::-1], interpolation=cv2.INTER_LINEAR)
    return resized * np.array([size[1] / w, size[0] / h], np.float32)


def _unknown(estimator: str) -> errors.UserError:
    return errors.UserError(
        f"flow.estimator = {estimator!r}", "dis", "set --config.flow.estimator=dis"
    )


def file_digest(path: str) -> str:
    """Return the first 16 hex digits of a file's sha256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
