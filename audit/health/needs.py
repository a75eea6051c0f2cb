"""Conditions without which health checks do not apply, each with the reason that is reported."""

from typing import Protocol

from attackers import defined
from attackers.geometry import Wasserstein
from audit.evidence.samples import Samples
from audit.health.registry import Requirement
from audit.health.subjects import MetricSubject, ModelSubject
from audit.models.classifier import Classifier


class Audited(Protocol):
    """Subject that contains a classifier and samples."""

    @property
    def classifier(self) -> Classifier:
        """Audited model."""

    @property
    def samples(self) -> Samples:
        """All audited samples."""


GRADIENTS: Requirement[Audited] = Requirement(
    "It needs gradients, and the model has none.",
    lambda subject: subject.classifier.white_box is not None,
)

SCORES: Requirement[Audited] = Requirement(
    "It needs scores, and the model returns a class only.",
    lambda subject: subject.classifier.output != "labels" and subject.classifier.base is None,
)

LOGITS: Requirement[Audited] = Requirement(
    "It needs logits, and the model does not serve them.",
    lambda subject: subject.classifier.output == "logits",
)

CONTINUOUS_INPUTS: Requirement[Audited] = Requirement(
    "It needs floating-point inputs, and the model takes integers.",
    lambda subject: subject.classifier.spec.dtype.is_floating_point,
)

IMAGES: Requirement[Audited] = Requirement(
    "It needs images, and the inputs of the model are not images.",
    lambda subject: subject.classifier.spec.layout is not None,
)

UNSMOOTHED: Requirement[Audited] = Requirement(
    "It does not apply to a smoothed model, whose votes are too expensive or not comparable: scan "
    "without --smooth.",
    lambda subject: subject.classifier.base is None,
)

CORRECT_SAMPLES: Requirement[Audited] = Requirement(
    "No sample is classified correctly.",
    lambda subject: bool(subject.samples.correct.any()),
)

SERVED_COPY: Requirement[ModelSubject] = Requirement(
    "There is no differentiable copy to compare.",
    lambda subject: subject.served.has_copy,
)

QUANTISED_OPERATORS: Requirement[ModelSubject] = Requirement(
    "The file contains no quantised operators.",
    lambda subject: subject.served.unfused is not None,
)

COPY: Requirement[MetricSubject] = Requirement(
    "There is no differentiable copy to compare.",
    lambda subject: subject.classifier.has_copy,
)

FOUND_EXAMPLES: Requirement[MetricSubject] = Requirement(
    "No adversarial example was found.",
    lambda subject: bool((subject.radius.isfinite() & (subject.radius > 0)).any()),
)

FREE_PIXELS: Requirement[MetricSubject] = Requirement(
    "Rounding to 8 bits changes the mass, which this metric conserves.",
    lambda subject: not isinstance(subject.metric, Wasserstein),
)

SQUARE_SEARCH: Requirement[MetricSubject] = Requirement(
    "The search without gradients (square) is defined for linf and l2 only.",
    lambda subject: defined("square", subject.metric),
)
