import numpy as np
import pytest

from imas_jax.report import document
from imas_jax.stages.report_links import Links

ODD = "a #1? <b>&"


@pytest.fixture
def links(tmp_path):
    for name in (
        "report/videos/bear.mp4",
        f"report/videos/{ODD}.mp4",
        "predict/masks/bear/00000.png",
        "predict/masks/bear/00001.png",
        "predict/webm_alpha/bear.webm",
        f"predict/webm_alpha/{ODD}.webm",
        "predict/yolo/bear/00000.txt",
        "predict/coco/bear.json",
        "predict/soft/bear.npy",
        "predict/result.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0" * 100_000)
    return Links(tmp_path)


def paths(found):
    return [link.path for link in found]


def test_a_clip_has_links_to_what_is_there_of_it(links):
    found = links.of_clip("bear")
    assert paths(found) == [
        "videos/bear.mp4",
        "../predict/masks/bear/",
        "../predict/coco/bear.json",
        "../predict/webm_alpha/bear.webm",
        "../predict/yolo/bear/",
    ]
    assert [link.detail for link in found[:2]] == ["0.1 MB", "folder of 2"]


def test_folders_that_hold_all_clips_are_linked_once(links):
    assert paths(links.of_all()) == [
        "videos/",
        "../predict/masks/",
        "../predict/coco/",
        "../predict/webm_alpha/",
        "../predict/yolo/",
    ]


def test_names_that_are_no_addresses_become_some(links):
    frame = document.encode({"frame": np.zeros((4, 4, 3), np.uint8)})
    view = document.SequenceView(
        ODD, (document.FrameView("0", frame),), links=links.of_clip(ODD)
    )
    page = document.render(document.Report(title="x", sequences=(view,)))
    assert 'href="videos/a%20%231%3F%20%3Cb%3E%26.mp4"' in page
    assert "<b>&" not in page
