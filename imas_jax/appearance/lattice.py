"""Mean field of a two-label dense CRF on permutohedral lattices, compiled by numba.

A kernel's Gaussian sums over all pairs of pixels are filtered on a lattice in feature
space (Adams et al. 2010, as in pydensecrf): splat pixels onto the vertices of the
simplex they lie in, blur along each axis, slice back. Two labels need one channel,
s = Q(foreground) - Q(background), because Potts energies only count differences:

    logit = unary + sum_k w_k D_k K_k D_k s,    s = tanh(logit / 2)

with K_k the filter and D_k its symmetric normalisation, 1 / sqrt(K_k 1). Square roots
of weight and normalisation are folded into the interpolation weights, once an image.

Everything compiled runs without Python's lock, so threads over images scale.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, no_type_check

import numba
import numpy as np
from jaxtyping import Float, UInt8

from imas_jax.errors import UserError

# Pixels embedded together: buffers stay in the first cache, loops vectorise.
_BLOCK = 256

# Vertices are numbered by the product of their coordinates' ranges, in one int64.
_MOST_KEYS = 2**63


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One Gaussian kernel between pixels.

    Attributes:
        weight: Energy of a pair of different labels, above 0.
        sxy: Reach, pixels.
        srgb: Reach in colour, levels of 0..255; 0 leaves colour out.
    """

    weight: float
    sxy: float
    srgb: float = 0.0


@dataclasses.dataclass(frozen=True)
class _Lattice:
    """Where pixels lie on a lattice of `d` dimensions and `m` vertices.

    Attributes:
        vertices: The d + 1 vertices around each pixel, `(n, d + 1)` int32.
        weights: Their interpolation weights, `(n, d + 1)` float32, normalisation and
            kernel weight included.
        neighbours: Vertices beside each vertex along each axis, `(d + 1, m, 2)` int32;
            m where there is none.
        steps: What one step along each axis adds to a vertex's key; its length, a
            constant to the compiler, unrolls the loops over vertices.
    """

    vertices: np.ndarray
    weights: np.ndarray
    neighbours: np.ndarray
    steps: tuple[int, ...]


def mean_field(
    unary: Float[np.ndarray, "h w"],
    image: UInt8[np.ndarray, "h w 3"],
    kernels: Sequence[Kernel],
    iterations: int,
    tolerance: float = 0.0,
) -> Float[np.ndarray, "h w"]:
    """Run mean-field inference.

    Args:
        unary: Energy of the background less that of the foreground.
        image: RGB, 0..255.
        kernels: Potts kernels; none leaves the unary term alone.
        iterations: Updates at most.
        tolerance: Stop after an update that changes no probability by more.

    Returns:
        Foreground probability, in [0, 1], float32.

    Raises:
        UserError: If a kernel is too narrow in colour for its lattice.
    """
    size = (image.shape[0], image.shape[1])
    lattices = [
        _colour_lattice(image, kernel) if kernel.srgb else _grid_lattice(size, kernel)
        for kernel in kernels
    ]
    fixed = np.asarray(unary, np.float32).ravel()
    spin = np.tanh(0.5 * fixed)
    for _ in range(iterations):
        logit = fixed.copy()
        for lattice in lattices:
            _add_filtered(*_parts(lattice), spin, logit)
        before, spin = spin, np.tanh(np.multiply(logit, 0.5, out=logit), out=logit)
        if tolerance and 0.5 * np.abs(spin - before).max() <= tolerance:
            break
    return (0.5 + 0.5 * spin).reshape(size)


@functools.lru_cache(maxsize=1)
def _grid_lattice(size: tuple[int, int], kernel: Kernel) -> _Lattice:
    """Build the lattice of positions, the same for every image of a clip."""
    return _build(np.empty((size[0] * size[1], 0), np.uint8), size, kernel)


def _colour_lattice(image: np.ndarray, kernel: Kernel) -> _Lattice:
    """Build the lattice of positions and colours."""
    size = (image.shape[0], image.shape[1])
    return _build(np.ascontiguousarray(image).reshape(-1, 3), size, kernel)


def _build(colours: np.ndarray, size: tuple[int, int], kernel: Kernel) -> _Lattice:
    reach = [kernel.sxy] * 2 + [kernel.srgb] * colours.shape[1]
    most = [size[1] - 1, size[0] - 1] + [255] * colours.shape[1]
    scale = _axis_scale(len(reach))
    low, spans = _key_ranges([m / r for m, r in zip(most, reach, strict=True)], scale)
    if math.prod(spans) >= _MOST_KEYS:
        raise UserError(
            f"CRF kernel of {kernel.srgb:g} colour levels and {kernel.sxy:g} pixels "
            f"on {size[0]} x {size[1]} pixels: finer than lattice keys can number",
            f"at most {_MOST_KEYS:.1g} cells over all positions and colours",
            "raise bilateral_srgb (below 1 no two levels of colour are alike), or set "
            "--config.crf.solver=pydensecrf",
        )
    steps = _steps(spans)
    vertices, weights, neighbours = _embed(
        colours, size[1], np.array(reach, np.float32), scale, np.array(low), steps
    )
    lattice = _Lattice(vertices, weights, neighbours, steps)
    _normalise(lattice, kernel.weight)
    return lattice


