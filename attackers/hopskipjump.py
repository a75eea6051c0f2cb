"""HopSkipJump: minimal radii from decisions alone (Chen, Jordan, Wainwright 2020).

From a misclassified point on the decision boundary, repeat: estimate the boundary's normal by
asking on which side random neighbours lie, step along it, and walk back towards the original until
the decision changes. It reads the top class only, so it attacks whatever answers at all.

One loop serves every metric: steps are the steepest of the metric inside the box, and walking back
is projecting onto smaller and smaller balls around the original.
"""

import math

import torch
from torch import Tensor

from attackers.anchors import anchors
from attackers.geometry import Metric
from attackers.gradient import Logits
from attackers.losses import misclassified
from attackers.random_streams import SampleGenerator
from attackers.rows import expand, over

LINE_SEARCH_STEPS = 10
"""Of a walk back, and at most of a step that left the misclassified side."""

PROBES_PER_CALL = 25
"""Neighbours asked at once, which bounds memory."""


@torch.no_grad()
def hop_skip_jump(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    metric: Metric,
    *,
    generator: SampleGenerator,
    queries: int = 5000,
    first_probes: int = 100,
) -> Tensor:
    """Find a near misclassified point for every sample, by the model's decisions.

    Args:
        logits: classifier; only whether the label is the unique top class is used.
        x0: (B, ...) correctly classified points of the box.
        labels: (B,) int64.
        metric: what to minimise.
        generator: of the neighbours, and of the far points to start from.
        queries: model evaluations per sample, at most.
        first_probes: neighbours of the first estimate; the t-th takes sqrt(t) times as many.

    Returns:
        (B, ...) the nearest misclassified points found; ``x0`` itself where there was none.

    Source: Chen, Jordan, Wainwright 2020, algorithm 2, with the baseline of equation 16.
    """
    best, found, used = _nearest_far_point(logits, x0, labels, metric, generator, queries)
    rows = found.nonzero()[:, 0]
    spent = torch.full_like(labels, used)

    def walk_back(rows: Tensor, x: Tensor) -> Tensor:
        spent[rows] += LINE_SEARCH_STEPS
        return nearest_on_balls(logits, x0[rows], x, labels[rows], metric)

    rows = rows[spent[rows] + LINE_SEARCH_STEPS <= queries]
    if not len(rows):
        return best
    x = walk_back(rows, best[rows])
    best[rows] = x
    for hop in range(1, queries):
        probes = int(first_probes * math.sqrt(hop))
        able = spent[rows] + probes + 2 * LINE_SEARCH_STEPS <= queries
        rows, x = rows[able], x[able]
        if not len(rows):
            break
        centre, y = x0[rows], labels[rows]
        distance = metric.distance(centre, x)
        normal = _normal(
            logits, x, y, _probe_length(metric, centre, distance, hop), probes,
            generator.take(rows).fold(f"hop {hop}"),
        )  # fmt: skip
        x, tried = _jump(logits, centre, x, y, metric, normal, distance / math.sqrt(hop))
        spent[rows] += probes + tried
        x = walk_back(rows, x)
        nearer = metric.distance(centre, x) < metric.distance(centre, best[rows])
        best[rows[nearer]] = x[nearer]
    return best


def nearest_on_balls(
    logits: Logits, x0: Tensor, x: Tensor, labels: Tensor, metric: Metric
) -> Tensor:
    """Bisect r for the smallest ball onto which ``x`` projects as a misclassified point.

    For l2 these projections are the segment from ``x`` to ``x0``; for linf they clip, so that the
    coordinates that moved farthest come back first.
    """
    low, high = torch.zeros_like(metric.distance(x0, x)), metric.distance(x0, x)
    for _ in range(LINE_SEARCH_STEPS):
        middle = (low + high) / 2
        point = metric.project(x0, x, middle)
        wrong = misclassified(logits(point), labels)
        x = torch.where(over(wrong, x), point, x)
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    return x


def _nearest_far_point(
    logits: Logits,
    x0: Tensor,
    labels: Tensor,
    metric: Metric,
    generator: SampleGenerator,
    queries: int,
) -> tuple[Tensor, Tensor, int]:
    """The nearest misclassified far point or ``x0``, whether there is one, and queries spent."""
    best, nearest = x0.clone(), torch.full_like(labels, torch.inf, dtype=torch.float64)
    used = 0
    for point in anchors(metric, x0, generator.fold("far")):
        if used >= queries:
            break
        distance = metric.distance(x0, point)
        closer = misclassified(logits(point), labels) & (distance < nearest)
        best = torch.where(over(closer, x0), point, best)
        nearest = torch.where(closer, distance, nearest)
        used += 1
    return best, nearest.isfinite(), used


def _probe_length(metric: Metric, x0: Tensor, distance: Tensor, hop: int) -> Tensor:
    """Length of a probe: a tenth of the box at first, then the distance over sqrt(dimension)."""
    if hop == 1:
        return torch.full_like(distance, 0.1 * (metric.high - metric.low))
    # In l2, whatever the metric: a probe asks for the normal of a surface.
    return distance / distance.new_tensor(float(x0[0].numel())).sqrt()


def _normal(
    logits: Logits,
    x: Tensor,
    labels: Tensor,
    length: Tensor,
    probes: int,
    generator: SampleGenerator,
) -> Tensor:
    """Estimate the normal of the boundary, towards the misclassified side.

    The mean of (side - mean side)·u over random unit directions u; where all neighbours lie on one
    side, the plain mean of side·u.
    """
    signed, plain = torch.zeros_like(x), torch.zeros_like(x)
    total = torch.zeros_like(length)
    for start in range(0, probes, PROBES_PER_CALL):
        count = min(PROBES_PER_CALL, probes - start)
        like = x[:, None].expand(-1, count, *x.shape[1:])
        u = generator.fold(f"probe {start}").normal(like)
        u = u / u.flatten(2).norm(dim=2).reshape(len(x), count, *[1] * (x.dim() - 1))
        points = like + u * expand(length, like)
        wrong = misclassified(logits(points.flatten(0, 1)), labels.repeat_interleave(count))
        side = torch.where(wrong, 1.0, -1.0).to(x).reshape(len(x), count)
        # One after the other: a sum over an axis may round differently for another batch.
        for i in range(count):
            signed = signed + over(side[:, i], x) * u[:, i]
            plain, total = plain + u[:, i], total + side[:, i]
    mean = (total / probes).to(x)
    even = mean.abs() == 1
    return torch.where(over(even, x), signed, signed - over(mean, x) * plain)


def _jump(
    logits: Logits,
    x0: Tensor,
    x: Tensor,
    labels: Tensor,
    metric: Metric,
    normal: Tensor,
    step: Tensor,
) -> tuple[Tensor, Tensor]:
    """Step along the normal, halving the step until its end is misclassified.

    Returns:
        The new points, ``x`` itself where no step was short enough, and the queries of each.
    """
    tried = torch.zeros_like(labels)
    open_rows = torch.arange(len(x), device=x.device)
    result = x.clone()
    for _ in range(LINE_SEARCH_STEPS):
        here = x[open_rows]
        move = metric.ascent(x0[open_rows], here, normal[open_rows], step[open_rows])
        point = metric.clamp(here + move)
        wrong = misclassified(logits(point), labels[open_rows])
        tried[open_rows] += 1
        result[open_rows[wrong]] = point[wrong]
        open_rows = open_rows[~wrong]
        if not len(open_rows):
            break
        step = step / 2
    return result, tried
