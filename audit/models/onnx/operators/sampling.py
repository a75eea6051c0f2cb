"""Operators that sample planes at given points."""

import torch.nn.functional as F
from torch import Tensor

from audit.models.onnx.dtypes import bounded
from audit.models.onnx.node import Kernel, Node, operator, python_numbers


@operator("GridSample")
def grid_sample(node: Node) -> Kernel:
    """Sample values at given points, as torch does."""
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode = names.get(node.get("mode", "bilinear"), node.get("mode", "bilinear"))
    border = node.get("padding_mode", "zeros")
    corners = bool(node.get("align_corners", 0))

    def run(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, mode, border, corners)

    return run


@operator("AffineGrid", static=(1,))
def affine_grid(node: Node) -> Kernel:
    """Map the points of a regular grid by an affine map."""
    corners = bool(node.get("align_corners", 0))
    return lambda theta, size: F.affine_grid(theta, bounded(python_numbers(size)), corners)
