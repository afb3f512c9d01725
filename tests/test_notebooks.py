"""The notebooks run as they stand, in miniature: only their parameters are others."""

import re
from pathlib import Path

import numpy as np
import pytest
import tiny

NOTEBOOKS = Path(__file__).parents[1] / "docs" / "notebooks"
PARAMETERS = '# %% tags=["parameters"]\n'


def execute(name, **parameters):
    """Run all cells, those of the parameters with values from here."""
    script = NOTEBOOKS / f"{name}.py"
    head, rest = script.read_text().split(PARAMETERS)
    cell, tail = re.split(r"(?m)^(?=# %%)", rest, maxsplit=1)
    names = {"__name__": "__main__"}
    exec(compile(head + cell, script, "exec"), names)
    assert set(parameters) <= set(names)  # nothing is set that it does not have
    lines = "\n" * (head + PARAMETERS + cell).count("\n")  # errors name their line
    names.update(parameters)
    exec(compile(lines + tail, script, "exec"), names)
    return names


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A clip, and one run for both notebooks."""
    root = tmp_path_factory.mktemp("notebooks")
    tiny.write_clip(root / "clip")
    shown = {"CLIP": root / "clip", "WORKDIR": str(root), "OVERRIDES": {}}
    recipe = tiny.get_config()
    recipe.refine.steps = 0  # stage 2 takes as long to compile as stage 1
    return root, {**shown, "RECIPE": recipe}


@pytest.mark.parametrize("script", sorted(NOTEBOOKS.glob("*.py")), ids=lambda s: s.stem)
def test_they_are_notebooks(script):
    jupytext = pytest.importorskip("jupytext", reason="pip install -e '.[docs]'")
    cells = jupytext.read(script, fmt="py:percent").cells
    assert {cell.cell_type for cell in cells} == {"markdown", "code"}
    tags = [cell.metadata.get("tags") for cell in cells]
    assert tags.count(["parameters"]) == 1


@pytest.mark.slow
def test_own_video_ends_in_a_film_with_alpha(made):
    root, parameters = made
    names = execute("own_video", **parameters, OUT=root / "out")
    assert len(names["cut_outs"]) == len(names["result"].masks) == 8
    alpha = names["cut_outs"][4][..., 3] > 127
    mask = names["result"].masks[4]
    assert np.mean(alpha[: mask.shape[0], : mask.shape[1]] == mask) > 0.95
    assert len(names["mirrored"]) == 2
    assert names["page"].is_file()


@pytest.mark.slow
def test_reading_a_run_explains_flow_and_tries_losses(made):
    _, parameters = made
    names = execute("reading_a_run", **parameters, UPDATES=100)
    assert len(names["panels"]) == 1  # no stage 2
    assert names["explained"].target.shape == names["explained"].residual.shape
    assert set(names["errors"]) == {"l1", "robust", "charbonnier", "none"}
    assert 0 < names["errors"]["l1"] < 0.8 * names["errors"]["none"]
