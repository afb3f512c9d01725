"""The motion stage: who says what moves, written once and read by judge and stage 1."""

import cv2
import numpy as np
import pytest
from tiny import tiny_config, write_clip

from imas_jax import protocol
from imas_jax.appearance import crf
from imas_jax.evaluation import metrics
from imas_jax.flow import evidence
from imas_jax.runs.run import Run
from imas_jax.stages import align, evaluate, facts, motion, report, settle


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A clip of a moving square, and by kind of evidence a run of it."""
    root = tmp_path_factory.mktemp("motion")
    truth = write_clip(root / "clip", size=(96, 128))
    runs = {}
    for kind in motion.KINDS:
        config = tiny_config(root / "clip", root / kind)
        config.motion.evidence = kind
        config.flow.root = str(root / "flow")
        runs[kind] = Run(config.lock(), protocol.STAGES)
        runs[kind].make("motion")
    return truth, runs


def clip_of(run):
    (clip,) = run.clips.for_training(run.config)
    return clip


@pytest.mark.parametrize("kind", motion.KINDS)
def test_evidence_is_a_probability_of_every_frame_at_its_size(made, kind):
    truth, runs = made
    found = list(motion.of_clip(runs[kind], clip_of(runs[kind])))
    assert len(found) == len(truth)
    for one in found:
        assert one.shape == truth[0].shape
        assert 0 <= one.min() <= one.max() <= 1


def test_the_network_sees_the_square_and_otsu_writes_nothing(made):
    truth, runs = made
    found = motion.of_clip(runs["network"], clip_of(runs["network"]))
    pairs = zip(found, truth, strict=True)
    assert np.mean([metrics.jaccard(one > motion.SURE, m) for one, m in pairs]) > 0.5
    assert not (runs["otsu"].workdir / "motion" / motion.SOFT).exists()


def test_guides_are_the_evidence_on_the_masks_grid(made):
    truth, runs = made
    (guide,) = motion.guides(runs["network"])
    assert guide.shape == (len(truth), 24, 32)
    assert guide.dtype == np.uint8
    found = motion.of_clip(runs["network"], clip_of(runs["network"]))
    for small, whole in zip(guide, found, strict=True):
        blocks = whole.reshape(24, 4, 32, 4).mean(axis=(1, 3))
        np.testing.assert_allclose(small / 255, blocks, atol=0.01)


def test_what_judges_channels_is_the_evidence(made):
    _, runs = made
    run = runs["network"]
    clip, moving = clip_of(run), align.moving_from_files(run)
    for t, one in enumerate(motion.of_clip(run, clip)):
        np.testing.assert_array_equal(moving(clip, t), one > motion.SURE)


def test_guidance_makes_stage_1_depend_on_who_says_what_moves(made):
    """Without guidance the evidence decides nothing that stage 1 learns."""
    _, runs = made
    config = runs["network"].config.copy_and_resolve_references().unlock()
    alone = Run(config, protocol.STAGES)
    assert "motion.evidence" not in alone.subset(alone.stages["discover"])
    config.discover.evidence_weight = 1.0
    guided = Run(config, protocol.STAGES)
    assert guided.subset(guided.stages["discover"])["motion.evidence"] == "network"
    assert evaluate.wants_flow(guided)


def test_refined_evidence_follows_the_image_and_is_what_later_stages_read(made):
    truth, runs = made
    config = runs["network"].config.copy_and_resolve_references().unlock()
    config.motion.crf = "authors_post:iterations=5"
    config.workdir = str(runs["network"].workdir.with_name("refined"))
    run = Run(config.lock(), protocol.STAGES)
    run.make("motion")
    clip = clip_of(run)
    raw = list(motion.of_clip(run, clip, refined=False))
    np.testing.assert_array_equal(raw, list(motion.of_clip(runs["network"], clip)))
    found = list(motion.of_clip(run, clip))

    def score(likely):
        pairs = zip(likely, truth, strict=True)
        return np.mean([metrics.jaccard(one > motion.SURE, m) for one, m in pairs])

    assert score(found) > score(raw)
    moving = align.moving_from_files(run)
    np.testing.assert_array_equal(moving(clip, 1), found[1] > motion.SURE)


def test_parts_along_the_border_are_no_evidence_once_refined(
    made, tmp_path, monkeypatch
):
    truth, runs = made
    config = runs["network"].config.copy_and_resolve_references().unlock()
    config.motion.crf, config.workdir = "gwm", str(tmp_path)

    def refine_many(pairs, *_):
        for t, _ in enumerate(pairs):
            probability = truth[t].astype(np.float32)
            probability[-10:] = 1
            yield crf.CrfResult(probability > 0.5, probability)

    monkeypatch.setattr(crf, "refine_many", refine_many)
    for contact, reach in ((0.0, 1), (0.25, 0)):
        config.motion.border_contact = contact
        run = Run(config.lock(), protocol.STAGES)
        run.make("motion")  # anew: the field decides what it makes
        found = np.stack(list(motion.of_clip(run, clip_of(run))))
        np.testing.assert_array_equal(found[:, -1] > motion.SURE, reach)
        assert found[:, 30:60].max() > motion.SURE
        config = config.copy_and_resolve_references().unlock()
        config.overwrite = True


def test_another_solver_makes_the_refined_evidence_anew(made):
    _, runs = made
    config = runs["network"].config.copy_and_resolve_references().unlock()
    told = []
    for preset, solver in (
        ("", "pydensecrf"),
        ("gwm", "lattice"),
        ("gwm", "pydensecrf"),
    ):
        config.motion.crf, config.crf.solver = preset, solver
        told.append(facts.evidence(Run(config, protocol.STAGES)))
    assert told[0] == facts.evidence(runs["network"])
    assert len(set(told)) == 3


def test_a_clip_in_which_nothing_moves_is_told_of(made, tmp_path, caplog):
    _, runs = made
    assert not motion.still(runs["network"].values("motion")["moving"])
    folder = tmp_path / "stone"
    write_clip(folder, frames=1, size=(96, 128))
    for t in range(1, 6):
        (folder / f"{t:05d}.png").write_bytes((folder / "00000.png").read_bytes())
    config = tiny_config(folder, tmp_path / "run")
    config.motion.evidence = "network"
    run = Run(config.lock(), protocol.STAGES)
    run.make("motion")
    assert motion.still(run.values("motion")["moving"]) == ["stone"]
    assert f"stone: {motion.NOTHING}" in caplog.messages
    assert f"stone: {motion.NOTHING}" in list(report.warnings(run))


def test_the_crf_makes_nothing_of_a_still_scene_with_noise(tmp_path):
    """It stretches what it is given to certainty: of a hundredth too."""
    folder, rng = tmp_path / "stone", np.random.default_rng(0)
    write_clip(folder, frames=1, size=(96, 128))
    scene = cv2.imread(str(folder / "00000.png")).astype(float)
    for t in range(6):
        noisy = np.clip(scene + rng.normal(0, 2, scene.shape), 0, 255)
        cv2.imwrite(str(folder / f"{t:05d}.png"), noisy.astype(np.uint8))
    config = tiny_config(folder, tmp_path / "run")
    config.motion.update({"evidence": "network", "crf": "authors_post:iterations=2"})
    run = Run(config.lock(), protocol.STAGES)
    run.make("motion")
    clip = clip_of(run)
    assert max(one.max() for one in motion.of_clip(run, clip, refined=False)) > 0
    assert not any(one.any() for one in motion.of_clip(run, clip))
    assert motion.still(run.values("motion")["moving"]) == ["stone"]


def test_beside_imported_flow_the_mean_is_taken_with_what_dis_shows(made, tmp_path):
    _, runs = made
    config = runs["network"].config.copy_and_resolve_references().unlock()
    config.flow.update({"root": "", "export": "flo", "size": settle.ENLARGED})

    def soft(name, **changes):
        own = config.copy_and_resolve_references()
        own.workdir = str(tmp_path / name)
        for section, values in changes.items():
            own[section].update(values)
        run = Run(own.lock(), protocol.STAGES)
        run.make("motion")
        return run, np.stack(list(motion.of_clip(run, clip_of(run))))

    run, dis = soft("dis")  # also of DIS's flow: it has no other
    assert len(motion.networks(run.config)) == 1
    flow = {"estimator": "import", "size": 0, "export": ""}
    flow["source"] = run.values("flow")["export"]
    _, alone = soft("alone", flow=flow, motion={"also": ""})
    both_run, both = soft("both", flow=flow, motion={"also": "dis"})
    assert np.abs(dis - alone).max() > 0.05  # two networks
    networks = [evidence.load(path) for path in motion.networks(both_run.config)]
    counts = [network.count for network in networks]
    wanted = np.average([alone, dis], axis=0, weights=counts)
    np.testing.assert_allclose(both, wanted, atol=2e-3)
    assert facts.evidence(both_run).count("+") == 1
    # The run's own flow is what all else reads, as without it.
    assert both_run.values("flow")["digest"].startswith("import-")
    assert both_run.values("flow")["computed"] == len(both) - 1
