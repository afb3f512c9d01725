"""Named-tensor generator for the parity fixtures.  NumPy only, no framework.

Weights and inputs are pure functions of (name, shape, seed); only OUTPUTS are
stored.  PyTorch layouts: conv (out, in, kh, kw), images/features (N, C, H, W).

    rng(name, seed)          = Generator(PCG64(crc32(utf-8 name) + seed))
    param(name, shape, seed) :
        ...running_mean               0.1 * N(0,1)
        ...running_var                1 + 0.2 * |N(0,1)|
        ...num_batches_tracked        0 (int64 scalar)
        1-D "weight" (norm layers)    1 + 0.1 * N(0,1)
        1-D "bias"   (conv and norm)  0.05 * N(0,1)
        >=2-D "weight"                N(0,1) * sqrt(2 / fan_in),
                                      fan_in = prod(shape[1:])
    normal/uniform/smooth/... : inputs, see each function.

All draws are made in float64 with Generator.standard_normal / .uniform in C
order of `shape`, scaled in float64 and cast to float32 at the very end.

Names: backbone tensors have their bare checkpoint names (conv1.weight,
layer1.0.downsample.0.weight, ...), i.e. the official state-dict key with a
leading "backbone2." removed.  Heads keep their prefix (decode_head2.convs.0.
conv.weight, decode_head.flow_feat_before_agg.0.bias, ...).
"""

import zlib

import numpy as np


def rng(name, seed):
    """Fresh generator for one tensor; the name decides the stream."""
    return np.random.Generator(
        np.random.PCG64(zlib.crc32(name.encode("utf-8")) + int(seed))
    )


def strip(name):
    """Official state-dict key -> generator name."""
    return name[len("backbone2.") :] if name.startswith("backbone2.") else name


def param(name, shape, seed):
    """A weight, bias or running statistic, chosen by name ending and rank."""
    name, shape = strip(name), tuple(shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros((), np.int64)
    n = rng(name, seed).standard_normal(shape)
    if name.endswith("running_mean"):
        x = 0.1 * n
    elif name.endswith("running_var"):
        x = 1.0 + 0.2 * np.abs(n)
    elif name.endswith("bias"):
        x = 0.05 * n
    elif len(shape) == 1:
        x = 1.0 + 0.1 * n
    else:
        x = n * np.sqrt(2.0 / np.prod(shape[1:]))
    return x.astype(np.float32)


def state(shapes, seed):
    """{name: shape} -> {name: array}."""
    return {k: param(k, s, seed) for k, s in shapes.items()}


def normal(name, shape, seed, scale=1.0, mean=0.0):
    """mean + scale * N(0,1)."""
    return (mean + scale * rng(name, seed).standard_normal(shape)).astype(np.float32)


def uniform(name, shape, seed, lo=0.0, hi=1.0):
    """U(lo, hi)."""
    return rng(name, seed).uniform(lo, hi, shape).astype(np.float32)


def smooth(name, shape, seed, scale=1.0, waves=6, maxfreq=3.0, dtype=np.float32):
    """Smooth fields, shape (..., H, W): per leading index a sum of `waves` cosines
    a*cos(2 pi (fy*y/H + fx*x/W) + ph); draws, in order, each lead+(waves,): a = N(0,1),
    fy, fx = U(-maxfreq, maxfreq), ph = U(0, 2 pi).  The sum is multiplied by
    scale*sqrt(2/waves) (unit std)."""
    lead, (h, w) = tuple(shape[:-2]), shape[-2:]
    g = rng(name, seed)
    a = g.standard_normal((*lead, waves))
    fy = g.uniform(-maxfreq, maxfreq, (*lead, waves))
    fx = g.uniform(-maxfreq, maxfreq, (*lead, waves))
    ph = g.uniform(0.0, 2.0 * np.pi, (*lead, waves))
    y, x = np.arange(h)[:, None] / h, np.arange(w)[None, :] / w
    out = np.zeros((*lead, h, w))
    for k in range(waves):
        e = (..., k, None, None)
        out += a[e] * np.cos(2 * np.pi * (fy[e] * y + fx[e] * x) + ph[e])
    return (out * scale * np.sqrt(2.0 / waves)).astype(dtype)


def ellipse(h, w, cy, cx, ry, rx):
    """1.0 inside the ellipse (all in units of pixels, centre at index cy,cx)."""
    y, x = np.arange(h)[:, None], np.arange(w)[None, :]
    return (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1.0).astype(np.float32)


def softmax(x, axis):
    """float32 softmax with max subtraction (float64 inside)."""
    e = np.exp(x.astype(np.float64) - x.max(axis, keepdims=True))
    return (e / e.sum(axis, keepdims=True)).astype(np.float32)


def flow_field(name, shape, seed, scale=9.0, jump=18.0):
    """Smooth flow + a moving ellipse; shape (..., 2, H, W); exceeds +-20 in places."""
    h, w = shape[-2:]
    f = smooth(
        name + ".bg", shape, seed, scale=scale, waves=4, maxfreq=1.0, dtype=np.float64
    )
    v = rng(name + ".jump", seed).uniform(-jump, jump, (*tuple(shape[:-2]), 1, 1))
    return (f + v * ellipse(h, w, 0.45 * h, 0.55 * w, 0.25 * h, 0.3 * w)).astype(
        np.float32
    )


def unpack(bits, shape):
    """Inverse of np.packbits(mask.ravel())."""
    return np.unpackbits(bits)[: int(np.prod(shape))].reshape(shape).astype(bool)


def load(path):
    """Read a fixture file into a plain dict."""
    with np.load(path, allow_pickle=False) as z:
        return {k: z[k] for k in z.files}
