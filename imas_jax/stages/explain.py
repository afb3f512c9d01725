"""How a trained network explains flow (paper Fig. 7): reconstruction and residual.

For pictures in the report; training computes the same with `IMAS.reconstruct`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from imas_jax import composition, geometry
from imas_jax.conventions import Tree
from imas_jax.data.clips import Clip
from imas_jax.flow import files, motion
from imas_jax.models.imas import IMAS
from imas_jax.runs.run import Run
from imas_jax.stages import frozen, network
from imas_jax.stages import motion as stage_motion
from imas_jax.stages.predictor import Seen, inference_size, sample


@dataclass(frozen=True)
class Explanation:
    """Flow of one frame at mask resolution, pixels of the frame.

    Attributes:
        target: What is to be explained: estimated flow, clamped, less camera motion
            where the run subtracts it.
        reconstruction: What the network makes of it.
        residual: The part of it that is no constant motion of a channel.
    """

    target: Float[np.ndarray, "hm wm 2"]
    reconstruction: Float[np.ndarray, "hm wm 2"]
    residual: Float[np.ndarray, "hm wm 2"]


def explainer(run: Run) -> "Explainer | None":
    """Open what explains flow with a run's network; None where none does."""
    if stage_motion.alone(run.config):
        return None
    model = network.build_model(run.config)
    return Explainer(run, model) if isinstance(model, IMAS) else None


class Explainer:
    """Explains flow with the network a run ended with.

    Args:
        run: The run; its last trained stage must have a checkpoint.
        model: Its network.
    """

    def __init__(self, run: Run, model: IMAS):
        config = run.config
        stage = "refine" if config.refine.steps > 0 else "discover"
        state = network.final_state(config, run.folder(stage), stage)
        self._config = config
        self._variables: Tree = jax.device_put(state.best_variables)
        self._look = frozen.open_store(config, run.workdir, model, state.best_variables)
        short_side, clamp = config.predict.short_side, config.model.flow_clamp

        def explain(
            variables: Tree, frames: Seen, flow: jax.Array, direction: int
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            pair = jax.tree.map(lambda x: x[None], sample(frames, short_side))
            prediction: Any = model.apply(variables, pair, train=False)
            masks = jax.nn.softmax(prediction.logits[:, direction])
            maps = (prediction.residual_forward, prediction.residual_backward)
            target = geometry.resize(flow[None], (masks.shape[1], masks.shape[2]))
            target = composition.clamp_flow(target, clamp)
            make: Any = partial(
                model.apply, variables, target, masks, method="reconstruct"
            )
            whole, path = make(maps[direction]), make(None)
            return target[0], whole[0], (whole - path)[0]

        self._explain = jax.jit(explain, static_argnames="direction")

    def __call__(self, clip: Clip, field: files.FlowField) -> Explanation:
        """Explain one stored field of a clip."""
        first, second = field.meta.frame, field.meta.frame + field.meta.gap
        seen: list[Any] = [clip.read(first), clip.read(second)]
        if self._look is not None:
            seen = self._look(seen)
        frames = jax.tree.map(lambda *each: np.stack(each), *seen)
        flow = field.flow.astype(np.float32)
        if self._config.flow.background == "homography":
            flow = motion.subtract_background(flow, field.homography, clip.size)
        if self._config.augment.scale_flow:
            small = inference_size(clip.size, self._config.predict.short_side)
            scale = (small[1] / clip.size[1], small[0] / clip.size[0])
            flow = flow * np.asarray(scale, np.float32)
        direction = files.DIRECTIONS.index(field.meta.direction)
        told = self._explain(self._variables, frames, flow, direction=direction)
        return Explanation(*map(np.asarray, told))
