"""The size frames are resized to before a crop, and which crops they can give."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from imas_jax import errors


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
            frame, or if the mode is unknown.
    """
    if config.mode not in ("crop", "resize"):
        raise errors.UserError(
            f"augment.mode={config.mode!r}", "crop or resize", "set one of the two"
        )
    if config.mode == "resize":
        return
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
    if config.mode == "resize":
        return jnp.asarray(config.crop, jnp.int32)
    low, high = (config.short_side * factor for factor in config.scale)
    # The clip keeps float32 rounding from going below the size `check_crop` allows.
    short = jnp.clip(jnp.floor(low + (high - low) * fraction), int(low), int(high))
    sides = jnp.asarray(size, jnp.float32) * short / min(size)
    return jnp.floor(sides + 0.5).astype(jnp.int32)
