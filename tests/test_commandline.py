import errno
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from imas_jax import commandline, progress, protocol
from imas_jax.errors import UserError, last_words
from imas_jax.runs import recipes, records

ROOT = Path(__file__).parents[1]
DAVIS = f"--config={ROOT / 'configs/davis.py'}"


def test_known_fields_pass():
    commandline.check_overrides(
        [
            DAVIS,
            "--config.model.channels=3",
            "--config.stage=flow",
            "--noconfig.overwrite",
        ]
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--config.modle.channels=3", "model.channels"),
        ("--config.channels=3", "model.channels"),
        ("--config.discover.learning_rat=1", "discover.learning_rate"),
    ],
)
def test_a_misspelt_field_is_refused_with_the_nearest(typed, meant):
    with pytest.raises(UserError, match=meant):
        commandline.check_overrides([DAVIS, typed])


def test_all_misspelt_fields_are_told_at_once():
    with pytest.raises(UserError) as error:
        commandline.check_overrides([DAVIS, "--config.sead=1", "--config.stge=flow"])
    assert "seed" in str(error.value)
    assert "stage" in str(error.value)


@pytest.mark.parametrize("named", ["davi", "configs/davi.py"])
def test_a_recipe_that_is_not_there_lists_those_that_are(named):
    with pytest.raises(UserError, match=r"one of ablation(.|\n)*mean davis\?"):
        commandline.check_overrides([f"--config={named}"])


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError, match="runlocal"):
        commandline.check_overrides([DAVIS + ":runlocl"])


def start(*arguments, cwd=ROOT):
    done = subprocess.run(
        [sys.executable, "-m", "imas_jax.main", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("--help",), 0)])
def test_help_fits_a_screen_and_leads_on(arguments, code, tmp_path):
    wanted, text = start(*arguments, cwd=tmp_path)
    assert wanted == code
    lines = text.splitlines()
    assert len(lines) < 24
    assert max(len(line) for line in lines if str(ROOT) not in line) <= 80
    for name in recipes.names():
        assert re.search(rf"\b{name}\b", text)
    assert "imas-jax clip.mp4" in text
    assert "configs/davis.py" in text


def test_help_and_the_protocol_name_the_same_stages():
    assert commandline.STAGES == protocol.names()


def test_help_for_a_recipe_is_its_page():
    told = commandline.help_for(["--config=amd:demo", "--help"])
    assert told.startswith("AMD, the other method")
    assert told.endswith("configs/amd.py\n")
    assert commandline.help_for(["--config=amd"]) is None


def test_a_recipe_is_found_by_name_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "davis").mkdir()
    monkeypatch.chdir(tmp_path)
    (one, rest) = commandline.spelled_out(["--config", "davis:runlocal", "--pdb"])
    assert (one, rest) == (f"--config={recipes.FOLDER / 'davis.py'}:runlocal", "--pdb")
    for name in recipes.names():
        variant = ":all" if name == "ablation" else ""
        assert recipes.load(name + variant).model.backbone


def test_recipes_import_nothing_that_a_wheel_lacks():
    for path in recipes.FOLDER.glob("*.py"):
        assert not re.search(r"^\s*(from|import) configs", path.read_text(), re.M), path


VIDEO = f"--config={recipes.FOLDER / 'video.py'}"


def test_a_path_is_short_for_the_recipe_of_ones_own_videos(tmp_path):
    clip = tmp_path / "my clip.mp4"
    clip.write_bytes(b"")
    assert commandline.spelled_out([str(clip), "--config.seed", "1"]) == [
        VIDEO,
        f"--config.data.root={clip}",
        "--config.workdir=runs/my clip",
        "--config.seed=1",
    ]
    # What is given stands, and a boolean takes no word.
    given = ["--config.workdir=here", "--config.overwrite"]
    root = f"--config.data.root={clip}"
    assert commandline.spelled_out([*given, str(clip)]) == [VIDEO, root, *given]
    davis = f"--config={recipes.FOLDER / 'davis.py'}"
    assert commandline.spelled_out(["--config=davis", str(clip)]) == [davis, root]


