"""Processes share the clips of a stage, and one says how far all are."""

import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imas_jax import progress
from imas_jax.stages import shares
from imas_jax.training import exchange, parallel


@given(st.lists(st.integers(1, 100)), st.integers(1, 9))
def test_every_thing_is_somebodys_and_nobody_has_much_more(sizes, count):
    found = shares.parts(sizes, count)
    assert len(found) == count
    assert sorted(itertools.chain.from_iterable(found)) == list(range(len(sizes)))
    assert all(part == sorted(part) for part in found)
    loads = [sum(sizes[thing] for thing in part) for part in found]
    assert max(loads) - min(loads) <= max(sizes, default=0)


@dataclasses.dataclass(frozen=True)
class Clip:
    frames: range


def test_a_clip_is_whole_and_one_process_alone_has_all(unchecked):
    clips = [Clip(range(n)) for n in (5, 9, 4, 1)]
    parts = [shares.Share(index, 2).of(clips) for index in range(2)]
    assert parts == [(clips[1], clips[3]), (clips[0], clips[2])]
    assert shares.ALONE.of(clips) == tuple(clips)


class Service:
    """The runtime's service; the other process tells of itself whenever it is asked."""

    def __init__(self, other):
        self.told, self._other = {}, iter(other)

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.told
        self.told[key] = value

    def key_value_dir_get(self, folder):
        if (text := next(self._other, None)) is not None:
            self.told[f"{folder}1"] = text
        return [(k, v) for k, v in self.told.items() if k.startswith(folder)]

    def key_value_delete(self, folder):
        self.told = {k: v for k, v in self.told.items() if not k.startswith(folder)}


@pytest.fixture
def service(monkeypatch):
    def start(index, other):
        made = Service(other)
        monkeypatch.setattr(shares, "TELL_EVERY", 0.0)
        monkeypatch.setattr(parallel, "process", lambda: (index, 2))
        monkeypatch.setattr(parallel, "service", lambda: made)
        monkeypatch.setattr(exchange, "_TALLIES", itertools.count())
        return made

    return start


def test_progress_is_of_all_processes_and_ends_when_all_are_done(service):
    made, said = service(0, ["0 3", "1 3", "2 3", "3 3"]), []
    with progress.told_to(lambda one: said.append((one.done, one.total))):
        share = shares.Share(0, 2)
        assert list(share.progress("ab", 2, "masks", "frame")) == ["a", "b"]
    assert said == [(1, 5), (3, 5), (4, 5), (5, 5)]
    assert made.told == {}


def test_a_process_that_is_not_the_first_tells_and_shows_nothing(service):
    made, said = service(1, []), []
    with progress.told_to(said.append):
        assert list(shares.Share(1, 2).progress("abc", 4, "masks", "frame")) == [*"abc"]
    # It found one of its four done: what it has told ends whole all the same.
    assert made.told == {"imas_jax/tally/0/1": "3 3"}
    assert said == []


def test_one_that_works_for_all_tells_nobody(service):
    made = service(0, [])
    assert list(shares.ALONE.progress("ab", 2, "masks", "frame")) == ["a", "b"]
    assert shares.ALONE.join({"a": 1}) == {"a": 1}
    assert made.told == {}
