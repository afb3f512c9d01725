"""Sheets that move over one another: poses in time, layers, scenes.

Coordinates are continuous pixels of the frame, x right and y down, the centre of the
first pixel at (0.5, 0.5). A layer has coordinates of its own, in the same unit; a pose
takes them to the frame and back, both in closed form, which is what makes flow exact.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

Kind = Literal["background", "object", "light"]


@dataclasses.dataclass(frozen=True)
class Pose:
    """Takes layer coordinates to the frame and back, exactly.

    Attributes:
        matrix: Affine map, layer to frame, applied after the sway.
        sway: Amplitude in pixels of a sideways wave that runs along the layer's y.
        wavelength: Of the sway, pixels.
        phase: Of the sway, radians.
    """

    matrix: Float[np.ndarray, "2 3"]
    sway: float = 0.0
    wavelength: float = 1.0
    phase: float = 0.0

    def to_frame(self, point: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Map layer coordinates to frame coordinates."""
        bent = point.copy()
        if self.sway:
            bent[..., 0] += self._shift(point[..., 1])
        return bent @ self.matrix[:, :2].T + self.matrix[:, 2]

    def to_layer(self, point: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Map frame coordinates to layer coordinates."""
        inverse = np.linalg.inv(self.matrix[:, :2])
        bent = (point - self.matrix[:, 2]) @ inverse.T
        if self.sway:
            bent[..., 0] -= self._shift(bent[..., 1])
        return bent

    def _shift(self, y: np.ndarray) -> np.ndarray:
        return self.sway * np.sin(2 * np.pi * y / self.wavelength + self.phase)


@dataclasses.dataclass(frozen=True)
class Layer:
    """One sheet of a scene.

    Attributes:
        image: RGBA in [0, 1], colour premultiplied, `cutouts.SUPERSAMPLE` samples a
            frame pixel.
        kind: "light" (reflection, shadow) is neither object nor a surface with flow.
        poses: One a frame.
    """

    image: Float[np.ndarray, "h w 4"]
    kind: Kind
    poses: tuple[Pose, ...]


@dataclasses.dataclass(frozen=True)
class Scene:
    """Layers from back to front (the first covers the frame) and the light over time.

    Attributes:
        gains: Brightness factor, one a frame.
        noise: Standard deviation of the sensor noise, of 255.
    """

    name: str
    layers: tuple[Layer, ...]
    gains: tuple[float, ...]
    noise: float = 2.5


def move(offset: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the 3x3 matrix of a translation."""
    return np.array([[1.0, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]])


def turn(angle: float, centre: np.ndarray) -> np.ndarray:
    """Return the 3x3 matrix of a rotation by `angle` radians about `centre`."""
    c, s = np.cos(angle), np.sin(angle)
    spin = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return move(centre) @ spin @ move(-centre)


def poses(matrices: Sequence[np.ndarray]) -> tuple[Pose, ...]:
    """Turn one 3x3 matrix a frame into poses without sway."""
    return tuple(Pose(matrix[:2]) for matrix in matrices)