@pytest.mark.parametrize("kind", ["films", "folders"])
def test_each_of_several_clips_trains_its_own_network_and_the_log_says_so(
    tmp_path, kind
):
    for name in ("a", "b"):
        path = tmp_path / "clips" / (f"{name}.mp4" if kind == "films" else name)
        if kind == "films":
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")
        else:
            tiny.write_clip(path, frames=2)
    root, each = str(tmp_path / "clips"), "--config.stage=each"
    meant = commandline.spelled_out([root])
    assert each in meant
    first, second = commandline.told([root], meant)
    assert first.startswith("short for imas-jax --config=video --config.data.root=")
    assert "--config.workdir=runs/clips" in first
    assert "each trains its own network" in second
    assert list(commandline.told(["--config=video"], [VIDEO])) == []
    for given in ("--config.stage=all", "--config.restore=runs/other"):
        assert each not in commandline.spelled_out([root, given])
    assert each not in commandline.spelled_out(
        [str(next((tmp_path / "clips").iterdir()))]
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/none/a.mp4"], "does not exist"),
        (["a.mp4", "b.mp4"], "several paths: a.mp4, b.mp4"),
        (["a.mp4", "--config.data.root=b.mp4"], "and a --config.data.root"),
        (["demo"], "--config=demo"),
    ],
)
def test_a_path_that_cannot_be_meant_is_refused(arguments, said):
    with pytest.raises(UserError, match=said):
        commandline.spelled_out(arguments)


def test_words_with_commas_are_a_tuple():
    words = "--config.data.sequences=bear,dog-agility"
    assert commandline.spelled_out([DAVIS, words, "--config.flow.gaps=1,2"])[1:] == [
        "--config.data.sequences=('bear', 'dog-agility')",
        "--config.flow.gaps=1,2",
    ]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/venv/bin/imas-jax", "imas-jax 'a b.mp4'"),
        ("/src/imas_jax/main.py", "python -m imas_jax.main 'a b.mp4'"),
        ("mine.py", "python mine.py 'a b.mp4'"),
    ],
)
def test_pages_quote_the_command_as_it_was_typed(program, said, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program, "a b.mp4"])
    assert records.typed() == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--config.seed=1",), "no config file"),
        (("--config=davis", "--config.seed=1", "/none"), "does not exist"),
        (("--config=configs/davis.py",), "data.root"),
        (("--config=configs/davis.py", "--config.data.root=/none"), "does not exist"),
        (("--config=configs/davis.py", "--config.stage=trian"), "stage: 'trian'"),
        (("--config=configs/davis.py", "--config.flow.gaps=(0,)"), "flow.gaps: (0,)"),
        (("--config=configs/davis.py", "--config.seed=many"), "seed"),
        (("--config=configs/davis.py", "--confg.seed=1"), "confg"),
        (("--config=configs/davis.py", "--config.restore=/none"), "is not a run"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(arguments, said, tmp_path):
    workdir = (f"--config.workdir={tmp_path}",) if arguments else ()
    code, text = start(*arguments, *workdir)
    assert code == 2, text
    assert said in text
    assert "Traceback" not in text
    assert "what to do:" in text


@pytest.mark.parametrize(
    ("path", "level", "shown"),
    [
        (str(ROOT / "imas_jax/flow/files.py"), "INFO", True),
        ("/venv/lib/site-packages/orbax/checkpoint/manager.py", "INFO", False),
        ("/venv/lib/site-packages/orbax/checkpoint/manager.py", "WARNING", True),
    ],
)
def test_libraries_are_heard_only_when_they_warn(path, level, shown):
    number = logging.getLevelName(level)
    record = logging.LogRecord("absl", number, path, 1, "words", None, None)
    assert progress.is_for_people(record) is shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(:", "line 1 with SyntaxError"),
        ("x = 1", "AttributeError"),
        ("import nothing_of_this_name", "line 1 with ModuleNotFoundError"),
        ("def get_config():\n    return {}['x']", "line 2 with KeyError: 'x'"),
        ("def get_config(): pass", "get_config returns NoneType"),
        ("def get_config(): return {'seed': 1}", "get_config returns dict"),
    ],
)
def test_a_config_file_that_fails_is_told_with_its_line(tmp_path, text, said):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        recipes.load(str(tmp_path / "own.py"))


def test_a_config_file_that_is_no_python_is_refused(tmp_path):
    (tmp_path / "own.txt").write_text("seed = 1")
    with pytest.raises(UserError, match="a Python file"):
        recipes.load(str(tmp_path / "own.txt"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENAMETOOLONG, errno.ENOTDIR])
def test_what_the_system_refuses_is_one_message_and_exit_code_2(number):
    text, code = last_words(OSError(number, os.strerror(number), "/data/it"))
    assert code == 2
    assert f"/data/it: {os.strerror(number)}\n  expected:" in text


def test_a_defect_keeps_its_trace():
    try:
        raise FileNotFoundError(errno.ENOENT, "No such file", "own.txt")
    except FileNotFoundError as error:
        text, code = last_words(error)
    assert code == 1
    assert text.startswith("Traceback")
