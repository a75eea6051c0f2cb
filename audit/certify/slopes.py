"""Optimisation of lower slopes: any slope of an unstable neuron is sound, some give tighter bounds.

Source: Xu, Zhang, Wang, Wang, Jana, Lin, Hsieh 2021 (alpha-CROWN).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from audit.certify.margins import Margins
from audit.certify.network import Relaxations
from audit.certify.relaxation import Lines

SLOPE_STEP = 0.25
"""Initial step size of Adam, in units of a slope (between 0 and 1); it falls to a tenth."""


def tuned(
    margins: Callable[[Relaxations], Margins],
    relaxed: Relaxations,
    slopes: Mapping[int, Tensor],
    steps: int,
) -> Relaxations:
    """Return relaxations with the lower slopes that maximise the smallest margin.

    Adam optimises the slopes sample by sample; the best slopes found are kept. Only the margins are
    optimised: the bounds of the layers' inputs are not changed.

    Args:
        margins: returns bounds for given relaxations, differentiable by their slopes.
        relaxed: initial relaxations.
        slopes: initial slopes, by index; they replace those of ``relaxed``.
        steps: number of gradient steps; 0 evaluates nothing and keeps the initial slopes.
    """
    start = {
        index: found.with_lower_slope(slopes[index]) if index in slopes else found
        for index, found in relaxed.items()
        if isinstance(found, Lines) and found.unstable is not None and bool(found.unstable.any())
    }
    if not steps or not start:
        return {**relaxed, **start}
    best = {index: found.lower_slope for index, found in start.items()}
    most: Tensor | None = None
    variables = [found.lower_slope.clone().requires_grad_() for found in start.values()]
    optimiser = torch.optim.Adam(variables, lr=SLOPE_STEP)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.1 ** (1 / steps))
    for step in range(steps + 1):
        with torch.enable_grad():
            now = {
                index: found.with_lower_slope(slope)
                for (index, found), slope in zip(start.items(), variables, strict=True)
            }
            least = margins({**relaxed, **now}).least()
        better = torch.ones_like(least, dtype=torch.bool) if most is None else least > most
        most = least.detach() if most is None else torch.maximum(most, least.detach())
        for (index, old), slope in zip(best.items(), variables, strict=True):
            mask = better.reshape(-1, *[1] * (slope.dim() - 1))
            best[index] = torch.where(mask, slope.detach(), old)
        if step == steps:
            break
        grads = torch.autograd.grad(-least.sum(), variables, allow_unused=True)
        for slope, grad in zip(variables, grads, strict=True):
            # A norm has no gradient at 0.
            slope.grad = None if grad is None else grad.nan_to_num()
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            for found, slope in zip(start.values(), variables, strict=True):
                slope.clamp_(found.min_slope, 1.0)
    return {
        **relaxed,
        **{index: start[index].with_lower_slope(slope) for index, slope in best.items()},
    }


def slopes_of(relaxed: Relaxations) -> dict[int, Tensor]:
    """Return the lower slopes of relaxations whose slopes may be changed, by index."""
    return {
        index: found.lower_slope
        for index, found in relaxed.items()
        if isinstance(found, Lines) and found.unstable is not None
    }
