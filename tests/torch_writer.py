"""Stand-ins for published files: the published names and shapes, random values."""

import functools

import numpy as np

WIDTH = 4


@functools.cache
def torch_resnet(depth=18, width=WIDTH):
    """Return torchvision's names and shapes, written out here independently."""
    rng = np.random.default_rng(depth)
    tensors = {}

    def conv(name, out, into, kernel):
        tensors[f"{name}.weight"] = rng.normal(size=(out, into, kernel, kernel))

    def norm(name, k):
        for leaf in ("weight", "bias", "running_mean"):
            tensors[f"{name}.{leaf}"] = rng.normal(size=k)
        tensors[f"{name}.running_var"] = 1 + rng.uniform(size=k)
        tensors[f"{name}.num_batches_tracked"] = np.array(5)

    blocks = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    conv("conv1", width, 3, 7)
    norm("bn1", width)
    into = width
    for stage, count in enumerate(blocks):
        w = width * 2**stage
        out = w if depth == 18 else 4 * w
        for i in range(count):
            block = f"layer{stage + 1}.{i}"
            chain = [(w, into, 3), (w, w, 3)]
            if depth == 50:
                chain = [(w, into, 1), (w, w, 3), (out, w, 1)]
            for j, (o, k, size) in enumerate(chain):
                conv(f"{block}.conv{j + 1}", o, k, size)
                norm(f"{block}.bn{j + 1}", o)
            if i == 0 and (stage > 0 or into != out):
                conv(f"{block}.downsample.0", out, into, 1)
                norm(f"{block}.downsample.1", out)
            into = out
    return tensors


def renamed(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}
