"""Classifiers with one hidden adversarial example per ball, for the active attack test.

The head of the model is replaced, for each sample, by a linear readout of the logits under which
the ball is clean except around one known point (Zimmermann et al. 2022; see
`audit.health.active`).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from attackers.anchors import anchors
from attackers.geometry import L1, Metric, Wasserstein
from attackers.gradient import Logits
from attackers.losses import margin, misclassified, outvoted
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat
from audit.evidence.judge import admissible
from audit.evidence.samples import Samples
from audit.models.classifier import Classifier
from audit.models.execution import call_rows

INNER = 0.95
"""Share of the radius of the ball that the inner points fill (the paper's gap of 0.05)."""

APART = 1.25
"""Factor by which the hidden example must lie farther along its direction than all clean points."""

CLOSENESS = 0.99
"""Position of the decision boundary between the farthest clean point (0) and the example (1)."""

MOST_GROUPS = 16
"""Largest number of batches of disjoint balls; samples that fit into none are left out."""


@dataclass(frozen=True)
class Readout:
    """Binary classifiers, one per ball, as one function of the input.

    The balls are disjoint, so a point is classified by the classifier of its nearest centre, in a
    metric in which the balls are disjoint (see `enclosing`).

    Attributes:
        features: maps inputs to ``(B, K)``, differentiable.
        metric: metric in which the balls are disjoint.
        x0: (P, ...) centres of the balls, all clean.
        witness: (P, ...) the hidden adversarial example of each ball.
        weight: (P, K) float64.
        bias: (P,) float64.
    """

    features: Logits
    metric: Metric
    x0: Tensor
    witness: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits ``(B, 2)``, float32, of clean (always 0) and of adversarial."""
        centre = torch.stack([self.metric.distance(c.expand_as(x), x.detach()) for c in self.x0])
        own = centre.argmin(0)
        # Computed in float64, since the readout may amplify small differences of large logits.
        value = (self.features(x).to(self.weight) * self.weight[own]).sum(1) + self.bias[own]
        return torch.stack([torch.zeros_like(value), value], dim=1).float()

    def take(self, kept: Tensor) -> "Readout":
        """Return the readout for some of the balls; ``kept``: (P',) int64."""
        parts = (self.x0, self.witness, self.weight, self.bias)
        return Readout(self.features, self.metric, *(part[kept] for part in parts))


def breaks(
    readout: Readout,
    delta: float,
    metric: Metric,
    attack: Callable[..., Tensor],
    generator: SampleGenerator,
    **options: object,
) -> Tensor:
    """Return in which balls the attack finds an adversarial point within the box, ``(P,)`` bool."""
    x0 = readout.x0
    clean = torch.zeros(len(x0), dtype=torch.long, device=x0.device)
    if not len(x0):
        return clean.cpu().bool()
    x = attack(readout, x0, clean, Threat(metric, delta), generator=generator, **options).detach()
    with torch.no_grad():
        inside = admissible(metric, x) & (metric.distance(x0, x) <= delta)
        return (inside & outvoted(readout(x), clean)).cpu()


def enclosing(metric: Metric, x0: Tensor, delta: float) -> tuple[Metric, Tensor]:
    """Return a metric that is fast to evaluate, and radii of its balls that contain those of delta.

    For the Wasserstein metric it is L1: moving mass by at least one pixel each at a cost of delta
    changes the pixels by at most twice that mass.
    """
    if isinstance(metric, Wasserstein):
        return L1(metric.low, metric.high), 2 * delta * metric.mass(x0)
    return metric, torch.full((len(x0),), delta, dtype=torch.float64)


def disjoint(metric: Metric, samples: Samples, delta: float, probe: int) -> list[Tensor]:
    """Return the probed rows in batches, such that the balls of each batch are disjoint.

    A batch has at most as many rows as one call of the model, and there are at most `MOST_GROUPS`
    batches: if most balls intersect, some samples are left out.
    """
    groups: list[list[int]] = []
    full = call_rows(tuple(samples.x.shape[1:]))
    for row in samples.probe(probe).tolist():
        for group in groups:
            others = samples.x[group]
            quick, radius = enclosing(metric, torch.cat([samples.x[row, None], others]), delta)
            distance = quick.distance(samples.x[row].expand_as(others), others)
            # The factor is slightly above 1, since distances are rounded.
            if len(group) < full and bool((distance > 1.001 * (radius[0] + radius[1:])).all()):
                group.append(row)
                break
        else:
            if len(groups) < MOST_GROUPS:
                groups.append([row])
    return [torch.tensor(group) for group in groups]


@torch.no_grad()
def hide(
    classifier: Classifier,
    metric: Metric,
    samples: Samples,
    rows: Tensor,
    delta: float,
    *,
    points: int,
) -> tuple[Readout, Tensor]:
    """Fit readouts with one adversarial example in each ball.

    Returns:
        The readout, and which rows have a hidden example, (P,) bool: on the function that the
        attack receives, the sample is clean and the witness is adversarial.
    """
    features = classifier.attacked_function
    x0 = samples.x[rows].to(classifier.device)
    streams = samples.generator.take(rows).fold("hidden example")

    def seen(inputs: Iterable[Tensor]) -> Tensor:
        return torch.stack([features(x).to(x0.device) for x in inputs], dim=1).double()

    clean = seen((x0, *_clean_points(metric, x0, delta, streams, points))).nan_to_num()
    surface = seen(_surface_points(metric, x0, delta, streams)).nan_to_num()
    confidence = -margin(clean[:, 0], samples.labels[rows].to(x0.device))
    order = streams.fold("choice").uniform(surface[:, :, 0])
    chosen, separate, weight, bias = isolate(clean, surface, order, confidence)
    witness = x0.clone()
    for number, x in enumerate(_surface_points(metric, x0, delta, streams)):
        witness[chosen == number] = x[chosen == number]
    readout = Readout(features, enclosing(metric, x0, delta)[0], x0, witness, weight, bias)
    label = torch.zeros_like(chosen)
    inside = metric.distance(x0, witness) <= delta
    there = inside & outvoted(readout(witness), label) & ~misclassified(readout(x0), label)
    return readout, (separate & there).cpu()


def _clean_points(
    metric: Metric, x0: Tensor, delta: float, streams: SampleGenerator, count: int
) -> Iterator[Tensor]:
    """Yield random points inside the ball, and each moved outwards to its surface or the box."""
    for draw in range(count):
        inside = metric.sample(x0, INNER * delta, streams.fold(f"clean {draw}"))
        yield inside
        yield metric.farthest(x0, inside - x0, delta)


def _surface_points(
    metric: Metric, x0: Tensor, delta: float, streams: SampleGenerator
) -> Iterator[Tensor]:
    """Yield the farthest point, within ball and box, towards each far point of the box."""
    for point in anchors(metric, x0, streams):
        yield metric.farthest(x0, point - x0, delta)


def isolate(
    clean: Tensor, surface: Tensor, order: Tensor, confidence: Tensor, *, ridge: float = 0.1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Choose a surface point that a hyperplane separates from all clean points.

    For a point v from the mean of all points, the ridge discriminant is w = (S + λI)^-1 v with S
    their covariance. With the n rows A of points over sqrt(n), S = A'A and

        w = (v - A' (A A' + λI)^-1 A v) / λ,

    an n × n system for any number of features. The decision boundary w·z = t lies close to the
    chosen point, and the readout s (w·z - t) is scaled to the model's confidence at the sample.

    Args:
        clean: (P, n, K) float64 features of points to classify as clean, the sample itself first.
        surface: (P, m, K) float64 features of points of which one is classified as adversarial.
        order: (P, m) preference: the separable point with the largest value is chosen.
        confidence: (P,) negated value of the readout at the sample.
        ridge: λ, in units of the average variance of a feature.

    Returns:
        Index (P,) of the chosen point, whether it is separable (P,) bool, weight (P, K) and bias
        (P,) of the readout.
    """
    every = torch.cat([clean, surface], dim=1)
    centre = every.mean(1, keepdim=True)
    spread = (every - centre).square().mean((1, 2), keepdim=True).sqrt()
    unit = torch.where(spread > 0, 1 / spread, 0.0)
    inside, outside = (clean - centre) * unit, (surface - centre) * unit
    a = torch.cat([inside, outside], dim=1) / every.shape[1] ** 0.5
    system = a @ a.mT + ridge * torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    w = outside - (a.mT @ torch.linalg.solve(system, a @ outside.mT)).mT  # (P, m, K), times λ
    reach = (w * outside).sum(2)  # (P, m)
    top = (w @ inside.mT).amax(2)  # (P, m)
    apart = reach > APART * top
    chosen = torch.where(apart, order.to(reach), -1.0).argmax(1)

    own = torch.arange(len(chosen), device=chosen.device)
    w, reach, top = w[own, chosen], reach[own, chosen], top[own, chosen]
    limit = top + CLOSENESS * (reach - top)
    gap = limit - (w * inside[:, 0]).sum(1)
    scale = confidence.clamp_min(1e-6) / torch.where(gap > 0, gap, torch.inf)
    weight = scale[:, None] * w * unit[:, 0]
    bias = -scale * limit - (weight * centre[:, 0]).sum(1)
    return chosen, apart[own, chosen], weight, bias
