"""What moves on its own, frame by frame, before anything is learned on the clips.

`motion.evidence` names who says it. `otsu`: the motion baseline, Otsu's threshold of
the flow that no homography explains; it is read off the flow files and this stage
writes nothing. `network` (ours): the network of `flow/evidence.py`, trained on rendered
clips; its probabilities are written once, for all stages that read them. Where flow is
not DIS's, `motion.also` (ours) takes the mean with what DIS's flow shows the networks
that know it: estimators err in different places. With `motion.crf` (ours) the image
has its say at once: they are refined as stage 2's targets are, and it is the refined
ones that later stages read.

The evidence judges channels (`stages/align.py`) and, where `discover.evidence_weight`
is above 0 (ours; in the paper the motion loss is alone), one channel of stage 1 is
pulled to it, so that which channel takes the object is not left to chance. It may be
all there is (`alone`): then it stands where a network's soft masks would.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from absl import logging
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from imas_jax.appearance import crf, parts
from imas_jax.data.clips import Clip
from imas_jax.flow import evidence
from imas_jax.flow.files import FlowFolder
from imas_jax.models.imas import mask_size
from imas_jax.runs.records import digest
from imas_jax.runs.run import Output, Run
from imas_jax.stages import (
    flow,
    frozen,
    inputs,
    motion_baseline,
    motion_evidence,
    settle,
    shares,
    soft_masks,
)
from imas_jax.stages.predictor import inference_size

SOFT, REFINED = "soft", "refined"
KINDS = ("otsu", "network")
ALSO = "dis"
SURE = 0.5  # probability above which evidence counts as moving
# Probability that some pixel of a frame must have, or the CRF is given nothing: it
# takes the likeliest pixels for certain, however unlikely (`crf.CrfPreset.unary`).
FAINT = 0.2
STILL = 1e-4  # share of a clip's pixels that move, below which nothing was found
NOTHING = "nothing seems to move on its own: its masks are empty or guesses"
# The channel that is guided; not the first, which `model.still_background` holds still.
GUIDED = 1


def work(run: Run) -> Output:
    """Write the network's evidence of all clips that have none yet."""
    made, config = run.result("flow")["identity"], run.config.motion
    if config.evidence != "network":
        return Output(made, {})
    weights = networks(run.config)
    clips, share = run.clips.for_training(run.config), shares.every()
    flows = [inputs.flow(run)]
    if len(weights) > 1:
        flows.append(_other_flow(run, clips, share))
    witnesses = [(evidence.load(w), f) for w, f in zip(weights, flows, strict=True)]
    counts = [network.count for network, _ in witnesses]

    def found(clip: Clip) -> Iterator[Float[np.ndarray, "hm wm 1"]]:
        gaps = run.config.flow.gaps
        told = (motion_evidence.of_clip(*one, clip, gaps) for one in witnesses)
        for likely in zip(*told, strict=True):
            mean = np.average(np.stack(likely), axis=0, weights=counts)
            yield _to_grid(mean.astype(np.float32))  # on which they were computed

    def refined(clip: Clip) -> Iterator[Float[np.ndarray, "hm wm 1"]]:
        likely = of_clip(run, clip, refined=False)
        results = crf.refine_many(
            (
                (clip.read(t), one if one.max() >= FAINT else np.zeros_like(one))
                for t, one in enumerate(likely)
            ),
            crf.get_preset(config.crf),
            run.config.target.workers,
            run.config.crf.solver,
        )
        return (
            _to_grid(parts.clear_of_border(result.probability, config.border_contact))
            for result in results
        )

    mine = share.of(clips)
    to = run.workdir / "motion" / SOFT
    soft_masks.write_all(to, mine, _one_by_one(found), "evidence", share)
    if config.crf:
        to = run.workdir / "motion" / REFINED
        masks_of = _one_by_one(refined)
        soft_masks.write_all(to, mine, masks_of, "evidence, CRF", share)
    told = share.join({clip.name: _share_moving(run, clip) for clip in mine})
    moving = {clip.name: told[clip.name] for clip in clips}
    for name in still(moving):
        logging.warning("%s: %s", name, NOTHING)
    values = {"network": "+".join(map(evidence.digest, weights)), "crf": config.crf}
    values["border_contact"] = config.border_contact
    return Output(digest([made, values]), {**values, "moving": moving})


