"""Operators that read, write or find elements by index."""

import torch
from torch import Tensor

from audit.models.onnx.node import (
    Kernel,
    Node,
    operator,
    operators_without_attributes,
    python_numbers,
)

REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


# A position beyond every tensor: torch raises an error on reads and writes there.
NOWHERE = 2**62


def wrapped(indices: Tensor, size: int) -> Tensor:
    """Convert negative indices, which count from the end."""
    return torch.where(indices < 0, indices + size, indices).long()


@operator("Gather")
def gather(node: Node) -> Kernel:
    """Select slices along an axis; a single constant index gives a view."""
    axis = node.get("axis", 0)
    fixed = node.constants.get(1)
    if fixed is not None and fixed.dim() == 0:
        place = int(fixed)
        return lambda x, _: x.select(axis, place)

    def run(x: Tensor, indices: Tensor) -> Tensor:
        along = axis % x.dim()
        flat = wrapped(indices.to(x.device), x.shape[along]).reshape(-1)
        y = x.index_select(along, flat)
        return y.reshape(*x.shape[:along], *indices.shape, *x.shape[along + 1 :])

    return run


@operator("GatherElements")
def gather_elements(node: Node) -> Kernel:
    """Select one element per index along an axis."""
    axis = node.get("axis", 0)
    return lambda x, indices: x.gather(axis, wrapped(indices.to(x.device), x.shape[axis]))


@operator("GatherND")
def gather_nd(node: Node) -> Kernel:
    """Select slices at index tuples, after `batch_dims` shared batch axes."""
    shared = node.get("batch_dims", 0)

    def run(x: Tensor, indices: Tensor) -> Tensor:
        indices = indices.to(x.device)
        depth = indices.shape[-1]
        batch = x.shape[:shared]
        if shared:
            after = [None] * (indices.dim() - shared)
            node.require_shape("indices", indices, (*batch, *after))
        count = batch.numel()
        flat, inner = _linear(indices, x.shape[shared : shared + depth])
        table = x.reshape(count * inner, *x.shape[shared + depth :])
        offset = torch.arange(count, device=x.device).reshape(count, 1) * inner
        chosen = (flat.reshape(count, -1) + offset).reshape(-1)
        y = table.index_select(0, chosen)
        return y.reshape(*indices.shape[:-1], *x.shape[shared + depth :])

    return run


def _linear(indices: Tensor, sizes: torch.Size) -> tuple[Tensor, int]:
    """Return index tuples as positions in the flattened axes, and the number of positions.

    An index beyond its own axis must not become a position in the next row.
    """
    if indices.shape[-1] > len(sizes):
        raise ValueError(
            f"the index tuples have {indices.shape[-1]} entries, but there are {len(sizes)} axes"
        )
    flat = torch.zeros_like(indices[..., 0], dtype=torch.int64)
    outside = torch.zeros_like(flat, dtype=torch.bool)
    for axis, size in enumerate(sizes):
        index = wrapped(indices[..., axis], size)
        outside = outside | (index < 0) | (index >= size)
        flat = flat * size + index
    return torch.where(outside, NOWHERE, flat), sizes.numel()


@operator("ScatterElements", "Scatter")
def scatter_elements(node: Node) -> Kernel:
    """Copy the input, and replace one element per index or combine it with the update."""
    axis, reduction = node.get("axis", 0), _reduction(node)

    def run(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        node.require_shape("updates", updates, tuple(indices.shape))
        places = wrapped(indices.to(x.device), x.shape[axis])
        return _scatter(x, axis, places, updates, reduction)

    return run


@operator("ScatterND")
def scatter_nd(node: Node) -> Kernel:
    """Copy the input, and replace slices at index tuples or combine them with the updates."""
    reduction = _reduction(node)

    def run(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        depth = indices.shape[-1]
        node.require_shape("updates", updates, (*indices.shape[:-1], *x.shape[depth:]))
        flat, rows = _linear(indices.to(x.device), x.shape[:depth])
        inner = x.shape[depth:].numel()
        places = flat.reshape(-1, 1).expand(-1, inner)
        table, given = x.reshape(rows, inner), updates.reshape(-1, inner)
        return _scatter(table, 0, places, given, reduction).reshape(x.shape)

    return run


def _reduction(node: Node) -> str:
    name = node.get("reduction", "none")
    if name != "none" and name not in REDUCTIONS:
        raise node.refuse(f"reduction '{name}' is not supported")
    return name  # type: ignore[no-any-return]


def _scatter(x: Tensor, axis: int, places: Tensor, updates: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, REDUCTIONS[reduction])


@operator("OneHot", static=(1,))
def one_hot(node: Node) -> Kernel:
    """Return `on` at the index, else `off`; an index out of range gives `off` everywhere."""
    axis = node.get("axis", -1)

    def run(indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
        classes = int(python_numbers(depth)[0])
        index = indices.long()
        index = torch.where(index < 0, index + classes, index)
        places = torch.arange(classes, device=index.device)
        hit = index.unsqueeze(-1) == places
        y = torch.where(hit, values[1], values[0])
        return y.movedim(-1, axis)

    return run


@operator("ArgMax", "ArgMin")
def arg_extreme(node: Node) -> Kernel:
    """Return the position of the extreme value; among equal values, the first or the last one."""
    largest = node.operator == "ArgMax"
    axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
    last = bool(node.get("select_last_index", 0))

    def run(x: Tensor) -> Tensor:
        y = x.flip(axis) if last else x
        place = y.argmax(axis, keep) if largest else y.argmin(axis, keep)
        return x.shape[axis] - 1 - place if last else place

    return run


@operator("TopK", static=(1,))
def top_k(node: Node) -> Kernel:
    """Return the k largest or smallest values in order; equal values are ordered by index."""
    axis, largest = node.get("axis", -1), bool(node.get("largest", 1))
    fixed = node.get("k")
    node.get("sorted")

    def run(x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
        count = fixed if k is None else int(python_numbers(k)[0])
        values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
        return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)

    return run


@operator("Compress", static=(1,))
def compress(node: Node) -> Kernel:
    """Select the slices where the condition holds."""
    axis = node.get("axis")

    def run(x: Tensor, condition: Tensor) -> Tensor:
        places = condition.nonzero().reshape(-1).to(x.device)
        return x.reshape(-1)[places] if axis is None else x.index_select(axis, places)

    return run


operators_without_attributes({"NonZero": lambda x: x.nonzero().t()})
