"""Arrays to pictures: overlays, mask channels, flow colours, sheets; and their files.

Pictures are `(h, w, 3)` uint8 RGB. A file that has its
name is whole. Nothing here knows where the arrays come from.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from imas_jax import files

OBJECT = (0, 196, 188)  # an object's tint in overlays: rare in photographs
TRUTH = (255, 214, 10)  # outline of an annotation
# Channels of soft masks; apart for colour-blind eyes too (Okabe and Ito, 2008).
CHANNELS = np.array(
    [
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
        (120, 120, 120),
    ],
    np.float32,
)


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"] | None = None,
    opacity: float = 0.5,
) -> UInt8[np.ndarray, "h w 3"]:
    """Tint an object and draw its outline, and an annotation's outline in yellow.

    Args:
        image: The frame.
        mask: The object, at the frame's size.
        truth: The annotation, at the frame's size.
        opacity: Of the tint, 0..1.
    """
    tint = np.array(OBJECT, np.float32)
    mixed = image * (1 - opacity) + tint * opacity
    out = np.where(mask[..., None], mixed, image).astype(np.uint8)
    thickness = max(1, round(min(mask.shape) / 240))
    _outline(out, mask, OBJECT, thickness)
    if truth is not None:
        _outline(out, truth, TRUTH, thickness)
    return out


def mask_channels(masks: Float[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colour soft masks: a pixel mixes its channels' colours by their weights."""
    colours = CHANNELS[np.arange(masks.shape[-1]) % len(CHANNELS)]
    return np.clip(masks.astype(np.float32) @ colours, 0, 255).astype(np.uint8)


