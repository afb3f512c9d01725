"""Learned motion evidence: from flow to what moves on its own.

A small network (`models/evidence_net.py`) looks at a frame's motion to a few frames
before and after it, and at what changes once the camera is held still, and gives each
pixel a probability. It was trained on rendered clips only (`imas_jax/rendered`,
configs/motion.py): no annotation went into it. It sees no colours: those of rendered
clips say nothing of real ones (docs/experiments.md).

Whatever the clip, it works on one grid: the frame shrunk to a short side of
`SHORT_SIDE`. Flow on it counts pixels of a frame twice as large, as flow files do.
"""

import dataclasses
import functools
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import flax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from imas_jax import conventions, errors, files
from imas_jax.flow import motion
from imas_jax.models import evidence_net

SHORT_SIDE = 120  # of the grid
OFFSETS = (1, -1, 3, -3)  # of the frames looked at; a neighbour's twin is at number ^ 1
LOOK = 4  # channels of a look: flow less camera x and y, round trip, change of colour
LEAST = 0.3  # px: what moves less is mostly the flow's error
SCALE = ".scale"  # ends the name of what a stored kernel is multiplied by
CHANNELS = len(OFFSETS) * (LOOK + 1) + 3  # of what the network reads, see `features`


@dataclasses.dataclass(frozen=True)
class Motion:
    """Motion from one frame to another, on the grid.

    Attributes:
        flow: There, in pixels of a frame twice the grid's size.
        opposite: Back.
        homography: Camera motion of `flow`, in indices of the same pixels.
    """

    flow: Float[np.ndarray, "h w 2"]
    opposite: Float[np.ndarray, "h w 2"]
    homography: Float[np.ndarray, "3 3"]


@dataclasses.dataclass(frozen=True)
class Observation:
    """What the network is given of a frame, before `features` scales it.

    Attributes:
        looks: `LOOK` channels an offset: flow less camera motion (x, y; of earlier
            frames negated), by how much a round trip misses, both in pixels; change of
            colour once the camera is held still, 0..1.
        camera: Camera motion to the next frame, pixels.
        scales: By offset, 98th percentile of the flow less camera motion.
    """

    looks: Float[np.ndarray, "h w k"]
    camera: Float[np.ndarray, "h w 2"]
    scales: Float[np.ndarray, " n"]


def grid_size(frame_size: tuple[int, int]) -> tuple[int, int]:
    """Return (h, w) of the grid for frames of a size."""
    scale = SHORT_SIDE / min(frame_size)
    return round(frame_size[0] * scale), round(frame_size[1] * scale)


def shrink(frame: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "hg wg 3"]:
    """Bring a frame to the grid, 0..1."""
    size = grid_size(frame.shape[:2])
    small = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def to_grid(
    flow: Float[np.ndarray, "hf wf 2"],
    opposite: Float[np.ndarray, "hf wf 2"],
    homography: Float[np.ndarray, "3 3"],
    frame_size: tuple[int, int],
) -> Motion:
    """Bring a pair's flow to the grid.

    Args:
        flow: In pixels of the frame, on any grid.
        opposite: Back, likewise.
        homography: Camera motion of `flow`, in pixel indices of the frame.
        frame_size: (h, w) of the frame.
    """
    size = grid_size(frame_size)
    x, y = 2 * size[1] / frame_size[1], 2 * size[0] / frame_size[0]
    unit = np.array([x, y], np.float32)
    there, back = (
        cv2.resize(f.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
        * unit
        for f in (flow, opposite)
    )
    # Pixel i of n lies at (i + 0.5) N / n - 0.5 of N.
    change = np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]])
    return Motion(there, back, change @ homography @ np.linalg.inv(change))


def chain(first: Motion, second: Motion) -> Motion:
    """Return the motion a -> c of a -> b and b -> c."""
    return Motion(
        first.flow + follow(second.flow, first.flow),
        second.opposite + follow(first.opposite, second.opposite),
        second.homography @ first.homography,
    )


def neighbours(
    t: int, ahead: Mapping[int, Motion], behind: Mapping[int, Motion]
) -> list[Motion | None]:
    """Return a frame's motion to those at `OFFSETS`; None beyond the clip.

    Args:
        t: The frame.
        ahead: By frame, its motion to the next.
        behind: By frame, its motion to the one before.
    """

    def there(offset: int) -> Motion | None:
        steps = ahead if offset > 0 else behind
        on_the_way = range(t, t + offset, 1 if offset > 0 else -1)
        if any(frame not in steps for frame in on_the_way):
            return None
        return functools.reduce(chain, [steps[frame] for frame in on_the_way])

    return [there(offset) for offset in OFFSETS]


