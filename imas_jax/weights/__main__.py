"""Weights by name: `python -m imas_jax.weights` lists them, and says which are here.

    python -m imas_jax.weights                     the table
    python -m imas_jax.weights show NAME ...       where from, where to, which hash
    python -m imas_jax.weights fetch NAME ...      into the user's cache, verified

A name stands wherever a config wants weights, which are then fetched when they are
first needed: --config.model.weights=NAME, --config.align.weights=NAME,
--config.flow.weights=NAME. The cache is $XDG_CACHE_HOME/imas_jax/weights, without that
variable ~/.cache/imas_jax/weights.
"""

import sys
from collections.abc import Sequence

from absl import flags, logging

from imas_jax import commandline
from imas_jax.errors import Stopped, UserError, last_words, suggestion
from imas_jax.evaluation.tables import Table
from imas_jax.models import fetching
from imas_jax.models.published import TABLE, Published
from imas_jax.training import stopping

COMMANDS = ("list", "show", "fetch")


def run(arguments: Sequence[str]) -> str:
    """Do what the command line asks for; return what to say.

    Args:
        arguments: The command line without the program.

    Raises:
        UserError: For an unknown command or name, and what cannot be fetched.
    """
    if any(one in ("--help", "-h") for one in arguments):
        return (__doc__ or "").strip()
    command, *names = arguments or ("list",)
    if command not in COMMANDS:
        raise UserError(
            f"not understood: {command}",
            f"one of {', '.join(COMMANDS)}",
            f"{suggestion(command, COMMANDS)}; see --help",
        )
    _check(command, names)
    if command == "list":
        return listed().text()
    if command == "show":
        return "\n\n".join(map(shown, names))
    for name in names:
        if TABLE[name].supervision == "human labels":
            logging.warning(
                "%s learned from human labels: a config takes it with "
                "--config.model.allow_supervised=True only",
                name,
            )
    found = [fetching.fetch(name) for name in names]
    return "\n".join(f"{n}: {path}" for n, path in zip(names, found, strict=True))


def listed() -> Table:
    """Return the table of everything that has a name."""
    header = ("name", "network", "supervision", "licence", "MB", "here")
    rows = [
        (
            name,
            entry.network,
            entry.supervision,
            entry.licence,
            megabytes(name, entry),
            "yes" if fetching.place(name).is_file() else "-",
        )
        for name, entry in TABLE.items()
    ]
    return Table(
        f"Weights, kept in {fetching.folder()}",
        header,
        tuple(rows),
        (
            "human labels: refused unless --config.model.allow_supervised=True, which "
            "every table and report then says",
            "python -m imas_jax.weights show NAME: what it is, which file goes where",
        ),
    )


def shown(name: str) -> str:
    """Return all that is known of a name."""
    entry, path = TABLE[name], fetching.place(name)
    lines = {
        "what": entry.title,
        "network": entry.network,
        "learned by": f"{entry.supervision} ({entry.trained_on})",
        "licence": entry.licence,
        "published": entry.page,
        "file": entry.url or f"{entry.file}: {entry.gone}",
        "bytes": str(entry.size or "not known"),
        "hash": ", ".join(entry.hashes) or "none published; noted at first use",
        "kept as": f"{path} ({'here' if path.is_file() else 'not here'})",
    }
    return "\n".join([name, *(f"  {key:<11}{value}" for key, value in lines.items())])


def megabytes(name: str, entry: Published) -> str:
    """Return a file's size in 10^6 bytes, of what is here if the table has none."""
    path = fetching.place(name)
    size = entry.size or (path.stat().st_size if path.is_file() else None)
    return "?" if size is None else f"{size / 1e6:.0f}"


def _check(command: str, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in TABLE]
    if unknown:
        raise UserError(
            f"no weights named {', '.join(unknown)}",
            ", ".join(TABLE),
            "; ".join(suggestion(name, list(TABLE)) for name in unknown),
        )
    if bool(names) != (command != "list"):
        raise UserError(
            f"{command} with {len(names)} names",
            "names after show and fetch, none after list",
            "see --help",
        )


def main() -> None:
    """Run; end with one message, and a code that says why."""
    flags.FLAGS(sys.argv[:1])  # it has none of its own, but logging asks
    commandline.start_logging()
    stopping.raise_when_asked()
    try:
        sys.stdout.write(f"{run(sys.argv[1:])}\n")
    except (UserError, OSError, Stopped) as error:
        text, code = last_words(error)
        sys.stderr.write(f"{text}\n")
        sys.exit(code)


if __name__ == "__main__":
    main()
