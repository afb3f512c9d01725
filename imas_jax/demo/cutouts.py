"""Cut-outs and backgrounds of photographs that ship inside scikit-image.

Licences (scikit-image's own statements, `skimage/data/_fetchers.py`):
    astronaut.png   NASA, no known copyright restrictions, public domain
    chelsea.png     CC0, Stefan van der Walt
    coffee.png      CC0, Rachel Michetti
    rocket.jpg      public domain, SpaceX
    ihc.png         no known copyright restrictions, CMMI
    brick.png       CC0 (CC0Textures, Bricks25)
    gravel.png      CC0 (CC0Textures, Gravel04)
    grass.png       CC0 (DeviantArt, linolafett)

A layer image is float32 RGBA in [0, 1], colour premultiplied, with `SUPERSAMPLE`
samples a frame pixel.
"""

from pathlib import Path

import cv2
import numpy as np
import skimage.data
from jaxtyping import Float, UInt8

SUPERSAMPLE = 2

# Outlines in pixels of the photographs, drawn by hand.
OUTLINES = {
    "head": "155,70 160,50 180,35 205,20 235,14 260,18 280,32 295,60 302,85 298,105 "
    "288,122 275,130 268,135 262,160 252,175 240,184 222,188 200,184 188,172 183,150 "
    "181,132 170,128 158,110 152,90",
    "torso": "118,205 112,190 122,172 140,157 165,148 192,146 252,152 258,172 282,194 "
    "298,220 303,238 320,248 335,265 345,290 352,310 362,342 330,366 305,395 290,430 "
    "284,460 282,530 65,530 60,500 40,480 25,440 20,390 25,360 35,320 48,290 62,262 "
    "80,240 105,215",
    "helmet": "282,511 283,460 290,425 303,395 325,368 350,350 380,343 410,343 440,355 "
    "465,378 485,410 495,445 508,458 511,511",
    "shuttle": "379,62 386,42 394,58 398,30 404,1 428,1 436,18 439,46 446,40 453,55 "
    "455,240 452,262 445,272 425,268 395,273 385,262 368,270 369,252 379,232 357,224 "
    "355,212 378,185 380,110",
    "cat": "40,110 36,70 52,32 88,8 140,3 230,2 318,4 340,12 372,3 393,2 385,30 366,60 "
    "352,85 362,125 350,170 330,205 314,240 298,268 268,284 230,279 190,272 150,266 "
    "112,242 76,206 54,166",
    "cup": "80,190 85,160 100,130 125,105 155,85 178,72 186,55 205,38 240,24 280,18 "
    "320,20 355,32 385,52 400,72 412,66 424,72 420,90 416,107 440,125 462,155 475,190 "
    "478,225 470,265 450,305 420,340 385,365 340,382 290,388 240,382 195,365 150,335 "
    "115,300 90,255 80,220",
}


def read_photo(name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Read a photograph that is part of the scikit-image package, as RGB."""
    path = Path(skimage.data.__file__).parent / name
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def outline(name: str) -> np.ndarray:
    """Return an outline's corners, `(n, 2)` int32 pixels of its photograph."""
    corners = [corner.split(",") for corner in OUTLINES[name].split()]
    return np.array(corners, np.int32)


def cut_out(
    photo: UInt8[np.ndarray, "h w 3"], name: str, scale: float
) -> Float[np.ndarray, "h2 w2 4"]:
    """Cut an object out; the layer keeps the photograph's origin, times `scale`."""
    alpha = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillPoly(alpha, [outline(name)], 255, lineType=cv2.LINE_AA)
    # Rounds the polygon's corners; the level set at one half keeps the outline.
    smooth = cv2.GaussianBlur(alpha, (0, 0), 2.5).astype(np.float32) / 255
    alpha_soft = np.clip((smooth - 0.5) * 3 + 0.5, 0, 1)[..., None]
    colour = photo.astype(np.float32) / 255
    return resample(np.concatenate([colour * alpha_soft, alpha_soft], -1), scale)


def paint_over(
    photo: UInt8[np.ndarray, "h w 3"], name: str, colour: tuple[int, int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the photograph with one outline filled."""
    return cv2.fillPoly(photo.copy(), [outline(name)], colour)


def resample(image: np.ndarray, scale: float) -> np.ndarray:
    """Scale a layer image to `SUPERSAMPLE` samples a frame pixel."""
    h, w = image.shape[:2]
    size = (round(w * scale * SUPERSAMPLE), round(h * scale * SUPERSAMPLE))
    how = cv2.INTER_AREA if scale * SUPERSAMPLE < 1 else cv2.INTER_LINEAR
    return cv2.resize(image, size, interpolation=how)


def tint(
    photo: UInt8[np.ndarray, "h w 3"], factor: tuple[float, float, float]
) -> UInt8[np.ndarray, "h w 3"]:
    """Colour a grey photograph."""
    return np.clip(photo * np.array(factor), 0, 255).astype(np.uint8)


def mirror_floor(
    image: Float[np.ndarray, "h w 4"], floor: float
) -> Float[np.ndarray, "h w 4"]:
    """Turn what lies below y = `floor` (frame pixels) into a dim mirror of the rest."""
    line = round(floor * SUPERSAMPLE)
    below = image.shape[0] - line
    mirrored = cv2.GaussianBlur(image[line - below : line][::-1], (0, 0), 1.5)
    shade = np.linspace(0.75, 0.45, below, dtype=np.float32)[:, None, None]
    mirrored[..., :3] *= shade
    return np.concatenate([image[:line], mirrored])


def faded(
    image: Float[np.ndarray, "h w 4"], opacity: float
) -> Float[np.ndarray, "h w 4"]:
    """Make a cut-out's reflection: softer, dimmer, and weaker towards its top."""
    soft = cv2.GaussianBlur(image, (0, 0), 1.5)
    rise = np.linspace(0.1, opacity, image.shape[0], dtype=np.float32)[:, None, None]
    return soft * rise * np.array([0.8, 0.8, 0.8, 1.0], np.float32)


def shadow(
    image: Float[np.ndarray, "h w 4"], opacity: float
) -> Float[np.ndarray, "h w 4"]:
    """Make a cut-out's soft shadow."""
    alpha = cv2.GaussianBlur(image[..., 3], (0, 0), 4.0) * opacity
    return np.stack([np.zeros_like(alpha)] * 3 + [alpha], axis=-1)
