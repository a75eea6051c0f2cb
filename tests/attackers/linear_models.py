"""Linear classifiers, whose minimal radii are known in closed form."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attackers import ATTACKS, PointwiseAttack
from attackers.geometry import NORMS, Metric
from attackers.losses import misclassified
from attackers.minimal import minimal_radius
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat

SHAPES: dict[str, tuple[int, ...]] = {"vector": (12,), "image": (3, 5, 4), "large": (1, 28, 28)}


@dataclass(frozen=True)
class Linear:
    """Two classes with scores (0, w·(x - 1/2) + b); the sums do not depend on the batch."""

    weight: Tensor
    bias: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        score = ((x - 0.5) * self.weight).flatten(1)
        # Sum row by row: a matrix product may round differently for another number of rows.
        total = torch.stack([row.sum() for row in score]) + self.bias
        return torch.stack([torch.zeros_like(total), total], dim=1)

    def radius(self, x0: Tensor, metric: Metric) -> Tensor:
        """Return |w·(x - 1/2) + b| / ||w||_*, which is exact where the box is not active."""
        weight = self.weight.double()
        value = ((x0.double() - 0.5) * weight).flatten(1).sum(1) + self.bias
        return value.abs() / metric.dual_norm(weight[None], weight[None])


def linear_problem(
    shape: tuple[int, ...], samples: int = 7, seed: int = 0
) -> tuple[Linear, Tensor, Tensor]:
    """Return a linear classifier, samples far from the faces of the box, and their predictions."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=random)
    spread = torch.randn((samples, *shape), generator=random).clamp(-2.0, 2.0)
    x0 = 0.5 + 0.2 * spread / weight.numel() ** 0.5
    model = Linear(weight, 0.05)
    return model, x0, model(x0).argmax(1)


def streams(x0: Tensor, seed: int = 0) -> SampleGenerator:
    """Return random streams keyed by the content of the samples."""
    return SampleGenerator.seeded([row.numpy().tobytes() for row in x0], seed)


def minimal_at(
    logits: Callable[[Tensor], Tensor],
    x0: Tensor,
    labels: Tensor,
    threat: Threat,
    *,
    generator: SampleGenerator,
) -> Tensor:
    """Run `minimal_radius` as an attack at a fixed radius; return ``x0`` where it fails."""
    x = minimal_radius(logits, x0, labels, threat.metric, generator=generator)
    far = threat.metric.distance(x0, x) > threat.delta
    return torch.where(far.reshape(-1, *[1] * (x0.dim() - 1)), x0, x)


EVERY_ATTACK: dict[str, PointwiseAttack] = {
    **{
        name: entry.run
        for name, entry in ATTACKS.items()
        if entry.kind == "radius"
        and "generator" not in entry.needs
        and entry.metrics >= NORMS.keys()
    },
    "minimal": minimal_at,
}
"""Attacks that work in every metric; the others are tested in separate files."""


def broken_at(
    attack: PointwiseAttack,
    model: Callable[[Tensor], Tensor],
    x0: Tensor,
    labels: Tensor,
    metric: Metric,
    radius: Tensor,
) -> Tensor:
    """Return which samples an attack breaks, after checking ball and box in float64."""
    x = attack(model, x0.clone(), labels, Threat(metric, radius), generator=streams(x0))
    assert x.shape == x0.shape
    assert x.dtype == x0.dtype
    assert (metric.distance(x0, x) <= radius.double()).all()
    assert (x >= metric.low).all()
    assert (x <= metric.high).all()
    return misclassified(model(x), labels)
