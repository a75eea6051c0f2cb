"""The samples under audit: a seeded subset of the user's data, with the served predictions."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attackers.losses import margin, misclassified
from attackers.random_streams import SampleGenerator
from audit.data import Dataset
from audit.models.classifier import Classifier
from audit.runtime.storage import BLOCK, allocate


@dataclass(frozen=True)
class Samples:
    """All audited samples as one batch, on the CPU.

    Attributes:
        index: (N,) int64 row of each sample in the user's data, ascending.
        x: (N, ...) float32 in [low, high].
        labels: (N,) int64.
        prediction: (N,) int64 predictions of the served model.
        correct: (N,) bool, whether the label is the served model's unique top class.
        generator: one random stream per sample, keyed by its content and the seed.
    """

    index: Tensor
    x: Tensor
    labels: Tensor
    prediction: Tensor
    correct: Tensor
    generator: SampleGenerator

    def __len__(self) -> int:
        return len(self.index)

    @property
    def accuracy(self) -> float:
        """Share of all samples that are correct."""
        return int(self.correct.sum()) / len(self)

    @property
    def constant(self) -> int | None:
        """The class that the served model predicts for every sample; None if predictions differ."""
        first = self.prediction[:1]
        return int(first) if bool((self.prediction == first).all()) else None

    def probe(self, size: int) -> Tensor:
        """Return rows of up to ``size`` correct samples, whatever the order of the data."""
        keys = np.array(self.generator.keys)
        rows = self.correct.nonzero()[:, 0].numpy()
        return torch.from_numpy(rows[np.argsort(keys[rows], kind="stable")][:size])


def choose(
    available: int, wanted: int | None, seed: int
) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Draw which rows to audit: all, or a uniform random subset without replacement, ascending.

    The intervals assume an iid sample. A random subset of an iid sample is one; the first N rows
    of a sorted file are not.
    """
    if wanted is None or wanted >= available:
        return np.arange(available)
    return np.sort(np.random.default_rng(seed).permutation(available)[:wanted])


def read_samples(dataset: Dataset, index: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Tensor:
    """Read the chosen rows as a float32 tensor ``(N, ...)``, block by block."""
    x = allocate((len(index), *dataset.shape))
    for start in range(0, len(index), BLOCK):
        rows = dataset.read(index[start : start + BLOCK])
        x[start : start + len(rows)] = torch.from_numpy(np.asarray(rows, dtype=np.float32))
    return x


def evaluate(
    classifier: Classifier,
    x: Tensor,
    labels: Tensor,
    index: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    seed: int,
) -> Samples:
    """Run the served model on every sample."""
    scores = torch.cat([classifier.deployed(block) for block in x.split(BLOCK)])
    contents = (
        row.numpy().tobytes() + int(label).to_bytes(8, "little", signed=True)
        for row, label in zip(x, labels, strict=True)
    )
    return Samples(
        torch.from_numpy(np.asarray(index, dtype=np.int64)),
        x,
        labels,
        scores.argmax(1),
        ~misclassified(scores, labels),
        SampleGenerator.seeded(contents, seed),
    )


def tied(classifier: Classifier, samples: Samples) -> Tensor:
    """Return where the label's class shares the top score with another class, ``(N,)`` bool.

    All ties count as errors. A model that serves only labels has no ties.
    """
    found = torch.zeros(len(samples), dtype=torch.bool)
    if classifier.output == "labels" or bool(samples.correct.all()):
        return found
    for rows in (~samples.correct).nonzero()[:, 0].split(BLOCK):
        scores = classifier.deployed(samples.x[rows])
        found[rows] = margin(scores, samples.labels[rows]) == 0
    return found
