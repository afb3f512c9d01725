"""The site that `make docs` builds: whole, nothing from elsewhere, no dead link."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page is known by, links to, and loads by itself."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads = set(), [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found.get("id"), found.get("name")}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") != "canonical":
            self.loads.append(found["href"])
        if tag in LOADED and found.get(LOADED[tag]):
            self.loads.append(found[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for name in ("zensical", "mkdocstrings_handlers.python", "jupytext"):
        pytest.importorskip(name, reason="pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("pages") / "site"
    build = [sys.executable, "docs/build.py", str(folder)]
    made = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    return {path: Page(path) for path in folder.rglob("*.html")}


def test_every_page_is_there(site):
    # Also those that no other one links to.
    built = {path.stem for path in site}
    assert built >= {path.stem for path in (ROOT / "docs").rglob("*.md")}
    assert {"index", "PAPER_MAP", "CHANGELOG", "own_video"} <= built


def test_every_block_of_code_is_one(site):
    broken = [path.name for path in site if "```" in path.read_text()]
    assert broken == []


def test_pages_load_nothing_from_elsewhere(site):
    loads = {one for page in site.values() for one in page.loads}
    assert loads  # or nothing was looked at
    assert [one for one in loads if urlsplit(one).scheme not in ("", "data")] == []
    assert [one for one in loads if one.startswith("//")] == []
    styles = next(iter(site)).parents[0].rglob("*.css")
    assert all("@import" not in style.read_text() for style in styles)


def test_no_link_is_dead(site):
    dead = []
    for path, page in site.items():
        if path.name == "404.html":  # its links begin at the server's root
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve()
            target = target if parts.path else path
            if target.is_dir() or not target.exists():
                dead.append(f"{path.name}: {link}")
            elif parts.fragment and target in site:
                if unquote(parts.fragment) not in site[target].ids:
                    dead.append(f"{path.name}: {link}")
    assert not dead, "\n".join(dead)
