"""Views of an image for learning by contrast, on the device: MoCo v2's augmentation.

Random resized crop, colour jitter (its four operations in random order), grey, blur,
flip, as DenseCL's recipe has them. A key gives the same view on any device. Everything
after the draw has static shapes and runs inside the jitted step, on stored frames of
one size.

What differs from torchvision's on Pillow images: pixels stay real numbers; a crop is
read bilinearly without antialias (hosts store frames hardly larger than crops, averaged
down); blur is a true Gaussian (Pillow's is three box filters) and ends after three
standard deviations.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, UInt8, UInt32
from ml_collections import ConfigDict

from imas_jax import conventions
from imas_jax.data import augment as pairs

ATTEMPTS = 10  # at a crop that fits, as torchvision's; then the whole image
ASPECT = (3 / 4, 4 / 3)  # width by height of a crop, log-uniform
GREY = (0.299, 0.587, 0.114)
JITTER = 0.4  # of brightness, contrast and saturation: factors in [0.6, 1.4]
HUE = 0.1  # of the circle, to both sides
HUE_UNIT = 180.0  # a whole circle in `augment.saturation_and_hue`


@struct.dataclass
class Draw:
    """The random choices for one view.

    Attributes:
        corner: (y, x) of the crop in the stored frame, pixels.
        size: (h, w) of the crop, pixels.
        flip: Whether left and right are exchanged.
        order: Places of brightness, contrast, saturation and hue among 0 to 3.
        factors: Of the first three; 1 changes nothing.
        hue: Turn, in circles; 0 changes nothing.
        grey: Whether colour is dropped.
        sigma: Of the blur, pixels of the view; 0 is none.
    """

    corner: Int[Array, "*b 2"]
    size: Int[Array, "*b 2"]
    flip: Bool[Array, "*b"]
    order: Int[Array, "*b 4"]
    factors: Float[Array, "*b 3"]
    hue: Float[Array, "*b"]
    grey: Bool[Array, "*b"]
    sigma: Float[Array, "*b"]


def augment(
    frames: UInt8[conventions.HostOrDevice, "b 2 h w 3"],
    keys: Key[Array, "*b"] | UInt32[Array, "*b 2"],
    config: ConfigDict,
) -> Float[Array, "b 2 s s 3"]:
    """Draw one view of each of two frames, normalised for the network.

    Args:
        frames: Mostly the same frame twice.
        keys: One PRNG key a pair.
        config: `config.pretrain`.
    """
    size = (frames.shape[2], frames.shape[3])

    def one(frame: Array, key: Array) -> Array:
        draw = draw_view(key, size, config)
        return apply(frame, draw, config.crop, config.blur[1])

    def both(pair: Array, key: Array) -> Array:
        return jax.vmap(one)(pair, jax.random.split(key))

    return pairs.normalize(jax.vmap(both)(jnp.asarray(frames), keys))


def draw_view(key: Array, size: tuple[int, int], config: ConfigDict) -> Draw:
    """Draw the choices for a view of a frame of `size`."""
    unit = jax.random.uniform(key, (3 * ATTEMPTS + 16,))
    rest = unit[3 * ATTEMPTS :]
    corner, crop = draw_crop(unit[: 3 * ATTEMPTS], rest[:1], size, config.scale)
    jittered = rest[1] < config.jitter

    def factor(u: Array) -> Array:
        return jnp.where(jittered, 1.0 + JITTER * (2.0 * u - 1.0), 1.0)

    low, high = config.blur
    return Draw(
        corner=corner,
        size=crop,
        flip=rest[2] < 0.5,
        order=jnp.argsort(rest[3:7]),
        factors=factor(rest[7:10]),
        hue=jnp.where(jittered, HUE * (2.0 * rest[10] - 1.0), 0.0),
        grey=rest[11] < config.grey,
        sigma=jnp.where(rest[12] < config.blurred, low + (high - low) * rest[13], 0.0),
    )


def draw_crop(
    tries: Float[Array, "30"],
    last: Float[Array, "1"],
    size: tuple[int, int],
    scale: Any,
) -> tuple[Int[Array, "2"], Int[Array, "2"]]:
    """Choose a crop by area and aspect, the first of some tries that fits.

    Args:
        tries: Uniform numbers: area, aspect and corner of each try.
        last: Not used by a try; shifts its corner along the other axis.
        size: (h, w) of the frame.
        scale: Range of the crop's share of the frame's area.

    Returns:
        Corner (y, x) and size (h, w), whole pixels inside the frame.
    """
    h, w = size
    low, high = scale
    area, aspect, place = tries.reshape(3, ATTEMPTS)
    area = h * w * (low + (high - low) * area)
    lowest, highest = (math.log(one) for one in ASPECT)
    aspect = jnp.exp(lowest + (highest - lowest) * aspect)
    heights, widths = (
        jnp.round(jnp.sqrt(area / aspect)),
        jnp.round(jnp.sqrt(area * aspect)),
    )
    fits = (heights <= h) & (widths <= w) & (heights > 0) & (widths > 0)
    first = jnp.argmax(fits)
    # None fits: the middle of the frame, as much of it as its aspect allows.
    whole = (min(h, round(w / ASPECT[0])), min(w, round(h * ASPECT[1])))
    chosen = jnp.stack([heights[first], widths[first]])
    crop = jnp.where(fits.any(), chosen, jnp.asarray(whole, chosen.dtype))
    room = jnp.asarray(size, crop.dtype) - crop
    where = jnp.stack([place[first], last[0]])
    corner = jnp.minimum(jnp.floor(where * (room + 1)), room)
    corner = jnp.where(fits.any(), corner, jnp.floor(room / 2))
    return corner.astype(jnp.int32), crop.astype(jnp.int32)


def apply(
    frame: UInt8[Array, "h w 3"], draw: Draw, side: int, widest: float
) -> Float[Array, "s s 3"]:
    """Apply one draw to one frame; returns grey levels, 0..255.

    Args:
        frame: As stored.
        draw: The choices.
        side: Of the view, pixels.
        widest: Largest sigma that is ever drawn, pixels.
    """
    pixels = read_crop(frame, draw, side)
    pixels = jitter(pixels, draw)
    pixels = jnp.where(draw.grey, grey(pixels), pixels)
    return blur(pixels, draw.sigma, widest)


def read_crop(
    frame: UInt8[Array, "h w 3"], draw: Draw, side: int
) -> Float[Array, "s s 3"]:
    """Read the drawn crop onto a square grid, mirrored where that was drawn."""
    taps = []
    for axis, flip in enumerate((jnp.asarray(False), draw.flip)):
        length = frame.shape[axis]
        # A window of `side` in a frame scaled so that the crop becomes as large.
        scale = side / draw.size[axis]
        taps.append(
            pairs.window_taps(
                length, side, side, draw.corner[axis] * scale, length * scale, flip
            )
        )
    (top, bottom, y), (left, right, x) = taps
    y, x = y.reshape(-1, 1, 1), x.reshape(1, -1, 1)
    lines = frame[top] * (1.0 - y) + frame[bottom] * y
    return lines[:, left] * (1.0 - x) + lines[:, right] * x


def jitter(pixels: Float[Array, "h w 3"], draw: Draw) -> Float[Array, "h w 3"]:
    """Change brightness, contrast, saturation and hue in the drawn order.

    The first three blend with black, with the mean grey, with grey. Each is applied in
    its place before or behind hue; a factor of 1 leaves pixels alone, so that hue, the
    dearest, is computed once.
    """
    hue_place = draw.order[3]

    def blends(pixels: Array, active: Any) -> Array:
        for place in range(4):
            which = draw.order[:3] == place  # at most one, none at hue's place
            factor = jnp.where(
                which.any() & active(place), (draw.factors * which).sum(), 1.0
            )
            levels = grey(pixels)
            other = jnp.where(which[2], levels, jnp.zeros_like(levels))
            other = jnp.where(which[1], levels.mean(), other)
            pixels = jnp.clip(pixels * factor + other * (1.0 - factor), 0.0, 255.0)
        return pixels

    pixels = blends(pixels, lambda place: place < hue_place)
    pixels = pairs.saturation_and_hue(pixels, jnp.asarray(1.0), draw.hue * HUE_UNIT)
    return blends(pixels, lambda place: place > hue_place)


def grey(pixels: Float[Array, "h w 3"]) -> Float[Array, "h w 1"]:
    """Return brightness by ITU-R 601-2, as Pillow does."""
    return (pixels * jnp.asarray(GREY, pixels.dtype).reshape(1, 1, 3)).sum(
        axis=-1, keepdims=True
    )


def blur(
    pixels: Float[Array, "h w 3"], sigma: Float[Array, ""], widest: float
) -> Float[Array, "h w 3"]:
    """Blur by a Gaussian, the edge repeated.

    Args:
        pixels: One view.
        sigma: Standard deviation, pixels; 0 leaves pixels alone.
        widest: Largest sigma there can be: three of it are summed to each side.
    """
    reach = math.ceil(3 * widest)
    if reach == 0:
        return pixels
    offsets = jnp.arange(-reach, reach + 1)
    spread = jnp.maximum(sigma, 1e-3)  # so narrow that only the pixel itself counts
    taps = jnp.exp(-0.5 * jnp.square(offsets / spread))
    taps = taps / taps.sum()
    for axis in (0, 1):
        length = pixels.shape[axis]
        # A small banded matrix: on a CPU cheaper than sums of shifted images.
        place = jnp.clip(jnp.arange(length)[:, None] + offsets[None], 0, length - 1)
        rows = jnp.broadcast_to(jnp.arange(length)[:, None], place.shape)
        matrix = (
            jnp.zeros((length, length))
            .at[rows, place]
            .add(jnp.broadcast_to(taps[None], place.shape))
        )
        subscripts = ("ij,jwk->iwk", "ij,hjk->hik")[axis]
        pixels = jnp.einsum(subscripts, matrix, pixels)
    return pixels
