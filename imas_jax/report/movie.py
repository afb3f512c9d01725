"""Pictures to video files: what browsers and phones play, and what editors key with.

Encoders are those that PyAV's wheels carry. Pictures are pushed one at a time, so
memory does not grow with a film's length, and a file that has its name is whole. There
is no sound, and every picture lasts equally long, whatever the source's time stamps.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from jaxtyping import UInt8

from imas_jax import errors, files

# Players guess the matrix of a film that does not say by its height; these say what
# would be guessed. Numbers are H.273's.
HD = 720  # px of height from which a film is BT.709, else BT.601
BT_709, BT_601 = 1, 6


@dataclasses.dataclass(frozen=True)
class Codec:
    """How pictures become a film.

    Attributes:
        encoder: FFmpeg's name.
        container: FFmpeg's name of the file's format.
        pixels: FFmpeg's name of the stored pixels.
        options: Of the encoder.
        container_options: Of the container.
        even: Whether sides must be even: an odd last row or column is repeated, in
            films with alpha transparent.
        tags: Of the stream.
        tagged: Whether the colour matrix follows `HD` and is noted; the encoder's own
            options say it else.
    """

    encoder: str
    container: str
    pixels: str
    options: Mapping[str, str]
    container_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    even: bool = False
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tagged: bool = True


MP4 = Codec(  # H.264, 4:2:0, the index in front: plays before it is loaded to its end
    "libx264",
    "mp4",
    "yuv420p",
    {
        # Visually lossless enough for masks' edges, and faster than masks are made.
        "crf": "20",
        "preset": "veryfast",
        # What the conversion from RGB uses; players else guess by the picture's size.
        "x264-params": "colormatrix=smpte170m",
    },
    {"movflags": "+faststart"},
    even=True,
    tagged=False,
)
WEBM_ALPHA = Codec(  # VP9 beside which alpha lies as a second, grey film
    "libvpx-vp9",
    "webm",
    "yuva420p",
    # Frames that are never shown (alt-ref) have no alpha.
    {"crf": "20", "b": "0", "auto-alt-ref": "0", "cpu-used": "4", "row-mt": "1"},
    even=True,
    tags={"alpha_mode": "1"},
)
PRORES_ALPHA = Codec(  # ProRes 4444, straight alpha
    "prores_ks",
    "mov",
    "yuva444p10le",
    {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"},
)
Picture: TypeAlias = UInt8[
    np.ndarray, "h w k"
]  # RGB, or RGBA where the codec has alpha


def write_video(
    path: Path, pictures: Iterable[UInt8[np.ndarray, "_ _ 3"]], rate: float = 24.0
) -> None:
    """Write an MP4.

    Args:
        path: The file; folders are made.
        pictures: RGB, all of one size, at least one; taken one at a time.
        rate: Frames a second.

    Raises:
        UserError, ValueError: As `opened`.
    """
    with opened(path, MP4, rate) as add:
        for picture in pictures:
            add(picture)


@contextlib.contextmanager
def opened(path: Path, codec: Codec, rate: float) -> Iterator[Callable[..., None]]:
    """Lend a function that appends a picture to a film; it is there when this ends.

    Args:
        path: The file; folders are made.
        codec: `MP4`, or one with alpha, which takes RGBA.
        rate: Frames a second.

    Raises:
        UserError: If the disk or this build of PyAV cannot take the file.
        ValueError: If no picture came, or their sizes differ.
    """
    others: BaseException | None = None  # what is no matter of this file
    try:
        with files.aside(path) as draft, _Film(draft, codec, rate) as film:
            try:
                yield film.add
            except BaseException as error:
                others = error
                raise
            if film.size is None:
                raise ValueError(f"no pictures for {path}")
    except (OSError, av.FFmpegError) as error:
        if error is others and error is not film.failure:
            raise
        raise errors.UserError(
            f"cannot write {path}: {error}",
            f"a disk with room, and PyAV with {codec.encoder} as its wheels have it",
            "make room, or reinstall it with `pip install av`; then run the same "
            "command again",
        ) from error


class _Film:
    """An open container; the first picture decides its size."""

    def __init__(self, path: Path, codec: Codec, rate: float):
        self._path, self._codec = path, codec
        options = dict(codec.container_options)
        self._container = av.open(
            str(path), "w", format=codec.container, options=options
        )
        # 30000/1001 is a usual rate.
        speed = Fraction(rate).limit_denominator(1001)
        self._stream = self._container.add_stream(
            codec.encoder, speed, options=dict(codec.options)
        )
        self._stream.pix_fmt = codec.pixels
        self._stream.metadata.update(codec.tags)
        self.size: tuple[int, int] | None = None
        self.failure: Exception | None = None  # of the encoder or the disk

    def __enter__(self) -> "_Film":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            if self.size is not None:
                self._container.mux(self._stream.encode())
            self._container.close()
            return
        with contextlib.suppress(OSError, av.FFmpegError):  # the draft goes anyhow
            self._container.close()

    def add(self, picture: Picture) -> None:
        """Encode one picture."""
        size = (picture.shape[0], picture.shape[1])
        if self.size is None:
            self._begin(size)
        elif size != self.size:
            raise ValueError(
                f"{self._path}: a picture of {size} among pictures of {self.size}"
            )
        try:
            self._container.mux(self._stream.encode(self._frame(picture)))
        except (OSError, av.FFmpegError) as error:
            self.failure = error
            raise

    def _begin(self, size: tuple[int, int]) -> None:
        self.size = size
        margin = self._margin(size)
        self._stream.height, self._stream.width = (
            size[0] + margin[0],
            size[1] + margin[1],
        )
        self._matrix = BT_709 if size[0] >= HD else BT_601
        if self._codec.tagged:
            context = self._stream.codec_context
            context.colorspace = context.color_primaries = self._matrix
            context.color_trc = self._matrix
            context.color_range = ColorRange.MPEG.value

    def _margin(self, size: tuple[int, int]) -> tuple[int, int]:
        return (size[0] % 2, size[1] % 2) if self._codec.even else (0, 0)

    def _frame(self, picture: Picture) -> av.VideoFrame:
        """Return a picture as the encoder takes it."""
        below, beside = self._margin(picture.shape[:2])
        if below or beside:
            margin = ((0, below), (0, beside), (0, 0))
            h, w = picture.shape[:2]
            picture = np.pad(picture, margin, mode="edge")
            picture[h:, :, 3:], picture[:, w:, 3:] = 0, 0
        layout = "rgba" if picture.shape[2] == 4 else "rgb24"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=layout)
        if not self._codec.tagged:
            return frame
        hd = self._matrix == BT_709
        frame = frame.reformat(
            format=self._codec.pixels,
            dst_colorspace=Colorspace.ITU709 if hd else Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            # With more, swscale now and then loses alpha where its slices meet.
            threads=1,
        )
        frame.colorspace = self._matrix
        frame.color_range = ColorRange.MPEG.value
        return frame
