"""Rendered clips with exact masks and exact flow; the demo needs no download.

Cut-outs of photographs (`demo/cutouts.py`, with licences) move over other photographs
(`demo/scenes.py`). No colour or texture gives the answer away: photographs behind one
clip hold, standing still, the object of another, and objects lie on colours like their
own. What is exact:

* A pixel is the area average of `SUPERSAMPLE`^2 samples of the composited layers; the
  mask is "the object covers at least half of the pixel".
* Flow is the motion of the surface seen at the pixel centre, in frame pixels.
  Reflections and shadows are light, not surfaces: under them flow is the background's,
  and they are never part of the object.
"""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
from absl import logging
from jaxtyping import Bool, Float, UInt8

from imas_jax import files
from imas_jax.demo import scenes
from imas_jax.demo.cutouts import SUPERSAMPLE
from imas_jax.demo.poses import Layer, Pose, Scene
from imas_jax.errors import UserError

JPEG_QUALITY = 95
MARKER = "demo.json"
FORMAT = 1  # raised when the same arguments render other pixels


@dataclasses.dataclass(frozen=True)
class RenderedFrame:
    """One frame of a scene.

    Attributes:
        image: RGB, 0..255.
        mask: The object.
        surface: Index of the layer seen at each pixel centre.
    """

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    surface: np.ndarray


def render_demo(
    root: Path,
    seed: int,
    frames: int = 30,
    size: tuple[int, int] = (240, 428),
    names: tuple[str, ...] = (),
) -> None:
    """Write the demo's clips as a DAVIS folder, complete or not at all.

    `root/JPEGImages/240p/<clip>/00000.jpg`, `Annotations/240p/<clip>/00000.png` (0 and
    255), `ImageSets/240p/{train,val,trainval}.txt` (all three list every clip) and
    `Flow/240p/<clip>/00000.npz` with `forward` (t -> t+1) and `backward` (t+1 -> t),
    `(h, w, 2)` float16, pixels. "240p" follows the height. A folder that is already
    there, rendered with the same arguments, is left alone.

    Args:
        root: The folder to write.
        seed: Other seeds give other places, motions and backgrounds.
        frames: Frames of each clip, at least 2.
        size: `(h, w)` of the frames.
        names: Only these scenes; empty takes all of `scenes.SCENES`.

    Raises:
        UserError: If `root` holds something else, or a scene's name is unknown.
    """
    unknown = sorted(set(names) - set(scenes.SCENES))
    if unknown or frames < 2:
        raise UserError(
            f"demo scenes {unknown}, {frames} frames",
            f"names among {sorted(scenes.SCENES)} and at least 2 frames",
            "correct the demo's settings",
        )
    root = Path(root)
    recipe = {
        "format": FORMAT,
        "seed": seed,
        "frames": frames,
        "size": list(size),
        "scenes": list(names) or list(scenes.SCENES),
    }
    if _already_there(root, recipe):
        logging.info("demo clips are already in %s", root)
        return
    with files.folder_aside(root) as draft:
        for scene in scenes.build_scenes(size, frames, seed, names):
            own = [seed, list(scenes.SCENES).index(scene.name), 1]
            _write_clip(draft, scene, size, np.random.default_rng(own))
            logging.info("rendered demo clip %s, %d frames", scene.name, frames)
        _write_lists(draft, recipe)
        (draft / MARKER).write_text(json.dumps(recipe, indent=2) + "\n")


def render_frame(
    scene: Scene, index: int, size: tuple[int, int], rng: np.random.Generator
) -> RenderedFrame:
    """Render one frame.

    Args:
        scene: The scene.
        index: Frame number.
        size: `(h, w)`.
        rng: Source of the sensor noise.
    """
    h, w = size
    points = _pixel_centres(h * SUPERSAMPLE, w * SUPERSAMPLE) / SUPERSAMPLE
    colour = np.zeros((h * SUPERSAMPLE, w * SUPERSAMPLE, 3), np.float32)
    seen = np.zeros((len(scene.layers), h * SUPERSAMPLE, w * SUPERSAMPLE), np.float32)
    for number, layer in enumerate(scene.layers):
        box = _reach(layer, layer.poses[index], colour.shape)
        if points[box].size == 0:
            continue  # out of sight
        rgba = _sample(layer, layer.poses[index], points[box])
        through = 1.0 - rgba[..., 3]
        colour[box] = rgba[..., :3] + colour[box] * through[..., None]
        if layer.kind != "light":
            seen[:number, *box] *= through
            seen[number, *box] = rgba[..., 3]
    average = cv2.resize(colour, (w, h), interpolation=cv2.INTER_AREA)
    share = np.stack(
        [cv2.resize(s, (w, h), interpolation=cv2.INTER_AREA) for s in seen]
    )
    solid = np.array([layer.kind == "object" for layer in scene.layers])
    mask = share[solid].sum(0) >= 0.5
    belongs = np.where(mask, solid[:, None, None], ~solid[:, None, None])
    noise = rng.normal(0.0, scene.noise, (h, w, 3))
    image = average * (255.0 * scene.gains[index]) + noise
    return RenderedFrame(
        np.clip(np.rint(image), 0, 255).astype(np.uint8),
        mask,
        np.argmax(np.where(belongs, share, -1.0), axis=0),
    )


