"""The pages in a browser: the system's chromium, driven by Playwright."""

import io
import itertools
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from imas_jax.evaluation.tables import Table
from imas_jax.report import contents, curves, document, drawing

playwright = pytest.importorskip(
    "playwright.sync_api", reason="no playwright here (pip install playwright)"
)
pytestmark = pytest.mark.slow

HOSTILE = '<img src=x onerror="document.title=1">'
CAPTIONS = ("frame", "object", "channels")
# Places of the frames with pictures, in a clip of 20; J is lowest at place 8.
PLACES = {0: 0.9, 4: 0.8, 8: 0.2, 12: 0.7, 19: 0.6}


def view(name: str) -> document.SequenceView:
    """Make a sequence of flat pictures: red frame, green object, blue channels."""
    frames = []
    for place, jaccard in PLACES.items():
        pictures = {
            caption: np.full((90, 160, 3), np.eye(3)[number] * 250, np.uint8)
            for number, caption in enumerate(CAPTIONS)
        }
        frames.append(
            document.FrameView(
                f"{place:05d}",
                document.encode(pictures),
                place=place,
                jaccard=jaccard,
                unsure=place / 50,
            )
        )
    return document.SequenceView(
        name,
        tuple(frames),
        strips=(document.Strip("unsure", tuple(np.arange(20) / 50), (224, 122, 48)),),
        channels=(document.Channel("0: the object", (230, 159, 0)),),
        links=(document.Link("masks", f"../masks/{name}/", "folder of 20"),),
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    wide = Table("wide", tuple(f"column {i}" for i in range(30)), (("x",) * 30,))
    page = document.Report(
        title="A run " + "with-a-long-name" * 6,
        command="python -m imas_jax.main " + "--config.field=value " * 20,
        panels=(
            curves.Panel("loss", "px", (curves.Curve("all", [0, 9], [2.0, 1.0]),)),
        ),
        alignment=wide,
        sequences=(view("bear"), view(HOSTILE)),
        explained={"frame": "as read"},
        warnings=("frame 3 is unsure",),
        seconds={"flow": 2.0},
        config="seed: 0",
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    document.write(path, page)
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Write the page of three clips, of which one was not annotated."""
    root = tmp_path_factory.mktemp("each")
    clips = (
        contents.Clip("bear", "runs/bear", 0.9, 0.1),
        contents.Clip("a #1? & b", "runs/a #1? & b", None, 0.3, ("nothing moves",)),
        contents.Clip("tennis", "runs/tennis", 0.4, 0.2, ("cuts", "blur")),
    )
    for clip in clips:
        picture = np.full((90, 800, 3), 90, np.uint8)
        drawing.write_image(root / clip.folder / "overview.jpg", picture)
        (root / clip.folder / "report.html").write_text(f"<title>{clip.name}</title>")
    path = root / "index.html"
    path.write_text(contents.render("clips", clips, ()))
    return path


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium here (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-quic"]
        )
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser):
    """Open pages; afterwards none has said anything, or asked for what is no file."""
    said, asked, contexts = [], [], []

    def opened(path, width=1280, **options):
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []


@pytest.fixture
def page(open_page, report):
    return open_page(report)


def box_of(page):
    return page.locator(".sequence").first


def told(page) -> str:
    return box_of(page).locator(".time output").inner_text()


def cut(page) -> str:
    return page.evaluate(
        "document.querySelector('.compare').style.getPropertyValue('--cut')"
    )


def seen(page, x: float) -> str:
    """Return which picture is seen at a share of the comparison's width."""
    area = box_of(page).locator(".compare").bounding_box()
    clip = {"x": area["x"] + x * area["width"], "y": area["y"] + 40}
    shot = page.screenshot(clip={**clip, "width": 2, "height": 2}, type="png")
    with Image.open(io.BytesIO(shot)) as image:
        return CAPTIONS[int(np.asarray(image.convert("RGB"))[0, 0].argmax())]


def test_it_opens_on_the_worst_frame_and_asks_for_nothing_else(page, report):
    assert told(page) == "frame 00008, J 20.0, unsure 16.0"
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.reload()
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
    broken = "[...document.images].filter(i => !i.naturalWidth || !i.alt).length"
    assert page.evaluate(broken) == 0
    assert page.title().startswith("A run ")  # the hostile name ran nothing


def test_scrubbing_shows_other_frames_and_says_so(page):
    slider = page.get_by_role("slider", name="Frame of bear")
    slider.fill("3")
    assert told(page).startswith("frame 00012")
    assert slider.get_attribute("aria-valuetext").startswith("frame 00012, J 70.0")
    image = page.get_by_role("img", name="frame, frame 00012").first
    assert image.evaluate("i => i.complete && i.naturalWidth") == 160


def test_keys_play_step_and_go_to_the_ends(page):
    box_of(page).click(position={"x": 5, "y": 5})
    for key, frame in (
        ("ArrowRight", "00012"),
        ("ArrowLeft", "00008"),
        ("End", "00019"),
        ("ArrowRight", "00019"),  # no further
        ("Home", "00000"),
    ):
        page.keyboard.press(key)
        assert told(page).startswith(f"frame {frame}"), key
    page.keyboard.press("Space")
    page.wait_for_function(
        "document.querySelector('.time output').textContent.includes('00008')"
    )
    assert page.evaluate("scrollY") == 0  # space did not scroll
    page.keyboard.press("Space")
    before = told(page)
    page.wait_for_timeout(800)
    assert told(page) == before
    # A focused slider has keys of its own: one press, one step.
    page.get_by_role("slider", name="Frame of bear").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert told(page).startswith("frame 00004")


def test_focus_is_visible_and_passes_every_control(page):
    names = []
    for _ in range(14):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate(
                "(e => `${e.tagName}.${e.className} "
                "${getComputedStyle(e.className === 'divider' ? e.parentElement : e)"
                ".outlineStyle}`)(document.activeElement)"
            )
        )
    passed = "\n".join(names)
    for control in ("theme", "divider", "left", "right", "play"):
        assert re.search(rf"\.{control} solid", passed), (control, passed)


def test_the_play_button_plays_and_pauses(page):
    button = box_of(page).get_by_role("button", name="Play")
    first = told(page)
    button.click()
    page.wait_for_function(
        "first => document.querySelector('.time output').textContent !== first",
        arg=first,
    )
    box_of(page).get_by_role("button", name="Pause").click()
    assert button.is_visible()


def test_a_strip_and_a_chip_lead_to_their_frames(page):
    bars = box_of(page).locator(".bars")
    bars.click(position={"x": 0.63 * bars.bounding_box()["width"], "y": 10})
    assert told(page).startswith("frame 00012")  # place 12.1 of 20
    chip = box_of(page).get_by_role("group", name="Most unsure").get_by_role("button")
    chip.first.click()
    assert told(page).startswith("frame 00019")
    assert chip.first.get_attribute("aria-pressed") == "true"
    alt = bars.locator("img").get_attribute("alt")
    assert alt == "unsure by frame, percent: mean 19.0, from 0.0 to 38.0"


def test_the_divider_is_moved_by_mouse_and_keys(page):
    assert (seen(page, 0.3), seen(page, 0.7)) == ("frame", "object")
    box_of(page).locator(".compare").scroll_into_view_if_needed()
    area = box_of(page).locator(".compare").bounding_box()
    y = area["y"] + area["height"] / 2
    page.mouse.move(area["x"] + area["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(area["x"] + 0.9 * area["width"], y, steps=4)
    page.mouse.up()
    assert abs(float(cut(page)[:-1]) - 90) <= 1
    assert seen(page, 0.7) == "frame"
    divider = page.get_by_role("slider", name="Divider: frame left, object right").first
    divider.focus()
    page.keyboard.press("Home")
    assert (cut(page), seen(page, 0.1)) == ("0%", "object")
    page.keyboard.press("ArrowRight")
    assert cut(page) == "1%"
    assert told(page).startswith("frame 00008")  # no step in time


def test_other_pictures_can_be_compared(page):
    box_of(page).locator("select.right").select_option("channels")
    assert seen(page, 0.7) == "channels"


def test_on_a_phone_nothing_is_wider_than_the_screen(open_page, report, index):
    for path in (report, index):
        page = open_page(path, width=360, has_touch=True, is_mobile=True)
        for details in page.locator("details").all():
            details.locator("summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        small = page.locator("button, select").evaluate_all(
            "all => all.filter(e => e.getBoundingClientRect().height < 24).length"
        )
        assert small == 0


def test_a_finger_moves_the_divider(open_page, report):
    page = open_page(report, width=360, has_touch=True, is_mobile=True)
    box_of(page).locator(".compare").scroll_into_view_if_needed()
    area = box_of(page).locator(".compare").bounding_box()
    page.touchscreen.tap(area["x"] + 0.2 * area["width"], area["y"] + 30)
    assert abs(float(cut(page)[:-1]) - 20) <= 2


def test_dark_follows_the_system_until_the_button_says_otherwise(open_page, report):
    def paper(page):
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, dark = "rgb(251, 250, 248)", "rgb(20, 22, 26)"
    page = open_page(report, color_scheme="light")
    button = page.get_by_role("button", name="Dark mode")
    assert (paper(page), button.get_attribute("aria-pressed")) == (light, "false")
    button.click()
    assert (paper(page), button.get_attribute("aria-pressed")) == (dark, "true")
    page = open_page(report, color_scheme="dark")
    assert paper(page) == dark
    page.get_by_role("button", name="Dark mode").click()
    assert paper(page) == light


def test_headings_are_in_order(page):
    levels = page.locator("h1, h2, h3").evaluate_all(
        "all => all.map(e => +e.tagName[1])"
    )
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert levels.count(1) == 1


def shown(page) -> list[str]:
    return page.locator(".clips > li:visible h3").all_inner_texts()


def test_clips_are_sorted_by_score_doubt_and_warnings(open_page, index):
    page = open_page(index)
    assert shown(page) == ["bear", "a #1? & b", "tennis"]
    order = page.get_by_label("sort by")
    for label, names in (
        ("J, lowest first", ["tennis", "bear", "a #1? & b"]),  # no J: last
        ("J, highest first", ["bear", "tennis", "a #1? & b"]),
        ("most unsure first", ["a #1? & b", "tennis", "bear"]),
        ("most warnings first", ["tennis", "a #1? & b", "bear"]),
        ("name", ["a #1? & b", "bear", "tennis"]),
        ("order of the run", ["bear", "a #1? & b", "tennis"]),
    ):
        order.select_option(label)
        assert shown(page) == names, label


def test_clips_are_filtered_by_score_warning_and_name(open_page, index):
    page = open_page(index)
    page.get_by_label("J at most").fill("50")
    assert shown(page) == ["tennis"]
    page.get_by_label("J at most").fill("100")
    page.get_by_label("with warnings only").check()
    assert shown(page) == ["a #1? & b", "tennis"]
    page.get_by_label("name has").fill("TEN")
    assert shown(page) == ["tennis"]
    assert page.locator("#count").inner_text() == "1 of 3 shown"


def test_a_card_leads_to_its_report_whatever_its_name(open_page, index):
    page = open_page(index)
    assert page.locator(".clips img").first.evaluate("i => i.decode().then(() => true)")
    page.get_by_role("link", name="a #1? & b").click()
    assert page.title() == "a #1? & b"
