"""What runs on devices is lowered for accelerators, though none is here.

Every function that the project hands to `jax.jit` or `jax.pmap` to train or to infer
is called as the project calls it, and lowered for CUDA and TPU in place of being run.
Networks are small, since lowering does not depend on their size.
"""

import functools
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tiny import tiny_config

from configs import amd as amd_recipe
from imas_jax.conventions import Batch
from imas_jax.flow import evidence, raft
from imas_jax.models import pretrained
from imas_jax.models.evidence_net import EvidenceNet
from imas_jax.models.imas import mask_size
from imas_jax.models.segmenter import BACKBONES
from imas_jax.stages import explain, features, fit, frozen, network, predictor
from imas_jax.tools import evidence as evidence_tool
from imas_jax.tools import pretrain
from imas_jax.training import contrast, held, loop, online, parallel, steps
from imas_jax.training import state as states

PLATFORMS = ("cuda", "tpu")
PRECISIONS = ("float32", "bfloat16")
NETWORKS = ("amd", "unet", "resnet50", "vit_s14_reg")  # one of a kind


class Program(NamedTuple):
    """A function as it would go to a device.

    Attributes:
        text: StableHLO.
        leaves: Of its first argument, arrays.
    """

    text: str
    leaves: int

    @property
    def donated(self) -> int:
        """Count arguments whose memory a result takes."""
        return len(re.findall(r"tf\.aliasing_output|jax\.buffer_donor", self.text))


@pytest.fixture
def programs(monkeypatch, unchecked):
    """Have functions lowered in place of run; return what was lowered, by platform.

    They return zeros of the right shapes, so that what calls them goes on. Types are
    not checked: JAX puts other things where arrays were.
    """
    taken: list[dict[str, Program]] = []
    compile_one, compile_all = jax.jit, jax.pmap
    lower = jax.stages.Traced.lower
    platform = ""
    monkeypatch.setattr(
        jax.stages.Traced,
        "lower",
        lambda self: lower(self, lowering_platforms=(platform,)),
    )

    def standing_in(compiled):
        def call(*arguments, **options):
            leaves = jax.tree.leaves((arguments, options))
            if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
                return compiled(*arguments, **options)
            nonlocal platform
            found = {}
            for platform in PLATFORMS:
                lowered = compiled.lower(*arguments, **options)
                count = len(jax.tree.leaves(arguments[:1]))
                found[platform] = Program(lowered.as_text(), count)
            taken.append(found)
            return jax.tree.map(
                lambda shape: np.zeros(shape.shape, shape.dtype), lowered.out_info
            )

        return call

    monkeypatch.setattr(jax, "jit", lambda f, **how: standing_in(compile_one(f, **how)))
    monkeypatch.setattr(
        jax, "pmap", lambda f, **how: standing_in(compile_all(f, **how))
    )
    return taken


def faults(program, precision):
    """List what an accelerator could not do, or would do at the host's pace."""
    text, found = program.text, []
    called = set(re.findall(r"custom_call @(\w+)", text))
    if called:
        found.append(f"calls {sorted(called)}")
    for what in ("infeed", "outfeed", "send", "recv"):
        if f"stablehlo.{what}" in text:
            found.append(what)
    if re.search(r"[x<]f64>", text):
        found.append("float64")
    if re.search(r"tensor<(\d+x)*\?", text):
        found.append("a shape that is not static")
    products = re.findall(r"stablehlo\.(?:convolution|dot_general).*-> (\S+)", text)
    short = sum("bf16" in result for result in products)
    if precision == "float32" and "bf16" in text:
        found.append("bfloat16")
    if precision == "bfloat16" and short < 0.5 * len(products):
        found.append(f"{short} of {len(products)} products are bfloat16")
    return found


def check(programs, precision="float32", count=1):
    """Check that so many programs were lowered, and that each suits accelerators."""
    assert len(programs) == count
    for program in programs:
        for platform in PLATFORMS:
            assert faults(program[platform], precision) == [], platform


def zeros(tree):
    """Make arrays of a tree of shapes."""
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)


def variables_of(model: nn.Module, *inputs, **options):
    """Return zeros for a network's variables; nothing is compiled for it."""
    init = functools.partial(model.init, **options)
    return zeros(jax.eval_shape(init, jax.random.key(0), *inputs))


def config_of(name, precision):
    config = tiny_config(Path("clips"), Path("run"))  # neither is touched
    config.precision = precision
    if name == "amd":
        for field in ("name", "pathway", "motion_width", "residual_bound"):
            config.model[field] = amd_recipe.get_config().model[field]
        config.model.still_background = False
    elif name != "imas":
        config.model.backbone, backbone = name, BACKBONES[name]
        if backbone.merge_stride is None:
            config.model.feature_merging = False
        if config.model.output_stride not in backbone.strides:
            config.model.output_stride = backbone.strides[0]
    return config


