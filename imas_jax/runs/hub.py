"""Runs at the Hugging Face hub: `hf://user/name`, whole or not at all.

A pushed run has a list of its files with their SHA-256, written last of all and in the
same commit. What is fetched lies in the cache of `huggingface_hub`, which keeps what an
interrupted download has brought; a run is taken only when every file of the list is
there with its hash. Login, proxies and cache are as that library has them.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from imas_jax import files
from imas_jax.errors import UserError

SCHEME = "hf://"
LIST = "imas_jax.json"  # in a pushed run
FORMAT = 1  # of the list
_ADDRESS = re.compile(r"(?:hf://)?([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")
_SHORT = "the connection broke or is not there"


def is_address(run: object) -> bool:
    """Tell whether a run is named by its address at the hub."""
    return isinstance(run, str) and run.startswith(SCHEME)


def read_address(address: str) -> tuple[str, str | None]:
    """Return repository and revision of `hf://user/name` or `hf://user/name@revision`.

    Raises:
        UserError: If it is no such address.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(
            f"{address!r} is no address at the hub",
            "hf://user/name, or hf://user/name@revision",
            "correct it",
        )
    return match[1], match[2]


def resolved(config: ConfigDict) -> ConfigDict:
    """Return the config with the folder of a fetched run for an address in `restore`.

    Raises:
        UserError: As `fetch`.
    """
    if not is_address(config.restore):
        return config
    found = config.copy_and_resolve_references().unlock()
    found.restore = str(fetch(config.restore))
    return found.lock()


def fetch(address: str) -> Path:
    """Return the folder of a run at the hub, fetched as far as it is not there.

    Raises:
        UserError: If it cannot be fetched, or is not whole.
    """
    name, revision = read_address(address)
    library = _library()
    with _quietly(), _told(f"{address} cannot be fetched", name):
        listed = Path(library.hf_hub_download(name, LIST, revision=revision))
        wanted = _read_list(listed, address)
        size = sum(entry["bytes"] for entry in wanted.values())
        logging.info("%s: %d files, %.1f MB", address, len(wanted), size / 1e6)
        # Of the commit that the list is of, even if there is a newer one by now.
        folder = Path(
            library.snapshot_download(
                name, revision=listed.parent.name, allow_patterns=[LIST, *wanted]
            )
        )
    _check(folder, wanted, address)
    return folder


def publish(
    contents: Mapping[str, Path], address: str, private: bool, card: str
) -> str:
    """Push files as one commit; return its address with the revision.

    Args:
        contents: By name in the repository, files of this machine.
        address: Of the repository, which is made if it is not there.
        private: Whether a new repository is.
        card: Its README.md, if it has none yet.

    Raises:
        UserError: If it cannot be pushed; nothing has changed at the hub then.
    """
    name, revision = read_address(address)
    library = _library()
    listed = {
        path: {"bytes": file.stat().st_size, "sha256": files.digest(file)}
        for path, file in contents.items()
    }
    text = json.dumps({"format": FORMAT, "files": listed}, indent=1, sort_keys=True)
    added: dict[str, Any] = {**contents, LIST: text.encode()}
    with _quietly(), _told(f"{address} cannot be pushed to", name):
        hub = library.HfApi()
        hub.create_repo(name, private=private, exist_ok=True)
        if not hub.file_exists(name, "README.md", revision=revision):
            added["README.md"] = card.encode()
        done = hub.create_commit(
            name,
            [
                library.CommitOperationAdd(
                    path, what if isinstance(what, bytes) else str(what)
                )
                for path, what in added.items()
            ],
            commit_message="A run of imas_jax",
            revision=revision,
        )
    return f"{SCHEME}{name}@{done.oid}"


