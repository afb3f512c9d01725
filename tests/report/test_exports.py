"""Every format, written here and read back by another library than wrote it."""

import errno
import importlib.util
import json
import resource
import tracemalloc
import zipfile
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from skimage.draw import polygon2mask

from imas_jax.errors import UserError
from imas_jax.report import export_films, export_labels, exports
from imas_jax.report.shots import About, Shot

SIZE, COUNT, RATE = (75, 101), 6, 25.0  # odd sides
EMPTY = 4  # frame without object


def mask_of(t, size=SIZE):
    """Return two parts: a box with a hole that moves, and a triangle."""
    mask = np.zeros(size, bool)
    if t % 50 != EMPTY:
        x = 5 + 2 * (t % 20)
        mask[10:40, x : x + 30] = True
        mask[20:26, x + 10 : x + 16] = False
        mask[50:70, 60:90] = np.tri(20, 30, dtype=bool)
    return mask


def shots(count=COUNT, size=SIZE):
    image = np.zeros((*size, 3), np.uint8)
    image[...] = (180, 90, 40)
    for t in range(count):
        mask = mask_of(t, size)
        soft = np.where(mask, 0.9, 0.123).astype(np.float32)
        yield Shot(f"{t:05d}", f"{t:05d}.jpg", mask, image, soft)


def about(name="a clip", count=COUNT, size=SIZE):
    return About(name, count, size, RATE)


def write(folder, name, clip="a clip"):
    """Write one format; return its path."""
    path = exports.place(folder, name, clip)
    assert len(list(exports.write({name: path}, about(clip), shots()))) == COUNT
    return path


def masks():
    return [mask_of(t) for t in range(COUNT)]


def film(path):
    """Read a film's frames as OpenCV's own FFmpeg shows them, RGB."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (got := capture.read())[0]:
        frames.append(got[1][..., ::-1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def test_the_table_and_the_page_name_the_same_formats():
    page = (Path(__file__).parents[2] / "docs/formats.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(exports.FORMATS)


def test_png_masks_have_davis_colours(tmp_path):
    folder = write(tmp_path, "png")
    for t, mask in enumerate(masks()):
        picture = cv2.imread(str(folder / f"{t:05d}.png"))
        np.testing.assert_array_equal(picture, mask[..., None] * np.uint8([0, 0, 128]))


@pytest.mark.parametrize(("name", "bits"), [("soft8", 8), ("soft16", 16)])
def test_soft_masks_keep_their_bits(tmp_path, name, bits):
    folder = write(tmp_path, name)
    found = cv2.imread(str(folder / "00001.png"), cv2.IMREAD_UNCHANGED)
    assert found.dtype == (np.uint8 if bits == 8 else np.uint16)
    expected = np.where(mask_of(1), 0.9, 0.123) * (2**bits - 1)
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_colmap_keeps_the_background_under_the_images_own_name(tmp_path):
    folder = write(tmp_path, "colmap")
    for t, mask in enumerate(masks()):
        name = str(folder / f"{t:05d}.jpg.png")
        found = cv2.imread(name, cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, np.where(mask, 0, 255))


def test_an_overlay_has_the_frames_size_but_even(tmp_path):
    frames, rate = film(write(tmp_path, "overlay"))
    assert (len(frames), frames[0].shape, rate) == (COUNT, (76, 102, 3), RATE)
    np.testing.assert_allclose(frames[0][5, 5], (180, 90, 40), atol=4)
    assert frames[1][35, 12, 1] > 120  # tinted


@pytest.mark.parametrize(
    ("name", "decoder", "shape"),
    [("webm_alpha", "libvpx-vp9", (76, 102)), ("prores_alpha", "prores", SIZE)],
)
def test_cut_outs_have_the_mask_for_alpha(tmp_path, name, decoder, shape):
    path, found = write(tmp_path, name), []
    with av.open(str(path)) as container:
        stream, reader = (
            container.streams.video[0],
            av.CodecContext.create(decoder, "r"),
        )
        for packet in container.demux(stream):
            found += reader.decode(packet)
        tagged = (stream.codec_context.colorspace, stream.codec_context.color_range)
        assert tagged == (6, 1)  # BT.601, and not the full range
    assert len(found) == COUNT
    for frame, mask in zip(found, masks(), strict=True):
        picture = frame.to_ndarray(format="rgba")
        assert picture.shape == (*shape, 4)
        alpha = picture[: SIZE[0], : SIZE[1], 3] > 127
        assert (alpha != mask).mean() <= (0 if decoder == "prores" else 0.002)
        assert not (picture[SIZE[0] :, :, 3] > 127).any()  # what evens a side
        assert not (picture[:, SIZE[1] :, 3] > 127).any()
        if mask.any():
            np.testing.assert_allclose(picture[60, 65, :3], (180, 90, 40), atol=6)
    # What knows no alpha shows the object on black, with a rim.
    frames, rate = film(path)
    assert (len(frames), rate) == (COUNT, RATE)
    assert frames[1][45, 95].max() < 12
    np.testing.assert_allclose(frames[1][30, 9], (180, 90, 40), atol=12)


def test_high_definition_is_tagged_and_converted_as_such(tmp_path):
    size = (720, 101)
    path = tmp_path / "hd.mov"
    made = exports.write(
        {"prores_alpha": path}, about(size=size, count=1), shots(1, size)
    )
    assert len(list(made)) == 1
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.colorspace == 1
        (frame,) = container.decode(video=0)
        shown = frame.to_ndarray(format="rgb24")
    np.testing.assert_allclose(shown[60, 62], (180, 90, 40), atol=3)


def test_a_gif_is_small_and_loops(tmp_path):
    size, count = (90, 1200), 700
    path = tmp_path / "a.gif"
    for _ in exports.write({"gif": path}, about("a", count, size), shots(count, size)):
        pass
    frames, _ = film(path)
    assert 100 <= len(frames) <= export_films.GIF_FRAMES
    assert frames[0].shape == (36, export_films.GIF_WIDTH, 3)
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        assert image.info["duration"] == round(1000 * 6 / RATE, -1)


def uncompressed(counts, size):
    """Decode COCO's compressed runs as its format says: base 64, differences."""
    runs, at = [], 0
    while at < len(counts):
        value, shift, more = 0, 0, True
        while more:
            code = ord(counts[at]) - 48
            value |= (code & 31) << (5 * shift)
            at, shift, more = at + 1, shift + 1, bool(code & 32)
            if not more and code & 16:
                value |= -1 << (5 * shift)
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    bits = np.repeat(np.arange(len(runs)) % 2, runs)
    return bits.reshape(size[::-1]).T.astype(bool)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_is_read_by_its_own_tool_and_decoded_by_hand(tmp_path, capsys):
    path = write(tmp_path, "coco", 'cl"ip <é>')
    opened = COCO(str(path))
    capsys.readouterr()  # it prints
    assert [image["file_name"] for image in opened.imgs.values()] == [
        f"{t:05d}.jpg" for t in range(COUNT)
    ]
    assert opened.loadCats(1)[0]["name"] == "object"
    for image, mask in zip(opened.imgs.values(), masks(), strict=True):
        assert (image["height"], image["width"]) == SIZE
        found = opened.imgToAnns[image["id"]]
        assert len(found) == mask.any()
        for one in found:
            np.testing.assert_array_equal(opened.annToMask(one), mask)
            code = one["segmentation"]
            np.testing.assert_array_equal(uncompressed(code["counts"], SIZE), mask)
            y, x = np.nonzero(mask)
            box = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert one["bbox"] == box
            assert one["area"] == mask.sum()


