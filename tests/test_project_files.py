"""What stands beside the code: how to cite, how to report, what has changed."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
KINDS = {"input", "textarea", "dropdown", "checkboxes", "markdown"}


def test_the_citation_is_of_this_version_and_of_the_paper():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert told["version"] == PROJECT["version"]
    assert told["license"] == PROJECT["license"]
    paper = told["preferred-citation"]
    assert [one["family-names"] for one in paper["authors"]] == ["Lian", "Wu", "Yu"]
    assert " ".join(paper["title"].split()) in " ".join(
        (ROOT / "README.md").read_text().split()
    )


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_issue_forms_are_what_the_site_reads(form):
    told = yaml.safe_load(form.read_text())
    assert told["name"]
    assert told["description"]
    fields = told["body"]
    assert {field["type"] for field in fields} <= KINDS
    names = [field["id"] for field in fields if field["type"] != "markdown"]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[\w-]+", name) for name in names)
    assert all(field["attributes"]["label"] for field in fields)


def test_there_is_a_form_for_each_purpose():
    assert [form.stem for form in FORMS] == ["bug", "feature", "question"]


def test_changes_begin_with_what_is_not_released():
    kept = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert kept[0] == "Unreleased"
    assert len(kept) == len(set(kept))
