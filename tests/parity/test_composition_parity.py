"""Flow composition, its gradients and the auxiliary losses.

Losses of the variants are stored in float64. Maps, gradients and auxiliary losses are
stored in float32 without a rounding floor; theirs is measured here as the difference
between our own float32 and float64 runs, and our float64 run is compared.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_names

from imas_jax import composition, losses
from imas_jax.models import imas, torch_files

pytestmark = pytest.mark.parity

VARIANTS = {
    "free": {},
    "free_sameres": {},
    "robust": {},
    "nolimit": {"residual_bound": -1.0},
    "div1": {"residual_divisor": 1.0, "residual_bound": 5.0},
    "affine": {"pathway": "residual_affine"},
    "noclamp": {"flow_clamp": 0.0},
}
# The others go through the same code and take `make parity`.
QUICK = ("free", "affine")
POOLING = {
    "phi_1_0": "flow_feat_before_agg.0",
    "phi_1_1": "flow_feat_before_agg.2",
    "phi_2_0": "flow_feat_after_agg.0",
    "phi_2_1": "flow_feat_after_agg.2",
}


@pytest.fixture
def file(authors):
    return authors.load("flow_composition")


def inputs(authors, file, variant, dtype):
    """Return masks, flow and residual maps of both directions, channels last."""
    masks = file["masks_in"]
    maps = [file["res_fw_in"], file["res_bw_in"]]
    if variant == "free_sameres":
        b, _, c, h, w = masks.shape
        maps = [
            authors.draw("smooth", f"flowcomp.resfull_{d}", (b, 2 * c, h, w), scale=12)
            for d in ("fw", "bw")
        ]
    flows = [file["fw_in"][:, 0], file["bw_in"][:, 0]]
    arrays = [
        jnp.asarray(torch_names.to_channels_last(array), dtype)
        for array in (masks, *flows, *maps)
    ]
    return arrays[0], arrays[1:3], arrays[3:5]


def pooling(authors, file, dtype):
    """Return the parameters of phi_1 and phi_2, in the sizes of their gradients."""
    params = {}
    for name, root in POOLING.items():
        arrays = [
            authors.draw("param", key, file[f"free/grad.{key}"].shape).astype(dtype)
            for key in (f"decode_head.{root}.weight", f"decode_head.{root}.bias")
        ]
        params[name] = {"kernel": torch_files.to_kernel(arrays[0]), "bias": arrays[1]}
    return params


def in_both_precisions(function):
    """Return `function(dtype)` of float32 and float64, the latter under x64."""
    single = function(np.float32)
    with jax.enable_x64(True):
        return single, function(np.float64)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in VARIANTS
    ],
)
def test_composition_and_its_gradients_agree(variant, authors, file, record):
    single, double = in_both_precisions(
        lambda dtype: run_variant(authors, file, variant, dtype)
    )
    reference = file[f"{variant}/seg_f64"]
    floor = torch_names.error(file[f"{variant}/seg"], reference)
    for name, ours, limit in (
        ("float64", double["seg"], 1e-8),
        ("float32", single["seg"], torch_names.limit(floor)),
    ):
        gap = torch_names.error(ours, reference)
        record("flow_composition", f"{variant}/seg, {name}", gap, floor, limit)
    for key, theirs in file.items():
        found = re.fullmatch(rf"{variant}/((?:grad|fw|bw)\..+|seg_[fb]w)", key)
        if found:
            floor = torch_names.error(single[found[1]], double[found[1]])
            gap = torch_names.error(double[found[1]], theirs)
            record("flow_composition", key, gap, floor, torch_names.limit(floor))


def run_variant(authors, file, variant, dtype):
    """Return all that the file holds of a variant, in torch's layout."""
    config = torch_names.network_config(**VARIANTS[variant])
    masks, flows, maps = inputs(authors, file, variant, dtype)
    config.model.channels = masks.shape[-1]
    model = imas.make_model(config)
    kind = "robust" if variant == "robust" else "l1"
    flows = [composition.clamp_flow(f, config.model.flow_clamp) for f in flows]

    def explain(params, masks, maps):
        variables = {"params": {"motion_pooling": params}}
        whole = [
            model.apply(variables, flow, masks[:, i], maps[i], method="reconstruct")
            for i, flow in enumerate(flows)
        ]
        parts = [
            losses.motion_loss(f, w, kind) for f, w in zip(flows, whole, strict=True)
        ]
        return sum(parts), (whole, parts)

    params = pooling(authors, file, dtype)
    grad = jax.jit(jax.grad(explain, argnums=(0, 1, 2), has_aux=True))
    grads, (whole, parts) = grad(params, masks, maps)
    first = torch_names.to_channels_first
    ours = {"seg": sum(parts), "grad.masks": first(grads[1])}
    pooled = jax.jit(
        lambda flow, mask: composition.piecewise_constant(
            flow, mask, *phi(model, params)
        )[0]
    )
    for i, d in enumerate(("fw", "bw")):
        path = pooled(flows[i], masks[:, i])
        affine = composition.affine_residual(flows[i], masks[:, i])
        given = path + affine if variant == "affine" else path
        ours |= {
            f"seg_{d}": parts[i],
            f"grad.res_{d}": first(grads[2][i]),
            f"{d}.overall": first(whole[i]),
            f"{d}.agg": first(path),
            f"{d}.affine": first(affine),
            f"{d}.residual": first(whole[i] - given),
        }
    for name, root in POOLING.items():
        for leaf, theirs in (("kernel", "weight"), ("bias", "bias")):
            value = torch_names.to_torch(grads[0][name][leaf])
            ours[f"grad.decode_head.{root}.{theirs}"] = value
    return ours


