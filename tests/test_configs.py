"""Every config and every ablation, through both training steps, without computing."""

import importlib
import json

import jax
import pytest
from jax import ShapeDtypeStruct as Shape

from configs import ablation, davis, densecl
from imas_jax import protocol
from imas_jax.conventions import Batch
from imas_jax.data import augment
from imas_jax.evaluation import ablations
from imas_jax.models import imas
from imas_jax.runs import records
from imas_jax.stages import network, settle
from imas_jax.training import parallel, steps

RECIPES = ["davis", "segtrackv2", "fbms59", "youtube_vos", "video", "demo"]
MINIATURES = ["davis", "segtrackv2", "fbms59", "youtube_vos"]
FRAME = (480, 854)


def build(name, *variant):
    config = importlib.import_module(f"configs.{name}").get_config(*variant)
    facts = settle.Facts((80,), (FRAME,), {1: 2.0})
    return settle.apply(config, settle.choose(config, facts)).unlock()


def trace(config, stage):
    """Return the shapes a step of a stage gives for one pair on one device."""
    model = imas.make_model(config, parallel.AXIS)
    size = imas.mask_size(config.model, tuple(config.augment.crop))
    guided = stage == "refine" or config.discover.evidence_weight > 0
    channels = (0,) if guided else ()
    optimizer = network.stage_optimizer(config, stage)
    loss = steps.make_loss(model, config, stage, channels)
    step = steps.make_step(loss, optimizer, config, config[stage].ema, size)
    h, w = FRAME
    batch = Batch(
        Shape((1, 1, 2, h, w, 3), "uint8"),
        Shape((1, 1, h // 2, w // 2, 2), "float16"),
        Shape((1, 1, h // 2, w // 2, 2), "float16"),
        Shape((1, 1, 2, *size), "uint8") if guided else None,
        Shape((1, 1), "int32"),
    )
    state = jax.tree.map(
        lambda leaf: Shape((1, *leaf.shape), leaf.dtype),
        network.template(config, stage),
    )
    devices = jax.local_devices()[:1]
    return state, jax.eval_shape(parallel.run_on_devices(step, devices), state, batch)


def check(config):
    config.lock()
    for stage in ("discover", "refine"):
        before, (after, metrics) = trace(config, stage)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
            lambda x: (x.shape, x.dtype), before
        )
        assert ("appearance" in metrics) == (stage == "refine")
        assert {leaf.dtype for leaf in metrics.values()} == {jax.numpy.dtype("float32")}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_goes_through_both_steps(name):
    check(build(name))


@pytest.mark.parametrize("name", MINIATURES)
def test_every_recipe_has_a_miniature_that_only_shrinks_it(name):
    config, small = build(name), build(name, "runlocal")
    # It may train on fewer sequences and judge more frames, which is cheap there.
    small.data.split, small.align.judged = config.data.split, config.align.judged
    for group in ("data", "loss", "align", "evaluate"):
        assert config[group].to_json() == small[group].to_json()
    assert small.discover.steps <= config.discover.steps


@pytest.mark.parametrize("variant", ["", "runlocal"])
@pytest.mark.parametrize("name", ["segtrackv2", "fbms59"])
def test_frames_of_other_datasets_keep_480ps_aspect_and_are_cropped_as_on_davis(
    name, variant
):
    ours, theirs = build(name, variant), build("davis", variant)
    assert tuple(ours.data.size) == FRAME
    for fraction in (0.0, 0.5, 1.0):
        h, w = augment.scaled_size(FRAME, jax.numpy.asarray(fraction), ours.augment)
        assert abs(w - h * FRAME[1] / FRAME[0]) <= 0.5
    assert ours.augment.to_json() == theirs.augment.to_json()


@pytest.mark.parametrize("name", ["davis", "amd"])
def test_miniatures_go_through_both_steps(name):
    check(build(name, "runlocal"))


@pytest.mark.parametrize(
    ("name", "variant"),
    [("gwm", ""), ("rcf", "segtrackv2")],
)
def test_other_methods_go_through_both_steps(name, variant):
    check(build(name, variant))


def test_rcfs_second_run_starts_from_its_first():
    first, second = build("rcf"), build("rcf", "semantic")
    assert (first.target.when, second.target.when) == ("online", "between")
    assert second.discover.steps == 0
    assert second.target.constrained_by == "cut"
    assert (first.align.weights, first.align.threshold) == ("dino_vits8", 0.2)
    assert first.model.to_json() == second.model.to_json()
    with pytest.raises(ValueError, match="known: demo, segtrackv2, fbms59"):
        build("rcf", "davis17")


def distinct_networks():
    """Return one ablation for every different pair of network and loss."""
    rows = {}
    for row in ablations.ROWS:
        config = ablation.get_config(f"{row.name},runlocal")
        rows.setdefault(config.model.to_json() + config.loss.to_json(), row.name)
    return list(rows.values())


@pytest.mark.parametrize("name", distinct_networks())
def test_every_ablation_goes_through_both_steps(name):
    check(ablation.get_config(f"{name},runlocal"))


@pytest.mark.parametrize("row", ablations.ROWS, ids=lambda row: row.name)
def test_a_row_of_the_paper_is_one_config(row):
    config = ablation.get_config(row.name)
    changed = {"workdir": config.workdir, "ablate.rows": row.name}
    base = davis.get_config()
    for key, value in flatten(config.to_dict()).items():
        if flatten(base.to_dict())[key] != value:
            changed[key] = value
    expected = {
        key: value
        for key, value in row.overrides.items()
        if flatten(base.to_dict())[key] != value
    }
    named = {"workdir": f"runs/ablation/{row.name}", "ablate.rows": row.name}
    assert changed == {**named, **expected}


def flatten(tree, prefix=""):
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def test_an_unknown_row_is_refused_with_all_names():
    with pytest.raises(ValueError, match="pathway-affine"):
        ablation.get_config("pathway-afine")


@pytest.mark.parametrize(
    ("precision", "entropy"), [("float32", "rcf"), ("bfloat16", "intended")]
)
def test_options_without_a_row_go_through_the_steps_too(precision, entropy):
    config = build("video")
    config.precision = precision
    config.loss.entropy = entropy
    config.loss.symmetric = False
    config.model.pathway = "residual_affine"
    config.refine.ema = 0.999
    check(config)


@pytest.mark.parametrize("name", [*RECIPES, "align", "evaluate"])
def test_every_field_of_a_recipe_can_be_written_down(name):
    assert json.loads(build(name).to_json_best_effort())["model"]


def test_fields_that_make_a_stage_lighter_are_fields():
    known = records.flatten(davis.get_config()) | records.flatten(densecl.get_config())
    for stage in (*protocol.STAGES, *protocol.TOOLS):
        assert set(stage.lighter) <= known.keys()
