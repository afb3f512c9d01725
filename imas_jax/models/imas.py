"""The IMAS network: frame pairs -> `Prediction`, and masks -> reconstructed flow.

Paper Sec. 3.2 and Fig. 2. The network owns parameters only; what is computed from
masks and flow is in `composition.py`, what is minimised in `losses.py`. It knows
neither data sets nor devices.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from imas_jax import composition, errors, geometry
from imas_jax.conventions import Features, Prediction
from imas_jax.models import amd, heads, segmenter
from imas_jax.models.segmenter import BACKBONES, ModelSpec

LEARNED = ("residual", "scaling", "residual_affine")
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


def make_model(config: ConfigDict, axis_name: str | None = None) -> "IMAS | amd.AMD":
    """Build the network of a config: IMAS, or AMD, which it is compared with.

    Args:
        config: The whole config; reads `model` and `precision`.
        axis_name: Device axis over which batch norm is synchronised, or None.

    Raises:
        UserError: If choices exclude each other; all are listed.
    """
    names = [field.name for field in dataclasses.fields(ModelSpec)]
    spec = ModelSpec(**{name: config.model[name] for name in names})
    check_spec(spec, config.model.name)
    network = amd.AMD if config.model.name == "amd" else IMAS
    return network(spec, axis_name, DTYPES[config.precision])


def check_spec(spec: ModelSpec, name: str) -> None:
    """Refuse fields that exclude each other, naming all of them."""
    problems = errors.ProblemList()
    backbone = BACKBONES[spec.backbone]
    if spec.output_stride not in backbone.strides:
        listed = ", ".join(map(str, backbone.strides))
        problems.add(
            "model.output_stride",
            f"{spec.output_stride} is none of {listed}, which {spec.backbone} has",
        )
    if spec.feature_merging and backbone.merge_stride is None:
        problems.add("model.feature_merging", f"{spec.backbone} has one stage only")
    if name == "amd":
        if spec.pathway != "none":
            problems.add("model.pathway", f"{spec.pathway!r}; amd has none")
        if spec.motion_width < 1:
            problems.add("model.motion_width", f"{spec.motion_width}; amd wants some")
        if spec.still_background:
            problems.add("model.still_background", "amd's background moves as seen")
    problems.raise_if_any("network", "choices that go together", "correct these fields")


def mask_size(model: ConfigDict, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (h, w) of masks for frames of `size`.

    Args:
        model: `config.model`.
        size: Frame height and width, pixels.
    """
    backbone = BACKBONES[model.backbone]
    merged = backbone.merge_stride if model.feature_merging else None
    return backbone.grid(size, merged or model.output_stride)


class IMAS(segmenter.Segmenter):
    """Backbone, heads and motion pooling.

    Parameters live under `backbone`, `segmentation_head`, `residual_head` (pathways
    `LEARNED`) and `motion_pooling` (unless its width is 0).

    Residual maps and the reconstruction are float32 at least, as logits are.
    """

    def setup(self) -> None:
        """Make the parts the spec asks for."""
        super().setup()
        spec = self.spec
        if spec.pathway in LEARNED:
            self.residual_head = heads.ResidualFlowHead(
                4 * spec.channels, **self.head_settings()
            )
        self.motion_pooling = heads.MotionPooling(spec.motion_width)

    def __call__(
        self, frames: Float[Array, "b 2 h w 3"] | Features, train: bool
    ) -> Prediction:
        """Predict masks and residual maps of frame pairs.

        Args:
            frames: Normalised frames t and t+1, or a frozen backbone's features.
            train: Whether batch norm uses and updates batch statistics and dropout is
                on (which wants a `dropout` key).
        """
        features = self.features(segmenter.one_by_one(frames), train)
        logits = self.mask_logits(features, train)
        logits = logits.reshape(-1, 2, *logits.shape[1:])
        forward = backward = None
        if self.spec.pathway in LEARNED:
            deep = features.deep.reshape(-1, 2, *features.deep.shape[1:])
            pair = Features(None, jnp.concatenate([deep[:, 0], deep[:, 1]], -1))
            forward, backward = jnp.split(self.residual_head(pair, train), 2, -1)
        if self.is_initializing():
            self.motion_pooling(jnp.zeros((1, 2, 2, 2), logits.dtype))
        return Prediction(logits, forward, backward)

    def reconstruct(
        self,
        flow: Float[Array, "b h w 2"],
        masks: Float[Array, "b h w c"],
        residual_maps: Float[Array, "b hu wu 2*c"] | None,
    ) -> Float[Array, "b h w 2"]:
        """Explain the flow of one direction by its masks (equations 1-5).

        Args:
            flow: Clamped flow at mask resolution (`composition.clamp_flow`), pixels.
            masks: Soft masks of the flow's source frame.
            residual_maps: That direction's maps of `Prediction`, or None.
        """
        pooling, spec = self.motion_pooling, self.spec

        def phi_2(pooled: Array) -> Array:
            vectors = pooling.phi_2(pooled)
            return composition.hold_first(vectors) if spec.still_background else vectors

        path, vectors = composition.piecewise_constant(
            flow, masks, pooling.phi_1, phi_2
        )
        if spec.pathway in ("affine", "residual_affine"):
            path = path + composition.affine_residual(flow, masks)
        if residual_maps is None:
            return path
        maps = geometry.resize(residual_maps, masks.shape[1:3])
        if spec.pathway == "scaling":
            flows = composition.scaling_residual(maps, vectors, spec.residual_divisor)
        else:
            flows = composition.bounded_residual(
                maps, spec.residual_bound, spec.residual_divisor
            )
        return path + composition.compose(masks, flows)
