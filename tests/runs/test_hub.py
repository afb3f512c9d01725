"""Runs at the hub, against a stub of it: whole or not at all."""

import contextlib
import sys
import time

import hub_server
import pytest

from configs import davis
from imas_jax.errors import UserError
from imas_jax.runs import hub

NAME = "some/run"
FILES = {"align/result.json": b"{}", "discover/checkpoints/6/d/0a1b": bytes(range(256))}


@contextlib.contextmanager
def nobody_at_home(monkeypatch):
    """Take the hub away."""
    with monkeypatch.context() as patch:
        hub_server.point_at("http://127.0.0.1:9", patch)
        yield


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub, and a cache of one's own."""
    with hub_server.at_home(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def pushed(server, tmp_path):
    """The address of a pushed run."""
    contents = {}
    for name, content in FILES.items():
        path = contents[name] = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return hub.publish(contents, f"hf://{NAME}", True, "# card\n")


def test_what_was_pushed_comes_back(server, pushed):
    assert NAME in server.private
    assert pushed == f"hf://{NAME}@{server.files(NAME)[0]}"
    assert server.files(NAME)[1].keys() == {*FILES, hub.LIST, "README.md"}
    folder = hub.fetch(f"hf://{NAME}")
    assert {n: (folder / n).read_bytes() for n in FILES} == FILES
    assert hub.fetch(pushed) == folder


def test_a_second_push_is_a_commit_of_its_own_and_leaves_the_page(
    server, pushed, tmp_path
):
    server.commit(NAME, {"README.md": b"mine"})
    (tmp_path / "new").write_bytes(b"new")
    again = hub.publish({"new": tmp_path / "new"}, f"hf://{NAME}", False, "# card\n")
    assert again != pushed
    assert server.files(NAME)[1]["README.md"] == b"mine"
    assert (hub.fetch(f"hf://{NAME}") / "new").read_bytes() == b"new"
    assert not (hub.fetch(pushed) / "new").exists()


def test_an_interrupted_download_is_not_taken_and_goes_on(server, pushed, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between its tries
    big = "discover/checkpoints/6/d/0a1b"
    server.cut.add(big)
    with pytest.raises(UserError, match="connection broke or is not there"):
        hub.fetch(pushed)
    with nobody_at_home(monkeypatch), pytest.raises(UserError, match="what has come"):
        hub.fetch(pushed)
    server.cut.clear()
    assert (hub.fetch(pushed) / big).read_bytes() == FILES[big]


def test_once_fetched_a_run_needs_no_connection(server, pushed, monkeypatch):
    folder = hub.fetch(f"hf://{NAME}")
    with nobody_at_home(monkeypatch):
        assert hub.fetch(f"hf://{NAME}") == folder


@pytest.mark.parametrize("how", ["gone", "short", "changed"])
def test_a_folder_that_is_not_the_whole_run_is_refused(server, pushed, how):
    folder = hub.fetch(pushed)
    file = folder / "align/result.json"
    content = {"short": b"{", "changed": b"[]"}.get(how)
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    wanted = hub._read_list(folder / hub.LIST, pushed)
    with pytest.raises(UserError, match=r"1 of 2 files .*: align/result.json"):
        hub._check(folder, wanted, pushed)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "has no imas_jax.json"),
        ({hub.LIST: b"[]"}, "none that this version reads"),
        ({hub.LIST: b'{"format": 9, "files": {}}'}, "none that this version reads"),
        (
            {
                hub.LIST: b'{"format": 1, "files": {"../x": {"bytes": 1, "sha256": "'
                + b"0" * 64
                + b'"}}}'
            },
            "none that this version reads",
        ),
    ],
)
def test_what_is_no_pushed_run_is_refused(server, files, said):
    server.commit("some/thing", files)
    with pytest.raises(UserError, match=said):
        hub.fetch("hf://some/thing")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "wants a login"),
        (403, "wants a login"),
        (404, "there is no some/run"),
        (400, "HTTP 400"),
    ],
)
def test_refusals_say_what_to_do(server, pushed, status, said):
    server.status["/resolve/"] = server.status["/api/"] = status
    with pytest.raises(UserError, match=said) as error:
        hub.fetch("hf://some/run@other")
    assert error.value.fix
    assert "Traceback" not in str(error.value)


def test_a_login_that_is_missing_is_asked_for_and_nothing_is_changed(server, tmp_path):
    server.token = "secret"
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(UserError, match="log in: hf auth login, or set HF_TOKEN"):
        hub.publish({"a": tmp_path / "a"}, f"hf://{NAME}", True, "")
    assert not server.repositories


def test_a_token_is_used(server, tmp_path, monkeypatch):
    server.token = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    (tmp_path / "a").write_bytes(b"a")
    assert hub.publish({"a": tmp_path / "a"}, f"hf://{NAME}", True, "")


@pytest.mark.parametrize("address", ["hf://", "hf://a", "hf://a/b/c", "hf://a/b@", ""])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match="hf://user/name"):
        hub.read_address(address)


def test_addresses_name_a_repository_and_a_revision():
    assert hub.read_address("hf://a/b-c.d") == ("a/b-c.d", None)
    assert hub.read_address("hf://a/b@v1/x") == ("a/b", "v1/x")
    assert not hub.is_address("runs/a")


def test_an_address_may_stand_for_a_run_in_a_config(server, pushed):
    config = davis.get_config()
    assert hub.resolved(config) is config
    config.restore = pushed
    assert hub.resolved(config.lock()).restore == str(hub.fetch(pushed))


def test_a_library_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"imas_jax\[hub\]"):
        hub.fetch("hf://a/b")
