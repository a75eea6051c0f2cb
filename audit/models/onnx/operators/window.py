"""Sliding windows: padding and output size of convolutions and pooling."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from audit.models.onnx.node import Node


@dataclass(frozen=True)
class Window:
    """A window over the spatial axes.

    Attributes:
        pads: all begins, then all ends, as in ONNX.
        same: "" if `pads` apply, else "SAME_UPPER" or "SAME_LOWER".
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    same: str
    ceil: bool

    @property
    def reach(self) -> tuple[int, ...]:
        """Extent of the dilated window along each axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def padding(self, sizes: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the pads at begin and end of each axis for an input of these spatial sizes."""
        if not self.same:
            half = len(self.pads) // 2
            return list(self.pads[:half]), list(self.pads[half:])
        begins, ends = [], []
        for size, stride, reach in zip(sizes, self.strides, self.reach, strict=True):
            outputs = math.ceil(size / stride)
            total = max((outputs - 1) * stride + reach - size, 0)
            small, large = total // 2, total - total // 2
            begins.append(small if self.same == "SAME_UPPER" else large)
            ends.append(large if self.same == "SAME_UPPER" else small)
        return begins, ends

    def overhang(self, sizes: Sequence[int]) -> list[int]:
        """Return how far the last window in ceil mode reaches beyond the padded input, per axis.

        A window that would start in the end padding or beyond it is left out.
        """
        begins, ends = self.padding(sizes)
        extra = []
        for axis, size in enumerate(sizes):
            padded = size + begins[axis] + ends[axis]
            span, stride = padded - self.reach[axis], self.strides[axis]
            steps = -(-span // stride) if self.ceil else span // stride
            if self.ceil and steps * stride >= size + begins[axis]:
                steps -= 1
            extra.append(max(steps * stride + self.reach[axis] - padded, 0))
        return extra

    def is_symmetric(self) -> bool:
        """Return whether torch's padding argument can express the pads."""
        half = len(self.pads) // 2
        return not self.same and self.pads[:half] == self.pads[half:] and min(self.pads) >= 0


def read_window(node: Node, rank: int, kernel: Sequence[int]) -> Window:
    """Return the window that the attributes of a node describe.

    Raises:
        UnsupportedOperator: unknown `auto_pad`, or attributes of another rank.
    """
    same = node.get("auto_pad", "NOTSET")
    if same not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise node.refuse(f"auto_pad '{same}' is not supported")
    pads = node.get("pads") or [0] * (2 * rank)
    window = Window(
        kernel=tuple(kernel),
        strides=tuple(node.get("strides") or [1] * rank),
        dilations=tuple(node.get("dilations") or [1] * rank),
        pads=tuple([0] * (2 * rank) if same == "VALID" else pads),
        same=same if same.startswith("SAME") else "",
        ceil=bool(node.get("ceil_mode", 0)),
    )
    ranks = {len(window.kernel), len(window.strides), len(window.dilations), len(window.pads) // 2}
    if ranks != {rank} or min(window.strides + window.dilations + window.kernel) < 1:
        raise node.refuse(
            "kernel_shape, strides and dilations need one positive number per axis, and pads two "
            "numbers per axis"
        )
    return window


def pad_spatial(
    x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0.0
) -> Tensor:
    """Pad the last axes of `x`; torch expects the pads from the last axis backwards."""
    if not any(begins) and not any(ends):
        return x
    pairs = [pad for pair in zip(reversed(begins), reversed(ends), strict=True) for pad in pair]
    return F.pad(x, pairs, value=value)
