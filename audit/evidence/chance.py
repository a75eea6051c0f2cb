"""Stop before hours are spent: a model at chance is being fed the wrong thing."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from audit.errors import DataError, ModelError, NothingToEvaluate, UsageError
from audit.evidence.samples import Samples, tied
from audit.models.classifier import Classifier
from audit.models.preprocess import InputSpec, alternatives

TRIAL_SAMPLES = 256
"""Samples on which other readings of the data are tried."""


def require_better_than_chance(
    classifier: Classifier, samples: Samples, doubts: Sequence[str] = ()
) -> None:
    """Check that the clean accuracy is above what a model fed with the wrong thing may reach.

    Args:
        classifier: the model.
        samples: what it says of the data.
        doubts: sentences on other readings that may be right, for the message.

    Raises:
        DataError: it is not; the message says which other preprocessings were tried and what
            accuracy each would give.
        NothingToEvaluate: too few samples to tell, and none of them is correct.
    """
    correct, n = int(samples.correct.sum()), len(samples)
    if correct and samples.accuracy > chance_level(classifier.classes, n):
        return
    shared = tied(classifier, samples)
    found = tie_sentence(int(shared.sum()), n)
    if correct == 0 and n < 10:
        raise NothingToEvaluate(
            f"None of the {n} samples is classified correctly, so there is nothing to attack: "
            f"check labels and preprocessing, or give more samples.{' '.join((found, *doubts))}"
        )
    if ties_explain(classifier, samples, shared):
        raise DataError(
            f"Only {correct} of {n} samples ({samples.accuracy:.1%}) are classified correctly, no "
            f"more than chance allows with {classifier.classes} classes.{found} If the first of "
            "the tied classes were taken, the model would be right on "
            f"{int((samples.prediction == samples.labels).sum())} samples: its scores are "
            "saturated or too coarse. Do: serve logits, or scores of a higher precision."
        )
    tried = [(option, share) for option, _, share in other_readings(classifier, samples)]
    best = max(tried, key=lambda entry: entry[1], default=None)
    listing = "; ".join(f"{option}: {accuracy:.1%}" for option, accuracy in tried) or "nothing else"
    looks_right = best and best[1] > chance_level(classifier.classes, min(n, TRIAL_SAMPLES))
    steps = [doubt.rstrip(".") for doubt in doubts]
    if best and looks_right:
        steps.append(f"{best[0]} looks right")
    advice = (
        ". Or: ".join(steps)
        or "check that labels, --layout, --mean, --std, --low and --high are those of training"
    )
    raise DataError(
        f"The model is at chance: {correct} of {n} samples ({samples.accuracy:.1%}) are classified "
        f"correctly with {classifier.classes} classes, so data and model do not fit "
        f"together.{found} Tried on {min(n, TRIAL_SAMPLES)} samples: {listing}. Do: {advice}."
    )


def tie_sentence(ties: int, n: int) -> str:
    """A sentence on ties for the top class, to be appended; empty where there is none."""
    if not ties:
        return ""
    return (
        f" On {ties} of {n} samples the label's class shares the top score with another one, which "
        "counts as an error."
    )


def ties_explain(classifier: Classifier, samples: Samples, shared: Tensor) -> bool:
    """Whether the model would be above chance if the first of tied classes were its answer."""
    first = samples.prediction == samples.labels
    share = float(first.double().mean())
    above = share > chance_level(classifier.classes, len(samples))
    return above and bool(shared.any()) and samples.constant is None


def require_votes(classifier: Classifier, samples: Samples, sigma: float) -> None:
    """Check that the votes of the smoothed model still settle more samples than chance would.

    Raises:
        UsageError: they do not: the noise drowns the samples.
    """
    if samples.accuracy <= 1 / classifier.classes:
        raise UsageError(
            f"Under the noise of --smooth {sigma:g} the votes settle on the right class for only "
            f"{int(samples.correct.sum())} of {len(samples)} samples, no more than chance: choose "
            "less noise, or a model trained under it."
        )


def chance_level(classes: int, n: int) -> float:
    """Accuracy that a model fed garbage may reach: twice chance, and three standard deviations.

    With two or three classes twice chance would be absurd; the deviations alone decide there.
    """
    chance = 1 / classes
    noise = chance + 3 * math.sqrt(chance * (1 - chance) / n)
    return min(max(noise, 2 * chance), 0.9) if classes > 3 else min(noise, 0.9)


def other_readings(
    classifier: Classifier, samples: Samples
) -> Iterator[tuple[str, InputSpec, float]]:
    """Every other reading of the data that the model takes: options, reading, clean accuracy."""
    x, labels = samples.x[:TRIAL_SAMPLES], samples.labels[:TRIAL_SAMPLES]
    for option, spec in alternatives(classifier.spec):
        try:
            scores = replace(classifier, spec=spec).deployed(x)
        except ModelError:
            continue  # the model does not take this shape, so it cannot be what was meant
        yield option, spec, float((scores.argmax(1) == labels).double().mean())
