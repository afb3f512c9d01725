import base64
import dataclasses
import html.parser
import json
import math
import re

import cv2
import numpy as np
import pytest

from imas_jax.evaluation.protocol import Entry, SequenceScore
from imas_jax.evaluation.tables import Table
from imas_jax.report import curves, document

RNG = np.random.default_rng(0)


def entry(label: str, kind, *means: float) -> Entry:
    scores = tuple(
        SequenceScore(f"s{i}", 3, (0, 1, 2), (m,) * 3, (m,) * 3, (False,) * 3)
        for i, m in enumerate(means)
    )
    return Entry(label, kind, scores)


def sequence(
    name: str, jaccards, kinds=("frame", "object", "flow")
) -> document.SequenceView:
    frames = []
    for number, jaccard in enumerate(jaccards):
        pictures = {
            kind: RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8) for kind in kinds
        }
        frames.append(
            document.FrameView(
                f"{number:05d}",
                document.encode(pictures),
                place=number,
                jaccard=jaccard,
            )
        )
    return document.SequenceView(name, tuple(frames), "channel 2")


def example(**changes) -> document.Report:
    values = {
        "title": "A run <of> bears & dogs",
        "subtitle": "seed 0",
        "command": "python -m imas_jax.main --config=configs/demo.py",
        "entries": (
            entry("stage 2", "oracle", 0.9, 0.95),
            entry("stage 2", "aligned", 0.8, 0.85),
            entry("motion baseline", "baseline", 0.5, 0.55),
        ),
        "panels": (
            curves.Panel("loss", "px", (curves.Curve("all", [0, 9], [2.0, 1.0]),)),
        ),
        "alignment": Table("scores", ("channel", "score"), (("2", "61.0"),)),
        "targets": Table("changed", ("sequence", "CRF, %"), (("bad", "7.25"),)),
        "sequences": (
            sequence("fine", [0.9, 0.8, 0.85]),
            sequence("bad", [0.5, 0.2, 0.6]),
        ),
        "warnings": ("flow of frame 3 is <unsure>",),
        "seconds": {"flow": 2.0, "discover": 20.0},
        "config": "seed: 0",
        "versions": {"jax": "0.10.2"},
    }
    return document.Report(**(values | changes))


class Balance(html.parser.HTMLParser):
    """Notes elements that are not closed, or closed out of order."""

    VOID = ("meta", "link", "img", "input", "line")

    def __init__(self):
        super().__init__()
        self.open, self.wrong = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.mark.parametrize(
    "page", [example(), document.Report(title="nothing"), example(entries=())]
)
def test_the_page_is_well_formed(page):
    parser = Balance()
    parser.feed(document.render(page))
    assert parser.wrong == []
    assert parser.open == []


def test_the_page_asks_nothing_of_the_network():
    text = document.render(example())
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text)
    assert "@import" not in text
    assert "url(" not in text


def test_names_from_outside_are_escaped():
    text = document.render(example())
    assert "A run &lt;of&gt; bears &amp; dogs" in text
    assert "<unsure>" not in text


def test_a_caption_cannot_end_the_script_that_holds_the_frames():
    view = sequence("x", [None])
    frame = document.FrameView("</script><b>", view.frames[0].pictures)
    text = document.render(example(sequences=(document.SequenceView("x", (frame,)),)))
    assert "</script><b>" not in text
    assert json.loads(payloads(text)[0])[0]["name"] == "</script><b>"


def payloads(text: str) -> list[str]:
    return re.findall(r'<script type="application/json">(.*?)</script>', text, re.S)


