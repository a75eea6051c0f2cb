"""Check that adversarial examples remain adversarial as 8-bit images."""

import torch
from torch import Tensor

from attackers.geometry import Metric
from attackers.losses import outvoted
from attackers.rows import expand
from audit.health.needs import CONTINUOUS_INPUTS, FREE_PIXELS, IMAGES
from audit.health.registry import CheckResult, check
from audit.health.subjects import PROBE_SIZE, MetricSubject
from audit.runtime.storage import BLOCK

REPRESENTABLE = 0.95
"""Share of the examples that must remain adversarial after rounding for `representable` to pass."""

HIGHEST_LEVEL = 255
"""Level of an 8-bit image at the upper end of the box; the lower end is level 0."""

LEVEL_TOLERANCE = 1e-3
"""Largest distance from an integer level, in levels, that counts as float32 rounding error."""


@check(
    "representable",
    MetricSubject,
    title="Examples survive 8-bit rounding",
    advice="If your adversary must send an image file, use the attacked accuracy with 8 bits: it "
    "is closer to the truth, although attacks designed for 8-bit images may find more examples.",
    needs=(FREE_PIXELS, IMAGES, CONTINUOUS_INPUTS),
)
def representable(subject: MetricSubject) -> CheckResult:
    """Check that examples still break the model as 8-bit images, which image files contain.

    Each example is rounded to the nearest of 256 levels, and also towards its original, which never
    leaves the ball. Rounding may move an example back across a nearby decision boundary although
    its ball contains others, so points half the way and all the way to the surface of the ball are
    rounded too. Pass: a share of `REPRESENTABLE` or all but one survive; the check never fails.

    Source: Carlini & Wagner 2017, "Towards Evaluating the Robustness of Neural Networks", on
    discretization: an example counts for an image only as integers.
    """
    samples, delta = subject.samples, subject.delta
    level = _levels(subject.metric, samples.x[samples.probe(PROBE_SIZE)])
    if bool(((level - level.round()).abs() > LEVEL_TOLERANCE).any()):
        return CheckResult("not_applicable", "The original samples are not 8-bit images.")
    rows = (samples.correct & (subject.radius <= delta)).nonzero()[:, 0]
    if not len(rows):
        return CheckResult("not_applicable", f"No example was found at {delta:.3g}.")
    kept = sum(
        int(_survives_rounding(subject, block, subject.x[block]).sum())
        for block in rows.split(BLOCK)
    )
    correct, total = int(samples.correct.sum()), len(samples)
    with_8_bits, as_counted = (correct - kept) / total, (correct - len(rows)) / total
    finding = (
        f"{kept} of {len(rows)} examples within {delta:.3g} still break the model as 8-bit images: "
        f"attacked accuracy {with_8_bits:.1%} with 8 bits, {as_counted:.1%} as counted."
    )
    numbers = {
        "surviving": kept,
        "examples": len(rows),
        "attacked_accuracy_8_bit": with_8_bits,
        "attacked_accuracy": as_counted,
        "delta": delta,
    }
    survive = kept / len(rows) >= REPRESENTABLE or kept == len(rows) - 1 > 0
    return CheckResult("pass" if survive else "warn", finding, numbers)


def _survives_rounding(subject: MetricSubject, rows: Tensor, x: Tensor) -> Tensor:
    """Return which examples ``x`` of the rows have an 8-bit image that breaks the model, (B,)."""
    samples, metric, delta = subject.samples, subject.metric, subject.delta
    x0, labels = samples.x[rows], samples.labels[rows]
    origin = _levels(metric, x0).round()
    room = delta / metric.distance(x0, x)
    survives = torch.zeros(len(rows), dtype=torch.bool)
    for share in (0.0, 0.5, 1.0):
        stretched = x0 + expand(1 + share * (room - 1), x0) * (x - x0)
        steps = _levels(metric, metric.project(x0, metric.clamp(stretched), delta)) - origin
        nearest = steps.round()
        # A value that is off a level by rounding error only is kept on that level.
        on_level = (steps - nearest).abs() < LEVEL_TOLERANCE
        towards = torch.where(on_level, nearest, steps.trunc())
        for chosen in (nearest, towards):
            image = _pixels(metric, (origin + chosen).clamp(0, HIGHEST_LEVEL))
            inside = metric.distance(_pixels(metric, origin), image) <= delta * (1 + 1e-9)
            survives |= inside & outvoted(subject.classifier.deployed(image.float()), labels)
    return survives


def _levels(metric: Metric, x: Tensor) -> Tensor:
    """Return the level of every value, float64: an integer from 0 to 255 for an 8-bit image."""
    return (x.double() - metric.low) / (metric.high - metric.low) * HIGHEST_LEVEL


def _pixels(metric: Metric, level: Tensor) -> Tensor:
    """Return the values in the box for levels of an image file, float64."""
    return metric.low + (metric.high - metric.low) * (level / HIGHEST_LEVEL)