def lower_training(config, stage, on_devices=False):
    """Lower a stage's step."""
    model = network.build_model(config, parallel.AXIS)
    optimizer = network.stage_optimizer(config, stage)
    crop = tuple(config.augment.crop)
    size = mask_size(config.model, crop)
    loss = steps.make_loss(model, config, stage, (1,))
    step = steps.make_step(loss, optimizer, config, 0.9, size)
    variables = variables_of(
        network.build_model(config), np.zeros((1, 2, *crop, 3), "f4"), train=False
    )
    state = states.create_state(variables, optimizer, 0, 0.9)
    flow = np.zeros((8, 24, 32, 2), np.float16)
    target = np.zeros((8, 2, *size), np.uint8) if stage == "refine" else None
    frames = np.zeros((8, 2, 48, 64, 3), np.uint8)
    if on_devices:
        lower_step(held.drawing(step), state, held_set(size))
    else:
        lower_step(step, state, Batch(frames, flow, flow, target, np.arange(8)))


def held_set(masks):
    """Return shapes of a set of twelve frames on each device."""

    def each(*shape, dtype=np.uint8):
        return jax.ShapeDtypeStruct((jax.local_device_count(), *shape), dtype)

    shapes = ((48, 64, 3), (2, 24, 32, 2), masks)
    frames, flows, targets = (math.prod(shape) for shape in shapes)
    return held.Held(
        each(12, frames),
        each(11, flows, dtype=np.float16),
        each(12, targets),
        each(11, 2, dtype=np.int32),
        each(100, 8, dtype=np.int32),
        shapes,
    )


def lower_step(step, state, batch):
    """Lower a per-device step as the training loop runs it."""
    devices = jax.local_device_count()
    carried = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((devices, *leaf.shape), leaf.dtype), state
    )
    drawn = batch if isinstance(batch, held.Held) else parallel.split(batch)
    fed = (drawn, parallel.on_each_device(0))
    parallel.run_on_devices(loop._telling(step))(carried, fed)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("name", "stage"),
    [("imas", "discover"), ("imas", "refine"), ("amd", "discover")],
)
def test_a_training_step_is_for_accelerators(programs, name, stage, precision):
    lower_training(config_of(name, precision), stage)
    check(programs, precision)
    for program in programs[0].values():
        assert program.donated == program.leaves


def test_a_step_that_draws_its_batch_is_for_accelerators(programs):
    lower_training(config_of("imas", "bfloat16"), "refine", on_devices=True)
    check(programs, "bfloat16")
    for program in programs[0].values():
        assert program.donated == program.leaves
        assert "tensor<12x9216xui8>" in program.text  # the set goes in, no batch
    whole = np.zeros((1, 40, 6), np.uint8)
    jax.jit(parallel._written.__wrapped__, donate_argnums=0)(whole, whole[:, :16], 3)
    for program in programs[1].values():
        assert faults(program, "float32") == []
        assert program.donated == 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_step_of_pretraining_is_for_accelerators(programs, precision):
    config = config_of("imas", precision)
    how = config.pretrain
    how.update({"batch_size": 16, "queue": 32, "hidden": 8, "features": 4, "crop": 32})
    model = pretrain.encoder(config)
    variables = variables_of(model, np.zeros((1, 32, 32, 3), "f4"), train=True)
    optimizer = contrast.make_optimizer(0.1, how.weight_decay)
    settings = contrast.Settings(0.2, 0.9, 0.5, 0, how.groups)
    lower_step(
        contrast.make_step(pretrain.encode_with(model), optimizer, settings, how),
        contrast.create_state(variables, optimizer, 0, how.queue, how.features),
        Batch(np.zeros((16, 2, 48, 64, 3), np.uint8), None, None, None, np.arange(16)),
    )
    check(programs, precision)
    for program in programs[0].values():
        assert program.donated == program.leaves


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_frozen_backbone_is_for_accelerators(programs, tmp_path, precision):
    config = config_of("imas", precision)
    config.model.trained = "heads"
    model = network.build_model(config)
    variables = variables_of(model, np.zeros((1, 2, 32, 48, 3), "f4"), train=False)
    see = frozen.open_store(config, tmp_path, model, variables)
    (seen,) = see([np.zeros((48, 64, 3), np.uint8)])
    assert seen.deep.dtype == np.float16
    check(programs[1:], precision)  # the first copied variables to devices


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NETWORKS)
def test_prediction_is_for_accelerators(programs, name, precision):
    config = config_of(name, precision)
    model = network.build_model(config)
    frames = np.zeros((1, 2, 32, 48, 3), "f4")
    variables = variables_of(model, frames, train=False)
    config.predict.flip = True
    predict = predictor.Predictor(model, variables, config.predict)
    assert len(list(predict([np.zeros((48, 64, 3), np.uint8)] * 3))) == 3
    check(programs[1:], precision)  # the first copied variables to devices


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_teacher_is_for_accelerators(programs, precision):
    config = config_of("imas", precision)
    variables = variables_of(
        network.build_model(config), np.zeros((1, 2, 32, 48, 3), "f4"), train=False
    )
    devices = jax.local_device_count()
    copies = jax.tree.map(lambda leaf: np.stack([leaf] * devices), variables)
    frames = np.zeros((8, 2, 48, 64, 3), np.uint8)
    source = iter([Batch(frames, frames, frames, None, np.arange(8))] * 2)
    targets = online.OnlineTargets(fit._object(config, (1,)), lambda frames, masks: 0)
    state = SimpleNamespace(teacher=copies, ema=copies)
    next(targets.follow(source, lambda: state))
    check(programs, precision, count=2)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("size", "correlation"), [("small", "volume"), ("large", "on_demand")]
)
def test_raft_is_for_accelerators(
    programs, monkeypatch, tmp_path, size, correlation, precision
):
    frame = np.zeros((1, 64, 64, 3), "f4")
    variables = variables_of(raft.Raft(size), frame, frame, iterations=1)
    monkeypatch.setattr(raft, "load_weights", lambda path: (size, variables))
    (tmp_path / "weights").touch()
    estimate = raft.make_raft(tmp_path / "weights", 2, precision, correlation)
    frames = np.zeros((2, 60, 70, 3), np.uint8)
    forward, _ = estimate.batch(frames, frames)
    assert forward.shape == (2, 60, 70, 2)
    check(programs, precision)


