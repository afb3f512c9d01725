from pathlib import Path

import pytest

from imas_jax.tools import folder_lists


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/x/theirs"], ["theirs"]),
        (["/x/runs/bear/predict/masks"], ["bear"]),
        (["/x/runs/bear/predict/masks", "/y/theirs"], ["bear", "theirs"]),
        (["/x/a/masks", "/x/b/masks"], ["a", "b"]),
        (
            ["/x/a/seed-0/predict/masks", "/x/b/seed-0/predict/masks"],
            ["a", "b"],
        ),
        (["/x/a/0/masks", "/x/a/1/masks", "/x/b/1/masks"], ["a/0", "a/1", "b/1"]),
    ],
)
def test_names_are_short_and_tell_folders_apart(folders, names):
    assert folder_lists.short_names(list(map(Path, folders))) == names


def test_the_same_folder_counts_once(tmp_path):
    (tmp_path / "a").mkdir()
    text = f"{tmp_path}/a, {tmp_path}/*"
    assert folder_lists.paths(text, "evaluate.masks") == [tmp_path / "a"]
