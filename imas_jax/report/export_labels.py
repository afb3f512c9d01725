"""Exports that annotate: masks, polygons and what annotation tools import.

There is one object, of the class `LABEL`. Polygons cannot hold holes and want an area:
holes are filled, specks of a pixel or a line are left out (`polygons`).
"""

import contextlib
import json
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float

from imas_jax import files
from imas_jax.report import drawing
from imas_jax.report.shots import About, Shot

LABEL = "object"
Adding: TypeAlias = Callable[[Shot], None]
LARGE = 2**31  # bytes of a TIFF before packing, from which it needs 64-bit offsets


def png(path: Path, about: About) -> AbstractContextManager[Adding]:
    """Lend what writes a mask as DAVIS does: `<frame>.png`, indexed."""
    return _each(lambda s: drawing.write_mask(path / f"{s.name}.png", s.mask))


def soft8(path: Path, about: About) -> AbstractContextManager[Adding]:
    """Lend what writes a probability as grey, 0 to 255."""
    return _each(lambda s: drawing.write_soft(path / f"{s.name}.png", _soft(s)))


def soft16(path: Path, about: About) -> AbstractContextManager[Adding]:
    """Lend what writes a probability as grey, 0 to 65535."""
    return _each(lambda s: drawing.write_soft(path / f"{s.name}.png", _soft(s), 16))


def colmap(path: Path, about: About) -> AbstractContextManager[Adding]:
    """Lend what writes `<image file>.png`: white is used, black (the object) is not."""
    return _each(lambda s: drawing.write_grey(path / f"{s.file}.png", ~s.mask))


@contextlib.contextmanager
def coco(path: Path, about: About) -> Iterator[Adding]:
    """Lend what adds a frame to a COCO file: run-length encoded, one object a frame."""
    from pycocotools import mask as coco_mask  # of the extra

    h, w = about.size
    images: list[dict[str, Any]] = []  # a few bytes a frame
    with files.aside(path) as draft, draft.open("w", encoding="utf-8") as out:
        head = {
            "info": {"description": f"{about.name}: masks by imas_jax"},
            "categories": [{"id": 1, "name": LABEL, "supercategory": ""}],
        }
        out.write(json.dumps(head)[:-1] + ', "annotations": [')

        def add(shot: Shot) -> None:
            number = len(images) + 1
            images.append(
                {"id": number, "file_name": shot.file, "height": h, "width": w}
            )
            if not shot.mask.any():
                return
            code = coco_mask.encode(np.asfortranarray(shot.mask, np.uint8))
            told = {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "segmentation": {"size": [h, w], "counts": code["counts"].decode()},
                "area": int(shot.mask.sum()),
                "bbox": coco_mask.toBbox(code).tolist(),
                "iscrowd": 0,
            }
            write(told)

        write = _listed(out)
        yield add
        out.write('\n], "images": ' + json.dumps(images) + "}\n")


@contextlib.contextmanager
def cvat(path: Path, about: About) -> Iterator[Adding]:
    """Lend what adds a frame to an archive that CVAT imports as segmentation masks."""
    names: list[str] = []
    with files.aside(path) as draft, zipfile.ZipFile(draft, "w") as archive:

        def add(shot: Shot) -> None:
            names.append(shot.name)
            picture = drawing.mask_image(shot.mask)
            for folder in ("SegmentationClass", "SegmentationObject"):
                with archive.open(f"{folder}/{shot.name}.png", "w") as out:
                    picture.save(out, "PNG")

        yield add
        red, green, blue = drawing.davis_palette()[1]
        labels = f"background:0,0,0::\n{LABEL}:{red},{green},{blue}::\n"
        archive.writestr("labelmap.txt", labels)
        listed = "".join(f"{name}\n" for name in names)
        archive.writestr("ImageSets/Segmentation/default.txt", listed)


@contextlib.contextmanager
def yolo(path: Path, about: About) -> Iterator[Adding]:
    """Lend what writes `labels/<frame>.txt`, a polygon a line; empty without object."""
    scale = np.array(about.size[::-1], float)

    def add(shot: Shot) -> None:
        lines = [
            "0 " + " ".join(f"{value:.6f}" for value in (points / scale).ravel())
            for points in polygons(shot.mask)
        ]
        text = "".join(f"{line}\n" for line in lines)
        files.write_text(path / "labels" / f"{shot.name}.txt", text)

    yield add
    about_it = f"path: .\ntrain: images\nval: images\nnames:\n  0: {LABEL}\n"
    files.write_text(path / "data.yaml", about_it)


@contextlib.contextmanager
def labelstudio(path: Path, about: About) -> Iterator[Adding]:
    """Lend what adds a frame to a list of tasks, its polygons as predictions."""
    h, w = about.size
    root = "/data/local-files/?d="
    with files.aside(path) as draft, draft.open("w", encoding="utf-8") as out:
        out.write("[")
        write = _listed(out)

        def add(shot: Shot) -> None:
            found = [
                {
                    "id": f"{shot.name}-{number}",
                    "type": "polygonlabels",
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": w,
                    "original_height": h,
                    "image_rotation": 0,
                    "value": {
                        "points": (100 * points / (w, h)).round(4).tolist(),
                        "closed": True,
                        "polygonlabels": [LABEL],
                    },
                }
                for number, points in enumerate(polygons(shot.mask))
            ]
            where = urllib.parse.quote(f"{about.name}/{shot.file}")
            predicted = {"model_version": "imas_jax", "result": found}
            write({"data": {"image": root + where}, "predictions": [predicted]})

        yield add
        out.write("\n]\n")


@contextlib.contextmanager
def napari(path: Path, about: About) -> Iterator[Adding]:
    """Lend what adds a frame to a TIFF of labels (t, h, w): 1 is the object."""
    import tifffile  # of the extra

    big = about.count * about.size[0] * about.size[1] > LARGE
    with files.aside(path) as draft, tifffile.TiffWriter(draft, bigtiff=big) as out:

        def add(shot: Shot) -> None:
            out.write(
                shot.mask.astype(np.uint8),
                photometric="minisblack",
                compression="zlib",
                contiguous=False,
                metadata=None,
            )

        yield add


def polygons(mask: Bool[np.ndarray, "h w"]) -> Iterator[Float[np.ndarray, "n 2"]]:
    """Yield the outline of each part, (x, y) in pixels; (0, 0) is the image's corner.

    They go through the centres of the outermost pixels.
    """
    found, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    for contour in found:
        if len(contour) >= 3:
            yield contour[:, 0, :] + 0.5


@contextlib.contextmanager
def _each(write: Adding) -> Iterator[Adding]:
    """Lend what writes a file of its own for each frame."""
    yield write


def _listed(out: IO[str]) -> Callable[[dict[str, Any]], None]:
    """Return what writes one after the other into a JSON list."""
    first = True

    def write(one: dict[str, Any]) -> None:
        nonlocal first
        out.write(("\n" if first else ",\n") + json.dumps(one))
        first = False

    return write


def _soft(shot: Shot) -> Float[np.ndarray, "h w"]:
    assert shot.soft is not None  # the format says that it reads it
    return shot.soft
