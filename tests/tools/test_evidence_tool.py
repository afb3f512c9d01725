import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from configs import motion
from imas_jax.flow import evidence
from imas_jax.protocol import STAGES, TOOLS, goal
from imas_jax.rendered import samples
from imas_jax.runs.run import Run
from imas_jax.tools import evidence as training


def small(workdir):
    config = motion.get_config()
    config.workdir = str(workdir)
    config.evidence.update(
        {"clips": 3, "held_out": 3, "workers": 1, "widths": (2, 4), "crop": (32, 48)}
    )
    config.evidence.update(
        {"steps": (3, 4), "batch_size": 2, "log_every": 2, "warm_up": 1}
    )
    return config


def make(config):
    Run(config, (*STAGES, *TOOLS)).make(goal(config))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("motion")
    make(small(workdir))
    return workdir


def test_the_command_writes_weights_that_load_and_a_curve(trained):
    folder = trained / "evidence"
    members = evidence.read_weights(folder / "evidence.npz")
    assert len(members) == 2
    for variables in members:
        assert variables["params"]["down1_conv"]["kernel"].shape[-1] == 4
    curve = json.loads((folder / "curve.json").read_text())
    told = [(row["network"], row["step"]) for row in curve]
    assert told == [(0, 2), (0, 3), (1, 2), (1, 4)]
    assert all(math.isfinite(value) for row in curve for value in row.values())


def test_it_gives_the_same_weights_again_from_the_samples_it_kept(trained):
    folder = trained / "evidence"
    before = (folder / "evidence.npz").read_bytes()
    kept = sorted(folder.glob("samples/*/*.npz"))
    times = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 3
    make(small(trained))
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert (folder / "evidence.npz").read_bytes() == before


def test_samples_are_read_as_they_were_written(trained):
    path = next((trained / "evidence").glob("samples/*/*.npz"))
    sample = samples.read(path)
    samples.write(path.with_name("again.npz"), sample)
    again = samples.read(path.with_name("again.npz"))
    for name, value in vars(sample).items():
        np.testing.assert_array_equal(value, getattr(again, name))
    path.with_name("again.npz").unlink()


def test_a_batch_has_the_crops_size_and_follows_its_seed(trained):
    paths = sorted((trained / "evidence").glob("samples/*/*.npz"))[:2]
    found = [samples.read(path) for path in paths]
    first, again, other = (
        samples.batch(found, np.random.default_rng(seed), (32, 48))
        for seed in (0, 0, 1)
    )
    count = len(evidence.OFFSETS)
    shapes = [(32, 48, 4 * count), (32, 48, 2), (count,), (32, 48)]
    assert [part.shape for part in first] == [(2, *shape) for shape in shapes]
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[0], other[0])


def test_the_loss_falls_to_nothing_as_logits_agree_with_the_mask():
    share = np.zeros((2, 8, 8), np.float32)
    share[0, 2:5, 2:5] = 1
    right = jnp.asarray(40 * (2 * share - 1))
    total, metrics = training.loss(right, jnp.asarray(share), 0.5)
    assert total < 1e-6
    assert metrics["dice"] < 1e-6
    wrong, _ = training.loss(-right, jnp.asarray(share), 0.5)
    assert wrong > 10


def test_frames_without_an_object_count_in_the_cross_entropy_alone():
    nothing = jnp.zeros((1, 8, 8))
    _, metrics = training.loss(jnp.full((1, 8, 8), 3.0), nothing, 0.5)
    assert metrics["dice"] == 0
    assert metrics["cross_entropy"] > 3


def test_a_trial_may_be_shorter_than_the_warm_up(trained, tmp_path):
    config = small(tmp_path)
    config.evidence.warm_up = 50
    paths = sorted((trained / "evidence").glob("samples/*/*.npz"))
    found = [samples.read(path) for path in paths]
    _, curve = training.train(config, 1, found[1:], found[:1])
    assert [row["step"] for row in curve] == [1]
