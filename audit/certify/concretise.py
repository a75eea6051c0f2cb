"""Concretisation: the minimum of linear functions over a ball and the box of the input.

    min over the ball of A·(x - x0) = -radius·||A||_*

by the metric's dual norm. In linf the box is respected as well, coordinate by coordinate.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from attackers.geometry import Linf, Metric
from attackers.rows import flat, over
from audit.certify.affine import FirstLayer
from audit.certify.relaxation import dot


def minima(metric: Metric, x0: Tensor, lA: Tensor, radius: Tensor, sample_of: Tensor) -> Tensor:
    """Return the minimum of lA·(x - x0) over ball and box, ``(R,)``.

    Args:
        metric: metric of the balls.
        x0: (B, ...) float centres.
        lA: (R, ...) coefficients.
        radius: (B,) float64.
        sample_of: (R,) int64, the sample of every row.
    """
    if isinstance(metric, Linf):
        down, up = box_room(metric, x0, radius)
        if len(x0) > 1:
            down, up = down[sample_of], up[sample_of]
        # Terms with positive coefficients decrease with their value, the others as it increases.
        return dot(lA, up) - dot(lA.clamp_min(0), down + up)
    return -(radius[sample_of] * metric.dual_norm(x0[sample_of], lA)).to(x0)


def decrease_of(
    metric: Metric, x0: Tensor, lA: Tensor, sample_of: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return the largest decrease of linear functions, as a function of the radii.

    Args:
        metric: metric of the balls.
        x0: (B, ...) float centres.
        lA: (B·R, ...) coefficients, R rows for each sample.
        sample_of: (B·R,) int64, the sample of every row.

    Returns:
        Function of radii (B,) float64 to (B, R).
    """
    if isinstance(metric, Linf):

        def decrease(radius: Tensor) -> Tensor:
            return -minima(metric, x0, lA, radius, sample_of).reshape(len(x0), -1)

        return decrease
    dual = metric.dual_norm(x0[sample_of], lA).reshape(len(x0), -1)
    return lambda radius: (radius[:, None] * dual).to(x0)


def box_room(metric: Metric, x0: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Return by how much each value may decrease and increase within a linf radius and the box."""
    r = over(radius.to(x0), x0)
    return (
        torch.minimum(r, x0 - metric.low).clamp_min(0),
        torch.minimum(r, metric.high - x0).clamp_min(0),
    )


def first_layer_changes(
    metric: Metric, first: FirstLayer, x0: Tensor, radius: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the largest decrease and increase of each input value of the first layer.

    Args:
        metric: metric of the balls.
        first: map into the layer, of n values.
        x0: (B, ...) float centres.
        radius: (B,) float64.

    Returns:
        (B, n) each, exact for linf; other metrics ignore the box, which loosens the bounds.
    """
    if isinstance(metric, Linf):
        down, up = box_room(metric, x0, radius)
        positive, negative = first.positive.T, first.negative.T
        decrease = flat(down) @ positive - flat(up) @ negative
        increase = flat(up) @ positive - flat(down) @ negative
        return decrease, increase
    scale = radius * metric.extent(x0)
    change = (scale[:, None] * first.dual).to(x0)
    return change, change
