"""A labelled data set whose samples are read on demand, in the user's [low, high] units."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audit.data.classes import ClassMap, list_classes
from audit.data.pixels import check_range, clip_inward
from audit.errors import DataError, NothingToEvaluate, UsageError

Fetch = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Function from row indices (n,) to samples (n, *shape), scaled to [low, high], not yet checked."""


@dataclass(frozen=True)
class Options:
    """Options for reading samples.

    Attributes:
        low: smallest value of a pixel; integer 0 is mapped to it.
        high: largest value of a pixel; the largest integer of the type is mapped to it.
        resize: (height, width) in pixels that image files are resized and cropped to, or None.
        channels: number of channels of an image (1, 3 or 4); None: as in the first image.
        class_map: index of each class name; None: names are numbered in sorted order.
    """

    low: float
    high: float
    resize: tuple[int, int] | None = None
    channels: int | None = None
    class_map: ClassMap | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise UsageError(
                f"--low {self.low:g} --high {self.high:g}: two finite numbers are expected, "
                "with --low smaller than --high."
            )
        if self.channels not in (None, 1, 3, 4):
            raise UsageError(f"channels = {self.channels}: images have 1, 3 or 4 channels.")
        if self.resize is not None and min(self.resize) < 1:
            height, width = self.resize
            raise UsageError(f"--resize {height}x{width}: both sides must be at least 1 pixel.")


@dataclass(frozen=True, eq=False)
class Manifest:
    """Description of a data set without its samples, known before any sample is read.

    Attributes:
        path: file or folder, as the user gave it.
        sha256: hexadecimal digest over the bytes of all files (see `audit.data.digest`).
        labels: (N,) int64.
        options: how samples are read.
        class_names: name of class k at position k; None if the data has no class names.
        notes: one sentence for each conversion or choice made so far.
    """

    path: Path
    sha256: str
    labels: NDArray[np.int64]
    options: Options
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def noting(self, *notes: str) -> "Manifest":
        """Return the manifest with further notes."""
        return replace(self, notes=(*self.notes, *notes))


@dataclass(frozen=True, eq=False)
class StoredSamples:
    """Samples that are read on demand.

    Attributes:
        count: number of samples.
        shape: shape of one sample.
        fetch: function that reads rows.
    """

    count: int
    shape: tuple[int, ...]
    fetch: Fetch


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labels in memory, samples on demand.

    Attributes:
        path: file or folder, as the user gave it.
        sha256: hexadecimal digest over the bytes of all files read (see `audit.data.digest`).
        labels: (N,) int64, read-only.
        shape: shape of one sample: (C, H, W) for images, otherwise as stored.
        class_names: name of class k at position k; None if the data has no class names.
        notes: a sentence for every conversion made.
        folders: names of the class folders whose numbers are the labels, if any.
    """

    path: str
    sha256: str
    labels: NDArray[np.int64]
    shape: tuple[int, ...]
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]
    options: Options = field(repr=False)
    fetch: Fetch = field(repr=False)
    folders: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: NDArray[np.integer]) -> NDArray[np.float32]:
        """Read the samples in the given rows, in that order; rows may repeat.

        Args:
            indices: (n,) rows in [0, N).

        Returns:
            (n, *shape) float32, finite, every value in [low, high] (also when compared in float64).

        Raises:
            DataError: a value is not finite or outside [low, high]; states row, value and remedy.
            IndexError: a row is outside [0, N).
        """
        rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {len(self)} samples")
        if not rows.size:
            return np.empty((0, *self.shape), dtype=np.float32)
        x = self.fetch(rows)
        check_range(x, rows, self.path, self.options.low, self.options.high)
        return clip_inward(x, self.options.low, self.options.high)


def assemble(manifest: Manifest, samples: StoredSamples) -> Dataset:
    """Combine labels and samples into a `Dataset`, with the checks that all formats share.

    Raises:
        DataError: the numbers of samples and labels differ, or the class map lacks a label.
        NothingToEvaluate: there is no sample.
    """
    path, options = str(manifest.path), manifest.options
    if samples.count != len(manifest.labels):
        raise DataError(
            f"{path}: {samples.count} samples but {len(manifest.labels)} labels; "
            "each sample needs exactly one label, in the same order."
        )
    if samples.count == 0:
        raise NothingToEvaluate(f"{path} holds no samples.")
    labels = np.array(manifest.labels, dtype=np.int64)
    labels.setflags(write=False)
    class_names, notes = manifest.class_names, manifest.notes
    if options.class_map is not None and class_names is None:
        class_names, note = names_of_indices(path, labels, options.class_map)
        notes = (*notes, note)
    return Dataset(
        path=path,
        sha256=manifest.sha256,
        labels=labels,
        shape=samples.shape,
        class_names=class_names,
        notes=notes,
        options=options,
        fetch=samples.fetch,
    )


def names_of_indices(
    path: str, labels: NDArray[np.int64], class_map: ClassMap
) -> tuple[tuple[str, ...], str]:
    """Return class names for labels that are indices already, and a note about them.

    Raises:
        DataError: a label is not an index of the class map; states the first such row.
    """
    names = class_map.names
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if wrong.size:
        raise DataError(
            f"{path}: label {labels[wrong[0]]} in row {wrong[0]} is not an index of the "
            f"class map {class_map.path}, which has 0..{len(names) - 1}; does the map belong to "
            "this data?"
        )
    return names, (
        f"Labels are indices and remain unchanged; their names are from the class map "
        f"{class_map.path.name}: {list_classes(names)}."
    )


def check_labels(dataset: Dataset, classes: int) -> None:
    """Raise on labels that the model cannot predict.

    Args:
        dataset: the data.
        classes: number of classes of the model.

    Raises:
        DataError: a label is outside [0, classes); states the first such row.
    """
    labels = dataset.labels
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if not wrong.size:
        return
    one_based = labels.min() == 1 and labels.max() == classes
    advice = (
        "Labels seem to start at 1: subtract 1."
        if one_based
        else "Is this data meant for this model? Labels are class indices, counted from 0."
    )
    raise DataError(
        f"{dataset.path}: label {labels[wrong[0]]} in row {wrong[0]} ({wrong.size} such rows), "
        f"but the model has {classes} classes, so labels 0..{classes - 1} are expected. {advice}"
    )
