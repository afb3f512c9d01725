"""Which process of a run does what, and how far all of them are.

A stage that every process takes part in gives each some of the clips, whole ones: what
is made of a clip depends on no other, so results have the same bits however many
processes share them. Who does what is known from the clips alone and never asked of the
disk, on which others are at work.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from imas_jax import progress
from imas_jax.data.clips import Clip
from imas_jax.training import exchange, parallel

T = TypeVar("T")
TELL_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Share:
    """This process's part of a stage.

    Attributes:
        index: Of this process.
        count: Of processes that take part; 1 is this one alone, whoever else there is.
    """

    index: int = 0
    count: int = 1

    def of(self, clips: Sequence[Clip]) -> tuple[Clip, ...]:
        """Return this process's clips, in their order."""
        sizes = [len(clip.frames) for clip in clips]
        return tuple(clips[i] for i in parts(sizes, self.count)[self.index])

    def gather(self, value: Any) -> list[Any]:
        """Return the value of each process that takes part; see `exchange.gather`."""
        return [value] if self.count == 1 else exchange.gather(value)

    def join(self, value: dict[str, T]) -> dict[str, T]:
        """Put together what each process says of its clips, by name."""
        return {name: one for part in self.gather(value) for name, one in part.items()}

    def wait(self) -> None:
        """Return when all that take part have come here."""
        if self.count > 1:
            parallel.wait_for_all()

    def progress(
        self, items: Iterable[T], total: int, what: str, unit: str
    ) -> Iterator[T]:
        """Yield the items, and show how far all processes are.

        The first process shows it, and ends when all are done. Every process that takes
        part must come here, with nothing to do as well.

        Args:
            items: What this process works on.
            total: How many there are.
            what: Name of the work.
            unit: What one item is.
        """
        if self.count == 1 or parallel.process()[1] == 1:
            yield from progress.progress(items, total, what, unit)
            return
        tally, told = exchange.Tally(total), time.monotonic()
        line = progress.ItemLine(what, unit, total) if self.index == 0 else None
        done = 0
        try:
            for done, item in enumerate(items, start=1):
                yield item
                progress.beat(f"{what}, {done} {unit}")
                if time.monotonic() - told >= TELL_EVERY:
                    told = time.monotonic()
                    tally.tell(done, total)
                    if line is not None:
                        line.show(*tally.whole()[:2])
            tally.tell(done, done)
            if line is not None:
                _until_all_are_done(tally, line)
        finally:
            if line is not None:
                line.close()


ALONE = Share()


def every() -> Share:
    """Return this process's part of a stage that all processes take part in."""
    return Share(*parallel.process())


def parts(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Share things out so that no part is much larger than another.

    The largest first, each to whoever has least.

    Args:
        sizes: Of the things.
        count: Parts.

    Returns:
        Indices of the things in each part, increasing.
    """
    found: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    for thing in sorted(range(len(sizes)), key=lambda thing: -sizes[thing]):
        least = loads.index(min(loads))
        found[least].append(thing)
        loads[least] += sizes[thing]
    return [sorted(part) for part in found]


def _until_all_are_done(tally: exchange.Tally, line: progress.ItemLine) -> None:
    """Show what the others do; one that fails ends this process too."""
    with progress.waiting():
        while True:
            done, total, complete = tally.whole()
            line.show(done, total)
            if complete and done == total:
                tally.forget()
                return
            time.sleep(TELL_EVERY / 5)
