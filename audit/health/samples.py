"""Checks of the samples: independence, and whether the model distinguishes their classes."""

from collections.abc import Sequence

from audit.evidence.samples import Samples, tied
from audit.health.needs import SCORES
from audit.health.registry import CheckResult, check
from audit.health.subjects import ModelSubject

FEWEST_DISTINCT = 0.9
"""Share of distinct samples below which the intervals must not be relied on."""

MOST_TIES = 0.01
"""Share of samples that may have a tie for the top score by coincidence, with quantised scores."""


@check(
    "majority",
    ModelSubject,
    title="Accuracy beats the most frequent class",
    advice="Check how labels and outputs are read ('audit inspect'), and evaluate on samples of "
    "all classes: the robustness of such a classifier is meaningless.",
)
def majority(subject: ModelSubject) -> CheckResult:
    """Check that the model is correct more often than always predicting the most frequent class."""
    return compare_with_majority(subject.samples, subject.class_names)


def compare_with_majority(samples: Samples, names: Sequence[str] | None = None) -> CheckResult:
    """Compare the accuracy with that of always predicting the most frequent class.

    Args:
        samples: all audited samples.
        names: names of the classes by label, if the data has them.
    """
    labels, counts = samples.labels.unique(return_counts=True)
    largest = int(counts.argmax())
    most, n = int(counts[largest]), len(samples)
    name = named(int(labels[largest]), names)
    correct = int(samples.correct.sum())
    numbers = {
        "correct": correct,
        "most_frequent": most,
        "samples": n,
        "accuracy": samples.accuracy,
        "most_frequent_share": most / n,
    }
    seen = (
        f"{correct} of {n} samples ({samples.accuracy:.1%}) are classified correctly; {most} of "
        f"{n} ({most / n:.1%}) belong to {name}"
    )
    if correct > most:
        return CheckResult("pass", f"{seen}, the most frequent class.", numbers)
    constant = samples.constant
    also = (
        ""
        if constant is None
        else f", and the model predicts {named(constant, names)} for every sample"
    )
    finding = f"{seen}: always predicting this class would do as well{also}."
    return CheckResult("warn", finding, numbers)


@check(
    "ties",
    ModelSubject,
    title="Top scores are unique",
    advice="Serve logits, or scores of a higher precision that do not saturate.",
    needs=(SCORES,),
)
def ties(subject: ModelSubject) -> CheckResult:
    """Check that one class has the largest score; a tie is an error even without an adversary."""
    samples = subject.samples
    rows = tied(subject.classifier, samples)
    count, n = int(rows.sum()), len(samples)
    if count == 0:
        finding = "The class of the label is not tied for the top score on any sample."
        return CheckResult("pass", finding, {"tied": 0, "samples": n})
    right = int((samples.prediction == samples.labels)[rows].sum())
    finding = (
        f"On {count} of {n} samples the class of the label shares the top score with another one, "
        f"which counts as an error ({right} of them would be correct if the first of the tied "
        "classes were chosen)."
    )
    numbers = {"tied": count, "right_if_first": right, "samples": n}
    return CheckResult("pass" if count <= MOST_TIES * n else "warn", finding, numbers)


@check(
    "distinct",
    ModelSubject,
    title="Samples are distinct",
    advice="Remove the duplicates: intervals assume independent samples and are too narrow.",
)
def distinct(subject: ModelSubject) -> CheckResult:
    """Check that samples are not copies of each other: intervals assume independent samples."""
    count, n = len(set(subject.samples.generator.keys)), len(subject.samples)
    numbers = {"distinct": count, "samples": n}
    if count < FEWEST_DISTINCT * n:
        finding = f"Only {count} of {n} samples are distinct (input and label together)."
        return CheckResult("warn", finding, numbers)
    return CheckResult("pass", f"{count} of {n} samples are distinct.", numbers)


@check(
    "reading",
    ModelSubject,
    title="Outputs, labels and channels are read correctly",
    advice="Follow the finding: export the model with one output, pass a class map, or reverse the "
    "channels.",
)
def reading(subject: ModelSubject) -> CheckResult:
    """Check that no other reading of outputs, labels or channels fits the labels clearly better."""
    doubts = [finding.text for finding in subject.readings if finding.doubtful]
    if doubts:
        return CheckResult("warn", " ".join(doubts), {"better_readings": len(doubts)})
    finding = "No other reading of outputs, labels or channels fits clearly better."
    return CheckResult("pass", finding, {"better_readings": 0})


def named(label: int, names: Sequence[str] | None) -> str:
    """Return the class of a label in words, with its name if the data has one."""
    known = names is not None and label < len(names)
    return f"class {label}" + (f" ({names[label]})" if known and names is not None else "")
