"""First-order sensitivity of the loss to distributional attacks, and estimates of accuracy.

With J a loss, g = ∇_x J, 1/p + 1/q = 1 and ||.||_* dual to the metric (Bai, He, Jiang, Obloj 2023,
after Bartl, Drapeau, Obloj, Wiesel 2021):

    Upsilon = (E ||g||_*^q)^(1/q),     sup_Q E_Q J = V(0) + delta·Upsilon + o(delta).

From one first-order attack Q_delta and W(0) = E[J | misclassified] the paper builds

    R^u = Q_delta(S) / A                                     an upper bound on R_delta
    R~l = (W(0) - E_{Q_delta} J) / (W(0) - V(0))             two lower *estimates*: they hold up to
    R-l = (W(0) - V(0) - delta·Upsilon) / (W(0) - V(0))      o(delta) only and are often violated

All depend on the loss, so every number is stated with it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attackers.geometry import Metric
from attackers.gradient import value_and_grad
from attackers.losses import LOSSES, Loss, misclassified
from attackers.rows import expand
from attackers.wdro import conjugate, power_mean
from audit.evidence.samples import Samples
from audit.models.classifier import Classifier
from audit.schema import Interval, Sensitivity, SensitivityPoint
from audit.statistics.confidence import Floats, bootstrap
from audit.statistics.value import first_order_points
from audit.values import order_name

SENSITIVITY_LOSSES = ("ce", "dlr", "redlr")
Offer = Callable[[Tensor, Tensor, Tensor], None]
"""Function that receives (rows, candidates, misclassified) of every first-order attack."""


@dataclass(frozen=True)
class Measured:
    """First-order quantities, and the losses at the samples ``(N,)``, by name."""

    entries: list[Sensitivity]
    losses: dict[str, Floats]


@dataclass(frozen=True)
class Question:
    """Parameters of the measurement.

    Attributes:
        metric: the threat's geometry.
        orders: p > 1 or inf; others are left out, since the first-order formula needs p > 1.
        deltas: budgets.
        confidence: confidence level of the bootstrap intervals.
        seed: seed of the bootstrap.
    """

    metric: Metric
    orders: tuple[float, ...]
    deltas: tuple[float, ...]
    confidence: float
    seed: int

    @property
    def finite(self) -> tuple[float, ...]:
        """Orders that the first-order formula covers."""
        return tuple(order for order in self.orders if order > 1)


@dataclass(frozen=True)
class Slopes:
    """Values ``(N,)`` of one loss at the samples, and dual norms ``(N,)`` of its gradients."""

    norms: Tensor
    values: Floats


@dataclass(frozen=True)
class AttackedLaw:
    """Effect of one first-order attack Q_delta on all samples.

    Attributes:
        survivors: number of samples that are still classified correctly.
        losses: (N,) the loss at the attacked samples.
    """

    survivors: int
    losses: Floats


def sensitivity(
    classifier: Classifier,
    samples: Samples,
    question: Question,
    *,
    rows: int,
    offer: Offer,
    tick: Callable[[int], None],
) -> Measured:
    """Return Upsilon, V(0) and the first-order estimates for every loss and every order p > 1.

    Args:
        classifier: the audited model, which must have gradients.
        samples: all audited samples; together they form one law, whether correct or not.
        question: metric, orders, budgets and intervals.
        rows: number of samples differentiated together.
        offer: receives every attacked sample, so that no found example is lost.
        tick: called with the number of samples that were done.
    """
    entries, losses = [], {}
    for name in SENSITIVITY_LOSSES if question.finite else ():
        loss = LOSSES[name]
        slopes = _slopes(classifier, question.metric, loss, samples, rows, tick)
        laws = _first_order_laws(
            classifier, samples, question, loss, slopes.norms, rows, offer, tick
        )
        losses[name] = slopes.values
        wrong = ~samples.correct.numpy()
        for order in question.finite:
            entries.append(_entry(name, order, question, slopes, wrong, laws))
    return Measured(entries, losses)


def _slopes(
    classifier: Classifier,
    metric: Metric,
    loss: Loss,
    samples: Samples,
    rows: int,
    tick: Callable[[int], None],
) -> Slopes:
    norms, values = [], []
    for x, labels in _batches(samples, rows):
        _, value, grad = value_and_grad(
            classifier.differentiable, loss, x.to(classifier.device), labels.to(classifier.device)
        )
        norms.append(metric.dual_norm(x.to(grad), grad.nan_to_num()).cpu())
        values.append(value.cpu())
        tick(len(x))
    return Slopes(torch.cat(norms), torch.cat(values).double().numpy())


def _first_order_laws(
    classifier: Classifier,
    samples: Samples,
    question: Question,
    loss: Loss,
    norms: Tensor,
    rows: int,
    offer: Offer,
    tick: Callable[[int], None],
) -> dict[tuple[float, float], AttackedLaw]:
    """Run W-FGSM for every order and budget, in batches: step lengths depend on all norms only."""
    metric, deltas = question.metric, question.deltas
    lengths = {order: _unit_lengths(norms, order) for order in question.finite}
    survivors = {(order, delta): 0 for order in question.finite for delta in deltas}
    losses: dict[tuple[float, float], list[Tensor]] = {key: [] for key in survivors}
    start = 0
    for x0, labels in _batches(samples, rows):
        chosen = torch.arange(start, start + len(x0))
        start += len(x0)
        y = labels.to(classifier.device)
        _, _, grad = value_and_grad(classifier.differentiable, loss, x0.to(classifier.device), y)
        longest = max(deltas, default=0.0) * torch.stack([*lengths.values()])[:, chosen].amax(0)
        centre = x0.to(grad)
        unit = metric.heading(centre, centre, grad.nan_to_num(), longest.to(grad.device)).cpu()
        for order, delta in survivors:
            step = expand(delta * lengths[order][chosen], x0)
            x = metric.clamp(x0 + unit * step)
            wrong = misclassified(classifier.deployed(x), labels)
            survivors[order, delta] += int((~wrong).sum())
            with torch.no_grad():
                scores = classifier.differentiable(x.to(classifier.device))
                losses[order, delta].append(loss(scores, y).cpu())
            offer(chosen, x, wrong)
        tick(len(x0))
    return {
        key: AttackedLaw(count, torch.cat(losses[key]).double().numpy())
        for key, count in survivors.items()
    }


def _unit_lengths(norms: Tensor, order: float) -> Tensor:
    """Return (||g||_*/Upsilon)^(q-1), the share of delta that each sample gets."""
    q = conjugate(order)
    upsilon = power_mean(norms, q)
    return (norms / upsilon) ** (q - 1) if upsilon > 0 else torch.zeros_like(norms)


def _entry(
    name: str,
    order: float,
    question: Question,
    slopes: Slopes,
    wrong: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    laws: dict[tuple[float, float], AttackedLaw],
) -> Sensitivity:
    norms, values, deltas = slopes.norms, slopes.values, question.deltas
    q = conjugate(order)
    upsilon = float(power_mean(norms, q))
    at_zero = _mean(values)
    # ReDLR is zero on every misclassified sample, so W(0) is 0 even if there is none.
    if name == "redlr":
        after: float | None = 0.0
    else:
        after = _mean(values[wrong]) if wrong.any() else None
    clean = int((~wrong).sum())

    def point(delta: float) -> SensitivityPoint:
        law = laws[order, delta]
        gap = None if after is None or after == at_zero else after - at_zero
        return SensitivityPoint(
            delta=delta,
            loss=name,
            upper=law.survivors / clean if clean else None,
            lower_value=None if gap is None else (after_ - _mean(law.losses)) / gap,
            lower_slope=None if gap is None else (gap - delta * upsilon) / gap,
            violated=None,
        )

    after_ = 0.0 if after is None else after
    slope = _bootstrapped(upsilon, norms.numpy(), _power_mean_statistic(q), question)
    start = _bootstrapped(at_zero, values, np.mean, question)
    attained = {delta: _mean(laws[order, delta].losses) for delta in deltas}
    return Sensitivity(
        order=order_name(order),
        loss=name,
        upsilon=slope,
        value_at_zero=start,
        points=[point(delta) for delta in deltas],
        value=first_order_points(slope, start, attained),
    )


def _bootstrapped(
    value: float, values: Floats, statistic: Callable[..., Floats], question: Question
) -> Interval:
    low, high = bootstrap(values, statistic, question.confidence, question.seed)
    finite = math.isfinite(low) and math.isfinite(high)
    return Interval(value=value, low=low if finite else None, high=high if finite else None)


def _power_mean_statistic(power: float) -> Callable[..., Floats]:
    def statistic(values: Floats, axis: int = -1) -> Floats:
        # Values are divided by the largest, as in `power_mean`: small powers would underflow.
        top = max(float(np.max(values)), np.finfo(np.float64).tiny)
        return np.asarray(np.mean((values / top) ** power, axis=axis) ** (1 / power)) * top

    return statistic


def _mean(values: Floats) -> float:
    """Return the mean, summed in sorted order so that it does not depend on the sample order."""
    return float(np.mean(np.sort(values)))


def _batches(samples: Samples, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(samples.x.split(rows), samples.labels.split(rows), strict=True)
