"""Line search from an adversarial example back to the decision boundary."""

from collections.abc import Callable

import torch
from torch import Tensor

from attackers.losses import misclassified
from attackers.rows import expand, over


@torch.no_grad()
def nearest_on_segment(
    scores: Callable[[Tensor], Tensor],
    x0: Tensor,
    x: Tensor,
    labels: Tensor,
    *,
    wrong: Callable[[Tensor, Tensor], Tensor] = misclassified,
    steps: int = 10,
) -> Tensor:
    """Bisect t on the segment x0 + t (x - x0) for the smallest misclassified t.

    Every point returned was evaluated and found misclassified, so the result is an adversarial
    example whatever the decision regions look like; it is no farther than ``x`` in any metric that
    grows along segments, and stays inside any convex box.

    Args:
        scores: the deployed model, (B, ...) -> (B, K).
        x0: (B, ...) correctly classified.
        x: (B, ...) misclassified.
        labels: (B,) int64.
        wrong: criterion of misclassification, of (scores, labels), (B,) bool.
        steps: bisections; the position is known to 2**-steps of the segment.

    Returns:
        (B, ...) misclassified points.
    """
    best = x
    good, bad = x0.new_zeros(len(x0)), x0.new_ones(len(x0))
    for _ in range(steps):
        t = (good + bad) / 2
        # Between x0 and x coordinate by coordinate, so rounding cannot leave the box.
        point = torch.where(x > x0, torch.minimum(x0 + expand(t, x) * (x - x0), x), x)
        point = torch.where(x < x0, torch.maximum(x0 + expand(t, x) * (x - x0), x), point)
        fooled = wrong(scores(point), labels)
        best = torch.where(over(fooled, x), point, best)
        good, bad = torch.where(fooled, good, t), torch.where(fooled, t, bad)
    return best
