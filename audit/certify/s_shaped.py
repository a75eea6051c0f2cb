"""Lines around S-shaped operations (sigmoid, tanh): increasing, convex below 0, concave above."""

from collections.abc import Callable

import torch
from torch import Tensor

from audit.certify.relaxation import Lines

TANGENT_BISECTIONS = 40
"""Number of bisections of the point where a line through an end of the bounds touches the
operation; after 40 the interval is 1e-12 of its width, which `OUTWARD_SHIFT` covers."""

OUTWARD_SHIFT = 1e-6
"""Distance by which lines are moved outwards, in units of the operation's range between the bounds;
it covers the remaining error of the bisection."""


def s_shaped(
    function: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]
) -> Callable[[Tensor, Tensor], Lines]:
    """Return the relaxation of an increasing function that is convex below 0 and concave above.

    Between bounds of one sign, the lines are the chord and the tangent at the middle. Between
    bounds of both signs, each line is the tangent through the far end if it touches the function
    between the bounds, otherwise the chord.

    Args:
        function: the operation on each value.
        slope: its derivative.

    Returns:
        Function of bounds ``(B, ...)``, lower and upper.

    Source: Zhang et al. 2018 (CROWN).
    """

    def lines(lower: Tensor, upper: Tensor) -> Lines:
        at_lower, at_upper = function(lower), function(upper)
        width = upper - lower
        narrow = width < 1e-6
        chord = torch.where(narrow, slope(lower), (at_upper - at_lower) / width.clamp_min(1e-12))
        middle = (lower + upper) / 2
        tangent = slope(middle)
        offset_of_tangent = function(middle) - tangent * middle
        offset_of_chord = at_lower - chord * lower
        concave, convex = lower >= 0, upper <= 0
        above = _touching(function, slope, lower, upper, is_upper=True)
        below = _touching(function, slope, lower, upper, is_upper=False)

        def select(
            takes_chord: Tensor, takes_tangent: Tensor, crossing: tuple[Tensor, Tensor]
        ) -> tuple[Tensor, Tensor]:
            steep = torch.where(
                takes_chord, chord, torch.where(takes_tangent, tangent, crossing[0])
            )
            offset = torch.where(
                takes_chord,
                offset_of_chord,
                torch.where(takes_tangent, offset_of_tangent, crossing[1]),
            )
            return steep, offset

        lower_slope, lower_offset = select(concave, convex, below)
        upper_slope, upper_offset = select(convex, concave, above)
        # The shift covers rounding and the remaining error of the bisection.
        shift = OUTWARD_SHIFT * (at_upper - at_lower) + 8 * torch.finfo(lower.dtype).eps
        return Lines(lower_slope, lower_offset - shift, upper_slope, upper_offset + shift)

    return lines


def _touching(
    function: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor], Tensor],
    lower: Tensor,
    upper: Tensor,
    *,
    is_upper: bool,
) -> tuple[Tensor, Tensor]:
    """Return the line through one end that touches the far branch, or the chord if none does.

    The upper line passes through the lower end and touches at d in [0, upper] with
    f'(d)·(d - lower) = f(d) - f(lower). The steepest line through the end that does not cross the
    function has the smallest d at which the tangent passes outside the end.

    Returns:
        Slope and offset, ``(B, ...)`` each.
    """
    end = lower if is_upper else upper
    inner, outer = torch.zeros_like(lower), (upper if is_upper else lower)
    at_end = function(end)

    def passes_outside(at: Tensor) -> Tensor:
        value = function(at) + slope(at) * (end - at)
        return value >= at_end if is_upper else value <= at_end

    touches = passes_outside(outer)
    for _ in range(TANGENT_BISECTIONS):
        middle = (inner + outer) / 2
        outside = passes_outside(middle)
        outer = torch.where(outside, middle, outer)
        inner = torch.where(outside, inner, middle)
    steep = slope(outer)
    offset = function(outer) - steep * outer
    width = (upper - lower).clamp_min(1e-12)
    chord = (function(upper) - function(lower)) / width
    return (
        torch.where(touches, steep, chord),
        torch.where(touches, offset, function(lower) - chord * lower),
    )


sigmoid_lines = s_shaped(torch.sigmoid, lambda z: torch.sigmoid(z) * (1 - torch.sigmoid(z)))
tanh_lines = s_shaped(torch.tanh, lambda z: 1 - torch.tanh(z).square())
