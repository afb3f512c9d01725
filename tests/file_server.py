"""A web server on loopback that serves files well, or fails as servers do."""

import contextlib
import dataclasses
import http.server
import threading
import time
from collections.abc import Iterator

PIECES = 20  # of a slow file


@dataclasses.dataclass
class Answer:
    """What the server says to a path.

    Attributes:
        content: Of the file.
        status: HTTP's.
        cut: Bytes after which the connection is closed, or None.
        announced: Whether the size is told first.
        seconds: That the file takes.
    """

    content: bytes = b""
    status: int = 200
    cut: int | None = None
    announced: bool = True
    seconds: float = 0.0


class Server:
    """Answers by path; remembers what was asked for."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []

    def offer(self, path: str, content: bytes = b"", **how) -> str:
        """Return the address at which an answer is given."""
        self.answers[f"/{path}"] = Answer(content, **how)
        return f"{self.url}/{path}"


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """Serve until the block ends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.path)
            answer = server.answers.get(self.path, Answer(status=404))
            self.send_response(answer.status)
            if answer.announced:
                self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            sent = answer.content[: answer.cut]
            step = max(len(sent) // PIECES, 1) if answer.seconds else len(sent) or 1
            with contextlib.suppress(OSError):  # who asked may be gone
                for start in range(0, len(sent), step):
                    self.wfile.write(sent[start : start + step])
                    self.wfile.flush()
                    time.sleep(answer.seconds / PIECES)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(web.server_port)
    thread = threading.Thread(target=web.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        web.shutdown()
        web.server_close()
        thread.join()
