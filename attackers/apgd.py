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

from attackers.flight import Flight, asks, usable
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
        generator: draws the start where ``start`` is None.
        loss: what to increase, per sample; of (logits, labels, targets) where there are targets.
        targets: (B,) int64 classes to be mistaken for, or None.
        steps: number of gradients.
        start: (B, ...) first iterate, projected onto the ball; a random point of it by default.
        first_step: length of the first step in units of the radius.
        share: a, the weight of the new step against the previous displacement.
        rho: share of steps that must raise the loss.

    Returns:
        (B, ...) inside ball and box: the first misclassified iterate of each sample, or the one
        of largest loss where none was.
    """
    metric = threat.metric
    if start is None:
        start = metric.sample(x0, threat.delta, generator)
    ball = metric.ball(x0, threat.delta)
    x = ball.project(start)
    result = x.clone()
    flight, pace = Flight.of(x, labels), Pace.of(ball.radius.flatten() * first_step)
    aims = labels if targets is None else torch.stack([labels, targets], 1)
    previous = torch.zeros_like(x)
    best_grad = previous
    ends = checkpoints(steps)

    for step in range(steps + 1):
        scores, value, grad = value_and_grad(logits, aimed(loss), x, aims)
        raised = value > flight.top
        flight = flight.seen(x, value, misclassified(scores, flight.labels))
        best_grad = torch.where(over(raised, grad), grad, best_grad)
        if step == steps:
            break
        if asks(x, step):
            keep = flight.land(result)
            if keep is not None:
                if not len(keep):
                    break
                flight, ball, pace = flight.take(keep), ball.take(keep), pace.take(keep)
                x, grad, value, aims = x[keep], grad[keep], value[keep], aims[keep]
                previous, best_grad = previous[keep], best_grad[keep]
            grad = usable(grad, generator, flight.rows, step)
        pace = pace.watched(value)
        if step in ends:
            pace, halved = pace.checked(flight.top, rho)
            x = torch.where(over(halved, x), flight.best, x)
            grad = torch.where(over(halved, x), best_grad, grad)
        weight = share if step else 1.0
        z = ball.project(x + ball.step(x, grad, pace.step))
        x, old = ball.project(x + weight * (z - x) + (1 - weight) * previous), x
        previous = x - old
    flight.write(result)
    return metric.project(x0, result, threat.delta)


def checkpoints(steps: int) -> frozenset[int]:
    """Iterations at which the step size is reconsidered: 22 % of the steps, then ever sooner.

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
class Pace:
    """Each sample's step size, and what decides whether it is halved.

    Attributes:
        step: (B,) length of a step.
        last: (B,) loss at the previous iterate.
        raised: (B,) how many steps raised the loss since the last checkpoint.
        taken: how many steps there were since.
        top: (B,) best loss at the last checkpoint.
        halved: (B,) bool, whether the step was halved there.
    """

    step: Tensor
    last: Tensor
    raised: Tensor
    taken: int
    top: Tensor
    halved: Tensor

    @classmethod
    def of(cls, step: Tensor) -> Self:
        """Before the first step."""
        lowest = torch.full_like(step, -torch.inf)
        # The first checkpoint may only halve for oscillation: nothing was the same before it.
        return cls(step, -lowest, torch.zeros_like(step), -1, lowest, torch.ones_like(step).bool())

    def take(self, keep: Tensor) -> Self:
        """The pace of some samples."""
        return replace(
            self,
            step=self.step[keep],
            last=self.last[keep],
            raised=self.raised[keep],
            top=self.top[keep],
            halved=self.halved[keep],
        )

    def watched(self, value: Tensor) -> Self:
        """Count a step; ``value``: (B,) loss after it."""
        raised = self.raised + (value > self.last)
        return replace(self, last=value, raised=raised, taken=self.taken + 1)

    def checked(self, top: Tensor, rho: float) -> tuple[Self, Tensor]:
        """Halve steps that oscillate or stall; returns who was, ``(B,)`` bool."""
        stalled = ~self.halved & (top <= self.top)
        halved = (self.raised <= rho * self.taken) | stalled
        step = torch.where(halved, self.step / 2, self.step)
        none = torch.zeros_like(self.raised)
        return replace(self, step=step, raised=none, taken=0, top=top, halved=halved), halved
