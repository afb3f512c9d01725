"""Exports that play: overlay, cut-outs with alpha, and a small GIF."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from imas_jax import files
from imas_jax.report import drawing, movie
from imas_jax.report.shots import About, Shot

# px of the frame that are kept beyond a cut-out's edge, where it is transparent: keys
# and codecs mix neighbours. The rest is black, so that players that know no alpha show
# the cut-out, and nobody is sent a background that was cut away.
RIM = 8
GIF_WIDTH, GIF_FRAMES, GIF_RATE = 480, 120, 12.0  # px, at most, a second
GIF_COLOURS = 128


@contextlib.contextmanager
def overlay(path: Path, about: About) -> Iterator[Callable[[Shot], None]]:
    """Lend what adds a frame, with its object tinted, to an MP4 of the frames' size."""
    with movie.opened(path, movie.MP4, about.rate) as add:
        yield lambda shot: add(drawing.overlay(_image(shot), shot.mask))


def webm_alpha(
    path: Path, about: About
) -> contextlib.AbstractContextManager[Callable[[Shot], None]]:
    """Lend what adds a frame's object, cut out, to a WebM with alpha."""
    return _cut_out(path, movie.WEBM_ALPHA, about.rate)


def prores_alpha(
    path: Path, about: About
) -> contextlib.AbstractContextManager[Callable[[Shot], None]]:
    """Lend what adds a frame's object, cut out, to a ProRes 4444 MOV."""
    return _cut_out(path, movie.PRORES_ALPHA, about.rate)


@contextlib.contextmanager
def gif(path: Path, about: About) -> Iterator[Callable[[Shot], None]]:
    """Lend what adds a frame's overlay to a GIF: every so many, small, for a README.

    At most `GIF_FRAMES` pictures of `GIF_WIDTH` px are held, whatever the clip's
    length.
    """
    every = max(round(about.rate / GIF_RATE), math.ceil(about.count / GIF_FRAMES), 1)
    kept: list[Image.Image] = []
    seen = 0

    def add(shot: Shot) -> None:
        nonlocal seen
        if seen % every == 0:
            picture = drawing.overlay(_image(shot), shot.mask)
            width = min(picture.shape[1], GIF_WIDTH)
            small = Image.fromarray(drawing.fit_width(picture, width))
            kept.append(small.quantize(GIF_COLOURS, dither=Image.Dither.NONE))
        seen += 1

    yield add
    with files.aside(path) as draft:
        kept[0].save(
            draft,
            "GIF",
            save_all=True,
            append_images=kept[1:],
            duration=round(1000 * every / about.rate),
            loop=0,
        )


def cut_out(
    image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 4"]:
    """Return a frame whose alpha is the mask, straight (not multiplied in)."""
    near = cv2.dilate(mask.astype(np.uint8), np.ones((2 * RIM + 1,) * 2, np.uint8))
    colours = image * near[..., None]
    return np.dstack([colours, mask.astype(np.uint8) * np.uint8(255)])


@contextlib.contextmanager
def _cut_out(
    path: Path, codec: movie.Codec, rate: float
) -> Iterator[Callable[[Shot], None]]:
    with movie.opened(path, codec, rate) as add:
        yield lambda shot: add(cut_out(_image(shot), shot.mask))


def _image(shot: Shot) -> UInt8[np.ndarray, "h w 3"]:
    assert shot.image is not None  # the format says that it reads it
    return shot.image
