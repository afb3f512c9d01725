"""A stub of the Hugging Face hub on loopback: what its client asks, and failures."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants


class Hub:
    """Repositories in memory.

    Attributes:
        url: Of the server.
        repositories: By name, the files of each commit; the last is "main".
        private: Names of those that were made private.
        token: Who pushes must have it; "" is anybody.
        cut: Paths whose answers break off in the middle.
        status: By a part of a path, an answer in place of the right one.
        asked: Method and path of all requests.
    """

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.token = ""
        self.cut: set[str] = set()
        self.status: dict[str, int] = {}
        self.asked: list[str] = []

    def commit(self, name: str, files: dict[str, bytes]) -> str:
        """Add files to a repository; return the commit's name."""
        commits = self.repositories.setdefault(name, {})
        whole = {**(list(commits.values()) or [{}])[-1], **files}
        sha = hashlib.sha1(repr((len(commits), sorted(whole))).encode()).hexdigest()
        commits[sha] = whole
        return sha

    def files(self, name: str, revision: str = "main") -> tuple[str, dict[str, bytes]]:
        """Return a commit's name and files."""
        commits = self.repositories[name]
        sha = list(commits)[-1] if revision == "main" else revision
        return sha, commits[sha]


class Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        self.answer(b"")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def answer(self, body: bytes) -> None:
        path = urllib.parse.unquote(self.path.partition("?")[0])
        self.hub.asked.append(f"{self.command} {path}")
        for part, status in self.hub.status.items():
            if part in path:
                return self.say(status)
        if self.command == "POST" and self.hub.token:
            if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
                return self.say(401)
        try:
            return self.known(path, body)
        except KeyError:
            return self.say(404, error="RepoNotFound")

    def known(self, path: str, body: bytes) -> None:
        """Answer as the hub does; KeyError for a repository or commit it has not."""
        if path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told['organization']}/{told['name']}"
            made = name not in self.hub.repositories
            if made:
                self.hub.commit(name, {})
                if told.get("private") or told.get("visibility") == "private":
                    self.hub.private.add(name)
            self.say(200 if made else 409, {"url": f"{self.hub.url}/{name}"})
        elif path == "/api/validate-yaml":
            self.say(200, {"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(.+?/.+?)/preupload/(.+)", path):
            asked = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular"} for f in asked]
            self.say(200, {"files": [{**m, "shouldIgnore": False} for m in modes]})
        elif match := re.fullmatch(r"/api/models/(.+?/.+?)/commit/(.+)", path):
            lines = [json.loads(line) for line in body.splitlines()]
            values = [line["value"] for line in lines if line["key"] == "file"]
            files = {v["path"]: base64.b64decode(v["content"]) for v in values}
            sha = self.hub.commit(match[1], files)
            url = f"{self.hub.url}/{match[1]}/commit/{sha}"
            self.say(200, {"commitUrl": url, "commitOid": sha})
        elif match := re.fullmatch(r"/api/models/(.+?/.+?)/revision/(.+)", path):
            sha, files = self.hub.files(match[1], match[2])
            names = [{"rfilename": name} for name in files]
            self.say(200, {"id": match[1], "sha": sha, "siblings": names})
        elif match := re.fullmatch(r"/api/models/(.+?/.+?)/tree/([^/]+)", path):
            _, files = self.hub.files(match[1], match[2])
            self.say(
                200,
                [
                    {"type": "file", "path": n, "size": len(b), "oid": _oid(b)}
                    for n, b in files.items()
                ],
            )
        elif match := re.fullmatch(r"/(.+?/.+?)/resolve/(.+?)/(.+)", path):
            sha, files = self.hub.files(match[1], match[2])
            if match[3] not in files:
                return self.say(404, error="EntryNotFound")
            content = files[match[3]]
            head = {"X-Repo-Commit": sha, "ETag": f'"{_oid(content)}"'}
            first = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
            rest = content[int(first[1]) :] if first else content
            cut = match[3] in self.hub.cut
            self.say(206 if first else 200, rest, cut=cut, **head)
        else:
            self.say(404)

    def say(
        self,
        status: int,
        told: object = None,
        error: str = "",
        cut: bool = False,
        **head: str,
    ) -> None:
        content = told if isinstance(told, bytes) else json.dumps(told or {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in (*head.items(), *([("X-Error-Code", error)] * bool(error))):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                self.wfile.write(content[: len(content) // 2] if cut else content)
                self.close_connection = cut

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Serve until the block ends."""
    handler = type("Own", (Handler,), {})
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.hub = Hub(web.server_port)
    thread = threading.Thread(target=web.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield handler.hub
    finally:
        web.shutdown()
        web.server_close()
        thread.join()


@contextlib.contextmanager
def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve as the library's hub, with a cache and a login of one's own."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving() as found:
        point_at(found.url, monkeypatch)
        yield found
    huggingface_hub.close_session()


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a server the library's hub; it has read its own from the environment."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