def test_the_motion_evidence_is_for_accelerators(programs):
    size = (24, 32)
    seen = evidence.Observation(
        np.zeros((*size, evidence.LOOK * len(evidence.OFFSETS)), "f4"),
        np.zeros((*size, 2), "f4"),
        np.ones(len(evidence.OFFSETS), "f4"),
    )
    assert evidence.load(evidence.weights("dis"))(seen).shape == size
    check(programs)


def test_the_evidence_networks_step_is_for_accelerators(programs):
    config = config_of("imas", "float32").evidence
    looks = evidence.LOOK * len(evidence.OFFSETS)
    net = EvidenceNet((4, 4))
    blank = np.zeros((1, 24, 32, evidence.CHANNELS), "f4")
    optimizer = evidence_tool.make_optimizer(config, 3)
    state = evidence_tool.start(variables_of(net, blank, train=False), optimizer)
    shapes = ((24, 32, looks), (24, 32, 2), (len(evidence.OFFSETS),), (24, 32))
    batch = tuple(np.zeros((2, *shape), "f4") for shape in shapes)
    evidence_tool.make_step(net, optimizer, config)(state, batch)
    check(programs)
    unread = len(jax.tree.leaves(state[2]["batch_stats"]))  # only ever replaced
    for program in programs[0].values():
        assert program.donated == program.leaves - unread


def test_frozen_features_are_for_accelerators(programs, monkeypatch):
    model = BACKBONES["resnet50"].published()
    variables = variables_of(model, np.zeros((1, 64, 64, 3), "f4"), train=False)
    monkeypatch.setattr(pretrained, "load_backbone", lambda *what: variables)
    see = features._frozen.__wrapped__(Path("weights"), "resnet50", 48)
    assert see(np.zeros((48, 64, 3), np.uint8)).ndim == 3
    check(programs[1:])  # the first copied variables to devices


@pytest.mark.parametrize("precision", PRECISIONS)
def test_starting_and_explaining_are_for_accelerators(programs, monkeypatch, precision):
    config = config_of("imas", precision)
    model = network.build_model(config)
    variables = network.initial_variables(model, config)
    state = SimpleNamespace(best_variables=variables)
    monkeypatch.setattr(network, "final_state", lambda *what: state)
    run = SimpleNamespace(config=config, folder=Path, workdir=Path("run"))
    told = explain.Explainer(run, model)._explain(
        variables,
        np.zeros((2, 48, 64, 3), np.uint8),
        np.zeros((24, 32, 2), "f4"),
        direction=1,
    )
    assert len(told) == 3
    assert faults(programs[0]["tpu"], "float32") == []  # draws parameters: float32
    check(programs[1:], precision)


def test_what_accelerators_cannot_do_is_found(programs):
    x = np.ones((2, 2), "f4")
    with jax.enable_x64(True):
        jax.jit(lambda x: x.astype(jnp.float64) @ x)(x)
    jax.jit(lambda x: x.astype(jnp.bfloat16) @ x)(x)
    jax.jit(jnp.linalg.cholesky)(x)
    found = [faults(program["cuda"], "float32") for program in programs]
    assert found == [
        ["float64"],
        ["bfloat16"],
        ["calls ['cusolver_potrf_ffi']"],
    ]
    short = faults(programs[0]["tpu"], "bfloat16")
    assert short == ["float64", "0 of 1 products are bfloat16"]
    assert programs[0]["tpu"].donated == 0
    with pytest.raises(ValueError, match="platform"):  # JAX refuses it by itself
        jax.jit(lambda x: jax.pure_callback(np.sin, x, x))(x)
