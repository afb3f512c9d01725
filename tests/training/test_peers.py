"""Who hangs is found by what processes say, whatever their clocks show."""

import json

from imas_jax import progress
from imas_jax.training.peers import Peers, told


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def look(said, patience=10, seconds=30):
    """Let processes say `said(second, index)` each second; return what is found."""
    clock = Clock()
    peers = Peers(patience, clock)
    for second in range(seconds):
        clock.now = second
        peers.hear({i: said(second, i) for i in range(2)})
        if found := peers.hung(2):
            return second, found, peers
    return None, "", peers


def says(time, index, beats, waits):
    return json.dumps([time, beats, waits, f"process {index} of 2 on h", "step 7"])


def test_one_that_does_not_get_on_while_the_other_waits_for_it_is_named():
    second, found, _ = look(lambda t, i: says(t, i, min(t, 4), waits=i == 0))
    assert second == 14
    expected = "process 1 of 2 on h hangs: no progress for 10 s (last: step 7)"
    assert found == expected


def test_one_that_works_is_waited_for_and_never_named():
    assert look(lambda t, i: says(t, i, t * i, waits=i == 0))[1] == ""
    assert look(lambda t, i: says(t, i, 0, waits=i == 0), patience=0)[1] == ""


def test_one_that_is_not_heard_of_hangs_even_if_it_waited():
    found = look(
        lambda t, i: says(min(t, 3) if i else t, i, t if i == 0 else 3, i == 1)
    )
    assert found[1].startswith("process 1 of 2 on h hangs")
    assert found[2].silent(5, range(3)) == (
        "process 1 of 2 on h was last heard of 10 s ago; process 2 was never heard of"
    )


def test_all_that_wait_for_each_other_are_told():
    found = look(lambda t, i: says(t, i, 3, waits=True))[1]
    assert found.startswith("all 2 processes have waited for each other for 10 s")


def test_a_process_says_what_it_does():
    progress.beat("flow, 3 pair")
    before = json.loads(told(1, "process 1 of 2"))
    assert before[2] is False
    assert before[4] == "flow, 3 pair"
    with progress.waiting():
        assert json.loads(told(2, "process 1 of 2"))[2] is True
    for _ in progress.progress([1, 2], 2, "masks", "frame"):
        pass
    after = json.loads(told(3, "process 1 of 2"))
    assert after[1] > before[1]
    assert after[4] == "masks, 2 frame"
