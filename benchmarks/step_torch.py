"""PyTorch twin of one stage-1 training step, to measure against (extra `bench`).

The same network as `imas_jax.models.imas` with its defaults (ResNet, feature merging,
residual pathway, learned pooling), the same losses and the same optimiser, as plain
functions of a dict of tensors, channels last. Names are those of the Flax tree joined
by "/", so its weights are loaded as they are and both must give the same loss.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Tensors = dict[str, Tensor]
# Blocks, strides, dilations, dilations of the first block (output stride 8).
STAGES = ((3, 1, 1, 1), (4, 2, 1, 1), (6, 1, 2, 1), (3, 1, 4, 2))


def tensor_of(leaf) -> Tensor:
    """Turn a Flax leaf (NumPy) into a tensor: kernels to OIHW, channels last."""
    tensor = torch.from_numpy(leaf.copy())
    if tensor.ndim == 4:
        tensor = tensor.permute(3, 2, 0, 1)
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def make_step(
    params: Tensors,
    stats: Tensors,
    config,
    precision: str,
    dropout: float,
    compiled: bool = False,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return `step(frames, forward, backward) -> loss`, which updates `params`.

    Args:
        params: Trained tensors.
        stats: Running means and variances.
        config: The whole config; `model` and `discover` are read.
        precision: "float32", or "bfloat16" for the network by autocast.
        dropout: Probability of both heads.
        compiled: Network and loss by torch.compile.
    """
    predict, score = network, motion_loss
    if compiled:
        predict, score = torch.compile(network), torch.compile(motion_loss)
    for tensor in params.values():
        tensor.requires_grad_()
    rate = config.discover
    # Adam's weight decay is coupled, as ours is.
    optimizer = torch.optim.Adam(
        params.values(), lr=rate.learning_rate, weight_decay=rate.weight_decay
    )

    def step(frames: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(
            frames.device.type, torch.bfloat16, enabled=precision == "bfloat16"
        ):
            prediction = predict(params, stats, frames, dropout)
        value = score(params, config.model, *prediction, forward, backward)
        value.backward()
        optimizer.step()
        return value.detach()

    return step


def network(
    params: Tensors, stats: Tensors, frames: Tensor, dropout: float
) -> tuple[Tensor, Tensor]:
    """Return mask logits (2b, c, hm, wm) and residual maps (b, 4c, hu, wu).

    Frames are (2b, 3, h, w): t of all pairs, then t + 1 of all pairs.
    """

    def conv(name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        kernel = params[f"{name}/kernel"]
        padding = dilation * (kernel.shape[-1] // 2)
        bias = params.get(f"{name}/bias")
        return functional.conv2d(x, kernel, bias, stride, padding, dilation)

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.batch_norm(
            x,
            stats[f"{name}/mean"],
            stats[f"{name}/var"],
            params[f"{name}/scale"],
            params[f"{name}/bias"],
            training=True,
        )

    def block(name: str, x: Tensor, stride: int, dilation: int) -> Tensor:
        y = torch.relu(norm(f"{name}/bn1", conv(f"{name}/conv1", x)))
        y = conv(f"{name}/conv2", y, stride, dilation)
        y = torch.relu(norm(f"{name}/bn2", y))
        y = norm(f"{name}/bn3", conv(f"{name}/conv3", y))
        if f"{name}/downsample_conv/kernel" in params:
            x = conv(f"{name}/downsample_conv", x, stride)
            x = norm(f"{name}/downsample_bn", x)
        return torch.relu(x + y)

    def head(name: str, x: Tensor) -> Tensor:
        for i in (1, 2):
            x = torch.relu(norm(f"{name}/bn{i}", conv(f"{name}/conv{i}", x, 1, 6)))
        return conv(f"{name}/classifier", functional.dropout2d(x, dropout))

    x = torch.relu(norm("backbone/bn1", conv("backbone/conv1", frames, 2)))
    x = functional.max_pool2d(x, 3, 2, 1)
    outputs = []
    for stage, (count, stride, dilation, first) in enumerate(STAGES, start=1):
        for i in range(count):
            name = f"backbone/layer{stage}_{i}"
            x = block(name, x, 1 if i else stride, dilation if i else first)
        outputs.append(x)
    shallow, deep = outputs[0], outputs[-1]
    merged = torch.cat([shallow, resize(deep, shallow.shape[-2:])], dim=1)
    pair = torch.cat(deep.chunk(2), dim=1)
    return head("segmentation_head", merged), head("residual_head", pair)


def motion_loss(
    params: Tensors,
    model,
    logits: Tensor,
    residual: Tensor,
    forward: Tensor,
    backward: Tensor,
) -> Tensor:
    """Return the symmetric motion loss (equations 1-6); flow is (b, 2, hm, wm)."""
    masks = torch.softmax(logits.float(), dim=1).chunk(2)
    maps = residual.float().chunk(2, dim=1)
    total = torch.zeros((), device=logits.device)
    for mask, flow, map_ in zip(masks, (forward, backward), maps, strict=True):
        flow = flow.clamp(-model.flow_clamp, model.flow_clamp)
        vectors = pooled_vectors(params, flow, mask)
        # Component-major: x of all channels, then y.
        residual = resize(map_, mask.shape[-2:]).unflatten(1, (2, -1))
        bounded = model.residual_bound * torch.tanh(residual / model.residual_divisor)
        flows = bounded + vectors.transpose(1, 2)[..., None, None]
        reconstruction = (mask[:, None] * flows).sum(dim=2)
        total = total + (flow - reconstruction).abs().mean()
    return total


def pooled_vectors(params: Tensors, flow: Tensor, mask: Tensor) -> Tensor:
    """Return one motion vector a channel, (b, c, 2)."""

    def layer(name: str, x: Tensor) -> Tensor:
        kernel = params[f"motion_pooling/{name}/kernel"]
        bias = params[f"motion_pooling/{name}/bias"]
        return functional.conv2d(x, kernel, bias, padding=kernel.shape[-1] // 2)

    def leaky(x: Tensor) -> Tensor:
        return functional.leaky_relu(x, 0.1)

    features = leaky(layer("phi_1_1", leaky(layer("phi_1_0", flow))))
    total = torch.einsum("bkhw,bchw->bkc", features, mask)
    pooled = (total / mask.sum(dim=(2, 3))[:, None])[..., None]
    return layer("phi_2_1", leaky(layer("phi_2_0", pooled)))[..., 0].transpose(1, 2)


def resize(x: Tensor, size) -> Tensor:
    """Resize bilinearly, half-pixel centres."""
    return functional.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
