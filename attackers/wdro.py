"""The distributional attacks W-FGSM and W-PGD (Bai, He, Jiang, Obloj, NeurIPS 2023).

The adversary may spend an average budget, (E[d^p])^(1/p) <= delta. To first order the optimum is

    x + delta · h(g) · (||g||_* / Upsilon)^(q - 1),  Upsilon = (E ||g||_*^q)^(1/q),  1/p + 1/q = 1,

with g the gradient of the loss and h its steepest unit direction. Order inf (q = 1) is FGSM. The
whole data set is one law: budgets depend on all samples, so these take all of them at once.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from attackers.geometry import Metric
from attackers.gradient import Logits, value_and_grad
from attackers.losses import Loss, misclassified, redlr
from attackers.rows import expand
from attackers.threat import Threat

W_PGD_STEPS = 50
"""Number of gradients of W-PGD, as in the official code."""


def conjugate(order: float) -> float:
    """Return q with 1/p + 1/q = 1, for p > 1 (``inf`` gives 1)."""
    return 1.0 if math.isinf(order) else order / (order - 1)


def power_mean(values: Tensor, power: float) -> Tensor:
    """(E |v|^power)^(1/power), scalar float64; the same bits for every order of the samples."""
    top = values.double().max()
    if not top > 0:
        return torch.zeros_like(top)
    # Summed in sorted order so that permuting the samples cannot change the rounding.
    return ((values.double() / top) ** power).sort().values.mean() ** (1 / power) * top


def budgets(norms: Tensor, delta: float, order: float) -> Tensor:
    """Lengths delta·(||g||_*/Upsilon)^(q-1) that spend exactly delta on average, ``(N,)`` float64.

    The result is zero where all gradients vanish.
    """
    q = conjugate(order)
    upsilon = power_mean(norms, q)
    if not upsilon > 0:
        return torch.zeros_like(norms, dtype=torch.float64)
    return delta * (norms.double() / upsilon) ** (q - 1)


def first_order_move(
    x0: Tensor, x: Tensor, grad: Tensor, metric: Metric, delta: float, order: float
) -> Tensor:
    """Return x + delta·h(g)·(||g||_*/Upsilon)^(q-1), before any clipping."""
    grad = grad.nan_to_num()
    lengths = budgets(metric.dual_norm(x0, grad), delta, order)
    return x + metric.heading(x0, x, grad, lengths) * expand(lengths, x)


def w_fgsm(x0: Tensor, grad: Tensor, threat: Threat) -> Tensor:
    """One first-order step of the whole budget, clipped to the box.

    Args:
        x0: (N, ...) all samples.
        grad: (N, ...) gradient of the loss at ``x0``.
        threat: order p > 1 and a scalar delta.

    Returns:
        (N, ...) with (mean d(x0, x)^p)^(1/p) <= delta up to rounding.
    """
    assert not isinstance(threat.delta, Tensor)
    return threat.metric.clamp(
        first_order_move(x0, x0, grad, threat.metric, threat.delta, threat.order)
    )


def contract(x0: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """Shrink all displacements by one factor so that the average budget holds.

    Order inf projects every sample onto its own ball. The official code rescales interior points
    *out* to the sphere for l2 there; a projection, as in its other branches, is intended.
    """
    if math.isinf(threat.order):
        return threat.metric.project(x0, x, threat.delta)
    moved = threat.metric.distance(x0, x)
    spent = power_mean(moved, threat.order)
    factor = min(1.0, float(threat.delta / (spent + 1e-8)))
    return threat.metric.project(x0, x, factor * moved)


def w_pgd(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    loss: Loss = redlr,
    steps: int = W_PGD_STEPS,
    ratio: float = 1.875,
    rows: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Tensor:
    """W-PGD with the official constants: 50 steps of 1.875·delta/50, whole data set as one law.

    Args:
        logits: differentiable classifier.
        x0: (N, ...) all samples, correct or not.
        labels: (N,) int64.
        threat: order p > 1 and a scalar delta.
        loss: CE, DLR or ReDLR.
        steps: number of gradients.
        ratio: total step length in units of delta.
        rows: number of samples to differentiate at once; all by default.
        tick: called after every step, e.g. for progress.

    Returns:
        (N, ...) the iterate of least accuracy; its average distance is at most delta.
    """
    assert not isinstance(threat.delta, Tensor)
    metric, x, best, most = threat.metric, x0, x0, -1
    for step in range(steps + 1):
        scores, _, grad = value_and_grad(logits, loss, x, labels, rows=rows)
        errors = int(misclassified(scores, labels).sum())
        if errors > most:
            best, most = x, errors
        if step == steps:
            break
        moved = first_order_move(x0, x, grad, metric, ratio * threat.delta / steps, threat.order)
        x = metric.clamp(contract(x0, moved, threat))
        tick()
    return best