def grey(values: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Show values in [0, 1] as grey; NaN is black."""
    level = np.clip(np.nan_to_num(values.astype(np.float32)), 0, 1) * 255
    return np.repeat(np.rint(level).astype(np.uint8)[..., None], 3, axis=-1)


def flow_to_color(
    flow: Float[np.ndarray, "h w 2"], largest: float | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Colour flow by the Middlebury wheel: hue is direction, saturation is speed.

    Rightward is red, downward yellow, no motion white; NaN and infinite flow is black.

    Args:
        flow: Any unit.
        largest: Speed with full colour; faster is darkened. None takes the field's
            largest, so give one for pictures that are to be compared.
    """
    flow = flow.astype(np.float32)
    known = np.isfinite(flow).all(axis=-1)
    flow = np.where(known[..., None], flow, 0)
    speed = np.linalg.norm(flow, axis=-1)
    unit = largest if largest is not None else float(speed.max(initial=0.0))
    speed = speed / max(unit, 1e-6)
    wheel = _color_wheel()
    angle = np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi
    position = (angle + 1) / 2 * (len(wheel) - 1)
    low = np.floor(position).astype(int)
    weight = (position - low)[..., None]
    colour = wheel[low] * (1 - weight) + wheel[(low + 1) % len(wheel)] * weight
    inside = (speed <= 1)[..., None]
    colour = np.where(inside, 1 - speed[..., None] * (1 - colour), colour * 0.75)
    return np.floor(255 * colour * known[..., None]).astype(np.uint8)


def contact_sheet(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    columns: int,
    gap: int = 4,
    paper: int = 255,
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Lay pictures out in rows, each in a cell of the largest one's size.

    Raises:
        ValueError: If there are no pictures.
    """
    if not pictures:
        raise ValueError("a contact sheet of no pictures")
    cell_h = max(picture.shape[0] for picture in pictures)
    cell_w = max(picture.shape[1] for picture in pictures)
    rows = -(-len(pictures) // columns)
    columns = min(columns, len(pictures))
    size = (rows * (cell_h + gap) - gap, columns * (cell_w + gap) - gap, 3)
    sheet = np.full(size, paper, np.uint8)
    for number, picture in enumerate(pictures):
        y = number // columns * (cell_h + gap)
        x = number % columns * (cell_w + gap)
        sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet


def label(
    picture: UInt8[np.ndarray, "h w 3"], text: str
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Write a line of text on a strip above the picture (ASCII)."""
    height = max(16, round(picture.shape[0] / 12))
    strip = np.full((height, picture.shape[1], 3), 255, np.uint8)
    size = height / 30
    where = (round(height / 5), round(height * 0.72))
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(strip, text, where, font, size, (30, 30, 30), 1, cv2.LINE_AA)
    return np.concatenate([strip, picture])


def fit_width(
    picture: UInt8[np.ndarray, "h w 3"], width: int
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Shrink a picture to `width` pixels, or widen a small one by whole pixels."""
    h, w = picture.shape[:2]
    if w == width:
        return picture
    size = (width, max(1, round(h * width / w)))
    how = cv2.INTER_AREA if w > width else cv2.INTER_NEAREST
    return cv2.resize(picture, size, interpolation=how)


def encode_jpeg(picture: UInt8[np.ndarray, "h w 3"], quality: int = 82) -> bytes:
    """Return the picture as a JPEG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def encode_png(picture: UInt8[np.ndarray, "h w k"]) -> bytes:
    """Return RGB or RGBA as a PNG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def bars(
    heights: Float[np.ndarray, "*n"], colour: tuple[int, int, int], pixels: int = 26
) -> UInt8[np.ndarray, "_ n 4"]:
    """Draw one bar a value, a pixel wide, on transparent ground; RGBA.

    A page stretches it to any width: so few bytes hold a clip of any length.

    Args:
        heights: In [0, 1]; NaN draws nothing, any other value a pixel at least.
        colour: Of the bars; fainter where they are low.
        pixels: Height of a bar of 1.
    """
    known = np.clip(np.nan_to_num(heights), 0, 1)
    tops = np.where(np.isnan(heights), 0, np.maximum(np.rint(known * pixels), 1))
    picture = np.empty((pixels, len(heights), 4), np.uint8)
    picture[..., :3] = colour
    filled = np.arange(pixels, 0, -1)[:, None] <= tops
    picture[..., 3] = filled * np.rint(110 + 145 * known)
    return picture


def write_image(path: Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write a picture; the suffix says PNG or JPEG. Folders are made."""
    _save(path, Image.fromarray(picture))


def write_mask(path: Path, mask: Bool[np.ndarray, "h w"]) -> None:
    """Write a mask as DAVIS does: an indexed PNG, object 1 in red, background black.

    Args:
        path: The file, `.png`; folders are made.
        mask: The object.
    """
    _save(path, mask_image(mask))


def mask_image(mask: Bool[np.ndarray, "h w"]) -> Image.Image:
    """Return a mask as an indexed picture with DAVIS's colours."""
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(davis_palette().tobytes())
    return image


def write_grey(path: Path, mask: Bool[np.ndarray, "h w"]) -> None:
    """Write a mask as a grey PNG, 0 and 255; folders are made."""
    _save(path, Image.fromarray(mask.astype(np.uint8) * np.uint8(255)))


def write_soft(
    path: Path, soft: Float[np.ndarray, "h w"], bits: Literal[8, 16] = 8
) -> None:
    """Write a probability in [0, 1] as a grey PNG; folders are made."""
    level = np.rint(np.clip(soft, 0, 1).astype(np.float64) * (2**bits - 1))
    _save(path, Image.fromarray(level.astype(np.uint8 if bits == 8 else np.uint16)))


def davis_palette() -> UInt8[np.ndarray, "256 3"]:
    """Return the colours of DAVIS and PASCAL VOC: bits of the label, spread."""
    labels = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            level = (labels >> (3 * bit + channel)) & 1
            palette[:, channel] |= (level << (7 - bit)).astype(np.uint8)
    return palette


def _save(path: Path, image: Image.Image) -> None:
    with files.aside(path) as draft:
        image.save(draft, quality=92)  # PNG takes no notice of it


def _outline(
    picture: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    colour: tuple[int, int, int],
    thickness: int,
) -> None:
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(picture, contours, -1, colour, thickness)


def _color_wheel() -> Float[np.ndarray, "55 3"]:
    """Return the wheel of Baker et al., "A Database and Evaluation ...", ICCV 2007."""
    corners = [(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1)]
    counts = [15, 6, 4, 11, 13, 6]
    parts = []
    for number, count in enumerate(counts):
        start = np.array(corners[number], float)
        step = np.array(corners[(number + 1) % 6]) - start
        # The original floors to whole levels of 255.
        rise = np.floor(255 * np.arange(count) / count)[:, None] / 255
        fall = 1 - rise
        parts.append(np.where(step < 0, fall, start + rise * (step > 0)))
    return np.concatenate(parts)
