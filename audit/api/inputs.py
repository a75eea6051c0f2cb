"""Models and data as users pass them: paths, or Python objects."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audit.data import Dataset, open_data
from audit.data.in_memory import from_arrays, from_torch_dataset
from audit.errors import UsageError
from audit.models import (
    Classifier,
    load_callable,
    load_classifier,
    load_module,
    pick_device,
)
from audit.models.classifier import Load
from audit.models.files import identify
from audit.options import LoadOptions, ReadOptions

ModelLike = str | Path | torch.nn.Module | Callable[..., Any]
"""File, module, or function from a batch ``(B, ...)`` to scores ``(B, K)``."""

DataLike = str | Path | tuple[Any, Any] | torch.utils.data.Dataset[Any]
"""File or folder, pair of samples and labels, or map-style data set of such pairs."""


def are_files(*objects: object) -> bool:
    """Return whether each object is a path."""
    return all(isinstance(entry, str | Path) for entry in objects)


def check_model(model: ModelLike, loading: LoadOptions) -> None:
    """Validate a model argument before anything is read or computed.

    Raises:
        UsageError: the object is not a model, or the device does not exist.
        ModelError: the file is missing or of an unknown format.
    """
    pick_device(loading.device)
    if isinstance(model, str | Path):
        identify(Path(model))
    elif not callable(model):
        raise UsageError(
            f"A model must be a path, a torch.nn.Module or a function of a batch, found an object "
            f"of type {type(model).__name__}."
        )


def loader_of(model: ModelLike, loading: LoadOptions) -> Load:
    """Return the function that loads a model for given samples and a number of classes."""

    def load(x: Tensor, classes: int) -> Classifier:
        if isinstance(model, str | Path):
            return load_classifier(Path(model), x, loading, label_classes=classes)
        if isinstance(model, torch.nn.Module) and not isinstance(model, torch.jit.ScriptModule):
            return load_module(model, x, loading, label_classes=classes)
        return load_callable(model, x, loading, label_classes=classes)

    return load


def open_samples(data: DataLike, reading: ReadOptions, low: float, high: float) -> Dataset:
    """Open labelled samples in ``[low, high]``.

    Raises:
        AuditError: the samples cannot be read; see `audit.data`.
    """
    if isinstance(data, str | Path):
        return open_data(
            Path(data), low=low, high=high, resize=reading.resize, class_map=reading.class_map
        )
    if isinstance(data, tuple | list) and len(data) == 2:
        return from_arrays(*data, low=low, high=high, reading=reading)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        return from_torch_dataset(data, low=low, high=high, reading=reading)
    raise UsageError(
        "Data must be a path, a pair (samples, labels) of arrays or tensors, or a torch Dataset "
        f"with a length, found an object of type {type(data).__name__}."
    )