def exact_flow(
    scene: Scene, surface: np.ndarray, source: int, destination: int
) -> Float[np.ndarray, "h w 2"]:
    """Return where each pixel's surface goes, in pixels.

    Args:
        scene: The scene.
        surface: Layer seen at each pixel of frame `source`, as `RenderedFrame` has it.
        source: Frame the flow lives on.
        destination: Frame it points to.
    """
    points = _pixel_centres(*surface.shape)
    flow = np.zeros((*surface.shape, 2), np.float32)
    for number, layer in enumerate(scene.layers):
        here = surface == number
        if here.any():
            on_layer = layer.poses[source].to_layer(points[here])
            flow[here] = layer.poses[destination].to_frame(on_layer) - points[here]
    return flow


def _sample(
    layer: Layer, pose: Pose, points: Float[np.ndarray, "h w 2"]
) -> Float[np.ndarray, "h w 4"]:
    """Read a layer at frame coordinates; a background repeats its edge, mirrored."""
    position = (pose.to_layer(points) * SUPERSAMPLE - 0.5).astype(np.float32)
    outside = (
        cv2.BORDER_REFLECT_101 if layer.kind == "background" else cv2.BORDER_CONSTANT
    )
    return cv2.remap(
        layer.image,
        position[..., 0],
        position[..., 1],
        cv2.INTER_LINEAR,
        borderMode=outside,
    )


def _reach(layer: Layer, pose: Pose, size: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the samples of the frame a layer can touch; a background, all of them."""
    if layer.kind == "background":
        return slice(0, size[0]), slice(0, size[1])
    h, w = np.array(layer.image.shape[:2]) / SUPERSAMPLE
    side = abs(pose.sway) + 1.0
    corners = np.array([(x, y) for x in (-side, w + side) for y in (-1.0, h + 1.0)])
    reach = (corners @ pose.matrix[:, :2].T + pose.matrix[:, 2]) * SUPERSAMPLE
    low = np.clip(np.floor(reach.min(axis=0)).astype(int), 0, None)
    high = np.clip(np.ceil(reach.max(axis=0)).astype(int), 0, None)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _pixel_centres(h: int, w: int) -> Float[np.ndarray, "h w 2"]:
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    return np.stack([x, y], axis=-1)


def _write_clip(
    root: Path, scene: Scene, size: tuple[int, int], rng: np.random.Generator
) -> None:
    folders = {
        kind: root / kind / f"{size[0]}p" / scene.name
        for kind in ("JPEGImages", "Annotations", "Flow")
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
    surfaces = []
    for t in range(len(scene.gains)):
        frame = render_frame(scene, t, size, rng)
        surfaces.append(frame.surface)
        cv2.imwrite(
            str(folders["JPEGImages"] / f"{t:05d}.jpg"),
            cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR),
            [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
        )
        cv2.imwrite(
            str(folders["Annotations"] / f"{t:05d}.png"),
            frame.mask.astype(np.uint8) * 255,
        )
    for t in range(len(surfaces) - 1):
        np.savez_compressed(
            folders["Flow"] / f"{t:05d}.npz",
            forward=exact_flow(scene, surfaces[t], t, t + 1).astype(np.float16),
            backward=exact_flow(scene, surfaces[t + 1], t + 1, t).astype(np.float16),
        )


def _write_lists(root: Path, recipe: dict) -> None:
    resolution = f"{recipe['size'][0]}p"
    folder = root / "ImageSets" / resolution
    folder.mkdir(parents=True)
    lines = [
        f"/JPEGImages/{resolution}/{name}/{t:05d}.jpg "
        f"/Annotations/{resolution}/{name}/{t:05d}.png"
        for name in recipe["scenes"]
        for t in range(recipe["frames"])
    ]
    for split in ("train", "val", "trainval"):
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")


def _already_there(root: Path, recipe: dict) -> bool:
    """Tell whether `root` is this very demo; refuse to touch anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    marker = root / MARKER
    found = json.loads(marker.read_text()) if marker.is_file() else None
    if found == recipe:
        return True
    raise UserError(
        f"{root} holds " + (f"demo clips of {found}" if found else "other files"),
        f"an absent or empty folder, or demo clips of {recipe}",
        f"delete {root} or name another folder",
    )
