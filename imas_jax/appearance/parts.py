"""Parts of a mask and the frame's border.

What reaches far along the border is mostly scene that moves (water, smoke, a road seen
sideways): it goes on beyond the frame, where objects that people film mostly end.
"""

import cv2
import numpy as np
from jaxtyping import Float, Shaped

CLEAR_SHARE = 0.4  # of a part's area that another clear of the border has at least
SURE = 0.5  # probability above which a pixel belongs to a part


def border(image: Shaped[np.ndarray, "h w *k"]) -> Shaped[np.ndarray, "n *k"]:
    """Return the pixels on the border of an image, each once."""
    sides = (image[0], image[-1], image[1:-1, 0], image[1:-1, -1])
    return np.concatenate(sides)


def clear_of_border(
    likely: Float[np.ndarray, "h w"], contact: float
) -> Float[np.ndarray, "h w"]:
    """Drop the parts that lie along the border, where there are others.

    Ours (docs/experiments.md). A part is a connected region (8 neighbours) above
    `SURE`. One that only touches the border stays, and so does one beside which nothing
    clear of the border is at least `CLEAR_SHARE` as large: an object that enters, or
    fills the frame.

    Args:
        likely: Probabilities in [0, 1].
        contact: Pixels of a part on the border, over the square root of its area, from
            which on it lies along it: an entering square has 1. 0 drops nothing.

    Returns:
        The probabilities, 0 where a part was dropped.
    """
    if contact == 0:
        return likely
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        (likely > SURE).astype(np.uint8), connectivity=8
    )
    areas = stats[:, cv2.CC_STAT_AREA]
    on_border = np.bincount(border(labels), minlength=len(areas))
    along = on_border >= contact * np.sqrt(areas)
    along[0] = True  # what belongs to no part
    clear = areas[~along].max(initial=0)
    dropped = along & (clear >= CLEAR_SHARE * areas)
    dropped[0] = False
    return np.where(dropped[labels], np.float32(0), likely)
