"""The image-Wasserstein attacks: climb the loss by moving mass between pixels.

Gradients are averaged into a potential, the worth of a unit of mass at each pixel; its entropic
coupling (`attackers.coupling`) turns it into the next image, always inside ball and box. The level
of the coupling rises while the attack runs: at first mass spreads over all that looks worth it, at
last it goes where it is worth most. Averaging decides against gradients that change from step to
step, the rising level decides where single pixels matter; either alone is much weaker (measured).

As the image is computed anew from the duals, the budget may change from step to step, and the same
loop finds minimal radii.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from attackers.active_samples import ActiveSamples, may_synchronise, usable_gradient
from attackers.coupling import Coupling
from attackers.gradient import Logits, value_and_grad
from attackers.losses import Loss, TargetedLoss, aimed, margin, misclassified
from attackers.random_streams import SampleGenerator
from attackers.rows import expand_down, over
from attackers.threat import Threat
from attackers.wasserstein import WINDOW_REACH, Wasserstein, with_unit_slope

FIRST_LEVEL, LAST_LEVEL = 5.0, 15.0
"""Of the coupling; between them it rises geometrically."""

POTENTIAL_MOMENTUM = 0.9
"""Share of the potential that is kept at every step."""

WIDE_REACH = 8
"""The same where nothing was found: a window bounds the distance that mass can go."""


@dataclass(frozen=True)
class TransportState:
    """Images on their way: the originals, the potential so far, and the duals of its coupling.

    Attributes:
        metric: the geometry.
        x0: (B, C, H, W) originals.
        potential: (B, C, H, W) float64, the decayed sum of normalised gradients.
        coupling: warm duals.
    """

    metric: Wasserstein
    x0: Tensor
    potential: Tensor
    coupling: Coupling

    @classmethod
    def of(cls, metric: Wasserstein, x0: Tensor, radius: Tensor, reach: int) -> Self:
        """Nothing has moved; ``radius``: (B,) float64."""
        coupling = metric.coupling(x0, x0, radius, reach=reach, level=FIRST_LEVEL)
        return cls(metric, x0, torch.zeros_like(x0, dtype=torch.float64), coupling)

    def take(self, keep: Tensor) -> Self:
        """The images of some rows."""
        return replace(
            self,
            x0=self.x0[keep],
            potential=self.potential[keep],
            coupling=self.coupling.take(keep),
        )

    def resized(self, budget: Tensor) -> Self:
        """Other budgets ``(B,)``, in mass × pixels."""
        return replace(self, coupling=self.coupling.resized(budget))

    def ascended(self, grad: Tensor, progress: float) -> tuple[Self, Tensor, Tensor]:
        """Add a gradient to the potential and move mass along it.

        Args:
            grad: (B, C, H, W) of the loss.
            progress: share of the steps that are done, which sets the level.

        Returns:
            The state, the new images (B, C, H, W), and what they cost (B,) float64.
        """
        potential = POTENTIAL_MOMENTUM * self.potential + with_unit_slope(
            grad.double().nan_to_num()
        )
        level = FIRST_LEVEL * (LAST_LEVEL / FIRST_LEVEL) ** progress
        coupling, change, cost = self.coupling.moved(potential, level)
        # Rounded to the dtype of the images, which the budget's INWARD leaves room for.
        x = self.metric.clamp((self.x0.double() + change).to(self.x0))
        return replace(self, potential=potential, coupling=coupling), x, cost


def transport(
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
    reach: int = WINDOW_REACH,
    jitter: float = 0.0,
) -> Tensor:
    """Maximise the loss over the image-Wasserstein ball and the box.

    Args:
        logits: differentiable classifier.
        x0: (B, C, H, W) in the box.
        labels: (B,) int64.
        threat: pointwise threat in `Wasserstein`; ``delta`` is the radius, or one per sample.
        generator: of random directions where a gradient is zero, and of the jitter.
        loss: what to increase, per sample; of (logits, labels, targets) where there are targets.
        targets: (B,) int64 classes to be mistaken for, or None.
        steps: number of gradients.
        start: (B, C, H, W) inside the ball, where the first gradient is taken; ``x0`` by default.
        reach: rows and columns that mass may move on each side.
        jitter: share of the radius that a random first move takes; 0 starts at the original.

    Returns:
        (B, C, H, W) inside ball and box, of the mass of ``x0`` in every channel: the first
        misclassified iterate of each sample, or the last where none was.
    """
    metric = threat.metric
    assert isinstance(metric, Wasserstein)
    radius = expand_down(threat.delta, x0).flatten()
    state = TransportState.of(metric, x0, radius.double(), reach)
    x = x0 if start is None else start
    if jitter:
        x = metric.sample(x0, jitter * radius, generator.fold("jitter"))
    result = x0.clone()
    active = ActiveSamples.of(x, labels)
    aims = labels if targets is None else torch.stack([labels, targets], 1)

    for step in range(steps + 1):
        scores, _, grad = value_and_grad(logits, aimed(loss), x, aims)
        active = active.keep_latest(x, misclassified(scores, active.labels))
        if step == steps:
            break
        if may_synchronise(x, step):
            keep = active.write_fooled(result)
            if keep is not None:
                if not len(keep):
                    break
                active, state, grad, aims = (
                    active.take(keep),
                    state.take(keep),
                    grad[keep],
                    aims[keep],
                )
            grad = usable_gradient(grad, generator, active.rows, step)
        state, x, _ = state.ascended(grad, step / steps)
    active.write_all(result)
    return result


def minimal_transport(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    metric: Wasserstein,
    *,
    generator: SampleGenerator,
    loss: Loss = margin,
    steps: int = 60,
    start: Tensor | None = None,
    reach: int = WINDOW_REACH,
    first_factor: float = 0.2,
    last_factor: float = 0.005,
) -> Tensor:
    """Find a near misclassified image for every sample: the attack at a radius that follows it.

    The radius falls by a factor where the iterate is misclassified, to what that iterate cost,
    and grows where it is not; the factors fall along a cosine (after Pintor et al. 2021, FMN).

    Args:
        logits: differentiable classifier.
        x0: (B, C, H, W) correctly classified points of the box.
        labels: (B,) int64.
        metric: the geometry.
        generator: of random directions where a gradient is zero.
        loss: what to climb.
        steps: number of gradients.
        start: (B, C, H, W) where the first gradient is taken; ``x0`` by default.
        reach: rows and columns that mass may move on each side.
        first_factor: share by which the radius changes at first.
        last_factor: at last.

    Returns:
        (B, C, H, W) the nearest misclassified iterates by their plans; ``x0`` where there was none.
    """
    x = x0 if start is None else start
    mass = metric.mass(x0)
    largest = metric.diameter(x0).double() * mass
    nearest = torch.full_like(mass, torch.inf)
    best, cost, budget = x0, torch.zeros_like(mass), nearest
    state = TransportState.of(metric, x0, torch.zeros_like(mass), reach)
    rows = torch.arange(len(x0), device=x0.device)

    for step in range(steps + 1):
        scores, _, grad = value_and_grad(logits, loss, x, labels)
        fooled = misclassified(scores, labels) & (cost > 0)
        closer = fooled & (cost < nearest)
        best = torch.where(over(closer, x), x, best)
        nearest = torch.where(closer, cost, nearest)
        if step == steps:
            break
        fall = (1 + math.cos(math.pi * step / steps)) / 2
        factor = last_factor + (first_factor - last_factor) * fall
        slope = metric.dual_norm(x0, grad.nan_to_num()).clamp_min(1e-12)
        guess = cost + 2 * margin(scores, labels).abs().double() / slope * mass
        unknown = torch.maximum(guess, (1 + factor) * cost)
        grown = torch.where(nearest.isfinite(), budget * (1 + factor), unknown)
        shrunk = torch.minimum(budget * (1 - factor), nearest)
        budget = torch.minimum(torch.where(fooled, shrunk, grown), largest)
        if may_synchronise(x, step):
            grad = usable_gradient(grad, generator, rows, step)
        state, x, cost = state.resized(budget).ascended(grad, step / steps)
    return best
