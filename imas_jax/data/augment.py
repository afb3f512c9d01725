"""Augmentation on the device: scale, crop, flip and colour, one draw for both frames.

Random short side, random crop, horizontal flip, then mmsegmentation's photometric
distortion (paper Sec. 4; ranges from the authors' code). Everything after the draw is
arithmetic with static shapes, so it runs inside the jitted train step; a key gives the
same sample on any device. Must not know where batches come from.

A crop of a resized image is one bilinear resample of the stored frame. The flow and
the stage-2 targets are read from the same window straight onto the mask grid.

Differences from the authors' code, all of them deliberate:
    - A flip negates the horizontal flow component; theirs did not (a defect).
    - Flow and targets are resampled once, bilinearly. They resize to the frame's size
      with nearest neighbour, crop, then resize to the mask bilinearly.
    - Pixels stay real numbers. They round to a grey level after the resize and
      truncate after every colour operation (half a level darker on average), and
      store hue in steps of two degrees.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt8, UInt32
from ml_collections import ConfigDict

from imas_jax import conventions, errors, geometry
from imas_jax.conventions import Batch, Features, Sample

# mmsegmentation's PhotoMetricDistortion defaults, which the authors keep. Each of the
# four operations happens with probability 1/2.
BRIGHTNESS = 32.0  # added, grey levels
CONTRAST = (0.5, 1.5)  # factor
SATURATION = (0.5, 1.5)  # factor
HUE = 18.0  # added, of 180 (OpenCV's unit: two degrees)


@struct.dataclass
class Draw:
    """The random choices for one frame pair.

    Attributes:
        scaled: (h, w) the frame is resized to before the crop, pixels.
        offset: (y, x) corner of the crop in the resized frame, pixels.
        flip: Whether left and right are exchanged.
        brightness: Added, grey levels; 0 changes nothing.
        contrast: Factor; 1 changes nothing.
        contrast_first: Contrast comes before saturation and hue, else after.
        saturation: Factor; 1 changes nothing.
        hue: Added, of 180; 0 changes nothing.
    """

    scaled: Int[Array, "*b 2"]
    offset: Int[Array, "*b 2"]
    flip: Bool[Array, "*b"]
    brightness: Float[Array, "*b"]
    contrast: Float[Array, "*b"]
    contrast_first: Bool[Array, "*b"]
    saturation: Float[Array, "*b"]
    hue: Float[Array, "*b"]


def augment(
    batch: Batch,
    keys: Key[Array, "*b"] | UInt32[Array, "*b 2"],
    config: ConfigDict,
    mask_size: tuple[int, int],
    train: bool = True,
) -> Sample:
    """Turn stored frame pairs into what the network and the losses see.

    Args:
        batch: Frame pairs of one stored size.
        keys: One PRNG key a pair, `(b,)`.
        config: The `augment` part of a config.
        mask_size: (h, w) of the masks for a crop.
        train: False takes the centre of the frame at the largest scale, without flip
            and colour; the keys are then not used. So it is with features in the place
            of frames, which nothing is done to: the crop must be the whole frame.

    Returns:
        Frames of `config.crop`, flow and targets of `mask_size`.

    Raises:
        UserError: While tracing, if a crop does not fit into the resized frames.
    """
    if isinstance(batch.frames, Features):
        size, train = tuple(config.crop), False
    else:
        size = batch.frames.shape[2:4]
    check_crop(size, config)

    def one(example: Batch, key: Array) -> Sample:
        draw = draw_parameters(key, size, config) if train else centre(size, config)
        return apply(example, draw, config, mask_size, train and config.photometric)

    return jax.vmap(one)(batch, keys)


def eval_sample(
    frames: UInt8[conventions.HostOrDevice, "*b h w 3"],
    size: tuple[int, int] | None = None,
) -> Float[Array, "*b h2 w2 3"]:
    """Normalise whole frames, resized to `size` first if one is given."""
    pixels = jnp.asarray(frames, jnp.float32)
    return normalize(pixels if size is None else geometry.resize(pixels, size))


def normalize(pixels: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """Bring RGB grey levels (0..255) to the network's range."""
    lead = (1,) * (pixels.ndim - 1)
    mean = jnp.asarray(conventions.IMAGENET_MEAN, jnp.float32).reshape(*lead, 3)
    std = jnp.asarray(conventions.IMAGENET_STD, jnp.float32).reshape(*lead, 3)
    return (pixels / 255.0 - mean) / std


