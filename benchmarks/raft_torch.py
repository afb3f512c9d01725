"""PyTorch twin of official RAFT's arithmetic, to measure against (extra `bench`).

Written from the paper and the operation order of princeton-vl/RAFT (BSD-3-Clause):
the same layers on the same tensors in the same order, channels first, both frames
through the feature encoder in one batch, an average-pooled all-pairs volume read by
`grid_sample`, and the flow upsampled after every refinement, as its test mode does.
Weights are a state dict under official names, without `module.`.
"""

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


def pad(frame: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Replicate the border to multiples of 8, split evenly ("sintel" mode)."""
    h, w = frame.shape[-2:]
    down, right = -h % 8, -w % 8
    borders = (right // 2, right - right // 2, down // 2, down - down // 2)
    return functional.pad(frame, borders, mode="replicate"), borders


def raft(state: State, frame0: Tensor, frame1: Tensor, iterations: int) -> Tensor:
    """Return the flow (b, 2, h, w) of RGB frames (b, 3, h, w) in 0..255."""
    small = "update_block.gru.convz.weight" in state
    hidden_width, radius = (96, 3) if small else (128, 4)
    frame0, borders = pad(frame0)
    frame1, _ = pad(frame1)
    frame0, frame1 = 2 * (frame0 / 255.0) - 1.0, 2 * (frame1 / 255.0) - 1.0
    features = encoder(state, "fnet.", torch.cat([frame0, frame1]), instance_norm)
    pyramid = correlation_pyramid(*features.split(frame0.shape[0]))
    context = encoder(state, "cnet.", frame0, no_norm if small else batch_norm)
    hidden, context = context.tensor_split((hidden_width,), dim=1)
    hidden, context = torch.tanh(hidden), torch.relu(context)
    start = pixel_grid(frame0.shape[0], *hidden.shape[-2:])
    position = start.clone()
    update = small_update if small else large_update
    for _ in range(iterations):
        correlation = look_up(pyramid, position, radius)
        hidden, mask, step = update(
            state, hidden, context, correlation, position - start
        )
        position = position + step
        flow = upsample(position - start, mask)
    left, right, top, bottom = borders
    h, w = flow.shape[-2:]
    return flow[..., top : h - bottom, left : w - right]


def conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Convolve with torch's symmetric padding."""
    kernel = state[name + ".weight"]
    padding = (kernel.shape[2] // 2, kernel.shape[3] // 2)
    return functional.conv2d(x, kernel, state[name + ".bias"], stride, padding)


def instance_norm(state: State, name: str, x: Tensor) -> Tensor:
    """Normalise every channel of every frame; no parameters."""
    del state, name
    return functional.instance_norm(x, eps=1e-5)


def batch_norm(state: State, name: str, x: Tensor) -> Tensor:
    """Normalise with running statistics."""
    mean, var = state[name + ".running_mean"], state[name + ".running_var"]
    scale, bias = state[name + ".weight"], state[name + ".bias"]
    return functional.batch_norm(x, mean, var, scale, bias, eps=1e-5)


def no_norm(state: State, name: str, x: Tensor) -> Tensor:
    """Return the input."""
    del state, name
    return x


def encoder(state: State, prefix: str, x: Tensor, norm) -> Tensor:
    """Bring frames to features at 1/8."""
    x = torch.relu(norm(state, prefix + "norm1", conv(state, prefix + "conv1", x, 2)))
    for stage in (1, 2, 3):
        for block in (0, 1):
            stride = 2 if stage > 1 and block == 0 else 1
            x = residual_block(state, f"{prefix}layer{stage}.{block}.", x, stride, norm)
    return conv(state, prefix + "conv2", x)


def residual_block(state: State, name: str, x: Tensor, stride: int, norm) -> Tensor:
    """Two 3x3 (large) or 1x1, 3x3, 1x1 (small), and a shortcut."""
    strides = (1, stride, 1) if name + "conv3.weight" in state else (stride, 1)
    y = x
    for i, step in enumerate(strides, start=1):
        y = conv(state, f"{name}conv{i}", y, step)
        y = torch.relu(norm(state, f"{name}norm{i}", y))
    if stride != 1:
        x = conv(state, name + "downsample.0", x, stride)
        x = norm(state, name + "downsample.1", x)
    return torch.relu(x + y)


def correlation_pyramid(features0: Tensor, features1: Tensor) -> list[Tensor]:
    """All-pairs products, and three average-poolings of their second frame."""
    b, d, h, w = features0.shape
    volume = features0.view(b, d, h * w).transpose(1, 2) @ features1.view(b, d, h * w)
    volume = (volume / torch.sqrt(torch.tensor(d).float())).view(b * h * w, 1, h, w)
    pyramid = [volume]
    for _ in range(3):
        pyramid.append(functional.avg_pool2d(pyramid[-1], 2, stride=2))
    return pyramid


def look_up(pyramid: list[Tensor], position: Tensor, radius: int) -> Tensor:
    """Read a window around every position in every level; its first index moves x."""
    b, _, h, w = position.shape
    centre = position.permute(0, 2, 3, 1).reshape(b * h * w, 1, 1, 2)
    offset = torch.linspace(-radius, radius, 2 * radius + 1)
    window = torch.stack(torch.meshgrid(offset, offset, indexing="ij"), dim=-1)
    out = []
    for i, level in enumerate(pyramid):
        hl, wl = level.shape[-2:]
        x, y = (centre / 2**i + window).split([1, 1], dim=-1)
        grid = torch.cat([2 * x / (wl - 1) - 1, 2 * y / (hl - 1) - 1], dim=-1)
        read = functional.grid_sample(level, grid, align_corners=True)
        out.append(read.view(b, h, w, -1))
    return torch.cat(out, dim=-1).permute(0, 3, 1, 2).contiguous()


def motion_features(state: State, flow: Tensor, correlation: Tensor) -> Tensor:
    """Encode correlation and current flow."""
    name = "update_block.encoder."
    correlation = torch.relu(conv(state, name + "convc1", correlation))
    if name + "convc2.weight" in state:
        correlation = torch.relu(conv(state, name + "convc2", correlation))
    x = torch.relu(conv(state, name + "convf1", flow))
    x = torch.relu(conv(state, name + "convf2", x))
    x = torch.relu(conv(state, name + "conv", torch.cat([correlation, x], dim=1)))
    return torch.cat([x, flow], dim=1)


def gru(state: State, suffix: str, hidden: Tensor, x: Tensor) -> Tensor:
    """One convolutional gated recurrent unit."""
    name = "update_block.gru.conv"
    both = torch.cat([hidden, x], dim=1)
    update = torch.sigmoid(conv(state, f"{name}z{suffix}", both))
    reset = torch.sigmoid(conv(state, f"{name}r{suffix}", both))
    both = torch.cat([reset * hidden, x], dim=1)
    proposal = torch.tanh(conv(state, f"{name}q{suffix}", both))
    return (1 - update) * hidden + update * proposal


def flow_step(state: State, hidden: Tensor) -> Tensor:
    """Read the flow's change off the hidden state."""
    x = torch.relu(conv(state, "update_block.flow_head.conv1", hidden))
    return conv(state, "update_block.flow_head.conv2", x)


def small_update(state, hidden, context, correlation, flow):
    """RAFT-small's refinement: hidden state, no mask, flow step."""
    motion = motion_features(state, flow, correlation)
    hidden = gru(state, "", hidden, torch.cat([context, motion], dim=1))
    return hidden, None, flow_step(state, hidden)


def large_update(state, hidden, context, correlation, flow):
    """RAFT's refinement: hidden state, upsampling mask, flow step."""
    motion = motion_features(state, flow, correlation)
    x = torch.cat([context, motion], dim=1)
    hidden = gru(state, "2", gru(state, "1", hidden, x), x)
    step = flow_step(state, hidden)
    mask = torch.relu(conv(state, "update_block.mask.0", hidden))
    return hidden, 0.25 * conv(state, "update_block.mask.2", mask), step


def upsample(flow: Tensor, mask: Tensor | None) -> Tensor:
    """Bring flow to full resolution, bilinearly or by convex combinations."""
    b, _, h, w = flow.shape
    if mask is None:
        size = (8 * h, 8 * w)
        return 8 * functional.interpolate(
            flow, size, mode="bilinear", align_corners=True
        )
    mask = torch.softmax(mask.view(b, 1, 9, 8, 8, h, w), dim=2)
    near = functional.unfold(8 * flow, [3, 3], padding=1).view(b, 2, 9, 1, 1, h, w)
    fine = torch.sum(mask * near, dim=2)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(b, 2, 8 * h, 8 * w)


def pixel_grid(b: int, h: int, w: int) -> Tensor:
    """Return the (x, y) index of every pixel, channels first."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([x, y], dim=0).float()[None].repeat(b, 1, 1, 1)
