"""Reading and writing by index, and finding indices."""

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


# No position of any tensor: whoever reads or writes there is refused by torch.
NOWHERE = 2**62


def wrapped(indices: Tensor, size: int) -> Tensor:
    """Negative indices counted from the end."""
    return torch.where(indices < 0, indices + size, indices).long()


@operator("Gather")
def gather(node: Node) -> Kernel:
    """Slices along an axis; one constant index is a view."""
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
    """One element per index along an axis."""
    axis = node.get("axis", 0)
    return lambda x, indices: x.gather(axis, wrapped(indices.to(x.device), x.shape[axis]))


@operator("GatherND")
def gather_nd(node: Node) -> Kernel:
    """Slices at index tuples, after some shared batch axes."""
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
    """Index tuples as positions in the flattened axes, and how many positions there are.

    An index beyond its own axis must not become a position in the next row.
    """
    if indices.shape[-1] > len(sizes):
        raise ValueError(f"index tuples of {indices.shape[-1]} for {len(sizes)} axes")
    flat = torch.zeros_like(indices[..., 0], dtype=torch.int64)
    outside = torch.zeros_like(flat, dtype=torch.bool)
    for axis, size in enumerate(sizes):
        index = wrapped(indices[..., axis], size)
        outside = outside | (index < 0) | (index >= size)
        flat = flat * size + index
    return torch.where(outside, NOWHERE, flat), sizes.numel()


@operator("ScatterElements", "Scatter")
def scatter_elements(node: Node) -> Kernel:
    """A copy with one element per index replaced, or combined with what is there."""
    axis, reduction = node.get("axis", 0), _reduction(node)

    def run(x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        node.require_shape("updates", updates, tuple(indices.shape))
        places = wrapped(indices.to(x.device), x.shape[axis])
        return _scatter(x, axis, places, updates, reduction)

    return run


@operator("ScatterND")
def scatter_nd(node: Node) -> Kernel:
    """A copy with slices at index tuples replaced, or combined with what is there."""
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
        raise node.refuse(f"reduction {name}")
    return name  # type: ignore[no-any-return]


def _scatter(x: Tensor, axis: int, places: Tensor, updates: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, REDUCTIONS[reduction])


@operator("OneHot", static=(1,))
def one_hot(node: Node) -> Kernel:
    """`on` at the index, `off` elsewhere; an index out of range is `off` everywhere."""
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
    """Position of the extreme value, the first or the last one of equals."""
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
    """The k largest or smallest in order; of equals the one with the lower index comes first."""
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
    """The slices where the condition holds."""
    axis = node.get("axis")

    def run(x: Tensor, condition: Tensor) -> Tensor:
        places = condition.nonzero().reshape(-1).to(x.device)
        return x.reshape(-1)[places] if axis is None else x.index_select(axis, places)

    return run


operators_without_attributes({"NonZero": lambda x: x.nonzero().t()})
