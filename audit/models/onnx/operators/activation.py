"""Activation functions."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.models.onnx.gradients import straight_through
from audit.models.onnx.node import Kernel, Node, operator, operators_without_attributes


@operator("Relu", ignores=("consumed_inputs",))
def relu(node: Node) -> Kernel:
    """Compute max(x, 0); applied to the model's own input it passes all gradients, like Clip."""
    if not node.leading:
        return torch.relu
    return lambda x: straight_through(x, torch.relu(x))


operators_without_attributes(
    {
        "Sigmoid": torch.sigmoid,
        "Softsign": F.softsign,
        "Mish": F.mish,
        "HardSwish": F.hardswish,
        # torch's softplus is linear from beta·x > 20 on; logaddexp is exact everywhere
        "Softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    }
)


@operator("LeakyRelu", ignores=("consumed_inputs",))
def leaky_relu(node: Node) -> Kernel:
    """Return x, or alpha·x where x is negative."""
    alpha = node.get("alpha", 0.01)
    return lambda x: F.leaky_relu(x, alpha)


@operator("PRelu", ignores=("consumed_inputs",))
def prelu(node: Node) -> Kernel:
    """Return x, or slope·x where x is negative; the slope broadcasts as in numpy."""

    def run(x: Tensor, slope: Tensor) -> Tensor:
        channels = (x.shape[1], *[1] * (x.dim() - 2)) if x.dim() > 1 else ()
        if slope.shape == channels or slope.numel() == 1:
            return torch.prelu(x, slope.reshape(-1))
        return torch.where(x < 0, x * slope, x)

    return run


@operator("Elu", ignores=("consumed_inputs",))
def elu(node: Node) -> Kernel:
    """Return x, or alpha·(e^x − 1) where x is negative."""
    alpha = node.get("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@operator("Celu")
def celu(node: Node) -> Kernel:
    """Compute max(0, x) + min(0, alpha·(e^(x/alpha) − 1))."""
    alpha = node.get("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@operator("Selu", ignores=("consumed_inputs",))
def selu(node: Node) -> Kernel:
    """Return gamma·x, or gamma·alpha·(e^x − 1) where x is negative."""
    alpha = node.get("alpha", 1.67326319217681884765625)
    gamma = node.get("gamma", 1.05070102214813232421875)
    return lambda x: gamma * F.elu(x, alpha)


@operator("Gelu")
def gelu(node: Node) -> Kernel:
    """Compute x·Phi(x), exactly or with the tanh approximation."""
    approximate = node.get("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@operator("HardSigmoid", ignores=("consumed_inputs",))
def hard_sigmoid(node: Node) -> Kernel:
    """Compute alpha·x + beta, clipped to [0, 1]."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:  # torch has a kernel for this case
        return F.hardsigmoid
    return lambda x: torch.clamp(alpha * x + beta, 0, 1)


@operator("ThresholdedRelu")
def thresholded_relu(node: Node) -> Kernel:
    """Return x where it exceeds alpha, else 0."""
    alpha = node.get("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


@operator("Shrink")
def shrink(node: Node) -> Kernel:
    """Move x towards zero by `bias` outside [−lambd, lambd]; return 0 inside."""
    bias, lambd = node.get("bias", 0.0), node.get("lambd", 0.5)

    def run(x: Tensor) -> Tensor:
        zero = torch.zeros_like(x)
        return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero)).to(x.dtype)

    return run


@operator("Swish")
def swish(node: Node) -> Kernel:
    """Compute x·sigmoid(alpha·x)."""
    alpha = node.get("alpha", 1.0)
    return lambda x: F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)


@operator("SwiGLU")
def swiglu(node: Node) -> Kernel:
    """Compute swish(a)·b."""
    alpha = node.get("alpha", 1.0)
    return lambda a, b: a * torch.sigmoid(alpha * a) * b


def _hardmax(x: Tensor, axis: int) -> Tensor:
    """Return one at the first maximum along an axis, and zero elsewhere."""
    winner = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, winner, torch.ones_like(x))


NORMALISED: dict[str, Callable[[Tensor, int], Tensor]] = {
    "Softmax": lambda x, axis: torch.softmax(x, axis),
    "LogSoftmax": lambda x, axis: torch.log_softmax(x, axis),
    "Hardmax": _hardmax,
}


@operator("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: Node) -> Kernel:
    """Normalise along one axis; before opset 13, all axes from `axis` on are flattened to one."""
    function = NORMALISED[node.operator]
    if node.opset >= 13:
        axis = node.get("axis", -1)
        return lambda x: function(x, axis)
    first = node.get("axis", 1)

    def run(x: Tensor) -> Tensor:
        start = first % x.dim() if x.dim() else 0
        if start == x.dim() - 1:
            return function(x, start)
        return function(x.flatten(start), start).reshape(x.shape)

    return run