def _axis_scale(dimensions: int) -> np.ndarray:
    """Return how far a feature of one sigma reaches along each axis, `(d,)` float32."""
    i = np.arange(dimensions)
    # The splat, blur and slice together have variance (2/3) (d + 1)^2 (Adams, p. 6).
    deviation = np.float32(math.sqrt(2 / 3) * (dimensions + 1))
    return (1 / np.sqrt((i + 2.0) * (i + 1.0)) * deviation).astype(np.float32)


def _key_ranges(
    most: Sequence[float], scale: np.ndarray
) -> tuple[list[int], list[int]]:
    """Bound vertex coordinates, neighbours included: lowest values, numbers of values.

    Args:
        most: Greatest value of each feature; the least is 0.
        scale: `_axis_scale`.
    """
    d = len(most)
    reach = [m * float(s) for m, s in zip(most, scale, strict=True)]
    # A vertex is within 1.5 (d + 1) of its pixel by rounding, d by the simplex, and
    # its neighbours d away again.
    margin = 4 * (d + 1)
    low, spans = [], []
    for i in range(d):
        least = -i * reach[i - 1] if i else 0.0
        low.append(math.floor(least) - margin)
        spans.append(math.ceil(sum(reach[i:])) + margin - low[-1] + 1)
    return low, spans


def _steps(spans: Sequence[int]) -> tuple[int, ...]:
    """Return what a key gains by one of each coordinate, and 0 for the last one.

    Lattice coordinates sum to 0, so the last one is not part of a key.
    """
    return (*(math.prod(spans[:i]) for i in range(len(spans))), 0)


def _normalise(lattice: _Lattice, weight: float) -> None:
    """Fold kernel weight and symmetric normalisation into the interpolation weights."""
    n, d = len(lattice.vertices), len(lattice.steps) - 1
    total = np.zeros(n, np.float32)
    _add_filtered(*_parts(lattice), np.ones(n, np.float32), total)
    # Adams' filter has a gain of 1 + 2^-d, which its authors divide by: here it
    # cancels, up to the 1e-20 that keeps the DenseCRF from dividing by 0.
    gain = 1 + 2.0**-d
    factor = np.sqrt(weight / (total + 1e-20 * gain)).astype(np.float32)
    np.multiply(lattice.weights, factor[:, None], out=lattice.weights)


