"""Fit of labelled data to a model: clean accuracy, and other readings that may be right."""

from collections.abc import Sequence

from torch import Tensor

from audit import health
from audit.data import Dataset
from audit.errors import AuditError
from audit.evidence import readings
from audit.evidence.chance import (
    chance_level,
    other_readings,
    require_better_than_chance,
    tie_sentence,
    ties_explain,
)
from audit.evidence.samples import Samples, evaluate, tied
from audit.inspection.fact import Fact
from audit.inspection.trial import trial_labels, trial_rows
from audit.models import Classifier
from audit.models.preprocess import InputSpec


def measure_fit(
    classifier: Classifier, dataset: Dataset, sample: Tensor
) -> tuple[list[Fact], InputSpec | None]:
    """Measure the clean accuracy; find the reading with which it is above chance, if there is one.

    Returns:
        The facts to show, and that reading; None where no reading can be recommended.
    """
    index = trial_rows(dataset)
    samples = evaluate(classifier, sample, trial_labels(dataset), index, 0)
    measured = f"{samples.accuracy:.1%} on {len(samples)} of {len(dataset)} samples"
    shared = tied(classifier, samples)
    found = readings.findings(classifier, samples, dataset)
    doubts = [finding.text for finding in found if finding.doubtful]
    spec: InputSpec | None = classifier.spec
    facts = [("clean accuracy", measured)]
    try:
        require_better_than_chance(classifier, samples, doubts)
        facts.append(("preprocessing", _fit(samples, doubts)))
        if bool(shared.any()):
            facts.append(("ties", tie_sentence(int(shared.sum()), len(samples)).strip()))
    except AuditError as error:
        facts.append(("preprocessing", str(error)))
        # No normalisation fixes tied scores, a wrong output or a wrong numbering.
        explained = ties_explain(classifier, samples, shared)
        spec = None if explained or doubts else _best_reading(classifier, samples)
        found = tuple(finding for finding in found if not finding.doubtful)  # the error states them
    facts += [("reading", finding.text) for finding in found]
    return [*facts, *(("data", note) for note in dataset.notes)], spec


def _fit(samples: Samples, doubts: Sequence[str]) -> str:
    """Return a sentence on the reading of the data, given that accuracy is above chance."""
    found = health.compare_with_majority(samples)
    if found.status == "pass" and doubts:
        return "doubtful: accuracy is well above chance, but another reading may be right"
    if found.status == "pass":
        return "fits: accuracy is well above chance"
    return f"doubtful: {found.finding} {health.samples.majority.advice}"


def _best_reading(classifier: Classifier, samples: Samples) -> InputSpec | None:
    """Return the other reading of the data with the highest accuracy above chance, or None."""
    best, reached = None, chance_level(classifier.classes, len(samples))
    for _, spec, accuracy in other_readings(classifier, samples):
        if accuracy > reached:
            best, reached = spec, accuracy
    return best
