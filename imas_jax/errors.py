"""The exceptions a user is meant to read, and what a program says when it ends.

They are printed without a stack trace. Everything else is a defect of this project and
keeps its trace.
"""

import difflib
import errno
import traceback
from collections.abc import Sequence

# Whatever was to be read or written: permissions, names too long, a file for a folder.
OUTSIDE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.ELOOP, errno.EIO, errno.ESTALE),
)


class UserError(Exception):
    """Bad input, told as what was found, what was expected and what to do.

    Args:
        found: What is there, with names and numbers.
        expected: What should have been there.
        fix: What the user can do about it.
    """

    def __init__(self, found: str, expected: str, fix: str):
        self.found, self.expected, self.fix = found, expected, fix
        super().__init__(f"{found}\n  expected: {expected}\n  what to do: {fix}")


class Stopped(KeyboardInterrupt):
    """A signal asked to stop; nothing is wrong.

    Args:
        number: The signal.
        told: What was stopped, and how it goes on.
        agreed: Whether every process of the run stops with these words.
    """

    def __init__(self, number: int, told: str, agreed: bool = False):
        self.number, self.agreed = number, agreed
        super().__init__(told)


def last_words(error: BaseException) -> tuple[str, int]:
    """Return what to print of an exception that ends the program, and the exit code.

    The code is 2 for what the user can mend, 128 + its number for a signal.
    """
    if isinstance(error, OSError) and error.errno in OUTSIDE:
        error = UserError(
            f"{error.filename}: {error.strerror}",
            "data that can be read, and a workdir that can be written to",
            "correct the path or its permissions, or choose another --config.workdir",
        )
    if isinstance(error, UserError):
        return f"error: {error}", 2
    if isinstance(error, Stopped):
        return str(error), 128 + error.number
    return "".join(traceback.format_exception(error)).rstrip(), 1


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether it was a device that had no room: JAX's own kind of error."""
    name = type(error).__name__
    return name in ("JaxRuntimeError", "XlaRuntimeError") and (
        "RESOURCE_EXHAUSTED" in str(error)
    )


class ProblemList:
    """Collects every problem of a dataset so that all are told at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def add(self, where: object, problem: str) -> None:
        """Note one problem of one file, sequence or field."""
        self.problems.append(f"{where}: {problem}")

    def raise_if_any(self, what: str, expected: str, fix: str) -> None:
        """Raise one `UserError` that lists all problems, or return.

        Args:
            what: What was checked, e.g. "data root /data/DAVIS".
            expected: What a sound one looks like.
            fix: What the user can do.

        Raises:
            UserError: If at least one problem was added.
        """
        if self.problems:
            raise UserError(
                f"{what}: {len(self.problems)} problem(s)\n" + bullet(self.problems),
                expected,
                fix,
            )


def suggestion(name: object, known: Sequence[str]) -> str:
    """Say which known name was probably meant."""
    near = difflib.get_close_matches(str(name), known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else "choose one of these"


def bullet(lines: Sequence[str]) -> str:
    """Format lines as an indented list."""
    return "\n".join(f"    - {line}" for line in lines)