def test_every_frames_pictures_are_in_the_page():
    view = sequence("x", [0.5, 0.7])
    (payload,) = payloads(document.render(example(sequences=(view,))))
    frames = json.loads(payload)
    assert [f["jaccard"] for f in frames] == [0.5, 0.7]
    data = np.frombuffer(base64.b64decode(frames[1]["pictures"][0]), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (24, 40, 3)


def test_the_worst_sequence_and_the_worst_frames_come_first():
    text = document.render(example())
    names = re.findall(r"<h3[^>]*>(fine|bad)</h3>", text)
    assert names == ["bad", "fine"]
    box = text[text.index(">bad</h3>") :]
    assert re.findall(r'data-at="(\d)"', box)[:3] == ["1", "0", "2"]
    assert 'value="1"' in box


def test_without_annotations_there_are_no_scores_and_order_is_kept():
    views = (sequence("fine", [None, None]), sequence("bad", [None]))
    text = document.render(example(entries=(), sequences=views))
    assert "nothing is scored" in text
    assert re.findall(r"<h3[^>]*>(fine|bad)</h3>", text) == ["fine", "bad"]
    assert "Worst frames" not in text


def test_without_annotations_frames_that_agree_least_with_motion_are_offered():
    frames = tuple(
        document.FrameView(
            str(t),
            document.encode({"flow": np.zeros((4, 6, 3), np.uint8)}),
            agreement=v,
        )
        for t, v in enumerate((0.9, 0.3, 0.6))
    )
    page = document.render(
        example(entries=(), sequences=(document.SequenceView("x", frames),))
    )
    assert re.findall(r'data-at="(\d)"', page) == ["1", "2", "0"]
    assert "Least agreement" in page
    assert "no score" in page
    assert json.loads(payloads(page)[0])[1]["agreement"] == 0.3


def test_the_mean_is_of_all_frames_though_some_are_shown():
    view = sequence("x", [0.1, 0.2])
    page = document.render(example(sequences=(dataclasses.replace(view, mean=0.75),)))
    assert ">J 75.0<" in page


def test_the_aligned_channel_is_the_result_and_the_oracle_is_named():
    text = document.render(example())
    cards = re.findall(r'<div class="card( \w+)?">(.*?)<b>([\d.]+)</b>', text)
    assert cards == [
        ("", "motion baseline", "52.5"),
        (" result", "stage 2", "82.5"),
        (" oracle", "stage 2 (oracle channel)", "92.5"),
    ]


def test_a_page_that_is_too_large_shows_fewer_frames_and_says_so(tmp_path):
    jaccards = [0.9, 0.8, 0.7, 0.1, 0.6, 0.5, 0.9, 0.9, 0.9]
    page = example(sequences=(sequence("x", jaccards),))
    whole = len(document.render(page))
    path = tmp_path / "report.html"
    document.write(path, page, limit=whole - 1000)
    text = path.read_text()
    assert len(text) < whole - 1000
    assert "one frame in 2 is shown" in text
    shown = [frame["jaccard"] for frame in json.loads(payloads(text)[0])]
    assert shown == [0.9, 0.7, 0.1, 0.6, 0.9, 0.9]  # every second, and the worst
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_page_within_the_limit_keeps_all(tmp_path):
    document.write(tmp_path / "a/report.html", example())
    text = (tmp_path / "a/report.html").read_text()
    assert [len(json.loads(p)) for p in payloads(text)] == [3, 3]


def test_channel_and_target_statistics_are_tabulated():
    page = document.render(example())
    for heading, cell in (("Object channel", "61.0"), ("Stage-2 targets", "7.25")):
        assert f"<h2>{heading}</h2>" in page
        assert f"{cell}</td>" in page
    assert "Stage-2 targets" not in document.render(example(targets=None))


def test_strips_of_one_name_share_a_scale_so_that_sequences_compare():
    views = []
    for name, highest in (("a", 0.2), ("b", 0.4)):
        values = (highest / 2, math.nan, highest)
        strip = document.Strip("unsure", values, (1, 2, 3), top=None)
        views.append(dataclasses.replace(sequence(name, [None] * 3), strips=(strip,)))
    text = document.render(example(entries=(), sequences=tuple(views)))
    heights = []
    for data in re.findall(r"data:image/png;base64,([^\"]+)", text):
        picture = cv2.imdecode(
            np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED
        )
        heights.append((picture[..., 3] > 0).sum(axis=0).tolist())
    assert heights == [[6, 0, 13], [13, 0, 26]]
    assert "mean 15.0, from 10.0 to 20.0" in text


def test_channels_are_named_below_their_picture():
    channels = (document.Channel("1: the object <x>", (86, 180, 233)),)
    view = sequence("x", [0.5], kinds=("frame", "object", "channels"))
    view = dataclasses.replace(view, channels=channels)
    text = document.render(example(sequences=(view,)))
    assert '<i style="background:rgb(86, 180, 233)"></i>1: the object &lt;x&gt;' in text


def test_small_pictures_are_not_enlarged_and_large_ones_are_shrunk():
    pictures = {
        name: np.zeros((90, width, 3), np.uint8)
        for name, width in (("frame", 900), ("object", 100), ("flow", 900))
    }
    widths = [
        cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[1]
        for jpeg in document.encode(pictures).values()
    ]
    assert widths == [480, 100, 320]