def denormalize(frames: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """Bring the network's frames back to levels in [0, 1]."""
    lead = (1,) * (frames.ndim - 1)
    mean = jnp.asarray(conventions.IMAGENET_MEAN, jnp.float32).reshape(*lead, 3)
    std = jnp.asarray(conventions.IMAGENET_STD, jnp.float32).reshape(*lead, 3)
    return frames * std + mean


def draw_parameters(key: Array, size: tuple[int, int], config: ConfigDict) -> Draw:
    """Draw the choices for one pair of frames of `size`.

    One vector of uniform numbers in [0, 1) serves all of them: a dozen generator calls
    would take longer to compile than the rest of augmentation.
    """
    unit = jax.random.uniform(key, (13,))
    scaled = scaled_size(size, unit[0], config)
    room = scaled - jnp.asarray(config.crop)
    offset = jnp.floor(unit[1:3] * (room + 1)).astype(jnp.int32)

    def sometimes(index: int, low: float, high: float, rest: float) -> Array:
        value = low + (high - low) * unit[index]
        return jnp.where(unit[index + 1] < 0.5, value, rest)

    return Draw(
        scaled=scaled,
        # A product that rounds up to room + 1 would leave the frame.
        offset=jnp.minimum(offset, room),
        flip=unit[3] < config.flip,
        contrast_first=unit[4] < 0.5,
        brightness=sometimes(5, -BRIGHTNESS, BRIGHTNESS, 0.0),
        contrast=sometimes(7, *CONTRAST, 1.0),
        saturation=sometimes(9, *SATURATION, 1.0),
        hue=sometimes(11, -HUE, HUE, 0.0),
    )


def centre(size: tuple[int, int], config: ConfigDict) -> Draw:
    """Choose the middle of the frame at the largest scale and leave colours alone."""
    scaled = scaled_size(size, jnp.asarray(1.0), config)
    return Draw(
        scaled=scaled,
        offset=(scaled - jnp.asarray(config.crop)) // 2,
        flip=jnp.asarray(False),
        brightness=jnp.asarray(0.0),
        contrast=jnp.asarray(1.0),
        contrast_first=jnp.asarray(True),
        saturation=jnp.asarray(1.0),
        hue=jnp.asarray(0.0),
    )


def apply(
    example: Batch,
    draw: Draw,
    config: ConfigDict,
    mask_size: tuple[int, int],
    photometric: bool,
) -> Sample:
    """Apply one draw to one pair; `example` has no batch axis."""
    crop = tuple(config.crop)
    sign = jnp.where(draw.flip, -1.0, 1.0)
    unit = jnp.stack([sign, jnp.ones_like(sign)])
    frames = example.frames
    if not isinstance(frames, Features):
        if config.scale_flow:
            stored = jnp.asarray(frames.shape[1:3], jnp.float32)
            unit = unit * (draw.scaled / stored)[::-1]
        pixels = resample(frames, draw, crop, crop)
        frames = normalize(distort(pixels, draw) if photometric else pixels)
    both = jnp.stack([example.flow_forward, example.flow_backward])
    flow = resample(both, draw, crop, mask_size)
    flow = flow * unit.reshape(1, 1, 1, 2)

    target = None
    if example.target is not None:
        levels = example.target[..., None]
        target = resample(levels, draw, crop, mask_size)[..., 0] / 255.0
    return Sample(
        frames=frames,
        flow_forward=flow[0],
        flow_backward=flow[1],
        target=target,
    )


def resample(
    maps: Num[Array, "n h w k"],
    draw: Draw,
    crop: tuple[int, int],
    size: tuple[int, int],
) -> Float[Array, "n h2 w2 k"]:
    """Read the drawn crop from full-frame maps of any resolution onto a grid of `size`.

    Bilinear, half-pixel centres, no antialias, the edge repeats. Rows, then columns:
    on a CPU several times faster than two products with weight matrices.
    """
    h, w = maps.shape[1:3]
    upright = jnp.asarray(False)
    top, bottom, y = window_taps(
        h, size[0], crop[0], draw.offset[0], draw.scaled[0], upright
    )
    left, right, x = window_taps(
        w, size[1], crop[1], draw.offset[1], draw.scaled[1], draw.flip
    )
    y, x = y.reshape(1, -1, 1, 1), x.reshape(1, 1, -1, 1)
    lines = maps[:, top] * (1.0 - y) + maps[:, bottom] * y
    return lines[:, :, left] * (1.0 - x) + lines[:, :, right] * x


def window_taps(
    size_in: int,
    size_out: int,
    crop: int,
    offset: Num[Array, ""],
    scaled: Num[Array, ""],
    flip: Bool[Array, ""],
) -> tuple[Int[Array, "*o"], Int[Array, "*o"], Float[Array, "*o"]]:
    """Find the two samples, and the second's weight, behind each point of a window.

    Args:
        size_in: Samples along the full axis.
        size_out: Points along the window.
        crop: Length of the window, pixels of the resized axis.
        offset: Start of the window, pixels of the resized axis.
        scaled: Length of the whole axis, resized.
        flip: Whether the window is read backwards.
    """
    index = jnp.arange(size_out, dtype=jnp.float32)
    index = jnp.where(flip, size_out - 1 - index, index)
    place = offset + (index + 0.5) * (crop / size_out)
    position = jnp.clip(place * (size_in / scaled) - 0.5, 0, size_in - 1)
    low = jnp.floor(position).astype(jnp.int32)
    return low, jnp.minimum(low + 1, size_in - 1), position - low


def distort(pixels: Float[Array, "n h w 3"], draw: Draw) -> Float[Array, "n h w 3"]:
    """Change the colours of both frames alike, in mmsegmentation's order."""
    first = jnp.where(draw.contrast_first, draw.contrast, 1.0)
    last = jnp.where(draw.contrast_first, 1.0, draw.contrast)
    pixels = linear(pixels, jnp.asarray(1.0), draw.brightness)
    pixels = linear(pixels, first, jnp.asarray(0.0))
    pixels = saturation_and_hue(pixels, draw.saturation, draw.hue)
    return linear(pixels, last, jnp.asarray(0.0))


def linear(
    pixels: Float[Array, "*n"], factor: Float[Array, ""], shift: Float[Array, ""]
) -> Float[Array, "*n"]:
    """Scale and shift grey levels within 0..255: contrast and brightness."""
    return jnp.clip(pixels * factor + shift, 0.0, 255.0)


def saturation_and_hue(
    pixels: Float[Array, "*n 3"], factor: Float[Array, ""], shift: Float[Array, ""]
) -> Float[Array, "*n 3"]:
    """Scale saturation (at most to 1), then turn hue by `shift` of 180.

    The usual way through HSV with the divisions cancelled: saturation times value is
    the spread of the three levels, so grey and black need no special case.
    """
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    spread = value - jnp.minimum(jnp.minimum(red, green), blue)
    scale = 1.0 / jnp.where(spread > 0, spread, 1.0)
    # Hue in sixths of the circle, from red.
    hue = jnp.where(
        value == red,
        (green - blue) * scale,
        jnp.where(
            value == green, 2.0 + (blue - red) * scale, 4.0 + (red - green) * scale
        ),
    )
    hue = hue + shift / 30.0
    spread = jnp.minimum(spread * factor, value)

    turn = hue[..., None] + jnp.asarray([5.0, 3.0, 1.0]).reshape(*(1,) * hue.ndim, 3)
    turn = turn - 6.0 * jnp.floor(turn / 6.0)
    part = jnp.clip(jnp.minimum(turn, 4.0 - turn), 0.0, 1.0)
    return value[..., None] - spread[..., None] * part


def fit_crop(size: tuple[int, int], config: ConfigDict) -> tuple[int, int]:
    """Return a crop that every draw can cut from frames of `size`.

    The config's crop where it fits, else turned where that fits better (tall frames),
    and shrunk to multiples of 16 pixels.
    """
    smallest = smallest_scaled(size, config)
    crop = tuple(config.crop)
    if (crop[0] - crop[1]) * (size[0] - size[1]) < 0:
        crop = crop[::-1]
    h, w = (
        side if side <= room else max(room // 16 * 16, 16)
        for side, room in zip(crop, smallest, strict=True)
    )
    return h, w


def check_crop(size: tuple[int, int], config: ConfigDict) -> None:
    """Refuse a crop that some draw could not cut from frames of `size`.

    Raises:
        UserError: With the sizes, if the crop is larger than the smallest resized
            frame.
    """
    smallest = smallest_scaled(size, config)
    if smallest[0] < config.crop[0] or smallest[1] < config.crop[1]:
        raise errors.UserError(
            f"augment.crop={tuple(config.crop)} from frames resized to {smallest} "
            f"(stored {tuple(size)}, short side {config.short_side} * "
            f"{config.scale[0]})",
            "a crop (h, w) that fits into the smallest resized frame",
            "lower augment.crop, or raise augment.short_side or augment.scale",
        )


def smallest_scaled(size: tuple[int, int], config: ConfigDict) -> tuple[int, int]:
    """Return the (h, w) of frames of `size` at the smallest scale that is drawn."""
    short = int(config.short_side * config.scale[0])
    h, w = (int(side * short / min(size) + 0.5) for side in size)
    return h, w


def scaled_size(
    size: tuple[int, int], fraction: Float[Array, ""], config: ConfigDict
) -> Int[Array, "2"]:
    """Compute the (h, w) before the crop; `fraction` in [0, 1] runs over the range.

    Whole pixels, rounded as mmcv does: the short side down, the long side to nearest.
    """
    low, high = (config.short_side * factor for factor in config.scale)
    # The clip keeps float32 rounding from going below the size `check_crop` allows.
    short = jnp.clip(jnp.floor(low + (high - low) * fraction), int(low), int(high))
    sides = jnp.asarray(size, jnp.float32) * short / min(size)
    return jnp.floor(sides + 0.5).astype(jnp.int32)
