"""Operators that read shapes, make tensors of a given shape, or reshape values."""

import torch
from torch import Tensor

from audit.errors import ModelError
from audit.models.onnx.dtypes import TORCH, bounded
from audit.models.onnx.node import Kernel, Node, operator, python_numbers


@operator("Constant")
def constant(node: Node) -> Kernel:
    """Return the value stored in the graph."""
    value = node.get("value")
    if value is None:
        value = _literal(node)
    return lambda: value


def _literal(node: Node) -> Tensor:
    for name, dtype in {
        "value_float": torch.float32,
        "value_floats": torch.float32,
        "value_int": torch.int64,
        "value_ints": torch.int64,
    }.items():
        if node.get(name) is not None:
            return torch.tensor(node.get(name), dtype=dtype)
    raise node.refuse("a constant that is neither a tensor nor numbers is not supported")


@operator("Shape")
def shape(node: Node) -> Kernel:
    """Return the sizes of the axes from `start` to `end`, on the CPU."""
    start, end = node.get("start", 0), node.get("end")
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


@operator("Size")
def size(_: Node) -> Kernel:
    """Return the number of elements, on the CPU."""
    return lambda x: torch.tensor(x.numel(), dtype=torch.int64)


@operator("Reshape", static=(1,), ignores=("consumed_inputs",))
def reshape(node: Node) -> Kernel:
    """Reshape; 0 keeps a size unless `allowzero` is set, −1 is inferred from the others."""
    literal = bool(node.get("allowzero", 0))

    def run(x: Tensor, wanted: Tensor) -> Tensor:
        sizes = python_numbers(wanted)
        if not literal:
            sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
        return x.reshape(sizes)

    return run


@operator("Flatten")
def flatten(node: Node) -> Kernel:
    """Flatten to two axes, split before `axis`."""
    axis = node.get("axis", 1)

    def run(x: Tensor) -> Tensor:
        split = axis if axis >= 0 else axis + x.dim()
        if split == 1:
            return x.flatten(1) if x.dim() > 1 else x.reshape(x.shape[0], 1)
        rows = x.shape[:split].numel()
        return x.reshape(rows, x.shape[split:].numel())

    return run


@operator("Transpose")
def transpose(node: Node) -> Kernel:
    """Permute the axes to the order `perm`, by default reversed."""
    order = node.get("perm")
    return lambda x: x.permute(order if order is not None else tuple(range(x.dim()))[::-1])


@operator("Squeeze", static=(1,))
def squeeze(node: Node) -> Kernel:
    """Remove the given axes of size one, or all of them."""
    given = node.get("axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = given if axes is None else python_numbers(axes)
        if chosen is None:
            return x.squeeze()
        if any(x.shape[axis] != 1 for axis in chosen):
            raise ModelError(
                f"Node '{node.name}' removes axes {chosen} of a tensor of shape {list(x.shape)}, "
                "but only axes of size 1 can be removed: export the model again."
            )
        return x.squeeze(tuple(chosen))

    return run


@operator("Unsqueeze", static=(1,))
def unsqueeze(node: Node) -> Kernel:
    """Insert axes of size one at the given positions of the result."""
    given = node.get("axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = given if axes is None else python_numbers(axes)
        rank = x.dim() + len(chosen)
        if {*chosen} - {*range(-rank, rank)} or len({axis % rank for axis in chosen}) < len(chosen):
            raise node.refuse(f"axes {chosen} do not fit a result of {rank} dimensions")
        for axis in sorted(axis % rank for axis in chosen):
            x = x.unsqueeze(axis)
        return x

    return run


@operator("Expand", static=(1,))
def expand(_: Node) -> Kernel:
    """Broadcast the input and a shape with each other."""

    def run(x: Tensor, wanted: Tensor) -> Tensor:
        return x.expand(
            bounded(list(torch.broadcast_shapes(x.shape, tuple(python_numbers(wanted)))))
        )

    return run


@operator("Tile", static=(1,))
def tile(_: Node) -> Kernel:
    """Repeat the input along every axis."""

    def run(x: Tensor, repeats: Tensor) -> Tensor:
        times = python_numbers(repeats)
        bounded([size * n for size, n in zip(x.shape, times, strict=True)])
        return x.repeat(times)

    return run


@operator("ConstantOfShape", static=(0,))
def constant_of_shape(node: Node) -> Kernel:
    """Return a tensor of the given shape, filled with one value."""
    value = node.get("value", torch.zeros(1))

    def run(wanted: Tensor) -> Tensor:
        return torch.full(bounded(python_numbers(wanted)), value.item(), dtype=value.dtype)

    return run


@operator("Range", static=(0, 1, 2))
def span(_: Node) -> Kernel:
    """Return evenly spaced numbers from a start up to, but not including, a limit."""

    def run(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
        first, last, step = (value.item() for value in (start, limit, delta))
        count = max(int(-(-(last - first) // step)), 0)
        bounded([count])
        if start.is_floating_point():
            return (first + step * torch.arange(count, dtype=torch.float64)).to(start.dtype)
        return torch.arange(first, first + count * step, step, dtype=start.dtype)

    return run


@operator("EyeLike")
def eye_like(node: Node) -> Kernel:
    """Return a matrix of the input's shape with ones on the k-th diagonal."""
    k, to = node.get("k", 0), node.get("dtype")

    def run(x: Tensor) -> Tensor:
        dtype = TORCH[to] if to else x.dtype
        ones = torch.ones(x.shape, dtype=dtype, device=x.device)
        return ones.tril(k).triu(k)

    return run


@operator("Trilu", static=(1,))
def trilu(node: Node) -> Kernel:
    """Keep the upper or lower triangle."""
    cut = torch.triu if node.get("upper", 1) else torch.tril
    return lambda x, k=None: cut(x, int(python_numbers(k)[0]) if k is not None else 0)