def observe(
    frame: Float[np.ndarray, "h w 3"],
    looks: Sequence[tuple[Motion, Float[np.ndarray, "h w 3"]] | None],
) -> Observation:
    """Gather what the network is given.

    Args:
        frame: The frame, from `shrink`.
        looks: By offset, the motion to another frame and that frame; None where the
            clip ends: its place is taken by what is known.

    Raises:
        ValueError: If neither neighbour is known.
    """
    if looks[0] is None and looks[1] is None:
        raise ValueError("neither neighbour of the frame is known")
    seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for number, look in enumerate(looks):
        if look is not None:
            seen[number] = _look(frame, *look, backward=OFFSETS[number] < 0)
    # First the twin, which moves the other way, then a nearer frame.
    sources = [
        next(n for n in (number, number ^ 1, number & 1, ~number & 1) if n in seen)
        for number in range(len(OFFSETS))
    ]
    channels = np.stack([seen[source][0] for source in sources])
    size = np.linalg.norm(channels[:, ::2, ::2, :2], axis=-1).reshape(len(OFFSETS), -1)
    return Observation(
        np.concatenate(list(channels), axis=-1),
        seen[sources[0]][1],
        np.maximum(np.percentile(size, 98, axis=1), LEAST).astype(np.float32),
    )


def _look(
    frame: Float[np.ndarray, "h w 3"],
    motion_there: Motion,
    other: Float[np.ndarray, "h w 3"],
    backward: bool,
) -> tuple[Float[np.ndarray, "h w 4"], Float[np.ndarray, "h w 2"]]:
    """Return the channels of a look, and camera motion; both point forward in time."""
    h, w = frame.shape[:2]
    flow = motion_there.flow
    camera = motion.background_flow(motion_there.homography, (h, w), (2 * h, 2 * w))
    miss = np.linalg.norm(flow + follow(motion_there.opposite, flow), axis=-1)
    there = follow(other, camera, outside=cv2.BORDER_CONSTANT)
    change = np.abs(there - frame).mean(axis=-1)
    change[there.min(axis=-1) < 0] = 0  # beyond the other frame nothing is known
    sign = np.float32(-1 if backward else 1)
    channels = [sign * (flow - camera), miss[..., None], change[..., None]]
    return np.concatenate(channels, axis=-1), sign * camera


def follow(
    values: Float[np.ndarray, "h w k"],
    flow: Float[np.ndarray, "h w 2"],
    outside: int = cv2.BORDER_REPLICATE,
) -> Float[np.ndarray, "h w k"]:
    """Read values of another frame where the flow leads.

    Args:
        values: On the grid of the other frame.
        flow: There, in pixels of a frame twice the grid's size.
        outside: Beyond the frame: the border's value, or -1 for a constant border.
    """
    h, w = flow.shape[:2]
    x = np.arange(w, dtype=np.float32)[None] + flow[..., 0] / 2
    y = np.arange(h, dtype=np.float32)[:, None] + flow[..., 1] / 2
    return cv2.remap(
        values, x, y, cv2.INTER_LINEAR, borderMode=outside, borderValue=(-1, -1, -1)
    )


def features(
    looks: Float[Array, "b h w m"],
    camera: Float[Array, "b h w 2"],
    scales: Float[Array, "b n"],
) -> Float[Array, "b h w k"]:
    """Scale observations to what the network reads: of the order of one everywhere."""
    parts = []
    for number in range(scales.shape[-1]):
        look = looks[..., LOOK * number : LOOK * (number + 1)]
        scale = scales[:, number][:, None, None, None]
        residual, miss, change = look[..., :2], look[..., 2:3], look[..., 3:4]
        size = jnp.sqrt(jnp.square(residual).sum(axis=-1, keepdims=True) + 1e-8)
        parts += [
            jnp.clip(residual / scale, -3, 3),
            jnp.log1p(size) / 2,
            jnp.tanh(miss),
            jnp.tanh(5 * change),
        ]
    scale = scales[:, 0][:, None, None, None]
    parts.append(jnp.clip(camera / scale, -3, 3))
    parts.append(jnp.broadcast_to(jnp.log(scale) / 2, (*looks.shape[:3], 1)))
    return jnp.concatenate(parts, axis=-1)


