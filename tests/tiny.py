"""The smallest configs and clips on which everything still happens."""

from pathlib import Path

import cv2
import numpy as np
from ml_collections import ConfigDict

from configs import video


def tiny_config(root: Path, workdir: Path) -> ConfigDict:
    """Make a config of a few tiny steps on a folder of frames."""
    config = get_config()
    config.data.root, config.workdir = str(root), str(workdir)
    return config


def get_config() -> ConfigDict:
    """Build the same as a config file does, for tests of the command line."""
    config = video.get_config()
    config.data.update({"size": (0, 0), "frames": 0})
    config.flow.update({"gaps": (1,), "size": 0})
    # The paper's losses. Otsu: nothing to compile.
    config.motion.update({"evidence": "otsu", "crf": ""})
    config.discover.update({"motion_weight": 1.0, "evidence_weight": 0.0, "ema": 0.0})
    config.refine.update({"motion_weight": 0.1, "positive_weight": 2.0, "ema": 0.0})
    config.target.crf = "weak_unary"
    config.augment.photometric = True
    config.model.update({"backbone": "unet", "head_dilation": 2})
    config.model.update({"output_stride": 8, "trained": "all"})
    config.discover.learning_rate, config.refine.learning_rate = 2e-3, 5e-4
    # No dropout: a few steps of so few channels would learn nothing but it.
    config.model.update({"width": 4, "head_width": 8, "channels": 3, "dropout": 0.0})
    config.augment.update({"short_side": 48, "scale": (0.95, 1.0), "crop": (32, 48)})
    config.discover.update(
        {"steps": 6, "batch_size": 8, "checkpoint_every": 2, "log_every": 2}
    )
    config.refine.update(
        {"steps": 4, "batch_size": 8, "checkpoint_every": 2, "log_every": 2}
    )
    config.predict.update({"short_side": 48, "crf": "", "evidence": 0.0, "steady": 0.8})
    config.target.workers = 1
    return config


def write_clip(
    folder: Path, frames: int = 8, size: tuple[int, int] = (48, 64), seed: int = 0
) -> list[np.ndarray]:
    """Write a textured square that moves over a textured ground; return its masks."""
    rng = np.random.default_rng(seed)
    h, w = size

    def texture(low: int, high: int) -> np.ndarray:
        coarse = rng.integers(low, high, (h // 4, w // 4, 3)).astype(np.uint8)
        return cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)

    ground, thing = texture(0, 140), texture(110, 255)
    side = h // 3
    folder.mkdir(parents=True, exist_ok=True)
    masks = []
    for t in range(frames):
        y, x = h // 3, 4 + 3 * t
        image, mask = ground.copy(), np.zeros((h, w), bool)
        mask[y : y + side, x : x + side] = True
        image[mask] = thing[:side, :side][mask[y : y + side, x : x + side]]
        cv2.imwrite(str(folder / f"{t:05d}.png"), image[..., ::-1])
        masks.append(mask)
    return masks
