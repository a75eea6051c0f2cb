"""Normalisation layers in inference mode."""

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.models.onnx.node import Kernel, Node, operator


@operator("BatchNormalization", ignores=("momentum", "consumed_inputs", "is_test"))
def batch_normalization(node: Node) -> Kernel:
    """Compute (x − mean)/√(var + epsilon)·scale + bias with stored statistics."""
    epsilon = node.get("epsilon", 1e-5)
    if node.get("training_mode", 0) or any(node.wants(i) for i in range(1, 5)):
        raise node.refuse("training mode is not supported")
    if node.get("spatial", 1) != 1:
        raise node.refuse("statistics per position (spatial=0) are not supported")

    def run(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        channels = (x.shape[1] if x.dim() > 1 else 1,)
        for what, value in (("scale", scale), ("B", bias), ("mean", mean), ("var", var)):
            node.require_shape(f"input {what}", value, channels)
        mean, var, scale, bias = (value.to(x.dtype) for value in (mean, var, scale, bias))
        if mean.requires_grad or var.requires_grad:  # torch's batch_norm has no gradient for these
            slope = scale * torch.rsqrt(var + epsilon)
            shape = (-1, *[1] * (x.dim() - 2))
            return x * slope.reshape(shape) + (bias - mean * slope).reshape(shape)
        return F.batch_norm(x, mean, var, scale, bias, False, 0.0, epsilon)

    return run


@operator("InstanceNormalization", ignores=("consumed_inputs",))
def instance_normalization(node: Node) -> Kernel:
    """Normalise every plane by its own mean and variance."""
    epsilon = node.get("epsilon", 1e-5)
    return lambda x, scale, bias: torch.group_norm(x, x.shape[1], scale, bias, epsilon)


@operator("GroupNormalization")
def group_normalization(node: Node) -> Kernel:
    """Normalise groups of channels; one scale per group (opset 18) or per channel (opset 21)."""
    epsilon, groups = node.get("epsilon", 1e-5), node.get("num_groups")
    if node.get("stash_type", 1) != 1:
        raise node.refuse("a stash_type other than float is not supported")

    def run(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        if node.opset < 21:
            repeats = x.shape[1] // groups
            scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
        return torch.group_norm(x, groups, scale, bias, epsilon)

    return run


@operator("LayerNormalization")
def layer_normalization(node: Node) -> Kernel:
    """Normalise over all axes from `axis` on."""
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)
    if node.get("stash_type", 1) != 1:
        raise node.refuse("a stash_type other than float is not supported")
    if node.wants(1) or node.wants(2):
        return lambda x, scale, bias=None: _with_statistics(node, x, scale, bias, axis, epsilon)

    def run(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        _require_narrow(node, x, scale, bias)
        shape = x.shape[axis:]
        if scale.shape == shape and (bias is None or bias.shape == shape):
            return F.layer_norm(x, shape, scale, bias, epsilon)
        y = F.layer_norm(x, shape, None, None, epsilon) * scale
        return y if bias is None else y + bias

    return run


def _require_narrow(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
    """Raise an error if a scale or bias would broadcast the input to another shape."""
    for what, value in (("scale", scale), ("bias", bias)):
        if value is not None and torch.broadcast_shapes(value.shape, x.shape) != x.shape:
            raise node.refuse(
                f"{what} has shape {list(value.shape)}, which does not broadcast to the input's "
                f"shape {list(x.shape)}"
            )


def _with_statistics(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor | None, axis: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised tensor, its mean and the inverse of its standard deviation."""
    _require_narrow(node, x, scale, bias)
    axes = tuple(range(axis % x.dim(), x.dim()))
    mean = x.float().mean(axes, keepdim=True)
    centred = x.float() - mean
    inverse = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + epsilon)
    y = (centred * inverse).to(x.dtype) * scale
    return y if bias is None else y + bias, mean, inverse


@operator("RMSNormalization")
def rms_normalization(node: Node) -> Kernel:
    """Compute x/√(mean x² + epsilon)·scale over all axes from `axis` on."""
    axis, epsilon = node.get("axis", -1), node.get("epsilon", 1e-5)
    if node.get("stash_type", 1) != 1:
        raise node.refuse("a stash_type other than float is not supported")

    def run(x: Tensor, scale: Tensor) -> Tensor:
        _require_narrow(node, x, scale)
        axes = tuple(range(axis % x.dim(), x.dim()))
        wide = x if x.dtype is torch.float64 else x.float()
        inverse = torch.rsqrt((wide * wide).mean(axes, keepdim=True) + epsilon)
        return (wide * inverse).to(x.dtype) * scale

    return run


@operator("LRN")
def local_response_normalization(node: Node) -> Kernel:
    """Compute x/(bias + alpha/size·Σ x²)^beta; the sum is over `size` neighbouring channels."""
    size, alpha = node.get("size"), node.get("alpha", 1e-4)
    beta, bias = node.get("beta", 0.75), node.get("bias", 1.0)
    before, after = (size - 1) // 2, size // 2

    def run(x: Tensor) -> Tensor:
        channels = x.shape[1]
        beyond = [0, 0] * (x.dim() - 2)
        squares = F.pad(x * x, [*beyond, before, after])
        total = torch.stack([squares.narrow(1, start, channels) for start in range(size)]).sum(0)
        y: Tensor = x * (bias + alpha / size * total).pow(-beta)
        return y

    return run


@operator("LpNormalization")
def lp_normalization(node: Node) -> Kernel:
    """Divide by the p-norm along one axis; a zero vector stays zero."""
    axis, p = node.get("axis", -1), node.get("p", 2)

    def run(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)

    return run


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node: Node) -> Kernel:
    """Compute (x − mean)/(deviation + 1e-9) over the given axes."""
    axes = node.get("axes", [0, 2, 3])

    def run(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / ((centred * centred).mean(axes, keepdim=True).sqrt() + 1e-9)

    return run
