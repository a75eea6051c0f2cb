"""Projected gradient descent (Madry et al. 2018, section 2.1), for any metric.

The projection stays outside the autograd graph, no misclassified iterate is lost, and a sample
leaves the batch as soon as there is one: the three things that most often make a PGD number wrong
or slow when they are missing.
"""

import math

import torch
from torch import Tensor

from attackers.active_samples import ActiveSamples, may_synchronise, usable_gradient
from attackers.gradient import Logits, value_and_grad
from attackers.losses import Loss, margin, misclassified
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat


def pgd(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
    loss: Loss = margin,
    steps: int = 40,
    start: Tensor | None = None,
    first_step: float = 0.5,
    momentum: float = 0.75,
) -> Tensor:
    """Maximise the loss over the ball of radius ``threat.delta`` and the box.

    The step falls from ``first_step`` radii to zero along a cosine, and each move keeps a share of
    the previous one: measured stronger than a constant step at equal cost, since the first steps
    cross the ball and the last ones settle.

    Args:
        logits: differentiable classifier.
        x0: (B, ...) in the box.
        labels: (B,) int64.
        threat: pointwise threat; ``delta`` is the radius, or one per sample.
        generator: draws the start where ``start`` is None.
        loss: what to increase, per sample.
        steps: number of gradients.
        start: (B, ...) first iterate, projected onto the ball; a random point of it by default.
        first_step: length of the first step in units of the radius.
        momentum: share of the previous displacement that is kept.

    Returns:
        (B, ...) inside ball and box: the first misclassified iterate of each sample, or the last
        iterate where none was.
    """
    metric = threat.metric
    if start is None:
        start = metric.sample(x0, threat.delta, generator)
    ball = metric.ball(x0, threat.delta)
    x = ball.project(start)
    result = x.clone()
    active = ActiveSamples.of(x0, labels)
    previous = torch.zeros_like(x0)

    for step in range(steps + 1):
        scores, _, grad = value_and_grad(logits, loss, x, active.labels)
        active = active.keep_latest(x, misclassified(scores, active.labels))
        if step == steps:
            break
        if may_synchronise(x, step):
            keep = active.write_fooled(result)
            if keep is not None:
                if not len(keep):
                    break
                active, ball = active.take(keep), ball.take(keep)
                x, grad, previous = x[keep], grad[keep], previous[keep]
            grad = usable_gradient(grad, generator, active.rows, step)
        fall = first_step * (1 + math.cos(math.pi * step / steps)) / 2
        moved = ball.step(x, grad, ball.radius.flatten() * fall).add_(previous.mul_(momentum))
        # The displacement after projection is what momentum should remember.
        x, old = ball.project(moved.add_(x)), x
        previous = x - old
    active.write_all(result)
    return metric.project(x0, result, threat.delta)