def _parts(lattice: _Lattice) -> tuple[Any, ...]:
    return lattice.vertices, lattice.weights, lattice.neighbours, lattice.steps


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function, kept on disk between processes where a disk allows it.

    numba keeps machine code beside the source or, where that is read-only, in the
    user's cache folder (NUMBA_CACHE_DIR moves it); with neither, it refuses to cache.
    Tests that check types wrap functions but those marked `no_type_check`, and numba
    compiles no wrapper.
    """
    # Without Python's check for division by 0, loops vectorise.
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)


@_compiled
@no_type_check
def _add_filtered(vertices, weights, neighbours, steps, values, total):
    """Splat `values`, blur along every axis, slice; added to `total`."""
    m = neighbours.shape[1]
    here, there = np.zeros(m + 1, np.float32), np.zeros(m + 1, np.float32)
    for p in range(len(values)):
        for k in range(len(steps)):
            here[vertices[p, k]] += weights[p, k] * values[p]
    half = np.float32(0.5)
    for axis in range(len(steps)):
        for v in range(m):
            left, right = neighbours[axis, v, 0], neighbours[axis, v, 1]
            there[v] = here[v] + half * (here[left] + here[right])
        here, there = there, here
    for p in range(len(values)):
        value = total[p]
        for k in range(len(steps)):
            value += weights[p, k] * here[vertices[p, k]]
        total[p] = value


@_compiled
@no_type_check
def _embed(colours, width, reach, scale, low, steps):
    """Find every pixel's simplex and weights, number the vertices, link neighbours."""
    n, corners = len(colours), len(steps)
    vertices = np.empty((n, corners), np.int32)
    weights = np.empty((n, corners), np.float32)
    height = np.empty((corners, _BLOCK), np.float32)
    keys = np.empty((corners, _BLOCK), np.int64)
    slots = 2
    while slots < n:
        slots *= 2
    table, numbered, filled = _empty_table(slots), np.empty(slots // 2, np.int64), 0
    for start in range(0, n, _BLOCK):
        count = min(_BLOCK, n - start)
        _elevate(colours, width, reach, scale, start, count, height)
        _find_simplex(height, low, steps, count, keys, weights[start:])
        while filled + corners * count > len(numbered):
            table = _empty_table(2 * len(table))
            numbered = np.concatenate((numbered, np.empty_like(numbered)))
            for v in range(filled):
                at = _find(table, numbered[v])
                table[at, 0], table[at, 1] = numbered[v], v
        for p in range(count):
            for k in range(corners):
                at = _find(table, keys[k, p])
                if table[at, 0] < 0:
                    table[at, 0], table[at, 1] = keys[k, p], filled
                    numbered[filled] = keys[k, p]
                    filled += 1
                vertices[start + p, k] = table[at, 1]
    return vertices, weights, _link(table, numbered[:filled], steps)


@_compiled
@no_type_check
def _elevate(colours, width, reach, scale, start, count, height):
    """Bring a block of pixels onto the plane the lattice lies in (Adams, p. 5)."""
    total, feature = np.zeros(count, np.float32), np.empty(count, np.float32)
    for j in range(len(scale), 0, -1):
        if j > 2:
            for p in range(count):
                feature[p] = colours[start + p, j - 3]
        else:
            x, y = start % width, start // width
            for p in range(count):
                feature[p] = x if j == 1 else y
                x += 1
                if x == width:
                    x, y = 0, y + 1
        for p in range(count):
            part = feature[p] / reach[j - 1] * scale[j - 1]
            height[j, p] = total[p] - np.float32(j) * part
            total[p] += part
    height[0, :count] = total


@_compiled
@no_type_check
def _find_simplex(height, low, steps, count, keys, weights):
    """Write the keys of a block's vertices, `(d + 1, count)`, and pixels' weights.

    A pixel's simplex is told by its nearest vertex of remainder 0 and by the order of
    its coordinates beside that vertex (Adams, p. 4 and 10).
    """
    corners = len(steps)
    d, unit = corners - 1, np.float32(1) / np.float32(corners)
    origin = np.empty((corners, count), np.float32)
    rest = np.empty((corners, count), np.float32)
    rank = np.empty((corners, count), np.int32)
    excess, base = np.zeros(count, np.int32), np.zeros(count, np.int64)
    for i in range(corners):
        for p in range(count):
            cell = np.float32(np.rint(unit * height[i, p]))
            origin[i, p] = cell * np.float32(corners)
            rest[i, p] = height[i, p] - origin[i, p]
            excess[p] += np.int32(cell)
    for i in range(corners):
        rank[i] = excess
    for i in range(d):
        for j in range(i + 1, corners):
            for p in range(count):
                below = np.int32(rest[i, p] < rest[j, p])
                rank[i, p] += below
                rank[j, p] += np.int32(1) - below
    # Coordinates must sum to 0: those ranked out of range move by one cell.
    for i in range(corners):
        for p in range(count):
            r, move = rank[i, p], np.int32(0)
            if r < 0:
                move = np.int32(corners)
            if r >= corners:
                move = np.int32(-corners)
            rank[i, p] += move
            origin[i, p] += np.float32(move)
            rest[i, p] = (height[i, p] - origin[i, p]) * unit
    for i in range(d):
        for p in range(count):
            base[p] += (np.int64(origin[i, p]) - low[i]) * steps[i]
    _write_corners(rank, rest, base, steps, count, keys, weights)


@_compiled
@no_type_check
def _write_corners(rank, rest, base, steps, count, keys, weights):
    """Turn ranks and what is left of the coordinates into keys and weights.

    Corner k is k further along every coordinate, but for the k ranked highest, which
    are d + 1 less; its weight is the gap between two coordinates next in rank.
    """
    corners = len(steps)
    d = corners - 1
    one = sum(steps)
    ranked = np.empty((corners, count), np.float32)
    step = np.empty((corners, count), np.int64)
    for i in range(corners):
        for p in range(count):
            ranked[rank[i, p], p] = rest[i, p]
            step[rank[i, p], p] = steps[i]
    for p in range(count):
        keys[0, p] = base[p]
        weights[p, 0] = ranked[d, p] + (np.float32(1) - ranked[0, p])
    for k in range(1, corners):
        for p in range(count):
            keys[k, p] = keys[k - 1, p] + one - corners * step[d - k + 1, p]
            weights[p, k] = ranked[d - k, p] - ranked[d - k + 1, p]


@_compiled
@no_type_check
def _link(table, numbered, steps):
    """Find the two neighbours of every vertex along every axis."""
    m = len(numbered)
    neighbours = np.full((len(steps), m, 2), m, np.int32)
    one = sum(steps)
    for axis in range(len(steps)):
        for v in range(m):
            at = _find(table, numbered[v] + len(steps) * steps[axis] - one)
            if table[at, 0] >= 0:
                other = table[at, 1]
                neighbours[axis, v, 0] = other
                neighbours[axis, other, 1] = v
    return neighbours


@_compiled
@no_type_check
def _empty_table(slots):
    """Make a hash table of (key, vertex) rows, -1 where empty; `slots` is 2^n."""
    return np.full((slots, 2), -1, np.int64)


@_compiled
@no_type_check
def _find(table, key):
    """Return the row that holds a key, or the empty one where it belongs."""
    mask = len(table) - 1
    # Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
    mixed = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
    at = np.int64(mixed) & mask
    while table[at, 0] >= 0 and table[at, 0] != key:
        at = (at + 1) & mask
    return at
