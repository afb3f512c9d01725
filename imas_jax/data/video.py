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
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from imas_jax import errors
from imas_jax.data import images

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


class VideoReader:
    """Reads frames by index; reading them in order costs one decode each.

    A GIF goes to Pillow, anything else to OpenCV's FFmpeg. Seeking by number is not
    exact in every container, so a step back reopens the file and a step forward decodes
    what lies between. One frame is held in memory. Threads may share a reader.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._decoder: _Decoder | None = None
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
            if self._decoder is None or index < self._next:
                self.close()
                self._decoder = _open(self.path)
            while self._next < index and self._decoder.skip():
                self._next += 1
            frame = self._decoder.read() if self._next == index else None
            if frame is None:
                raise errors.UserError(
                    f"{self.path} ends before frame {index}",
                    f"at least {index + 1} frames",
                    "the file changed or is damaged; check that it plays to its end",
                )
            self._next = index + 1
            self._last = (index, frame)
            return frame.copy()

    def close(self) -> None:
        """Release the decoder; the next read opens the file again."""
        if self._decoder is not None:
            self._decoder.close()
        self._decoder, self._next = None, 0

    def __del__(self) -> None:
        self.close()

    def rate(self) -> float:
        """Return the frames a second the file claims; 0.0 when it does not say."""
        return probe(self.path).rate

    def fingerprint(self) -> str:
        """Return what changes with the file: length and checksum of its two ends."""
        status = self.path.stat()
        return _ends_digest(self.path, status.st_size, status.st_mtime_ns)


@runtime_checkable
@runtime_checkable
class _Decoder(Protocol):
    """Yields frames in order."""

    promised: int
    rate: float

    def skip(self) -> bool:
        """Go past one frame; False at the end."""

    def read(self) -> np.ndarray | None:
        """Return the next frame as RGB; None at the end."""

    def close(self) -> None:
        """Release the file."""


def _open(path: Path) -> _Decoder:
    return _GifDecoder(path) if path.suffix.lower() == ".gif" else _Ffmpeg(path)


class _Ffmpeg:
    """OpenCV's FFmpeg; it applies rotation metadata."""

    def __init__(self, path: Path):
        self._capture = cv2.VideoCapture(str(path))
        self.promised = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self.rate = float(self._capture.get(cv2.CAP_PROP_FPS))

    def skip(self) -> bool:
        return self._capture.grab()

    def read(self) -> np.ndarray | None:
        good, frame = self._capture.read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if good else None

    def close(self) -> None:
        self._capture.release()


class _GifDecoder:
    """Pillow; FFmpeg drops the frames of a GIF that states no durations."""

    def __init__(self, path: Path):
        try:
            self._image: Image.Image | None = Image.open(path)
        except images.UNREADABLE:
            self._image = None  # reads as a video of no frames
        self._next = 0
        self.promised = getattr(self._image, "n_frames", 0)
        milliseconds = self._image.info.get("duration", 0) if self._image else 0
        self.rate = 1000 / milliseconds if milliseconds else 0.0

    def skip(self) -> bool:
        return self.read() is not None

    def read(self) -> np.ndarray | None:
        if self._image is None:
            return None
        try:
            self._image.seek(self._next)
            frame = np.asarray(self._image.convert("RGB"))
        except (EOFError, *images.UNREADABLE):
            return None
        self._next += 1
        return frame

    def close(self) -> None:
        if self._image is not None:
            self._image.close()


@functools.lru_cache(maxsize=64)
def _probe(path: Path, length: int, changed: int) -> VideoInfo:
    del changed  # part of the key only
    decoder = _open(path)
    try:
        first = decoder.read()
        if first is None:
            raise errors.UserError(
                f"{path} ({length} bytes) holds no frame that can be decoded",
                "a video OpenCV's FFmpeg reads: MP4, MOV, AVI, WebM or GIF",
                "check that it plays; `ffmpeg -i IN -c:v libx264 OUT.mp4` converts it",
            )
        count = 1
        while decoder.skip():
            count += 1
        h, w = first.shape[:2]
        return VideoInfo(count, decoder.promised, (h, w), decoder.rate)
    finally:
        decoder.close()


@functools.lru_cache(maxsize=64)
def _ends_digest(path: Path, length: int, changed: int) -> str:
    del changed  # part of the key only
    with path.open("rb") as file:
        start = file.read(ENDS)
        file.seek(max(length - ENDS, 0))
        return f"{length:x}.{zlib.crc32(start + file.read()):08x}"
