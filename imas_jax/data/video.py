"""One video file as a clip: frames in order, upright, in bounded memory.

Every frame the decoder yields is one frame of the clip, whatever its time stamp, so a
variable frame rate does no harm. Rotation metadata is applied by the decoder. Frames
are counted by decoding, because the count in the file is only a promise.
"""

import dataclasses
import functools
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from imas_jax import errors

ENDS = 1 << 20  # bytes at each end of a file that identify it


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What decoding a whole file once found out.

    Attributes:
        count: Frames that decode.
        promised: Frames the file claims; 0 when it does not say.
        size: Upright (h, w).
        rate: Frames a second as the file claims; 0.0 when it does not say.
    """

    count: int
    promised: int
    size: tuple[int, int]
    rate: float


def probe(path: Path) -> VideoInfo:
    """Count and measure; the answer is remembered until the file changes.

    Raises:
        UserError: If no frame can be decoded.
    """
    status = path.stat()
    return _probe(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _probe(path: Path, length: int, changed: int) -> VideoInfo:
    del changed  # part of the key only
    capture = cv2.VideoCapture(str(path))
    try:
        good, first = capture.read() if capture.isOpened() else (False, None)
        if not good or first is None:
            raise errors.UserError(
                f"{path} ({length} bytes) holds no frame that can be decoded",
                "a video OpenCV's FFmpeg reads: MP4, MOV, AVI, WebM or GIF",
                "check that it plays; `ffmpeg -i IN -c:v libx264 OUT.mp4` converts it",
            )
        count = 1
        while capture.grab():
            count += 1
        promised = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        rate = float(capture.get(cv2.CAP_PROP_FPS))
        return VideoInfo(count, promised, first.shape[:2], rate)
    finally:
        capture.release()


class VideoReader:
    """Reads frames by index; reading them in order costs one decode each.

    Seeking by number is not exact in every container, so a step back reopens the file
    and a step forward decodes what lies between. One frame is held in memory. Threads
    may share a reader.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._capture: cv2.VideoCapture | None = None
        self._next = 0
        self._last: tuple[int, np.ndarray] | None = None

    def read(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Return frame `index` as RGB.

        Raises:
            UserError: If the video ends before it.
        """
        with self._lock:
            if self._last is not None and self._last[0] == index:
                return self._last[1].copy()
            if self._capture is None or index < self._next:
                self.close()
                self._capture = cv2.VideoCapture(str(self.path))
            while self._next < index and self._capture.grab():
                self._next += 1
            good, frame = self._capture.read()
            if not good or frame is None:
                raise errors.UserError(
                    f"{self.path} ends before frame {index}",
                    f"at least {index + 1} frames",
                    "the file changed or is damaged; check that it plays to its end",
                )
            self._next = index + 1
            rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            self._last = (index, rgb)
            return rgb.copy()

    def fingerprint(self) -> str:
        """Return what changes with the file: length and checksum of its two ends."""
        status = self.path.stat()
        return _ends_digest(self.path, status.st_size, status.st_mtime_ns)

    def close(self) -> None:
        """Release the decoder; the next read opens the file again."""
        if self._capture is not None:
            self._capture.release()
        self._capture, self._next = None, 0


@functools.lru_cache(maxsize=64)
def _ends_digest(path: Path, length: int, changed: int) -> str:
    del changed  # part of the key only
    with path.open("rb") as file:
        start = file.read(ENDS)
        file.seek(max(length - ENDS, 0))
        return f"{length:x}.{zlib.crc32(start + file.read()):08x}"
