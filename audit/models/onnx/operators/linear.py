"""Convolutions and matrix products."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.models.onnx.node import Kernel, Node, operator, operators_without_attributes
from audit.models.onnx.operators.window import Window, pad_spatial, read_window

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}

operators_without_attributes({"MatMul": torch.matmul})


@operator("Conv")
def convolution(node: Node) -> Kernel:
    """Convolve over 1 to 3 axes, with any padding, groups and dilations."""
    group = node.get("group", 1)
    windows: dict[tuple[int, ...], Window] = {}
    given = node.get("kernel_shape")
    for name in ("auto_pad", "pads", "strides", "dilations"):
        node.get(name)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel = tuple(weight.shape[2:])
        window = windows.get(kernel)
        if window is None:
            if (given and tuple(given) != kernel) or len(kernel) not in CONVOLUTIONS:
                raise node.refuse(f"kernel {list(kernel)} is not supported")
            window = windows.setdefault(kernel, read_window(node, len(kernel), kernel))
        node.require_shape("input X", x, (None,) * (2 + len(kernel)))
        return convolve(x, weight, bias, window, group)

    return run


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, group: int) -> Tensor:
    """Convolve with a window; asymmetric pads are added to the input first."""
    function = CONVOLUTIONS[len(window.kernel)]
    if window.is_symmetric():
        pads = window.pads[: len(window.kernel)]
    else:
        x = pad_spatial(x, *window.padding(x.shape[2:]))
        pads = (0,) * len(window.kernel)
    return function(x, weight, bias, window.strides, pads, window.dilations, group)


@operator("ConvTranspose")
def transposed_convolution(node: Node) -> Kernel:
    """Compute a transposed convolution without padding, then crop or extend the result."""
    group = node.get("group", 1)
    shape, extra = node.get("output_shape"), node.get("output_padding")
    given = node.get("kernel_shape")
    for name in ("auto_pad", "pads", "strides", "dilations", "ceil_mode"):
        node.get(name)

    def run(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel = tuple(weight.shape[2:])
        rank = len(kernel)
        if (given and tuple(given) != kernel) or rank not in TRANSPOSED:
            raise node.refuse(f"kernel {list(kernel)} is not supported")
        window = read_window(node, rank, kernel)
        node.require_shape("input X", x, (None,) * (2 + rank))
        if bias is not None:
            node.require_shape("bias B", bias, (weight.shape[1] * group,))
        begins, ends = _crops(window, x.shape[2:], shape, extra or [0] * rank)
        y = TRANSPOSED[rank](x, weight, None, window.strides, 0, 0, group, window.dilations)
        y = pad_spatial(y, [-begin for begin in begins], [-end for end in ends])
        return y if bias is None else y + bias.reshape(-1, *[1] * rank)

    return run


def _crops(
    window: Window, sizes: torch.Size, shape: list[int] | None, extra: list[int]
) -> tuple[list[int], list[int]]:
    """Return how much to crop at the begin and the end; a negative end extends the result."""
    rank = len(window.kernel)
    # A window smaller than its stride cannot fill the SAME size: the runtime omits the rest.
    least = 0 if shape is None else -max(shape)
    if window.same and shape is None:
        shape = [size * stride for size, stride in zip(sizes, window.strides, strict=True)]
    if shape is None:
        begins, ends = list(window.pads[:rank]), list(window.pads[rank:])
        return begins, [end - more for end, more in zip(ends, extra, strict=True)]
    begins, ends = [], []
    for axis, wanted in enumerate(shape[-rank:]):
        full = (sizes[axis] - 1) * window.strides[axis] + window.reach[axis]
        total = max(full + extra[axis] - wanted, least)
        half = total // 2 if window.same == "SAME_UPPER" else total - total // 2
        begin = max(half, 0)  # missing elements are added at the end
        begins.append(begin)
        ends.append(total - begin - extra[axis])
    return begins, ends


@operator("Gemm")
def gemm(node: Node) -> Kernel:
    """Compute alpha·A'·B' + beta·C."""
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    turn_a, turn_b = bool(node.get("transA", 0)), bool(node.get("transB", 0))
    simple = alpha == 1.0 and beta == 1.0

    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        node.require_shape("input A", a, (None, None))
        node.require_shape("input B", b, (None, None))
        a = a.t() if turn_a else a
        wide = b.shape[0 if turn_b else 1]
        if simple and a.is_floating_point() and (c is None or c.shape == (wide,)):
            return F.linear(a, b if turn_b else b.t(), c)
        y = a @ (b.t() if turn_b else b)
        y = y if alpha == 1.0 else y * alpha
        if c is None:
            return y
        if torch.broadcast_shapes(c.shape, y.shape) != y.shape:
            raise node.refuse(
                f"input C has shape {list(c.shape)}, which does not broadcast to the product's "
                f"shape {list(y.shape)}"
            )
        return y + (c if beta == 1.0 else c * beta)

    return run


@operator("Einsum")
def einsum(node: Node) -> Kernel:
    """Compute an Einstein summation."""
    equation = node.get("equation").replace(" ", "")
    return lambda *tensors: torch.einsum(equation, *tensors)