def phi(model, params):
    """Return phi_1 and phi_2 as functions."""
    bound = model.bind({"params": {"motion_pooling": params}}).motion_pooling
    return bound.phi_1, bound.phi_2


@pytest.mark.parametrize("direction", ["fw", "bw"])
def test_without_a_residual_the_loss_is_that_of_the_constant_path(
    direction, authors, file, record
):
    # The authors' code crashes here; the number comes from its own constant path.
    i = ("fw", "bw").index(direction)

    def loss(dtype):
        config = torch_names.network_config(pathway="none")
        masks, flows, _ = inputs(authors, file, "free", dtype)
        config.model.channels = masks.shape[-1]
        flow = composition.clamp_flow(flows[i], config.model.flow_clamp)
        variables = {"params": {"motion_pooling": pooling(authors, file, dtype)}}
        got = imas.make_model(config).apply(
            variables, flow, masks[:, i], None, method="reconstruct"
        )
        return losses.motion_loss(flow, got)

    single, double = in_both_precisions(loss)
    key = f"none_derived/seg_{direction}"
    floor = torch_names.error(single, double)
    gap = torch_names.error(double, file[key])
    record("flow_composition", key, gap, floor, torch_names.limit(floor))


def auxiliary(name, target):
    """Return the loss of one `aux/` key as a function of masks (b, 2, h, w, c)."""
    if name == "entropy_official":
        return losses.entropy_rcf
    if name == "entropy_intended":
        return losses.entropy
    if found := re.fullmatch(r"compactness_ch(\d+)", name):
        return lambda masks: losses.compactness(masks[..., int(found[1])])
    found = re.fullmatch(r"(?:pl|crf)_(soft|th(.+))_pos(.+)_neg(.+)", name)
    if found[2]:
        target = (target > float(found[2])).astype(target.dtype)
    return lambda masks: losses.appearance_loss(
        masks[..., 1], target, float(found[3]), float(found[4])
    )


def test_auxiliary_losses_and_their_gradients_agree(file, record):
    names = [k[4:] for k in file if k.startswith("aux/") and not k.endswith(".grad")]
    # No configuration of theirs sharpens.
    names = [name for name in names if not name.startswith("sharpen")]
    assert names

    def run(dtype):
        masks = torch_names.to_channels_last(file["masks_in"]).astype(dtype)
        ours = {}
        for name in names:
            # Targets are compared with their threshold as they are stored.
            function = auxiliary(name, jnp.asarray(file["pl_in"], jnp.float32))
            value, grad = jax.jit(jax.value_and_grad(function))(masks)
            ours[f"aux/{name}"] = value
            ours[f"aux/{name}.grad"] = torch_names.to_channels_first(grad)
        return ours

    single, double = in_both_precisions(run)
    for key, ours in double.items():
        floor = torch_names.error(single[key], ours)
        gap = torch_names.error(ours, file[key])
        record("flow_composition", key, gap, floor, torch_names.limit(floor))
