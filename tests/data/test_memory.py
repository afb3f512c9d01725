"""What a control group allows counts, and what is shared counts once."""

import pytest

from imas_jax.data import memory
from imas_jax.errors import UserError

GB = 10**9


def host(root, groups, **limits):
    """Write what Linux tells of a process's groups; `limits` are by path."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for path, text in limits.items():
        file = root / memory.GROUPS / path.replace("__", "/").replace("_of_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return memory.limit(root)


@pytest.mark.parametrize(
    ("groups", "limits", "size", "of"),
    [
        ("0::/a/b\n", {"a__b__memory_of_max": "1000\n"}, 1000, "control group /a/b"),
        # A group above allows less.
        (
            "0::/a/b\n",
            {"a__b__memory_of_max": "max\n", "a__memory_of_max": "900\n"},
            900,
            "control group /a",
        ),
        # In a container, whose own group is the top.
        ("0::/docker/1\n", {"memory_of_max": "800\n"}, 800, "control group /"),
        (
            "4:cpu,memory:/job\n1:name=systemd:/x\n0::/x\n",
            {"memory__job__memory_of_limit_in_bytes": "700\n"},
            700,
            "control group /job",
        ),
    ],
)
def test_control_groups_are_asked(tmp_path, groups, limits, size, of):
    assert host(tmp_path, groups, **limits) == memory.Limit(size, of)


def test_without_a_limit_it_is_the_machines(tmp_path):
    machine = memory.limit(tmp_path / "no Linux")
    assert machine.of == "this machine"
    endless = {
        "memory__job__memory_of_limit_in_bytes": "9223372036854771712\n",
        "x__memory_of_max": "max\n",
    }
    assert host(tmp_path, "3:memory:/job\n0::/x\n", **endless) == machine


def test_what_is_mapped_counts_once_and_the_rest_for_each_process():
    bound = memory.Limit(10 * GB, "control group /job")
    memory.check(7 * GB, GB // 4, 8, bound)
    with pytest.raises(UserError) as caught:
        memory.check(7 * GB, GB // 2, 8, bound)
    assert "11.00 GB on this host (7.00 GB shared by 8 processes" in caught.value.found
    assert "10.00 GB of control group /job" in caught.value.expected
    with pytest.raises(UserError, match=r"needs 14\.00 GB on this host"):
        memory.check(0, 7 * GB, 2, bound)