def test_cvats_archive_is_as_its_page_says(tmp_path):
    with zipfile.ZipFile(write(tmp_path, "cvat")) as archive:
        listed = archive.read("ImageSets/Segmentation/default.txt").decode().split()
        assert listed == [f"{t:05d}" for t in range(COUNT)]
        lines = archive.read("labelmap.txt").decode().splitlines()
        colours = {
            name: tuple(map(int, colour.split(",")))
            for name, colour, _, _ in (line.split(":") for line in lines)
        }
        for folder in ("SegmentationClass", "SegmentationObject"):
            for name, mask in zip(listed, masks(), strict=True):
                data = np.frombuffer(archive.read(f"{folder}/{name}.png"), np.uint8)
                found = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
                expected = np.where(
                    mask[..., None], colours["object"], colours["background"]
                )
                np.testing.assert_array_equal(found, expected)


def filled(mask):
    """Return a mask without holes: what polygons can say."""
    holes = mask.copy()
    for t in range(COUNT):
        x = 5 + 2 * t
        if mask.any() and not mask[22, x + 12] and mask[15, x + 1]:
            holes[20:26, x + 10 : x + 16] = True
    return holes


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def test_yolo_polygons_outline_the_mask(tmp_path):
    folder = write(tmp_path, "yolo")
    told = yaml.safe_load((folder / "data.yaml").read_text())
    assert told["names"] == {0: "object"}
    assert (folder / told["path"] / told["train"]).name == "images"
    for t, mask in enumerate(masks()):
        lines = (folder / "labels" / f"{t:05d}.txt").read_text().splitlines()
        assert len(lines) == (2 if mask.any() else 0)
        found, trained_on = np.zeros(SIZE, bool), np.zeros(SIZE, np.uint8)
        for line in lines:
            kind, *values = line.split()
            points = np.array(values, float).reshape(-1, 2)
            assert kind == "0"
            assert points.min() >= 0
            assert points.max() <= 1
            corners = points[:, ::-1] * SIZE - 0.5
            found |= polygon2mask(SIZE, corners)
            # As Ultralytics fills them.
            cv2.fillPoly(trained_on, [(points * SIZE[::-1]).astype(np.int32)], 1)
        np.testing.assert_array_equal(trained_on, filled(mask))
        if lines:
            assert overlap(found, filled(mask)) > 0.9


