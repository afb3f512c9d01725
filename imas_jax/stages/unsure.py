"""Where a run is unsure of its own masks, frame by frame; no annotations.

The measure is the area that is undecided: pixels that are neither clearly object nor
clearly not. Not the mean entropy of the soft masks: a network trained for minutes is
nowhere certain, so that entropy hardly changes from frame to frame. Correlation with J
over the frames of a clip, mean of 30 sequences of DAVIS at 240p: -0.46 (seed 0, on
which the measure was chosen) and -0.47 (seed 1); of that entropy -0.23 and -0.11.
"""

import cv2
import numpy as np
from jaxtyping import Float

from imas_jax.appearance import alignment
from imas_jax.data.clips import Clip
from imas_jax.runs.run import Run
from imas_jax.stages import predict, soft_masks

UNDECIDED = 0.25, 0.75  # probabilities between which a pixel is neither


def of_clip(run: Run, clip: Clip) -> list[float]:
    """Return how unsure each frame's mask is, in [0, 1]; memory is one frame's.

    It is asked of what the mask was cut from: the network's probability with the
    evidence's share in it, before neighbours and the CRF have their say.

    Args:
        run: Its predict stage is finished.
        clip: Any of its clips.
    """
    channels = tuple(run.values("align")["channels"])
    soft = soft_masks.read(run.workdir / "predict" / predict.SOFT, clip)
    evidence, share = predict.evidence_of(run, clip), run.config.predict.evidence
    found = []
    for masks in soft:
        likely = alignment.object_probability(masks.astype(np.float32), channels)
        if evidence is not None:
            size = likely.shape[::-1]
            moving = cv2.resize(next(evidence), size, interpolation=cv2.INTER_AREA)
            likely = (1 - share) * likely + share * moving
        found.append(undecided(likely))
    return found


def undecided(likely: Float[np.ndarray, "h w"]) -> float:
    """Return the undecided area over that of all that may be object, in [0, 1].

    Args:
        likely: Probability of the object. 0 where nothing is likely at all.
    """
    low, high = UNDECIDED
    possible = float((likely > low).sum())
    return float(((likely > low) & (likely < high)).sum()) / max(possible, 1.0)
