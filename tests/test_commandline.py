import errno
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imas_jax import commandline
from imas_jax.errors import UserError, last_words

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


def test_a_config_file_that_is_not_there_lists_those_that_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"configs/davis\.py"):
        commandline.check_overrides(["--config=configs/davi.py"])


def test_an_unknown_variant_is_refused():
    with pytest.raises(UserError, match="runlocal"):
        commandline.check_overrides([DAVIS + ":runlocl"])


def start(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "imas_jax.main", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def test_help_says_how_to_start():
    code, text = start("--help")
    assert code == 0
    assert "--config.stage" in text
    assert "configs/davis.py" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no config file"),
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
    assert commandline.is_for_people(record) is shown


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
        commandline.load(str(tmp_path / "own.py"))


def test_a_config_file_that_is_no_python_is_refused(tmp_path):
    (tmp_path / "own.txt").write_text("seed = 1")
    with pytest.raises(UserError, match="a Python file"):
        commandline.load(str(tmp_path / "own.txt"))


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
