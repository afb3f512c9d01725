"""Named weights -> a file in the user's cache: fetched, verified, and never run.

A file gets its name only when it is whole and has what `published.py` knows of it:
written aside, checked, renamed. One process fetches at a time, others wait for it.
Beside each lies `<name>.pth.sha256`, noted at first use; a file that changed since is
refused. Nothing is fetched that is there already, so all works offline once it is.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from imas_jax import errors, files
from imas_jax.models import pretrained
from imas_jax.models.published import TABLE, Published
from imas_jax.models.segmenter import BACKBONES
from imas_jax.progress import ByteLine

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 18  # bytes that come at a time
LOGIN = (401, 403, 407)


def folder() -> Path:
    """Return where fetched weights are kept."""
    return files.user_cache() / "weights"


def place(name: str) -> Path:
    """Return where the file of a name is kept, whether it is there or not."""
    return folder() / f"{name}.pth"


def fetch(name: str) -> Path:
    """Return the verified file of a name, fetched if it is not there.

    Raises:
        UserError: If it cannot be fetched, or is not what the table says.
    """
    entry, path = TABLE[name], place(name)
    noted = _note_of(path)
    if path.is_file() and noted.is_file():
        _verify(path, noted)
        return path
    with _alone(name, path):
        if there := path.is_file():
            logging.info("%s: seen for the first time", path)
        else:
            _fetch(entry, name, path)
        if noted.is_file():
            _verify(path, noted)
        else:
            if there:
                _check(entry, name, path, str(path))
            _note(entry, name, path, noted)
    return path


@contextlib.contextmanager
def _alone(name: str, path: Path) -> Iterator[None]:
    """Keep other processes of this user from fetching the same file."""
    with contextlib.ExitStack() as held:
        lock = path.with_name(f".{path.name}.lock")
        try:
            busy = f"{name}: another process is fetching it"
            held.enter_context(files.alone(lock, busy))
        except OSError as error:
            if not path.is_file():  # else of a cache that somebody filled for all
                raise errors.UserError(
                    f"weights {name!r} cannot be kept in {path.parent}: {error}",
                    "a cache folder that can be written to",
                    "correct its permissions, or name another with XDG_CACHE_HOME",
                ) from error
        yield


def _fetch(entry: Published, name: str, path: Path) -> None:
    if not entry.url:
        raise errors.UserError(
            f"weights {name!r} cannot be fetched: {entry.gone}",
            _by_hand(entry, path),
            "get the file from somebody who has it and put it there, or name another: "
            "python -m imas_jax.weights",
        )
    logging.info("fetching %s (%s) from %s", name, entry.title, entry.url)
    try:
        with files.aside(path) as draft:
            _download(entry, name, path, draft)
            _check(entry, name, draft, entry.url)
    except OSError as error:
        if error.errno not in files.DISK_FULL:
            raise
        raise errors.UserError(
            f"weights {name!r}: no room left in {path.parent} ({error})",
            f"room for the file{_sized(entry)}",
            "make room, or name another folder with XDG_CACHE_HOME; nothing of the "
            "file was kept",
        ) from error


def _download(entry: Published, name: str, path: Path, draft: Path) -> None:
    # Here and not above: most runs fetch nothing.
    import pooch
    import requests

    line = ByteLine(name)
    # Compressed on the way, a file would have another size than the one announced.
    get = pooch.HTTPDownloader(
        progressbar=line,
        chunk_size=CHUNK,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},
    )
    try:
        get(entry.url, str(draft), None)
        came = draft.stat().st_size
        if line.total and came != line.total:
            raise requests.ConnectionError(f"{came} of {line.total} bytes came")
    except (requests.RequestException, ValueError) as error:
        if (response := getattr(error, "response", None)) is not None:
            response.close()
        raise _failure(entry, name, path, error) from error
    finally:
        line.close()


def _failure(
    entry: Published, name: str, path: Path, error: Exception
) -> errors.UserError:
    """Say why a file did not come, and what to do without a network."""
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else 0
    kind = type(error).__name__
    if status in LOGIN:
        found, fix = f"HTTP {status}, the server wants a login", "log in with a browser"
    elif status:
        found, fix = f"HTTP {status}", f"see {entry.page} for where it is now"
    elif kind == "ProxyError":
        found = "the proxy refuses or does not answer"
        fix = "correct HTTPS_PROXY and HTTP_PROXY, or start the proxy"
    elif kind == "SSLError":
        found, fix = "the server's certificate is not accepted", "check clock and proxy"
    elif "timed out" in str(error):
        found, fix = f"no byte came for {TIMEOUT:g} s", "try again"
    elif kind == "ChunkedEncodingError" or "bytes came" in str(error):
        found, fix = "the connection broke before the whole file had come", "try again"
    elif not isinstance(error, OSError):
        found, fix = "the server's answer makes no sense", "try again"
    else:
        found, fix = "the server cannot be reached", "connect to the network"
    return errors.UserError(
        f"weights {name!r} did not come from {entry.url}: {found} ({kind}: {error})",
        _by_hand(entry, path),
        f"{fix}; or fetch the file on another machine and put it there. Nothing "
        "half-fetched was kept",
    )


def _by_hand(entry: Published, path: Path) -> str:
    """Say what file belongs where."""
    told = ", ".join(entry.hashes) or "not published: noted at first use"
    return f"the file {entry.file}{_sized(entry)} as {path} ({told})"


def _sized(entry: Published) -> str:
    return f", {entry.size} bytes," if entry.size else ""


def _verify(path: Path, noted: Path) -> None:
    """Refuse a file that is not what it was at its first use."""
    was = (noted.read_text("utf-8").split() or [""])[0]
    if was != (now := files.digest(path)):
        raise errors.UserError(
            f"{path} has SHA-256 {now}, but {was} was noted at its first use",
            "the file as it was fetched",
            f"remove {path}: it is fetched again; if you replaced it yourself, remove "
            f"{noted}",
        )


def _check(entry: Published, name: str, path: Path, source: str) -> None:
    """Refuse a file that is not what the table says.

    Without a whole hash the reader is asked too whether it is that network.
    """
    size, again = path.stat().st_size, f"fetch it again, or see {entry.page}"
    if Path(source) == path:
        again = f"remove {path}, then " + again
    if entry.size not in (None, size):
        raise errors.UserError(
            f"{source} has {size} bytes: not {name}, or not all of it",
            f"{entry.size} bytes",
            again,
        )
    for one in entry.hashes:
        kind, _, digits = one.partition(":")
        if not (now := files.digest(path, kind)).startswith(digits):
            raise errors.UserError(
                f"{source} has {kind} {now}: it is not {name}, or was changed",
                f"{kind} {digits}{'...' * (len(digits) < len(now))}",
                f"{again}; do not use this file",
            )
    if not entry.is_whole and entry.network in BACKBONES:
        try:
            pretrained.load_backbone(path, entry.network)
        except errors.UserError as error:
            raise errors.UserError(
                f"{source} is not {name}: {error.found}", error.expected, again
            ) from error


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _note(entry: Published, name: str, path: Path, noted: Path) -> None:
    """Write a file's SHA-256 beside it, as `sha256sum -c` reads it."""
    told = files.digest(path)
    if not entry.hashes:
        logging.warning(
            "%s: no hash is published; its names and shapes are those of %s, its "
            "SHA-256 %s is noted and has to stay",
            name,
            entry.network,
            told,
        )
    try:
        files.write_text(noted, f"{told}  {path.name}\n")
    except OSError as error:
        logging.warning("%s: its SHA-256 is not noted: %s", name, error)
