import errno
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from imas_jax import commandline, main
from imas_jax.errors import UserError

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


def test_what_the_system_forbids_is_one_message_and_exit_code_2(monkeypatch, capsys):
    def forbidden(*arguments, **more):
        raise PermissionError(errno.EACCES, "Permission denied", "/data/secret")

    monkeypatch.setattr(main.app, "run", forbidden)
    monkeypatch.setattr(sys, "argv", ["main"])
    with pytest.raises(SystemExit, match="2"):
        main.entry()
    assert "/data/secret: Permission denied\n  expected:" in capsys.readouterr().err
