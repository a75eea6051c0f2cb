"""A device without hardware: tensors that report the device ``sim`` and do not mix with CPU ones.

Importing this module gives torch's PrivateUse1 backend the name ``sim`` and patches torch for the
whole process, so tests run it in a separate process. Every operation is computed by the CPU on the
values of the tensors, after the checks that an accelerator makes:

- all tensors with dimensions are on one device; zero-dimensional tensors and index tensors may be
  on the CPU;
- random numbers on the device come from a generator of the device;
- values are converted to numpy only after a copy to the CPU.

Autograd, views, writes in place and the factories work. TorchScript's interpreter does not.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "sim"

# Operators that accept index tensors on the CPU, as those of CUDA do.
BY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}


class MixedDevices(RuntimeError):
    """Tensors or random generators of two devices were used in one operation."""


class OnDevice(torch.Tensor):
    """A tensor on the device; ``values`` is the CPU tensor with its content."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "OnDevice":
        """Wrap a CPU tensor, with its sizes and strides."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=torch.device(NAME, 0),
        )
        made.values = values
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        """Show the values and the device."""
        return f"{NAME}({self.values})"

    def tolist(self) -> Any:
        """Copy to the host implicitly, as a tensor of an accelerator does."""
        return self.values.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        """Raise `TypeError`: there is no view of another device's memory."""
        raise TypeError(f"a tensor on '{NAME}' has no numpy view: copy it to the CPU first")

    def __array__(self, *_: Any, **__: Any) -> Any:
        """Raise `TypeError`, as `numpy` does."""
        return self.numpy()

    @classmethod
    def __torch_dispatch__(
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute an operation with a tensor of the device among its arguments."""
        return compute(operation, args, kwargs or {})


def compute(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Check the devices of the arguments, compute on the values, put the results on the device."""
    name = operation._schema.name.removeprefix("aten::")
    if name == "_to_copy":
        return moved(operation, args[0], kwargs)
    if name == "copy_":  # also between devices: this moves values in place
        values_of(args[0]).copy_(values_of(args[1]))
        return args[0]
    require_one_device(name, args, kwargs)
    leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, OnDevice)]
    made_by = {id(leaf.values): leaf for leaf in leaves}
    results = operation(*on_host(args), **on_host(kwargs))

    def back(result: torch.Tensor) -> torch.Tensor:
        """Put a result on the device; return the tensor itself if it was written in place."""
        known = made_by.get(id(result))
        return OnDevice(result) if known is None else known

    return tree_map_only(torch.Tensor, back, results)


def moved(operation: Any, source: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
    """Copy to another device or type."""
    asked = kwargs.get("device")
    target = source.device if asked is None else torch.device(asked)
    options = {**kwargs, "device": torch.device("cpu")}
    copied = operation(values_of(source), **options)
    copied = copied.clone() if copied is values_of(source) else copied
    return OnDevice(copied) if target.type == NAME else copied


def values_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the CPU tensor with the content of a tensor of any device."""
    return tensor.values if isinstance(tensor, OnDevice) else tensor


def on_host(tree: Any) -> Any:
    """Return the arguments with tensors and devices replaced by those of the CPU."""
    tree = tree_map_only(OnDevice, values_of, tree)
    return tree_map_only(
        torch.device, lambda device: torch.device("cpu") if device.type == NAME else device, tree
    )


def require_one_device(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    """Validate devices as an accelerator does.

    Raises:
        MixedDevices: a tensor or a generator of the CPU is used with tensors of the device.
    """
    for leaf in tree_flatten((args, kwargs))[0]:
        if isinstance(leaf, torch.Generator):
            raise MixedDevices(f"{name} on '{NAME}' was given a generator of {leaf.device}")
        if not isinstance(leaf, torch.Tensor) or isinstance(leaf, OnDevice) or leaf.dim() == 0:
            continue
        index = name in BY_INDEX and leaf.dtype in (torch.int64, torch.bool)
        if not index:
            raise MixedDevices(
                f"{name} expects all tensors on '{NAME}', found one of shape {tuple(leaf.shape)} "
                f"on {leaf.device}"
            )


def patched(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return a factory, not dispatched by torch, that builds on the CPU and then moves."""

    def run(*args: Any, device: Any = None, requires_grad: bool = False, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        source = args[0] if args and isinstance(args[0], OnDevice) else None
        target = source.device if device is None and source is not None else device
        made = made if target is None else made.to(target)
        return made.requires_grad_() if requires_grad else made

    return run


_setup_privateuseone_for_python_backend(NAME)
library = torch.library.Library("_", "IMPL")
library.fallback(lambda operation, *args, **kwargs: compute(operation, args, kwargs), "PrivateUse1")
_tensor = torch.tensor


def _new_tensor(like: torch.Tensor, data: Any, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    return _tensor(data, dtype=dtype or like.dtype)


torch.tensor = patched(_tensor)
torch.Tensor.new_tensor = patched(_new_tensor)