def test_label_studios_tasks_have_percent_polygons_and_quoted_names(tmp_path):
    tasks = json.loads(write(tmp_path, "labelstudio", "a clip?#é").read_text())
    assert len(tasks) == COUNT
    assert tasks[0]["data"]["image"] == (
        "/data/local-files/?d=a%20clip%3F%23%C3%A9/00000.jpg"
    )
    for task, mask in zip(tasks, masks(), strict=True):
        (predicted,) = task["predictions"]
        canvas = Image.new("1", SIZE[::-1])
        for one in predicted["result"]:
            assert (one["original_height"], one["original_width"]) == SIZE
            points = np.array(one["value"]["points"]) / 100 * SIZE[::-1] - 0.5
            ImageDraw.Draw(canvas).polygon([tuple(p) for p in points], 1)
        assert len(predicted["result"]) == (2 if mask.any() else 0)
        if mask.any():
            assert overlap(np.asarray(canvas), filled(mask)) > 0.9


def test_specks_are_no_polygons():
    mask = np.zeros((20, 20), bool)
    mask[3, 3] = mask[10, 2:9] = True
    assert list(export_labels.polygons(mask)) == []


def test_a_labels_layer_is_a_stack(tmp_path):
    good, pages = cv2.imreadmulti(
        str(write(tmp_path, "napari")), flags=cv2.IMREAD_UNCHANGED
    )
    assert good
    np.testing.assert_array_equal(np.array(pages), np.array(masks()).astype(np.uint8))


FILES = [name for name, one in exports.FORMATS.items() if one.suffix]


def test_memory_does_not_grow_with_a_clips_length(tmp_path):
    def run(count, name):
        paths = {one: exports.place(tmp_path, one, name) for one in FILES}
        for _ in exports.write(paths, about(name, count), shots(count)):
            pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    short = run(60, "short")
    tracemalloc.start()
    try:
        long = run(500, "long")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    frames = 500 * SIZE[0] * SIZE[1] * 3
    # Most of it is the pictures of the GIF, at most so many.
    assert peak < 3_000_000 < frames / 3
    assert long - short < frames


class Broken(Exception):
    """Somebody else's."""


@pytest.mark.parametrize("error", [Broken(), OSError(errno.EIO, "a frame is gone")])
def test_what_ends_midway_leaves_no_file_of_a_formats_name(tmp_path, error):
    def some():
        for shot in shots():
            if shot.name == "00003":
                raise error
            yield shot

    paths = {name: exports.place(tmp_path, name, "a") for name in exports.FORMATS}
    with pytest.raises(type(error)) as raised:
        list(exports.write(paths, about("a"), some()))
    assert raised.value is error
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert not any(path.exists() for path in paths.values())


def test_a_full_disk_is_told_by_the_film_it_hits(tmp_path, monkeypatch):
    film = export_films.movie._Film
    encode, count = film._frame, 0

    def full(self, picture):
        nonlocal count
        count += 1
        if count == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        return encode(self, picture)

    monkeypatch.setattr(film, "_frame", full)
    names = ("overlay", "webm_alpha", "coco")
    paths = {name: exports.place(tmp_path, name, "a") for name in names}
    with pytest.raises(UserError, match=r"cannot write .*overlay/a\.mp4.*No space"):
        list(exports.write(paths, about("a"), shots()))
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


def test_unknown_formats_are_refused_with_the_list():
    with pytest.raises(UserError, match=r"png, soft8(.|\n)*mean webm_alpha\?"):
        exports.check(["png", "webm"])


def test_a_format_without_its_package_names_the_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "pycocotools" else find(n)
    )
    exports.check(["png", "cvat"])
    with pytest.raises(UserError, match=r"pip install 'imas_jax\[formats\]'"):
        exports.check(["coco"])


@pytest.mark.parametrize(
    ("to", "names", "expected"),
    [
        ("out", None, {"png": "out/png/c"}),
        ("out", ["coco", "yolo"], {"coco": "out/coco/c.json", "yolo": "out/yolo/c"}),
        ("a.webm", None, {"webm_alpha": "a.webm"}),
        ("a.json", None, {"coco": "a.json"}),
        ("a.json", ["labelstudio"], {"labelstudio": "a.json"}),
        ("a.MP4", None, {"overlay": "a.MP4"}),
        ("v1.2", ["coco"], {"coco": "v1.2/coco/c.json"}),
    ],
)
def test_a_files_suffix_says_its_format(tmp_path, to, names, expected):
    found = exports.destinations(tmp_path / to, names, "c")
    assert found == {name: tmp_path / path for name, path in expected.items()}


@pytest.mark.parametrize(
    ("to", "names", "said"),
    [
        ("a.avi", None, r"\.webm \(webm_alpha\)"),
        ("a.mp4", ["webm_alpha"], "an MP4 holds no alpha"),
        ("a.webm", ["webm_alpha", "coco"], "give a folder"),
        ("a.zip", ["png"], "png: a folder"),
    ],
)
def test_a_file_that_cannot_hold_what_is_asked_is_refused(tmp_path, to, names, said):
    with pytest.raises(UserError, match=said):
        exports.destinations(tmp_path / to, names, "c")
