"""Moving mass by local plans: what the flow head of a generator does with its output.

A potential u says what mass is worth at every pixel, and every pixel i shares its mass between the
pixels j of a window around it,

    pi_ij = x_i · e^{u_j - u_i - lam·C_ij} / sum_k e^{u_k - u_i - lam·C_ik},   C_ii = 0,

with Euclidean costs C and one price lam >= 0 per image at which moving costs what it may. Where a
pixel would get more than it has room for, all that comes in is scaled down and stays where it was.
So for any potential the result holds the mass of every channel, lies in the box, and is within the
budget: the plan is the witness. It is never written down: its rows and columns are a handful of
shifted sums of whole images.

Compare `attackers.coupling`, with dual prices for the room and duals that stay warm: it is for
loops that end at the best plan, this for one differentiable pass.
"""

import torch
from torch import Tensor

from attackers.coupling import Window
from attackers.metric import INWARD
from attackers.rows import over, row_max, row_sum

LARGEST_POTENTIAL = 12.0
"""Largest absolute potential: a share of e^-12 is negligible. A larger one makes exponents leave
the range of float32 sooner."""

HIGHEST_PRICE = 2 * LARGEST_POTENTIAL + 20
"""Largest price (1 / pixel) of the bisection; a plan that still costs too much is scaled."""

PRICE_BISECTIONS = 10
"""Bisections of the price before one Newton step; more are slower and more exact."""

OPEN_SCALINGS, CLOSED_SCALINGS = 2, 2
"""Rounds of scaling down, with full pixels still passing mass on and with them closed. More rounds
cost time and waste less of the budget."""

FLOW_DIVISOR_FLOOR = 1e-15
"""Smallest divisor; the square of its inverse, which gradients contain, is finite in float32."""


def moved_mass(
    x: Tensor, potential: Tensor, radius: Tensor, *, reach: int, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """Move mass up a potential, differentiable in it.

    Args:
        x: (B, C, H, W) in [low, high].
        potential: (B, C, H, W); values beyond ±`LARGEST_POTENTIAL` are squashed.
        radius: (B,) in pixels × fraction of the image's mass.
        reach: rows and columns that mass may move on each side.
        low: smallest pixel, of no mass.
        high: largest pixel.

    Returns:
        (B, C, H, W) in the dtype of ``x``: in the box, of the mass of ``x`` in every channel and no
        farther than the radius, up to the rounding of that dtype.
    """
    window = Window(reach)
    mass, room = (x - low).clamp_min(0), (high - x).clamp_min(0)
    budget = radius.to(x) * row_sum(mass) * INWARD
    # One that is squashed has no gradient to come back by but the slope of tanh.
    worth = (LARGEST_POTENTIAL * (potential.to(x) / LARGEST_POTENTIAL).tanh()).exp()
    near = torch.stack(window.sums(worth), 1)
    price = _price(window, worth, near, mass, budget)
    discounts = _discounts(window, price)
    # What a pixel sends by a way is source · discount · worth of where it leads.
    source = mass / (worth + _priced(discounts, near))
    arriving = worth * _priced(discounts, torch.stack(window.sums(source), 1))
    target, arriving, leaving = _fitting(
        window, discounts, source, worth, arriving, _priced(discounts, near), room
    )
    costs = discounts * discounts.new_tensor(window.costs)
    cost = row_sum(source * _priced(costs, torch.stack(window.sums(target), 1)))
    part = (budget / cost.clamp_min(FLOW_DIVISOR_FLOOR)).clamp_max(1)
    return (x + (arriving - leaving) * over(part, x)).clamp(low, high)


def _discounts(window: Window, price: Tensor) -> Tensor:
    """e^{-lam·C} for every distance, ``(B, D)``."""
    return (-price[:, None] * price.new_tensor(window.costs)).exp()


def _priced(weights: Tensor, sums: Tensor) -> Tensor:
    """Weighted sum over the distances: (B, D) and (B, D, C, H, W) give (B, C, H, W)."""
    flat = torch.bmm(weights[:, None], sums.flatten(2))
    return flat.view(len(sums), *sums.shape[2:])


def _price(window: Window, worth: Tensor, near: Tensor, mass: Tensor, budget: Tensor) -> Tensor:
    """The price at which the plans cost the budget, or 0 where they cost less at once, ``(B,)``.

    Halvings find the place; the step of Newton's method from there also carries the derivative, by
    the implicit function theorem: d lam = -d cost / (∂cost/∂lam).
    """
    lengths = mass.new_tensor(window.costs)
    powers = torch.stack([lengths**power for power in range(3)])
    sums, staying, held = near.flatten(2), worth.flatten(1), mass.flatten(1)

    def costs(price: Tensor, *, slope: bool) -> tuple[Tensor, Tensor]:
        """What moving costs at a price, and its derivative in the price, ``(B,)``."""
        weights = powers[: 3 if slope else 2] * _discounts(window, price)[:, None]
        total, once, *twice = torch.bmm(weights, sums).unbind(1)
        total = total + staying
        mean = once / total
        cost = (held * mean).sum(1)
        return cost, (held * (mean.square() - twice[0] / total)).sum(1) if slope else cost

    with torch.no_grad():
        lowest, highest = torch.zeros_like(budget), torch.full_like(budget, HIGHEST_PRICE)
        free = costs(lowest, slope=False)[0] <= budget
        for _ in range(PRICE_BISECTIONS):
            middle = (lowest + highest) / 2
            dear = costs(middle, slope=False)[0] > budget
            lowest = torch.where(dear, middle, lowest)
            highest = torch.where(dear, highest, middle)
    cost, slope = costs(highest, slope=True)
    price = highest + (cost - budget) / (-slope.detach()).clamp_min(FLOW_DIVISOR_FLOOR)
    # Far from the root, where a plan has stopped moving, the step would leave the bracket.
    kept = torch.maximum(torch.minimum(price, highest), lowest)
    return torch.where(free, 0, kept)


def _fitting(
    window: Window,
    discounts: Tensor,
    source: Tensor,
    target: Tensor,
    arriving: Tensor,
    reached: Tensor,
    room: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scale down the mass that arrives at pixels that overflow; the remaining mass stays.

    At first a pixel may also receive as much as leaves it. One that overflows after
    `OPEN_SCALINGS` rounds is closed: it receives at most its room, whatever leaves it. In the last
    round all pixels of an image that still overflows are closed, which cannot fail.

    Returns:
        The scaled target, what arrives at and what leaves every pixel.
    """
    leaving = source * reached
    closed = torch.zeros_like(room)
    for number in range(OPEN_SCALINGS + CLOSED_SCALINGS + 1):
        with torch.no_grad():
            overflows = (arriving - leaving > room).to(room)
            if number >= OPEN_SCALINGS:
                closed = torch.maximum(closed, overflows)
            # An image that is in order is left alone, whatever the others need.
            needed = over(row_max(overflows) > 0, room)
            if number == OPEN_SCALINGS + CLOSED_SCALINGS:
                closed = torch.maximum(closed, needed.to(closed).expand_as(closed))
        if not bool(needed.any()):
            break
        scale = (
            (room + leaving * (1 - closed)) / arriving.clamp_min(FLOW_DIVISOR_FLOOR)
        ).clamp_max(1)
        scale = torch.where(needed, scale, 1)
        target, arriving = target * scale, arriving * scale
        leaving = source * _priced(discounts, torch.stack(window.sums(target), 1))
    return target, arriving, leaving
