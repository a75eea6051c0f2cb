"""Operators that join, split and rearrange values without changing them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.models.onnx.dtypes import bounded
from audit.models.onnx.node import Kernel, Node, operator, python_numbers


@operator("Concat")
def concat(node: Node) -> Kernel:
    """Concatenate along an axis."""
    axis = node.get("axis", 1)
    return lambda *tensors: torch.cat(tensors, axis)


@operator("Split", static=(1,))
def split(node: Node) -> Kernel:
    """Split along an axis into given or equal parts; the last part may be smaller."""
    axis, given = node.get("axis", 0), node.get("split")
    parts = node.get("num_outputs") or len(node.outputs)

    def run(x: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, ...]:
        chosen = given if lengths is None else python_numbers(lengths)
        if chosen is None:
            if not node.get("num_outputs") and x.shape[axis] % parts:
                raise node.refuse(f"size {x.shape[axis]} is not a multiple of {parts} parts")
            length = -(-x.shape[axis] // parts)
            chosen = [length] * (parts - 1) + [x.shape[axis] - length * (parts - 1)]
        return torch.split(x, chosen, axis)

    return run


@operator("Slice", static=(1, 2, 3, 4))
def slice_axes(node: Node) -> Kernel:
    """Slice by start, end and step per axis, given as attributes (opset < 10) or as inputs."""
    old = (node.get("starts"), node.get("ends"), node.get("axes"), None)

    def run(x: Tensor, *bounds: Tensor | None) -> Tensor:
        new = [None if bound is None else python_numbers(bound) for bound in bounds]
        chosen: list[list[int] | None] = [*new, *old[len(new) :]]
        starts, ends, axes, steps = chosen
        for what, values in (("axes", axes), ("steps", steps)):
            if values and len(values) != len(starts or []):
                raise node.refuse(f"{len(values)} {what} were given for {len(starts or [])} starts")
        if not all(-x.dim() <= axis < x.dim() for axis in axes or range(len(starts or []))):
            raise node.refuse(f"axes {axes} are out of range for {x.dim()} dimensions")
        for i, (start, end) in enumerate(zip(starts or [], ends or [], strict=True)):
            axis = axes[i] if axes else i
            x = _slice(x, axis % x.dim(), start, end, steps[i] if steps else 1)
        return x

    return run


def _slice(x: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    """Slice one axis; with a negative step, slice upwards and reverse the result."""
    chosen = _places(x.shape[axis], start, stop, step)
    if not chosen:
        return x.narrow(axis, 0, 0)
    low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1])
    upward = x[(slice(None),) * axis + (slice(low, high + 1, abs(step)),)]
    return upward if step > 0 else upward.flip(axis)


def _places(size: int, start: int, stop: int, step: int) -> range:
    """Return the positions of a slice, clamped as ONNX requires.

    With a negative step, a start before the axis is clamped to its first element.

    The largest integers mean 'to the end' in either direction, as in the runtime.
    """
    start, end = (place + size if place < 0 else place for place in (start, stop))
    if step > 0:
        return range(min(max(start, 0), size), min(max(end, 0), size), step)
    end = -1 if stop in (2**31 - 1, 2**63 - 1) else min(max(end, -1), size - 1)
    return range(min(max(start, 0), size - 1), end, step)


@operator("DepthToSpace")
def depth_to_space(node: Node) -> Kernel:
    """Move channels into blocks of pixels."""
    block, mode = node.get("blocksize"), node.get("mode", "DCR")

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if mode == "CRD":
            return F.pixel_shuffle(x, block)
        y = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return y.reshape(n, c // block**2, h * block, w * block)

    return run


@operator("SpaceToDepth")
def space_to_depth(node: Node) -> Kernel:
    """Move blocks of pixels into channels."""
    block, mode = node.get("blocksize"), node.get("mode", "DCR")

    def run(x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n, c, h // block, block, w // block, block)
        order = (0, 1, 3, 5, 2, 4) if mode == "CRD" else (0, 3, 5, 1, 2, 4)
        return y.permute(order).reshape(n, c * block**2, h // block, w // block)

    return run


@operator("Pad", static=(1, 2, 3))
def pad(node: Node) -> Kernel:
    """Add constant, mirrored, repeated or wrapped borders; a negative pad crops."""
    mode, fill = node.get("mode", "constant"), node.get("value", 0.0)
    given = node.get("pads", node.get("paddings"))
    if mode not in ("constant", "reflect", "edge", "wrap"):
        raise node.refuse(f"mode '{mode}' is not supported")

    def run(
        x: Tensor,
        pads: Tensor | None = None,
        value: Tensor | None = None,
        axes: Tensor | None = None,
    ) -> Tensor:
        sizes = given if pads is None else python_numbers(pads)
        chosen = python_numbers(axes) if axes is not None else list(range(x.dim()))
        if len(sizes) != 2 * len(chosen) or not all(-x.dim() <= a < x.dim() for a in chosen):
            raise node.refuse(
                f"{len(sizes)} pads do not fit axes {chosen} of a tensor of {x.dim()} dimensions"
            )
        pairs = {
            axis % x.dim(): (sizes[i], sizes[i + len(chosen)]) for i, axis in enumerate(chosen)
        }
        bounded([n + sum(pairs.get(axis, (0, 0))) for axis, n in enumerate(x.shape)])
        number = fill if value is None else value.item()
        return pad_axes(x, pairs, mode, number)

    return run


def pad_axes(x: Tensor, pairs: dict[int, tuple[int, int]], mode: str, value: Any) -> Tensor:
    """Pad each axis by a pair (before, after)."""
    if not any(any(pair) for pair in pairs.values()):
        return x
    if mode == "constant":
        flat = [n for axis in reversed(range(x.dim())) for n in pairs.get(axis, (0, 0))]
        while flat[-2:] == [0, 0]:
            del flat[-2:]
        return F.pad(x, flat, value=value)
    for axis, (before, after) in pairs.items():
        if before or after:
            index = _border(x.shape[axis], before, after, mode)
            x = x.index_select(axis, torch.tensor(index, device=x.device))
    return x


def _border(size: int, before: int, after: int, mode: str) -> list[int]:
    """Return the source position of each element of the padded axis."""
    places = range(-before, size + after)
    if mode == "edge":
        return [min(max(place, 0), size - 1) for place in places]
    if mode == "wrap":
        return [place % size for place in places]
    period = max(2 * (size - 1), 1)
    return [min(place % period, period - place % period) if size > 1 else 0 for place in places]


@operator("ReverseSequence", static=(1,))
def reverse_sequence(node: Node) -> Kernel:
    """Reverse the first elements of every sequence, up to its own length."""
    batch, time = node.get("batch_axis", 1), node.get("time_axis", 0)

    def run(x: Tensor, lengths: Tensor) -> Tensor:
        y = x.movedim((batch, time), (0, 1))
        place = torch.arange(y.shape[1], device=x.device)
        length = lengths.to(x.device).unsqueeze(1)
        index = torch.where(place < length, length - 1 - place, place)
        rows = torch.arange(y.shape[0], device=x.device).unsqueeze(1)
        return y[rows, index].movedim((0, 1), (batch, time))

    return run
