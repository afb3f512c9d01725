"""The one exception a user is meant to read.

`main` prints it without a stack trace and exits with code 2. Everything else is a
defect of this project and keeps its trace.
"""

from collections.abc import Sequence


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


def bullet(lines: Sequence[str]) -> str:
    """Format lines as an indented list."""
    return "\n".join(f"    - {line}" for line in lines)
