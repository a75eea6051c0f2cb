"""Minimal-norm attack along the decision boundary (after Pintor et al. 2021, FMN).

    minimise d(x0, x)  subject to  x misclassified, x in the box

Each step climbs the loss and projects onto a ball around the original. The ball's radius follows
the boundary: it shrinks by a factor where the iterate is misclassified and grows where it is not,
and while no misclassified point is known it is where the linearised boundary is thought to be,
twice as far to be safe. Steps and factors fall along a cosine.

Three departures, each measured: steps and factors begin ten times as large as published (they
cross plateaus on which small steps stay; on a model trained against linf attacks the median l2
radius falls from 2.6 to 1.5); steps are the steepest of the metric inside the box; and nothing is
absolute, so that pixels of 0 to 255 and tables of any unit need no tuning.
"""

import math

import torch
from torch import Tensor

from attackers.active_samples import may_synchronise, usable_gradient
from attackers.geometry import Metric
from attackers.gradient import Logits, value_and_grad
from attackers.losses import Loss, margin, misclassified
from attackers.random_streams import SampleGenerator
from attackers.rows import over


def fmn(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    metric: Metric,
    *,
    generator: SampleGenerator,
    loss: Loss = margin,
    steps: int = 50,
    start: Tensor | None = None,
    first_step: float = 2.0,
    last_step: float = 0.01,
    first_factor: float = 0.2,
    last_factor: float = 0.001,
) -> Tensor:
    """Find a near misclassified point for every sample.

    Args:
        logits: differentiable classifier.
        x0: (B, ...) correctly classified points of the box.
        labels: (B,) int64.
        metric: distance to minimise.
        generator: random directions where a gradient is zero.
        loss: per-sample loss to increase.
        steps: number of gradients.
        start: (B, ...) first iterate; ``x0`` by default.
        first_step: length of the first step in units of the ball's radius.
        last_step: length of the last step, likewise.
        first_factor: relative change of the radius at first.
        last_factor: relative change of the radius at the last step.

    Returns:
        (B, ...) the nearest misclassified iterates; ``x0`` itself where there was none.

    Source: Pintor, Roli, Brendel, Biggio 2021, with the departures that the module states.
    """
    x = x0 if start is None else start
    best, nearest = x0, torch.full((len(x0),), torch.inf, dtype=torch.float64, device=x0.device)
    diameter = metric.diameter(x0).double()
    radius = nearest
    rows = torch.arange(len(x0), device=x0.device)

    for step in range(steps + 1):
        scores, _, grad = value_and_grad(logits, loss, x, labels)
        fooled, distance = misclassified(scores, labels), metric.distance(x0, x)
        closer = fooled & (distance < nearest)
        best = torch.where(over(closer, x), x, best)
        nearest = torch.where(closer, distance, nearest)
        if step == steps:
            break
        fall = (1 + math.cos(math.pi * step / steps)) / 2
        factor = last_factor + (first_factor - last_factor) * fall
        # For another loss than the margin only a rough guess, but shrinking is quick.
        slope = metric.dual_norm(x0, grad).clamp_min(1e-12)
        guess = distance + 2 * margin(scores, labels).abs().double() / slope
        unknown = torch.minimum(torch.maximum(guess, 1.2 * distance), diameter)
        grown = torch.where(nearest.isfinite(), radius * (1 + factor), unknown)
        shrunk = torch.minimum(radius * (1 - factor), nearest)
        radius = torch.where(fooled, shrunk, grown).clamp_max(diameter)
        ball = metric.ball(x0, radius)
        length = radius * (last_step + (first_step - last_step) * fall)
        if may_synchronise(x, step):
            grad = usable_gradient(grad, generator, rows, step)
        x = ball.project(x + ball.step(x, grad, length))
    return best