def mirrored(
    looks: Float[Array, "b h w k"],
    camera: Float[Array, "b h w 2"],
    scales: Float[Array, "b n"],
) -> tuple[Array, Array, Array]:
    """Return observations of the same scenes in a mirror and backwards in time.

    The mirror turns motion's x, and time turns x and y: y is left turned, and what was
    seen of the next frame is seen of the one before.
    """
    twins = np.array([number ^ 1 for number in range(len(OFFSETS))])
    parts = looks.reshape(*looks.shape[:3], len(OFFSETS), LOOK)[:, :, ::-1, twins]
    turned = parts.at[..., 1].multiply(-1).reshape(looks.shape)
    return turned, camera[:, :, ::-1].at[..., 1].multiply(-1), scales[:, twins]


class Network:
    """Trained networks: observations in, the mean of their probabilities out.

    Each sees a frame twice, the second time `mirrored`. What the mean of two networks
    is worth, and of the mirror: docs/experiments.md. Compiles once a grid size. Safe to
    call from several threads.

    Args:
        members: Variables of an `EvidenceNet` each, as `read_weights` gives them.

    Attributes:
        count: How many they are.
    """

    def __init__(self, members: Sequence[conventions.Tree]):
        self.count = len(members)

        def probability(*observed: Array) -> Array:
            seen = [jnp.asarray(part)[None] for part in observed]
            views = zip(seen, mirrored(*seen), strict=True)
            both = features(*(jnp.concatenate(view) for view in views))
            total = jnp.zeros(both.shape[1:3])
            for variables in members:
                net = evidence_net.network_of(variables)
                logits = jnp.asarray(net.apply(variables, both, False))
                there, mirror = jax.nn.sigmoid(logits)
                total += (there + mirror[:, ::-1]) / 2
            return total / self.count

        self._probability = jax.jit(probability)

    def __call__(self, seen: Observation) -> Float[np.ndarray, "h w"]:
        """Return how likely each grid point moves on its own, in [0, 1]."""
        observed = (seen.looks, seen.camera, seen.scales)
        return np.asarray(self._probability(*observed))


def weights(estimator: str) -> Path:
    """Return the packaged weights for an estimator's flow.

    Each network knows the errors of the flow that it learned from: DIS blurs borders
    and its round trips miss there, RAFT's do not. Imported flow is taken for RAFT's:
    what people import was computed by a network.

    Args:
        estimator: `config.flow.estimator`.
    """
    name = "evidence.npz" if estimator == "dis" else "evidence_raft.npz"
    return Path(__file__).with_name(name)


def load(path: Path) -> Network:
    """Open networks that configs/motion.py made, such as the packaged ones.

    Raises:
        UserError: If the file is missing, damaged, or holds something else.
    """
    return Network(read_weights(path))


def write_weights(path: Path, members: Sequence[conventions.Tree]) -> None:
    """Store the variables of networks, kernels in a quarter of their size.

    Kernels become int8, with a float32 scale for each channel that they give; all else
    is float32. Names begin with the network's number.
    """
    stored = {}
    numbered = {str(number): variables for number, variables in enumerate(members)}
    for name, leaf in flax.traverse_util.flatten_dict(numbered, sep="/").items():
        stored[name] = np.asarray(leaf, np.float32)
        if name.endswith("kernel"):
            largest = np.abs(stored[name]).max(axis=tuple(range(leaf.ndim - 1)))
            scale = np.maximum(largest, np.finfo(np.float32).tiny) / 127
            stored[name] = np.rint(stored[name] / scale).astype(np.int8)
            stored[name + SCALE] = scale
    with path.open("wb") as file:
        np.savez(file, **stored)  # type: ignore[arg-type]  # names, not options


def read_weights(path: Path) -> list[conventions.Tree]:
    """Read the variables of a file's networks, float32.

    Raises:
        UserError: If the file is missing, damaged, or holds something else.
    """
    try:
        flat = files.read_npz(path)
        whole = {
            name: leaf.astype(np.float32) * flat.get(name + SCALE, np.float32(1))
            for name, leaf in flat.items()
            if not name.endswith(SCALE)
        }
        numbered = flax.traverse_util.unflatten_dict(whole, sep="/")
        members = [numbered[str(number)] for number in range(len(numbered))]
        for tree in members:
            wanted = evidence_net.template(evidence_net.network_of(tree), CHANNELS)
            if jax.tree.map(jnp.shape, tree) != jax.tree.map(jnp.shape, wanted):
                raise ValueError("arrays of another network")
        return members
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise errors.UserError(
            f"{path} is no file of the motion evidence ({error})",
            "weights made by --config=configs/motion.py, as those in the package",
            "install the package again, or name another file",
        ) from error


def digest(path: Path) -> str:
    """Return what identifies the evidence of a file's weights."""
    return files.digest(path)[:16]
