"""Checks of the evaluated samples: are they independent, and does the model tell them apart?"""

from collections.abc import Sequence

from audit.evidence.readings import Finding
from audit.evidence.samples import Samples, tied
from audit.health.common import entry
from audit.models.classifier import Classifier
from audit.schema import Health

FEWEST_DISTINCT = 0.9
"""Share of distinct samples below which the intervals are not to be relied on."""

MOST_TIES = 0.01
"""Share of samples with a tie for the top class that quantised scores may have by coincidence."""


def distinct(samples: Samples) -> Health:
    """Intervals assume independent samples; copies of one sample are not."""
    count, n = len(set(samples.generator.keys)), len(samples)
    if count < FEWEST_DISTINCT * n:
        return entry(
            "distinct",
            "warn",
            f"Only {count} of {n} samples are distinct (input and label together): the intervals "
            "assume independent samples and are too narrow. Remove the duplicates.",
        )
    return entry("distinct", "pass", f"{count} of {n} samples are distinct.")


def majority(samples: Samples, names: Sequence[str] | None = None) -> Health:
    """The model is right more often than one that always names the most frequent class."""
    labels, counts = samples.labels.unique(return_counts=True)
    place = int(counts.argmax())
    most, n = int(counts[place]), len(samples)
    name = named(int(labels[place]), names)
    correct = int(samples.correct.sum())
    numbers = (
        f"{correct} of {n} samples ({samples.accuracy:.1%}) are classified correctly; {most} of "
        f"{n} ({most / n:.1%}) are of {name}"
    )
    if correct > most:
        return entry("majority", "pass", f"{numbers}, the most frequent one.")
    constant = samples.constant
    said = (
        f" The model names {named(constant, names)} for every sample."
        if constant is not None
        else ""
    )
    return entry(
        "majority",
        "warn",
        f"{numbers}: a model that always names it would do as well.{said} Robustness of such an "
        "accuracy means little: check how labels and outputs are read, and evaluate on samples of "
        "all classes.",
    )


def ties(classifier: Classifier, samples: Samples) -> Health:
    """The largest score belongs to one class; a tie counts as an error, without an adversary."""
    if classifier.output == "labels" or classifier.base is not None:
        return entry("ties", "not_applicable", "The model names a class and serves no scores.")
    rows = tied(classifier, samples)
    count, n = int(rows.sum()), len(samples)
    if count == 0:
        return entry("ties", "pass", "On no sample is the label's class tied for the top.")
    right = int((samples.prediction == samples.labels)[rows].sum())
    detail = (
        f"On {count} of {n} samples the label's class shares the top score with another one, which "
        f"counts as an error ({right} of them would be right if the first of the tied classes "
        "were taken)."
    )
    if count <= MOST_TIES * n:
        return entry("ties", "pass", detail)
    return entry(
        "ties",
        "warn",
        f"{detail} Serve logits, or scores of a higher precision that do not saturate.",
    )


def reading(found: Sequence[Finding]) -> Health:
    """No other reading of outputs, labels or channels fits the labels clearly better."""
    doubts = [finding.text for finding in found if finding.doubtful]
    if doubts:
        return entry("reading", "warn", " ".join(doubts))
    return entry(
        "reading", "pass", "No other reading of outputs, labels or channels fits clearly better."
    )


def named(label: int, names: Sequence[str] | None) -> str:
    """The class of a label in words, with its name where the data has one."""
    known = names is not None and label < len(names)
    return f"class {label}" + (f" ({names[label]})" if known and names is not None else "")
