"""Auto-PGD: projected gradient ascent that chooses its own step size (Croce & Hein 2020).

    z       = P(x_k + step_k · direction(grad L(x_k)))
    x_{k+1} = P(x_k + a (z - x_k) + (1 - a)(x_k - x_{k-1})),   a = 0.75

The step starts at two radii. At checkpoints that come ever closer a sample's step is halved, and
it goes back to its best iterate, when fewer than 75 % of the steps since the last checkpoint
raised the loss, or when neither step nor best loss have changed since (algorithm 1, conditions 1
and 2). The step is the steepest one of the metric, so that one loop serves all of them.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from attackers.active_samples import ActiveSamples, may_synchronise, usable_gradient
from attackers.gradient import Logits, value_and_grad
from attackers.losses import Loss, TargetedLoss, aimed, margin, misclassified
from attackers.random_streams import SampleGenerator
from attackers.rows import over
from attackers.threat import Threat


def apgd(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
    loss: Loss | TargetedLoss = margin,
    targets: Tensor | None = None,
    steps: int = 100,
    start: Tensor | None = None,
    first_step: float = 2.0,
    share: float = 0.75,
    rho: float = 0.75,
) -> Tensor:
    """Maximise the loss over the ball of radius ``threat.delta`` and the box.

    Args:
        logits: differentiable classifier.
        x0: (B, ...) in the box.
        labels: (B,) int64.
        threat: pointwise threat; ``delta`` is the radius, or one per sample.
        generator: random streams that draw the start where ``start`` is None.
        loss: per-sample loss to increase, of (logits, labels, targets) where there are targets.
        targets: (B,) int64 classes to be mistaken for, or None.
        steps: number of gradients.
        start: (B, ...) first iterate, projected onto the ball; a random point of it by default.
        first_step: length of the first step in units of the radius.
        share: a, the weight of the new step against the previous displacement.
        rho: share of steps that must raise the loss.

    Returns:
        (B, ...) inside ball and box: the first misclassified iterate of each sample, or the one
        of largest loss where none was.

    Source: Croce & Hein 2020, algorithm 1.
    """
    metric = threat.metric
    if start is None:
        start = metric.sample(x0, threat.delta, generator)
    ball = metric.ball(x0, threat.delta)
    x = ball.project(start)
    result = x.clone()
    active, sizes = ActiveSamples.of(x, labels), StepSizes.of(ball.radius.flatten() * first_step)
    aims = labels if targets is None else torch.stack([labels, targets], 1)
    previous = torch.zeros_like(x)
    best_grad = previous
    ends = checkpoints(steps)

    for step in range(steps + 1):
        scores, value, grad = value_and_grad(logits, aimed(loss), x, aims)
        raised = value > active.best_loss
        active = active.keep_best(x, value, misclassified(scores, active.labels))
        best_grad = torch.where(over(raised, grad), grad, best_grad)
        if step == steps:
            break
        if may_synchronise(x, step):
            keep = active.write_fooled(result)
            if keep is not None:
                if not len(keep):
                    break
                active, ball, sizes = active.take(keep), ball.take(keep), sizes.take(keep)
                x, grad, value, aims = x[keep], grad[keep], value[keep], aims[keep]
                previous, best_grad = previous[keep], best_grad[keep]
            grad = usable_gradient(grad, generator, active.rows, step)
        sizes = sizes.count_step(value)
        if step in ends:
            sizes, halved = sizes.at_checkpoint(active.best_loss, rho)
            x = torch.where(over(halved, x), active.best, x)
            grad = torch.where(over(halved, x), best_grad, grad)
        weight = share if step else 1.0
        z = ball.project(x + ball.step(x, grad, sizes.step))
        x, old = ball.project(x + weight * (z - x) + (1 - weight) * previous), x
        previous = x - old
    active.write_all(result)
    return metric.project(x0, result, threat.delta)


def checkpoints(steps: int) -> frozenset[int]:
    """Return the iterations that may halve the step: at 22 % of the steps, then ever sooner.

    p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), in shares of the steps.
    """
    ends, gap, least = [], max(int(0.22 * steps), 1), max(int(0.06 * steps), 1)
    end = gap
    while end < steps:
        ends.append(end)
        gap = max(gap - max(int(0.03 * steps), 1), least)
        end += gap
    return frozenset(ends)


@dataclass(frozen=True)
class StepSizes:
    """Step size of each sample, with the counts that decide whether it is halved.

    Attributes:
        step: (B,) length of a step.
        last: (B,) loss at the previous iterate.
        raised: (B,) number of steps that raised the loss since the last checkpoint.
        taken: number of steps since the last checkpoint.
        top: (B,) best loss at the last checkpoint.
        halved: (B,) bool, True if the step was halved at the last checkpoint.
    """

    step: Tensor
    last: Tensor
    raised: Tensor
    taken: int
    top: Tensor
    halved: Tensor

    @classmethod
    def of(cls, step: Tensor) -> Self:
        """Start before the first step; ``step``: (B,)."""
        lowest = torch.full_like(step, -torch.inf)
        # The first checkpoint halves for oscillation only: there is no earlier one to compare with.
        return cls(step, -lowest, torch.zeros_like(step), -1, lowest, torch.ones_like(step).bool())

    def take(self, keep: Tensor) -> Self:
        """Select some samples."""
        return replace(
            self,
            step=self.step[keep],
            last=self.last[keep],
            raised=self.raised[keep],
            top=self.top[keep],
            halved=self.halved[keep],
        )

    def count_step(self, value: Tensor) -> Self:
        """Count a step; ``value``: (B,) loss after it."""
        raised = self.raised + (value > self.last)
        return replace(self, last=value, raised=raised, taken=self.taken + 1)

    def at_checkpoint(self, top: Tensor, rho: float) -> tuple[Self, Tensor]:
        """Halve the steps that oscillate or stall; return also which, ``(B,)`` bool."""
        stalled = ~self.halved & (top <= self.top)
        halved = (self.raised <= rho * self.taken) | stalled
        step = torch.where(halved, self.step / 2, self.step)
        none = torch.zeros_like(self.raised)
        return replace(self, step=step, raised=none, taken=0, top=top, halved=halved), halved