def alone(config: ConfigDict) -> bool:
    """Tell whether masks are the evidence's alone: nothing is learned on the clips."""
    learned = config.discover.steps > 0 or config.restore
    taught = config.discover.evidence_weight > 0  # else stage 1 waits for no evidence
    return taught and config.predict.evidence == 1 and not learned


def as_soft_masks(run: Run) -> soft_masks.MasksOf:
    """Give the evidence in place of a network's masks: of the object, and the rest."""

    def of_one(clip: Clip) -> Iterator[Float[np.ndarray, "hm wm c"]]:
        for likely in of_clip(run, inputs.trained(run.config, clip)):
            grid = _to_grid(likely)
            masks = np.zeros((*grid.shape[:2], run.config.model.channels), np.float32)
            masks[..., GUIDED], masks[..., 0] = grid[..., 0], 1 - grid[..., 0]
            yield masks

    return _one_by_one(of_one)


def networks(config: ConfigDict) -> list[Path]:
    """Return the weights of the networks that `motion.evidence=network` asks."""
    estimators = [config.flow.estimator, config.motion.also]
    return [evidence.weights(name) for name in dict.fromkeys(filter(None, estimators))]


def _other_flow(run: Run, clips: Sequence[Clip], share: shares.Share) -> FlowFolder:
    """Compute the flow of `motion.also` beside the run's own; return where it lies."""
    config, folder = run.config.copy_and_resolve_references(), run.workdir / "flow"
    size = settle.dis_sees_at(clip.size for clip in clips)
    config.flow.update({"estimator": config.motion.also, "size": size})
    flow.complete(config, clips, folder, share)
    return flow.flow_folder(config, folder)


def _one_by_one(
    of_one: Callable[[Clip], Iterator[np.ndarray]],
) -> soft_masks.MasksOf:
    return lambda clips: itertools.chain.from_iterable(map(of_one, clips))


def still(moving: Mapping[str, float]) -> list[str]:
    """Return the clips in which nothing was found, of a result's `moving`."""
    return [name for name, share in moving.items() if share < STILL]


def _share_moving(run: Run, clip: Clip) -> float:
    shares = [float((one > SURE).mean()) for one in of_clip(run, clip)]
    return round(float(np.mean(shares)), 6)


def _to_grid(likely: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "hm wm 1"]:
    size = evidence.grid_size(likely.shape)[::-1]
    return cv2.resize(likely, size, interpolation=cv2.INTER_AREA)[..., None]


def of_clip(
    run: Run, clip: Clip, refined: bool = True
) -> Iterator[Float[np.ndarray, "h w"]]:
    """Yield how likely each pixel of each frame moves on its own, in [0, 1].

    Args:
        run: Its motion stage is finished.
        clip: As it was trained on, with its cuts.
        refined: False: before the CRF of `motion.crf`.
    """
    one = opened(run, clip, refined)
    return (one(t) for t in range(len(clip.frames)))


def opened(
    run: Run, clip: Clip, refined: bool = True
) -> Callable[[int], Float[np.ndarray, "h w"]]:
    """Return what reads the evidence of one frame; arguments as of `of_clip`."""
    config = run.config.motion
    if config.evidence == "network":
        kind = REFINED if refined and config.crf else SOFT
        soft = soft_masks.read(run.workdir / "motion" / kind, clip)

        def one(t: int) -> Float[np.ndarray, "h w"]:
            whole = soft[t][..., 0].astype(np.float32)
            return cv2.resize(whole, clip.size[::-1], interpolation=cv2.INTER_LINEAR)

        return one
    read_from, gap = inputs.flow(run), run.config.flow.gaps[0]
    return lambda t: motion_baseline.read(read_from, clip, t, gap).astype(np.float32)


def guides(run: Run) -> list[UInt8[np.ndarray, "_ _ _"]]:
    """Return the evidence of every training clip on the masks' grid, 0..255."""
    guides, config = [], run.config
    for clip in run.clips.for_training(config):
        size = clip.size
        if frozen.parts(config):  # of the frames that were seen
            size = inference_size(size, config.predict.short_side)
        h, w = mask_size(config.model, size)
        small = [
            cv2.resize(one, (w, h), interpolation=cv2.INTER_AREA)
            for one in of_clip(run, clip)
        ]
        guides.append(np.round(255 * np.stack(small)).astype(np.uint8))
    return guides
