"""One image file -> RGB uint8, and what can be wrong with it, found without decoding.

Also how pixels meet another size (`resize`).

How unusual files are treated:

- grey: the value is repeated in R, G and B;
- RGBA and LA: alpha is dropped, not composited;
- palette, CMYK, YCbCr: converted to RGB by the decoder;
- 16 bits a channel: the high byte is kept; float images are refused;
- EXIF orientation: applied, so that frames are upright and sizes are upright sizes;
- a GIF or TIFF with several pictures: the first one (a GIF as a *video* is read by
  `video.py`);
- zero-byte, truncated and undecodable files: named, with the remedy;
- pictures of more than 179 million pixels (Pillow's bound against files that claim what
  would fill the memory): refused by their headers;
- damage in the middle of a JPEG: decoders conceal it, see `conceals_damage`.
"""

import dataclasses
import re
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from imas_jax import errors

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
)

# The last bytes every complete file has; a cut file lacks them.
END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
END_WINDOW = 4096

EXIF_ORIENTATION = 0x0112
# What Pillow raises for a file that it cannot read, or will not.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

WIDE_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file's first and last bytes say.

    Attributes:
        size: Upright (h, w) in pixels; (0, 0) when the file is unreadable.
        problem: What is wrong with the file, or "".
    """

    size: tuple[int, int]
    problem: str = ""


def is_image(path: Path) -> bool:
    """Tell frames from stray files by their name; hidden files are stray."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def opened(path: Path) -> Image.Image:
    """Open one image file; a pipe would be waited for.

    Raises:
        UNREADABLE: As Pillow does, and for what is no file.
    """
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no file but a folder, a pipe or a device")
    return Image.open(path)


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read one image as upright RGB; see the module's text for unusual files.

    Raises:
        UserError: If the file is missing, empty, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            return _to_rgb(image)
    except UNREADABLE as error:
        raise errors.UserError(
            f"{path} cannot be read as an image ({_why(path, error)})",
            "a complete JPEG, PNG, BMP, PPM, TIFF or WebP file",
            "copy the file again from its source, or remove it",
        ) from error


def inspect(path: Path, decode: bool = False) -> Header:
    """Check one image file; never raises for a bad file.

    Args:
        path: The file.
        decode: Also decode every pixel (milliseconds instead of a tenth of one), which
            finds damage in the middle of a file.
    """
    try:
        with Image.open(path) as image:
            if image.mode == "F":
                return Header((0, 0), "holds float pixels; save it with 8 or 16 bits")
            w, h = image.size
            if _is_on_its_side(image):
                w, h = h, w
            if decode or not _has_end(path, image.format):
                image.load()
            return Header((h, w))
    except UNREADABLE as error:
        return Header((0, 0), _why(path, error))


def resize(
    image: Shaped[np.ndarray, "h w *k"], size: tuple[int, int]
) -> Shaped[np.ndarray, "h2 w2 *k"]:
    """Bring pixels to `size = (h, w)`: averaged where it shrinks, else bilinear."""
    if image.shape[:2] == tuple(size):
        return image
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (size[1], size[0]), interpolation=method)


def resize_mask(
    mask: Bool[np.ndarray, "h w"], size: tuple[int, int]
) -> Bool[np.ndarray, "h2 w2"]:
    """Bring a binary mask to `size = (h, w)`: what is more object than not.

    Of soft masks resize the probability instead: it knows where the edge is.
    """
    if mask.shape == tuple(size):
        return mask
    return resize(mask.astype(np.float32), size) > 0.5


def conceals_damage(path: Path) -> bool:
    """Tell whether a strict decoder stumbles in a JPEG that others show (5 ms at 480p).

    Of 30 JPEGs with 4096 zeros in their middle it finds 28, with 512 zeros 25, with 16
    random bytes 13: the others decode to something else without a contradiction. Of 831
    sound ones it suspects none. What it does not know (CMYK, other formats) passes.
    """
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
    try:
        with Image.open(path) as image:
            if image.format != "JPEG" or image.mode not in ("RGB", "L"):
                return False
        decoder.decode(av.Packet(path.read_bytes()))
    except av.error.PatchWelcomeError:
        return False
    except av.error.InvalidDataError:
        return True
    except UNREADABLE:
        return False  # not concealed: `inspect` names it
    return False


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode in WIDE_MODES:
        wide = np.asarray(ImageOps.exif_transpose(image)).astype(np.int32)
        grey = np.clip(wide // 256, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def _is_on_its_side(image: Image.Image) -> bool:
    # Pillow would decode a whole PNG in search of an EXIF block behind the pixels.
    if image.format == "PNG" and "exif" not in image.info:
        return False
    return image.getexif().get(EXIF_ORIENTATION, 1) >= 5


def _has_end(path: Path, kind: str | None) -> bool:
    mark = END_MARKS.get(kind or "")
    if mark is None:
        return False
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(length - END_WINDOW, 0))
        return mark in file.read()


def _why(path: Path, error: Exception) -> str:
    if not path.exists():
        return "is missing"
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image"
    if isinstance(error, Image.DecompressionBombError):
        claimed, limit = (int(n) / 1e6 for n in re.findall(r"\d+", str(error))[:2])
        return (
            f"is of {claimed:.0f} million pixels, over {limit:.0f} million: shrink it"
        )
    said = str(error).lower()
    if "truncated" in said or "broken" in said or isinstance(error, SyntaxError):
        return "is truncated or damaged"
    return f"cannot be read: {error}"
