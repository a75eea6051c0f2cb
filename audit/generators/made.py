"""Images of a generator as generated: at the radius it was trained for, before the judge.

The accuracy on these images does not show an attack inside a ball: a transport loss that has not
converged can report any distance (docs/wagan.md). It is therefore reported with exact distances.
"""

import torch
from torch import Tensor

from attackers.geometry import Wasserstein
from attackers.losses import misclassified
from attackers.rows import row_max, row_sum
from attackers.wagan.attack import generated
from audit.evidence.samples import Samples
from audit.generators.generator_files import Trained
from audit.models.classifier import Classifier
from audit.runtime.progress import Progress, silent
from audit.schema import AsGenerated, GeneratorUsed, Interval, Spread
from audit.statistics.confidence import clopper_pearson

PLANNED = 200
"""Number of images whose exact transport distance is computed: each needs a linear program."""


def used(
    trained: Trained,
    classifier: Classifier,
    samples: Samples,
    confidence: float,
    progress: Progress = silent,
) -> GeneratorUsed:
    """Describe the generator of a scan and measure its images as generated."""
    return GeneratorUsed(
        path=trained.path,
        sha256=trained.sha256,
        head=trained.network.spec.head,
        variant=trained.variant,
        radius=trained.radius,
        transfer=transferred(classifier, trained),
        as_generated=as_generated(classifier, samples, trained, confidence, progress),
    )


def transferred(classifier: Classifier, trained: Trained) -> bool:
    """Return whether the generator was trained against another model than the scanned one."""
    return bool(trained.record["model_sha256"] != classifier.source.sha256)


def as_generated(
    classifier: Classifier,
    samples: Samples,
    trained: Trained,
    confidence: float,
    progress: Progress = silent,
) -> AsGenerated:
    """Measure the accuracy on the generated images of all samples, and their exact distances."""
    network = trained.network
    metric = Wasserstein(low=network.spec.low, high=network.spec.high)
    right, images = 0, []
    with progress("as generated", len(samples)) as tick:
        for rows in torch.arange(len(samples)).split(512):
            x0 = samples.x[rows].to(classifier.device)
            streams = samples.generator.take(rows).fold("as generated")
            x = generated(network, x0, trained.radius, streams).cpu()
            wrong = misclassified(classifier.deployed(x), samples.labels[rows])
            right += int((~wrong).sum())
            images.append(x)
            tick(len(rows))
    x0, x = samples.x, torch.cat(images)
    low, high = clopper_pearson(right, len(samples), confidence)
    change = x.double() - x0.double()
    few = slice(0, PLANNED)
    return AsGenerated(
        samples=len(samples),
        accuracy=Interval(value=right / len(samples), low=low, high=high),
        planned=len(x0[few]),
        wasserstein=spread_of(rescaled_distance(metric, x0[few], x[few])),
        l2=spread_of(row_sum(change.square()).sqrt()),
        linf=spread_of(row_max(change.abs())),
        mass_ratio=spread_of(metric.mass(x) / metric.mass(x0).clamp_min(1e-300)),
    )


def rescaled_distance(metric: Wasserstein, x0: Tensor, x: Tensor) -> Tensor:
    """Return the exact transport cost per unit of mass after rescaling every channel, ``(B,)``.

    The metric is not defined between images of different mass, so each channel of ``x`` is scaled
    to the mass it has in ``x0``. Where a channel is black in only one of the two, scaling is
    impossible and the distance is ``inf``.
    """
    held, left = x0.double() - metric.low, x.double() - metric.low
    before, after = held.sum((2, 3), keepdim=True), left.sum((2, 3), keepdim=True)
    scale = torch.where(before == after, 1.0, before / after)
    scaled = left * scale
    kept = scaled.isfinite().flatten(1).all(1)
    cost = torch.full((len(x0),), torch.inf, dtype=torch.float64)
    plans = metric.plans(held[kept], scaled[kept])
    cost[kept] = torch.tensor([sum(p.cost for p in each) for each in plans], dtype=torch.float64)
    return torch.where(cost > 0, cost / before.sum((1, 2, 3)).clamp_min(1e-300), 0.0)


def spread_of(values: Tensor) -> Spread:
    """Return the smallest, mean and largest value; None for a value that is not finite."""
    found = values.double()
    return Spread(
        smallest=_finite_or_none(found.min()),
        mean=_finite_or_none(found.mean()),
        largest=_finite_or_none(found.max()),
    )


def _finite_or_none(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None
