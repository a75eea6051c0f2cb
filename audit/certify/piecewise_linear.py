"""Lines around piecewise linear operations: ReLU, leaky ReLU and clip."""

import torch
from torch import Tensor

from audit.certify.relaxation import Lines


def leaky_relu_lines(lower: Tensor, upper: Tensor, negative_slope: float) -> Lines:
    """Relax a(z) = z above 0 and negative_slope·z below; ReLU has a negative slope of 0.

    The upper line is the chord. The lower line is the one of the two pieces that leaves the smaller
    area (adaptive slope).

    Args:
        lower: (B, ...) float, lower bounds of z.
        upper: (B, ...) float, upper bounds of z.
        negative_slope: slope for negative z, in [0, 1].

    Source: Zhang et al. 2018 (CROWN).
    """
    active, inactive = lower >= 0, upper <= 0
    width = (upper - lower).clamp_min(torch.finfo(lower.dtype).tiny)
    chord = (upper - negative_slope * lower) / width
    offset = negative_slope * lower - chord * lower
    one, slope = torch.ones_like(lower), torch.full_like(lower, negative_slope)
    adaptive = torch.where(upper > -lower, one, slope)
    zero = torch.zeros_like(lower)
    # Round upwards: the chord has to lie above the operation at both ends.
    offset = offset + 4 * torch.finfo(lower.dtype).eps * (chord * lower).abs()
    return Lines(
        torch.where(active, one, torch.where(inactive, slope, adaptive)),
        zero,
        torch.where(active, one, torch.where(inactive, slope, chord)),
        torch.where(active | inactive, zero, offset),
        unstable=~(active | inactive),
        min_slope=negative_slope,
    )


def clip_lines(lower: Tensor, upper: Tensor, floor: float, ceiling: float) -> Lines:
    """Relax min(max(z, floor), ceiling) = floor + relu(z - floor) - relu(z - ceiling).

    Its lower line is the lower line of the first ReLU minus the upper line of the second; its upper
    line is the upper line of the first minus the lower line of the second.

    Args:
        lower: (B, ...) float, lower bounds of z.
        upper: (B, ...) float, upper bounds of z.
        floor: smallest value of the operation.
        ceiling: largest value of the operation.
    """
    rising = leaky_relu_lines(lower - floor, upper - floor, 0.0)
    capped = leaky_relu_lines(lower - ceiling, upper - ceiling, 0.0)
    lines = Lines(
        rising.lower_slope - capped.upper_slope,
        floor
        - rising.lower_slope * floor
        + rising.lower_offset
        + capped.upper_slope * ceiling
        - capped.upper_offset,
        rising.upper_slope - capped.lower_slope,
        floor
        - rising.upper_slope * floor
        + rising.upper_offset
        + capped.lower_slope * ceiling
        - capped.lower_offset,
    )
    # A constant line at the smallest or largest value may be tighter at the middle of the bounds.
    least, most = lower.clamp(floor, ceiling), upper.clamp(floor, ceiling)
    flat_lower = _at_middle(lines.lower_slope, lines.lower_offset, lower, upper) < least
    flat_upper = _at_middle(lines.upper_slope, lines.upper_offset, lower, upper) > most
    zero = torch.zeros_like(lower)
    return Lines(
        torch.where(flat_lower, zero, lines.lower_slope),
        torch.where(flat_lower, least, lines.lower_offset),
        torch.where(flat_upper, zero, lines.upper_slope),
        torch.where(flat_upper, most, lines.upper_offset),
    )


def _at_middle(slope: Tensor, offset: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Evaluate a line at the middle of the bounds."""
    return slope * (lower + upper) / 2 + offset
