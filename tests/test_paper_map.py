"""Every name PAPER_MAP.md mentions exists, and every file that any page does."""

import ast
import re
from pathlib import Path

import pytest

from configs import davis

ROOT = Path(__file__).parents[1]
QUOTED = re.findall(r"`([^`]+)`", (ROOT / "PAPER_MAP.md").read_text())


def defined(path, tree=None):
    """Return names a module or class defines at its top."""
    names = {}
    for node in (tree or ast.parse(path.read_text())).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found = (ast.walk(target) for target in targets)
            names |= {n.id: node for part in found for n in part if hasattr(n, "id")}
    return names


def ending(pattern):
    found = sorted({name for name in QUOTED if re.fullmatch(pattern, name)})
    assert found
    return found


@pytest.mark.parametrize("name", ending(r"imas_jax(\.\w+)+"))
def test_every_function_exists(name):
    parts = name.split(".")
    files = {i: ROOT.joinpath(*parts[:i]).with_suffix(".py") for i in range(1, 5)}
    depth = max(i for i, file in files.items() if file.is_file())
    tree, path = None, files[depth]
    for part in parts[depth:]:
        names = defined(path, tree)
        assert part in names
        tree = names[part]


@pytest.mark.parametrize("name", ending(r"config(\.\w+)+"))
def test_every_field_exists(name):
    value = davis.get_config()
    for part in name.split(".")[1:]:
        value = value[part]


@pytest.mark.parametrize("name", ending(r"tests/[\w/]+\.py(::\w+)?"))
def test_every_test_exists(name):
    path, _, test = name.partition("::")
    assert (ROOT / path).is_file()
    assert not test or test in defined(ROOT / path)


@pytest.mark.parametrize("name", ending(r"configs/\w+\.py"))
def test_every_config_exists(name):
    assert (ROOT / name).is_file()


def pages():
    top = ("README.md", "PAPER_MAP.md", "CONTRIBUTING.md")
    return [*(ROOT / name for name in top), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page):
    folders = "imas_jax|configs|tests|benchmarks|launch|docs"
    named = re.findall(rf"(?<![\w./])((?:{folders})/[\w./-]*\w)", page.read_text())
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_file_that_a_docstring_quotes_exists():
    lost = []
    for source in (ROOT / "imas_jax").rglob("*.py"):
        for name in re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", source.read_text()):
            places = (ROOT / "imas_jax" / name, source.parent / name, ROOT / name)
            if not any(place.is_file() for place in places):
                lost.append(f"{source.name}: {name}")
    assert [one for one in lost if "skimage/" not in one] == []  # another package
