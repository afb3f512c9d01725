"""Frozen features without weights that were measured and are not offered.

As `imas_jax.appearance.local_features`; alignment.py and tuner.py say how they fare.
"""

import cv2
import numpy as np
from skimage import feature

from imas_jax.appearance.local_features import local_shares, patterns, standardize


def texture(frame: np.ndarray) -> np.ndarray:
    """Describe pixels by the local binary patterns around them, at radius 1 and 3."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    shares = [local_shares(patterns(grey, radius), 10) for radius in (1, 3)]
    return standardize(np.sqrt(np.concatenate(shares, axis=-1)))


def gradients(frame: np.ndarray) -> np.ndarray:
    """Describe pixels by histograms of oriented gradients (HOG), stride 8."""
    grey = np.pad(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 4, mode="reflect")
    blocks = feature.hog(grey, 9, (8, 8), (2, 2), feature_vector=False)
    return standardize(blocks.reshape(*blocks.shape[:2], -1).astype(np.float32))


LOCAL = {"texture": texture, "gradients": gradients}
THRESHOLDS = {"texture": 0.8, "gradients": 0.7}  # as features.THRESHOLDS