def _read_list(path: Path, address: str) -> dict[str, dict[str, Any]]:
    """Read the list of a pushed run; no name in it leads out of the folder."""
    try:
        told = json.loads(path.read_bytes())
        listed = told["files"]
        sound = told["format"] == FORMAT and all(
            isinstance(entry["bytes"], int) and len(entry["sha256"]) == 64
            for entry in listed.values()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        sound, listed = False, {}
    parts = [PurePosixPath(name) for name in listed]
    if not sound or any(one.is_absolute() or ".." in one.parts for one in parts):
        raise UserError(
            f"{address}: {LIST} is none that this version reads",
            f"a run that imas_jax pushed, format {FORMAT}",
            "push it again with this version, or update imas_jax",
        )
    return listed


def _check(folder: Path, wanted: Mapping[str, Mapping[str, Any]], address: str) -> None:
    """Refuse a folder that is not the whole run."""
    bad = [
        name
        for name, entry in wanted.items()
        if not (file := folder / name).is_file()
        or file.stat().st_size != entry["bytes"]
        or files.digest(file) != entry["sha256"]
    ]
    if bad:
        raise UserError(
            f"{address}: {len(bad)} of {len(wanted)} files are missing, or not what "
            f"was pushed: {', '.join(bad[:3])}",
            "the whole run",
            f"remove them from {folder} with what they link to, and run this again; "
            "if it stays so, push the run again",
        )


def _library() -> Any:
    try:
        import huggingface_hub  # optional
    except ImportError as error:
        raise UserError(
            "huggingface_hub is not installed",
            "the optional extra, for runs at the Hugging Face hub",
            "pip install 'imas_jax[hub]'",
        ) from error
    return huggingface_hub


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep the library's progress bars off in this block; we print nothing."""
    from huggingface_hub import utils

    off = utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if not off:
            utils.enable_progress_bars()


@contextlib.contextmanager
def _told(what: str, name: str) -> Iterator[None]:
    """Say what a failure of the library means, and what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise UserError(f"{what}: {error}", "user/name", "correct the name") from error
    except errors.LocalTokenNotFoundError as error:
        raise _wants_login(what) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{what}: no such revision", "a branch, tag or commit of it", "correct it"
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise UserError(
            f"{what}: it has no {LIST}",
            "a run that was pushed with --config.stage=push or imas_jax.push",
            "correct the address, or push the run",
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refused(what, name, error) from error
    except (errors.LocalEntryNotFoundError, *_broken()) as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise _refused(what, name, error.__cause__) from error
        first = (str(error.__cause__ or error).splitlines() or [""])[0]
        raise UserError(
            f"{what}: {_SHORT} ({type(error).__name__}: {first})",
            "a connection to the hub, or the whole run in its cache",
            "connect, see HTTPS_PROXY and HF_ENDPOINT, and run this again: what has "
            "come is kept",
        ) from error
    except OSError as error:
        if error.errno not in files.DISK_FULL:
            raise
        raise UserError(
            f"{what}: no room left ({error})",
            "room in the hub's cache",
            "make room, or name another folder with HF_HOME",
        ) from error


def _broken() -> tuple[type[Exception], ...]:
    """Return how the library's transport says that a connection fails."""
    import httpx2
    from huggingface_hub import errors

    return (httpx2.HTTPError, errors.OfflineModeIsEnabled, ConnectionError)


def _refused(what: str, name: str, error: Any) -> UserError:
    status = getattr(error.response, "status_code", 0)
    if status in (401, 403) or type(error).__name__ == "GatedRepoError":
        return _wants_login(f"{what}: HTTP {status}")
    if status == 404:
        return UserError(
            f"{what}: there is no {name}, or none that you may see",
            "a model repository at the hub",
            "correct the name; for a private one log in (hf auth login, or HF_TOKEN)",
        )
    first = (str(error).splitlines() or [""])[0]
    return UserError(f"{what}: HTTP {status} ({first})", "an answer", "try again later")


def _wants_login(what: str) -> UserError:
    return UserError(
        f"{what}: the hub wants a login, yours may not do that, or it is not there",
        "a token that may read it, or to push one that may write to it",
        "correct the name, and log in: hf auth login, or set HF_TOKEN",
    )
