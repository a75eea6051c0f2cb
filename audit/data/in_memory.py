"""Data that is passed in Python: arrays, tensors, or a torch data set."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from audit.data.arrays import from_array
from audit.data.class_map import read_class_map
from audit.data.dataset import Dataset, Manifest, Options
from audit.data.labels import as_labels
from audit.errors import DataError, NothingToEvaluate
from audit.options import ReadOptions


def from_arrays(x: Any, y: Any, *, low: float, high: float, reading: ReadOptions) -> Dataset:
    """Make a `Dataset` from samples and labels in memory.

    Args:
        x: (N, ...) array or tensor: bool, uint8, uint16, or floating in ``[low, high]``.
        y: (N,) integers.
        low: smallest value of the data.
        high: largest value of the data.
        reading: how to read them; only the class map has an effect, as arrays are not resized.

    Raises:
        DataError: the arrays cannot be read as samples and labels.
        NothingToEvaluate: there is no sample.
    """
    samples, labels = as_array(x, "the samples"), as_array(y, "the labels")
    return _dataset("data given in Python", samples, labels, low, high, reading)


def from_torch_dataset(dataset: Any, *, low: float, high: float, reading: ReadOptions) -> Dataset:
    """Read a map-style torch data set into memory, in order.

    Every item is read once, so random transforms of the data set are drawn once.

    Args:
        dataset: a data set with a length, whose items are pairs of a sample (array, tensor or
            image) and a label.
        low: smallest value of the data.
        high: largest value of the data.
        reading: how to read them; only the class map has an effect, as arrays are not resized.

    Raises:
        DataError: an item is not such a pair, or items differ in shape or type.
        NothingToEvaluate: there is no sample.
    """
    name = type(dataset).__name__
    if not len(dataset):
        raise NothingToEvaluate(f"{name} holds no samples.")
    samples: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    for row in range(len(dataset)):
        item = dataset[row]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"{name}: item {row} is not a pair (sample, label), but an object of type "
                f"{type(item).__name__}."
            )
        sample = as_array(item[0], f"sample {row} of {name}")
        first = samples[0] if samples else sample
        if (sample.shape, sample.dtype) != (first.shape, first.dtype):
            raise DataError(
                f"{name}: sample {row} has shape {sample.shape} and type {sample.dtype}, but the "
                f"first one has shape {first.shape} and type {first.dtype}: transform all samples "
                "to the same shape and type."
            )
        samples.append(sample)
        labels.append(as_array(item[1], f"label {row} of {name}"))
    if len({label.shape for label in labels}) > 1:
        raise DataError(f"{name}: labels differ in shape; expected one integer per sample.")
    return _dataset(name, np.stack(samples), np.stack(labels), low, high, reading)


def as_array(value: Any, what: str) -> NDArray[Any]:
    """Turn an array, a tensor, an image or a list into a NumPy array.

    Raises:
        DataError: the value is not one of these.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        # NumPy has no bfloat16.
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{what.capitalize()} cannot be read as an array ({error}).") from error
    if array.dtype.hasobject:
        raise DataError(
            f"{what.capitalize()} cannot be read as an array of numbers (found "
            f"{type(value).__name__}): pass an array or a tensor."
        )
    return array


def _dataset(
    name: str,
    samples: NDArray[Any],
    labels: NDArray[Any],
    low: float,
    high: float,
    reading: ReadOptions,
) -> Dataset:
    classes = None if reading.class_map is None else read_class_map(reading.class_map)
    digest = hashlib.sha256()
    for array in (samples, labels):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    options = Options(low, high, reading.resize, None, classes)
    numbers = as_labels(labels, f"{name}: labels")
    return from_array(samples, Manifest(Path(name), digest.hexdigest(), numbers, options))
