"""Other readings of outputs, labels and channels, measured on a few samples.

A wrong reading rarely stops a scan; it silently lowers the measured accuracy. Each candidate is
compared with the reading in use on the same samples by McNemar's exact test
(`audit.statistics.pairs`). It is *clearly better* if it is right more often and p < `LEVEL` divided
by the number of candidates.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from attackers.losses import misclassified
from audit.data import Dataset, check_labels
from audit.data.wording import shortened
from audit.errors import DataError, ModelError
from audit.evidence.chance import TRIAL_SAMPLES, chance_level
from audit.evidence.relabellings import SHOWN_LABELS, relabellings
from audit.evidence.samples import Samples
from audit.models.classifier import CUT, Classifier, two_columns
from audit.statistics.pairs import paired

LEVEL = 0.01
"""Level of the test of all candidates together; each one is tested at `LEVEL` / their number."""

MOST_OUTPUTS = 8
"""Largest number of other outputs of a file that are tried."""


@dataclass(frozen=True)
class Finding:
    """A sentence about how model and data are read.

    Attributes:
        text: the finding and the advice.
        doubtful: whether the reading in use may be the wrong one.
    """

    text: str
    doubtful: bool


@dataclass(frozen=True)
class Candidate:
    """Another reading of the model or the data, with its result on some samples.

    Attributes:
        kind: "output", "labels", "file labels", "channels" or "threshold".
        name: name of an output, or the reading in words; a sentence starts with it.
        advice: what to do if it is the right one.
        rows: (n,) int64 rows of the samples that it was measured on.
        correct: (n,) bool, which of these samples are classified correctly under it.
    """

    kind: str
    name: str
    advice: str
    rows: Tensor
    correct: Tensor


def findings(classifier: Classifier, samples: Samples, dataset: Dataset) -> tuple[Finding, ...]:
    """Return findings about other readings, most of them measured on `TRIAL_SAMPLES` samples."""
    candidates = [
        *_outputs(classifier, samples),
        *_relabelled(classifier, samples, dataset),
        *_channels(classifier, samples),
        *_thresholds(classifier, samples),
    ]
    test = _Test(samples, len(candidates))
    found = [*_of_outputs(classifier, candidates, test)]
    found += _of_listed_labels(classifier, samples, dataset, candidates, test)
    for kind in ("labels", "channels", "threshold"):
        better = [entry for entry in candidates if entry.kind == kind and test.better(entry)]
        if better:
            best = max(better, key=test.share)
            found.append(Finding(f"{test.sentence(best)} {best.advice}", doubtful=True))
    return tuple(found)


def require_labels(dataset: Dataset, classifier: Classifier, x: Tensor, labels: Tensor) -> None:
    """Raise on labels that the model cannot predict; suggest numberings that would fit.

    Args:
        dataset: the data.
        classifier: the model.
        x: (N, ...) samples of the data.
        labels: (N,) int64 labels of these samples.

    Raises:
        DataError: a label is outside [0, classes).
    """
    try:
        check_labels(dataset, classifier.classes)
    except DataError as error:
        hints = "".join(f" {hint}" for hint in _hints(dataset, classifier, x, labels))
        raise DataError(f"{error}{hints}") from error


def _hints(dataset: Dataset, classifier: Classifier, x: Tensor, labels: Tensor) -> Iterator[str]:
    declared = classifier.declared.labels
    if declared and classifier.output != "labels":
        yield f"The file lists the labels {shortened(declared, SHOWN_LABELS)} for its scores."
    rows = spread(len(x))
    prediction = classifier.predict(x[rows])
    for other in relabellings(classifier, dataset):
        if max(other.index.values()) < classifier.classes:
            right = float((prediction == other.of(labels[rows])).double().mean())
            if right > chance_level(classifier.classes, len(rows)):
                yield (
                    f"{other.name} {right:.1%} of {len(rows)} samples are classified correctly. "
                    f"{other.advice}"
                )


def spread(n: int) -> Tensor:
    """Return up to `TRIAL_SAMPLES` of n rows, evenly spaced: data is often sorted by class."""
    return torch.from_numpy(
        np.unique(np.linspace(0, n - 1, min(n, TRIAL_SAMPLES)).astype(np.int64))
    )


def _relabelled(classifier: Classifier, samples: Samples, dataset: Dataset) -> Iterator[Candidate]:
    # The predictions are known already, so all samples are used.
    rows = torch.arange(len(samples))
    for other in relabellings(classifier, dataset):
        right = samples.prediction == other.of(samples.labels)
        yield Candidate(other.kind, other.name, other.advice, rows, right)


def _of_listed_labels(
    classifier: Classifier,
    samples: Samples,
    dataset: Dataset,
    candidates: list[Candidate],
    test: "_Test",
) -> Iterator[Finding]:
    """Yield the finding about the labels that the file lists, if there is one."""
    labels = classifier.declared.labels
    if not labels or classifier.output == "labels":
        return
    opening = (
        f"The file lists the labels {shortened(labels, SHOWN_LABELS)} for its scores, and the "
        "labels of the data "
        f"were read as positions in that list, 0 to {classifier.classes - 1}."
    )
    for candidate in candidates:
        if candidate.kind == "file labels":
            if test.better(candidate):
                text = f"{opening} {test.sentence(candidate)} {candidate.advice}"
                yield Finding(text, doubtful=True)
            elif test.worse(candidate):
                yield Finding(f"{opening} This fits clearly better.", doubtful=False)
            else:
                text = (
                    f"{opening} The samples do not show which reading is right. {candidate.advice}"
                )
                yield Finding(text, doubtful=True)
            return
    if classifier.declared.integers is None and dataset.class_names is None:
        yield Finding(opening, doubtful=False)


def _outputs(classifier: Classifier, samples: Samples) -> Iterator[Candidate]:
    """Yield the other float outputs of the file that have a score for every label."""
    rows = spread(len(samples))
    prepared = classifier.spec.prepare(samples.x[rows])
    needed = int(samples.labels.max()) + 1
    for name, make in list(classifier.declared.others.items())[:MOST_OUTPUTS]:
        try:
            scores = make()(prepared).reshape(len(rows), -1)
        except (ModelError, RuntimeError):
            continue  # not numbers, or not one row per sample, so not scores
        inside = bool(((scores >= 0) & (scores <= 1)).all())
        scores = two_columns(scores, "probabilities" if inside else "logits")
        if needed <= scores.shape[1] and scores.shape[1] > 1:
            right = ~misclassified(scores, samples.labels[rows])
            advice = "Export the model with that output alone."
            yield Candidate("output", name, advice, rows, right)


def _of_outputs(
    classifier: Classifier, candidates: list[Candidate], test: "_Test"
) -> Iterator[Finding]:
    """Yield which output is used, and whether another one fits as well or better."""
    declared = classifier.declared
    if not declared.others:
        return
    names = ", ".join((declared.taken, *declared.others))
    text = (
        f"The file has {1 + len(declared.others)} float outputs ({names}); the first one, "
        f"{declared.taken}, is used as the scores."
    )
    open_, doubtful = [], False
    for candidate in candidates:
        if candidate.kind == "output":
            if test.better(candidate):
                named = replace(candidate, name=f"With the output {candidate.name}")
                text += f" {test.sentence(named)} {candidate.advice}"
                doubtful = True
            elif not test.worse(candidate) and not test.same(candidate):
                open_.append(f"{candidate.name} ({test.share(candidate):.1%})")
    if open_:
        text += (
            f" The samples do not distinguish it from {', '.join(open_)}. If another output holds "
            "the scores, export the model with that output alone."
        )
    yield Finding(text, doubtful or bool(open_))


def _channels(classifier: Classifier, samples: Samples) -> Iterator[Candidate]:
    """Yield images of three channels in reverse order, before and after mean and deviation."""
    spec = classifier.spec
    if len(spec.sample) != 3 or spec.sample[0] != 3:
        return
    rows = spread(len(samples))
    reversed_ = samples.x[rows].flip(1)
    turned = replace(
        spec,
        mean=None if spec.mean is None else spec.mean[::-1],
        std=None if spec.std is None else spec.std[::-1],
    )
    name = "With the colour channels in reverse order (BGR)"
    store = (
        "The model seems to expect BGR: export it with the reversal of the channels as its first "
        "operation, or store the data with reversed channels in an .npz"
    )
    options = {f"{name}": (spec, f"{store}.")}
    if turned != spec:
        options = {
            f"{name}, and --mean and --std reversed with them,": (
                turned,
                f"{store} and reverse --mean and --std.",
            ),
            f"{name} before --mean and --std": (spec, f"{store} and keep --mean and --std."),
        }
    for words, (reading, advice) in options.items():
        scores = replace(classifier, spec=reading).deployed(reversed_)
        right = ~misclassified(scores, samples.labels[rows])
        yield Candidate("channels", words, advice, rows, right)


def _thresholds(classifier: Classifier, samples: Samples) -> Iterator[Candidate]:
    """Yield the reading of a single column, used as a logit so far, as cut at one half."""
    if classifier.output != "logits" or classifier.classes != 2:
        return
    rows = spread(len(samples))
    scores = classifier.serve(classifier.spec.prepare(samples.x[rows])).reshape(len(rows), -1)
    if scores.shape[1] == 1:
        right = ~misclassified(two_columns(scores - CUT, "logits"), samples.labels[rows])
        name = "With the one output column cut at 0.5, instead of at 0 as a logit,"
        advice = "Export the model with 0.5 subtracted from its output."
        yield Candidate("threshold", name, advice, rows, right)


@dataclass(frozen=True)
class _Test:
    """Test that compares each of ``number`` candidates with the reading in use."""

    samples: Samples
    number: int

    def better(self, candidate: Candidate) -> bool:
        """Return whether a candidate is clearly better than the reading in use."""
        return self._clear(candidate) and self.share(candidate) > self._used(candidate)

    def worse(self, candidate: Candidate) -> bool:
        """Return whether a candidate is clearly worse than the reading in use."""
        return self._clear(candidate) and self.share(candidate) < self._used(candidate)

    def same(self, candidate: Candidate) -> bool:
        """Return whether a candidate is right on the same samples as the reading in use."""
        return bool((self._base(candidate) == candidate.correct).all())

    def share(self, candidate: Candidate) -> float:
        """Return the accuracy under a candidate."""
        return float(candidate.correct.double().mean())

    def sentence(self, candidate: Candidate) -> str:
        """Return a sentence with both accuracies and the p-value."""
        return (
            f"{candidate.name} {self.share(candidate):.1%} instead of {self._used(candidate):.1%} "
            f"of {len(candidate.rows)} samples are classified correctly (p = "
            f"{self._p(candidate):.1g})."
        )

    def _base(self, candidate: Candidate) -> Tensor:
        return self.samples.correct[candidate.rows]

    def _used(self, candidate: Candidate) -> float:
        return float(self._base(candidate).double().mean())

    def _p(self, candidate: Candidate) -> float:
        return paired(self._base(candidate).numpy(), candidate.correct.numpy(), 0.95).p_value

    def _clear(self, candidate: Candidate) -> bool:
        return self._p(candidate) < LEVEL / self.number
