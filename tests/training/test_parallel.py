"""What processes say to each other, by a service that is a dictionary here."""

import pytest

from imas_jax.training import parallel


class Service:
    """Keeps texts under names; refuses long ones, as the runtime's does."""

    def __init__(self):
        self.kept = {}

    def key_value_set(self, key, value):
        assert key not in self.kept
        assert len(value) <= parallel.LONGEST_TEXT
        self.kept[key] = value

    def key_value_try_get(self, key):
        return self.kept[key]


@pytest.fixture
def three(monkeypatch):
    """Have three processes, one after the other, and all of them wait for nobody."""
    service, index = Service(), [0]
    monkeypatch.setattr(parallel, "service", lambda: service)
    monkeypatch.setattr(parallel, "wait_for_all", lambda: None)
    monkeypatch.setattr(parallel, "process", lambda: (index[0], 3))
    monkeypatch.setattr(parallel, "LONGEST_TEXT", 4)

    def say(number, texts):
        """Say each process's text under the same name; return what the last hears."""
        for index[0], text in enumerate(texts):
            monkeypatch.setattr(parallel, "_BARRIERS", iter([number]))
            try:
                heard = parallel.exchange(text)
            except KeyError:  # the others have yet to speak
                heard = None
        return heard

    return say


def test_every_process_hears_what_all_say_whatever_its_length(three):
    texts = ["a text of some length", "", "é"]
    assert three(0, texts) == texts
    assert three(1, texts[::-1]) == texts[::-1]


def test_one_process_hears_itself():
    assert parallel.exchange("alone") == ["alone"]
    assert parallel.processes_here() == 1


def test_processes_of_a_host_are_counted(monkeypatch):
    monkeypatch.setattr(parallel.socket, "gethostname", lambda: "node1")
    monkeypatch.setattr(
        parallel, "exchange", lambda text: ["node0", text, "node2", text]
    )
    assert parallel.processes_here() == 2
