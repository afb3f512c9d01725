"""Every way in which a file may come or not, from a server on loopback only."""

import dataclasses
import errno
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import file_server
import numpy as np
import pytest
from torch_writer import renamed, torch_resnet

from imas_jax import progress
from imas_jax.errors import UserError
from imas_jax.models import fetching, published, segmenter
from imas_jax.models.resnet import RESNET18

NAME = "some_resnet"
ROOT = Path(__file__).parents[2]


def packed(tensors):
    stream = io.BytesIO()
    np.savez(stream, **tensors)
    return stream.getvalue()


CONTENT = packed(torch_resnet())
SHA256, MD5 = (hashlib.new(kind, CONTENT).hexdigest() for kind in ("sha256", "md5"))


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch, tmp_path):
    """Keep the cache in the test's folder and every other machine out."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    connect = socket.socket.connect

    def guarded(self, address):
        assert address[0] == "127.0.0.1", address
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    small = dataclasses.replace(RESNET18, width=4)
    monkeypatch.setitem(segmenter.BACKBONES, "small", small)


@pytest.fixture
def server():
    with file_server.serving() as found:
        yield found


@pytest.fixture
def publish(monkeypatch):
    """Put an entry into the table."""

    def add(url, hashes=(), size=None, **fields):
        entry = dataclasses.replace(
            published.TABLE["dino_resnet50"],
            **{"network": "small", "url": url, "hashes": hashes, "size": size} | fields,
        )
        monkeypatch.setitem(published.TABLE, NAME, entry)

    return add


def refused(match):
    """Fetch in vain; no file may be there, under whatever name."""
    with pytest.raises(UserError, match=match) as refusal:
        fetching.fetch(NAME)
    kept = [path.name for path in fetching.folder().glob("*")]
    assert kept in ([], [f".{NAME}.pth.lock"])
    return str(refusal.value)


@pytest.mark.parametrize(
    "hashes",
    [(), (f"sha256:{SHA256}",), (f"sha256:{SHA256[:8]}",), (f"md5:{MD5[:8]}",)],
)
def test_a_file_is_fetched_once_and_its_hash_noted(server, publish, hashes, tmp_path):
    publish(server.offer("a.pth", CONTENT), hashes, len(CONTENT))
    path = fetching.fetch(NAME)
    assert path == tmp_path / "imas_jax/weights" / f"{NAME}.pth"
    assert path.read_bytes() == CONTENT
    note = path.with_name(f"{NAME}.pth.sha256").read_text()
    assert note == f"{SHA256}  {NAME}.pth\n"
    assert fetching.fetch(NAME) == path
    assert server.asked == ["/a.pth"]


def test_without_a_published_hash_the_user_is_told_what_is_trusted(
    server, publish, caplog
):
    publish(server.offer("a.pth", CONTENT))
    with caplog.at_level("WARNING", logger="absl"):
        fetching.fetch(NAME)
    assert "no hash is published; its names and shapes are those of small, " in (
        caplog.text
    )
    assert SHA256 in caplog.text


@pytest.mark.parametrize("announced", [True, False])
def test_an_interrupted_file_is_refused_and_fetched_whole_later(
    server, publish, announced
):
    url = server.offer("a.pth", CONTENT, cut=len(CONTENT) // 2, announced=announced)
    publish(url)
    # Where the server told no size, the reader sees that the file is not whole.
    match = "connection broke before the whole file" if announced else "cannot be read"
    refused(match)
    server.offer("a.pth", CONTENT)
    assert fetching.fetch(NAME).read_bytes() == CONTENT


def test_a_wrong_hash_is_refused_with_both(server, publish):
    publish(server.offer("a.pth", CONTENT), ("sha256:0123abcd",))
    message = refused(f"has sha256 {SHA256}: it is not {NAME}, or was changed")
    assert "expected: sha256 0123abcd..." in message
    publish(server.offer("a.pth", CONTENT), (f"sha256:{SHA256}", "md5:0123"))
    refused(f"has md5 {MD5}")


def test_a_wrong_size_is_refused_with_both(server, publish):
    publish(server.offer("a.pth", CONTENT), (), len(CONTENT) + 1)
    message = refused(f"has {len(CONTENT)} bytes")
    assert f"expected: {len(CONTENT) + 1} bytes" in message


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "HTTP 404"),
        (500, "HTTP 500"),
        (401, "HTTP 401, the server wants a login"),
        (403, "HTTP 403, the server wants a login"),
    ],
)
def test_a_servers_refusal_is_told_with_what_can_be_done(
    server, publish, status, said, tmp_path
):
    url = server.offer("a.pth", b"sorry", status=status)
    publish(url, ("sha256:0123abcd",), 77)
    message = refused(said)
    assert url in message
    assert "https://github.com/facebookresearch/dino" in message or status in (401, 403)
    # Which file has to come where, and how it is known.
    assert "dino_resnet50_pretrain.pth, 77 bytes," in message
    assert str(tmp_path / "imas_jax/weights" / f"{NAME}.pth") in message
    assert "sha256:0123abcd" in message


def closed_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def test_without_a_network_the_message_says_what_goes_where(publish, tmp_path):
    publish(url := f"http://127.0.0.1:{closed_port()}/a.pth")
    message = refused("the server cannot be reached")
    assert url in message
    assert str(tmp_path / "imas_jax/weights" / f"{NAME}.pth") in message


def test_a_proxy_that_is_off_is_named(server, publish, monkeypatch):
    publish(server.offer("a.pth", CONTENT))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    message = refused("the proxy refuses or does not answer")
    assert "HTTP_PROXY" in message
    assert server.asked == []


def test_a_server_that_falls_silent_is_given_up(server, publish, monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT", 0.1)
    publish(server.offer("a.pth", CONTENT, seconds=6))
    refused("no byte came for 0.1 s")


def test_a_page_in_place_of_the_file_is_refused(server, publish):
    publish(server.offer("a.pth", b"<html>please log in</html>" * 50))
    refused(f"is not {NAME}: .*unknown format")


def test_a_file_of_another_network_is_refused_by_what_it_holds(server, publish):
    publish(server.offer("a.pth", packed(torch_resnet(50))))
    refused("a ResNet-50 of width 4")
    publish(server.offer("a.pth", packed({"head.weight": np.zeros(3)})))
    refused("holds no ResNet of a known layout")


def test_a_full_disk_leaves_nothing_behind(server, publish, monkeypatch):
    publish(server.offer("a.pth", CONTENT))
    import pooch

    def write_half(self, url, output_file, pooch):
        Path(output_file).write_bytes(CONTENT[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), output_file)

    with monkeypatch.context() as patch:
        patch.setattr(pooch.HTTPDownloader, "__call__", write_half)
        message = refused("no room left")
    assert "XDG_CACHE_HOME" in message
    assert fetching.fetch(NAME).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_to_is_one_message(publish, tmp_path):
    (tmp_path / "imas_jax").write_text("no folder")
    publish("http://127.0.0.1:9/a.pth")
    with pytest.raises(UserError, match="cannot be kept in"):
        fetching.fetch(NAME)


def test_a_file_put_in_place_needs_no_network(publish):
    publish("", gone="its link is dead")
    message = refused("its link is dead")
    assert "dino_resnet50_pretrain.pth as " in message
    fetching.folder().mkdir(parents=True, exist_ok=True)
    fetching.place(NAME).write_bytes(CONTENT)
    assert fetching.fetch(NAME) == fetching.place(NAME)
    assert SHA256 in fetching.place(NAME).with_name(f"{NAME}.pth.sha256").read_text()


def test_a_cache_that_somebody_filled_for_all_need_not_be_writable(
    publish, monkeypatch, caplog
):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "the cache")

    publish("http://127.0.0.1:9/a.pth", (f"sha256:{SHA256}",))
    fetching.folder().mkdir(parents=True)
    fetching.place(NAME).write_bytes(CONTENT)
    monkeypatch.setattr(fetching.files, "alone", forbidden)
    monkeypatch.setattr(fetching.files, "write_text", forbidden)
    with caplog.at_level("WARNING", logger="absl"):
        assert fetching.fetch(NAME) == fetching.place(NAME)
    assert "is not noted" in caplog.text
    fetching.place(NAME).unlink()
    refused("cannot be kept in")


def test_a_wrong_file_put_in_place_is_refused_and_left_alone(publish):
    publish("", (f"sha256:{SHA256}",))
    fetching.folder().mkdir(parents=True)
    fetching.place(NAME).write_bytes(CONTENT + b"x")
    with pytest.raises(UserError, match="it is not some_resnet, or was changed"):
        fetching.fetch(NAME)
    assert fetching.place(NAME).read_bytes() == CONTENT + b"x"


def test_a_file_that_changes_in_the_cache_is_refused(server, publish):
    publish(server.offer("a.pth", CONTENT))
    path = fetching.fetch(NAME)
    path.write_bytes(other := packed(renamed("module.", torch_resnet())))
    with pytest.raises(UserError, match="was noted at its first use") as refusal:
        fetching.fetch(NAME)
    assert hashlib.sha256(other).hexdigest() in str(refusal.value)
    path.unlink()
    assert fetching.fetch(NAME).read_bytes() == CONTENT  # as it was
    path.unlink()
    server.offer("a.pth", other)
    with pytest.raises(UserError, match="was noted at its first use"):
        fetching.fetch(NAME)  # the publisher's has changed


PROGRAM = """
import dataclasses, sys
from imas_jax.models import fetching, published
fetching.CHUNK = 1024
entry = published.TABLE["dino_resnet50"]
entry = dataclasses.replace(entry, url=sys.argv[1], hashes=(sys.argv[2],), network="")
published.TABLE["{name}"] = entry
sys.stdout.write(str(fetching.fetch("{name}")))
"""


def process(url):
    arguments = [url, f"sha256:{SHA256}"]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(name=NAME), *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_of_two_processes_at_once_one_fetches_and_both_have_the_file(server):
    url = server.offer("a.pth", CONTENT, seconds=1)
    both = [process(url) for _ in range(2)]
    for one in both:
        said, complaints = one.communicate(timeout=120)
        assert one.returncode == 0, complaints
        assert Path(said).read_bytes() == CONTENT
    assert server.asked == ["/a.pth"]


def test_a_killed_fetch_leaves_no_file_and_the_next_one_starts_anew(server, publish):
    url = server.offer("a.pth", CONTENT, seconds=20)
    one = process(url)
    draft = fetching.folder() / f".partial-{NAME}.pth"
    while not (draft.is_file() and draft.stat().st_size):
        assert one.poll() is None, one.communicate()
        time.sleep(0.05)
    one.send_signal(signal.SIGKILL)
    one.communicate(timeout=60)
    assert draft.is_file()
    assert not fetching.place(NAME).exists()
    publish(server.offer("a.pth", CONTENT), (f"sha256:{SHA256}",))
    assert fetching.fetch(NAME).read_bytes() == CONTENT
    assert not draft.exists()


def test_a_log_tells_size_rate_and_time_left(monkeypatch, caplog):
    clock = iter([0.0, 1.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    line = progress.ByteLine("dino")
    line.total = 80_000_000
    with caplog.at_level("INFO", logger="absl"):
        line.update(10_000_000)
        line.update(10_000_000)
    assert [record.getMessage() for record in caplog.records] == [
        "dino 20.0/80.0 MB  1 MB/s  eta 1 min 00 s"
    ]
