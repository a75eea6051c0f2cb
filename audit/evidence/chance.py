"""Check that a model is better than chance on the clean samples, before a scan spends hours.

A model at chance usually receives wrongly prepared inputs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from audit.errors import DataError, ModelError, NothingToEvaluate, UsageError
from audit.evidence.samples import Samples, tied
from audit.models.classifier import Classifier
from audit.models.preprocess import InputSpec, alternatives

TRIAL_SAMPLES = 256
"""Number of samples on which other readings of the data are tried."""


def require_better_than_chance(
    classifier: Classifier, samples: Samples, doubts: Sequence[str] = ()
) -> None:
    """Raise unless the clean accuracy is above `chance_level`.

    Args:
        classifier: the model.
        samples: the samples with the predictions of the model.
        doubts: sentences about other readings that may be right, for the message.

    Raises:
        DataError: the accuracy is not above it; the message lists the other preprocessings that
            were tried, with the accuracy of each.
        NothingToEvaluate: there are too few samples to decide, and none of them is correct.
    """
    correct, n = int(samples.correct.sum()), len(samples)
    if correct and samples.accuracy > chance_level(classifier.classes, n):
        return
    shared = tied(classifier, samples)
    found = tie_sentence(int(shared.sum()), n)
    if correct == 0 and n < 10:
        raise NothingToEvaluate(
            f"None of the {n} samples is classified correctly, so there is nothing to attack: "
            f"check labels and preprocessing, or pass more samples.{' '.join((found, *doubts))}"
        )
    if ties_explain(classifier, samples, shared):
        raise DataError(
            f"Only {correct} of {n} samples ({samples.accuracy:.1%}) are classified correctly, "
            f"which is no better than chance with {classifier.classes} classes.{found} If the "
            "first of the tied classes counted as the prediction, the model would be right on "
            f"{int((samples.prediction == samples.labels).sum())} samples: its scores are "
            "saturated or too coarse. To fix this, serve logits, or scores of higher precision."
        )
    tried = [(option, share) for option, _, share in other_readings(classifier, samples)]
    best = max(tried, key=lambda entry: entry[1], default=None)
    listing = "; ".join(f"{option}: {accuracy:.1%}" for option, accuracy in tried) or "no others"
    looks_right = best and best[1] > chance_level(classifier.classes, min(n, TRIAL_SAMPLES))
    steps = [doubt.rstrip(".") for doubt in doubts]
    if best and looks_right:
        steps.append(f"{best[0]} looks right")
    advice = (
        ". Or: ".join(steps)
        or "check that labels, --layout, --mean, --std, --low and --high match the training"
    )
    raise DataError(
        f"The model is at chance: {correct} of {n} samples ({samples.accuracy:.1%}) are classified "
        f"correctly with {classifier.classes} classes, so the data does not fit the model.{found} "
        f"Tried on {min(n, TRIAL_SAMPLES)} samples: {listing}. Suggestion: {advice}."
    )


def tie_sentence(ties: int, n: int) -> str:
    """Return a sentence about ties for the top class, to append; empty if there are no ties."""
    if not ties:
        return ""
    return (
        f" On {ties} of {n} samples the label's class shares the top score with another class; "
        "such a tie counts as an error."
    )


def ties_explain(classifier: Classifier, samples: Samples, shared: Tensor) -> bool:
    """Return whether the model is above chance if the first of tied classes is its prediction."""
    first = samples.prediction == samples.labels
    share = float(first.double().mean())
    above = share > chance_level(classifier.classes, len(samples))
    return above and bool(shared.any()) and samples.constant is None


def require_votes(classifier: Classifier, samples: Samples, sigma: float) -> None:
    """Raise unless the votes of the smoothed model decide more samples correctly than chance.

    Raises:
        UsageError: they do not; the noise is too strong for the samples.
    """
    if samples.accuracy <= 1 / classifier.classes:
        raise UsageError(
            f"Under the noise of --smooth {sigma:g} the votes decide for the correct class on only "
            f"{int(samples.correct.sum())} of {len(samples)} samples, no better than chance: "
            "choose less noise, or a model that was trained under this noise."
        )


def chance_level(classes: int, n: int) -> float:
    """Return the accuracy up to which a model counts as being at chance.

    It is the larger of twice chance and chance plus three standard deviations, at most 0.9. With
    two or three classes, twice chance would be too high, so only the deviations are used.
    """
    chance = 1 / classes
    noise = chance + 3 * math.sqrt(chance * (1 - chance) / n)
    return min(max(noise, 2 * chance), 0.9) if classes > 3 else min(noise, 0.9)


def other_readings(
    classifier: Classifier, samples: Samples
) -> Iterator[tuple[str, InputSpec, float]]:
    """Yield every other reading of the data that the model accepts: options, spec, accuracy."""
    x, labels = samples.x[:TRIAL_SAMPLES], samples.labels[:TRIAL_SAMPLES]
    for option, spec in alternatives(classifier.spec):
        try:
            scores = replace(classifier, spec=spec).deployed(x)
        except ModelError:
            continue  # the model does not accept this shape, so it is not the right reading
        yield option, spec, float((scores.argmax(1) == labels).double().mean())
