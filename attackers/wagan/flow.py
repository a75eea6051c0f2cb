"""Moving mass by local plans: what the flow head of a generator does with its outputs.

Every pixel i shares its mass between the pixels j of a window around it,

    pi_ij = x_i · e^{l_ij - lam·C_ij} / sum_k e^{l_ik - lam·C_ik},   l_ii = 0,

with free logits l, Euclidean costs C and one price lam >= 0 per image at which moving costs what it
may. Where a pixel would get more than it has room for, all that comes in is scaled down and stays
where it was. So for any logits the result holds the mass of every channel, lies in the box, and is
within the budget: the plan is the witness.

Compare `attackers.coupling`, whose plans come from one potential and have dual prices for the room:
it is for loops that end at the best plan, this for one differentiable pass.
"""

from dataclasses import dataclass
from functools import cached_property
from math import hypot

import torch
from torch import Tensor
from torch.nn.functional import fold, unfold

from attackers.metric import INWARD
from attackers.rows import over, row_sum

STRONGEST = 12.0
"""Largest logit: a share of e^-12 against it is as good as none."""

DEAREST = 2 * STRONGEST + 20
"""The highest price that is tried; what still costs too much then is scaled."""

HALVINGS = 10
"""Of the price, before one step of Newton's method."""

PASSES, CLOSINGS = 2, 2
"""Rounds of scaling down: while a full pixel may pass mass on, and while it may not."""

TINY = 1e-30


@dataclass(frozen=True)
class Window:
    """The offsets within ``reach`` rows and columns, row by row; the middle one is staying."""

    reach: int

    @property
    def side(self) -> int:
        """Offsets per axis."""
        return 2 * self.reach + 1

    @property
    def moves(self) -> int:
        """Offsets that lead elsewhere."""
        return self.side**2 - 1

    @cached_property
    def costs(self) -> tuple[float, ...]:
        """Euclidean length of each offset, in pixels."""
        span = range(-self.reach, self.reach + 1)
        return tuple(hypot(rows, columns) for rows in span for columns in span)

    @cached_property
    def classes(self) -> tuple[tuple[float, tuple[int, ...]], ...]:
        """Distinct lengths, ascending, and the places of their offsets."""
        lengths = sorted(set(self.costs))
        places = {
            length: [k for k, c in enumerate(self.costs) if c == length] for length in lengths
        }
        return tuple((length, tuple(places[length])) for length in lengths)

    def gathered(self, x: Tensor) -> Tensor:
        """What lies at each offset of each pixel, zero beyond the edge: ``(N, K, H·W)``."""
        return unfold(x, self.side, padding=self.reach)

    def scattered(self, plan: Tensor, height: int, width: int) -> Tensor:
        """What arrives at each pixel, of ``(N, K, H·W)``: the transpose, ``(N, H·W)``."""
        arrived = fold(plan, (height, width), self.side, padding=self.reach)
        return arrived.flatten(1)


def moved(
    x: Tensor, logits: Tensor, radius: Tensor, *, reach: int, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """Move mass by local plans, differentiable in the logits.

    Args:
        x: (B, C, H, W) in [low, high].
        logits: (B, C, K, H, W) with K = (2·reach + 1)², in the order of `Window`; those of the
            middle do not count, and values beyond ±`STRONGEST` are squashed.
        radius: (B,) in pixels × fraction of the image's mass.
        reach: rows and columns that mass may move on each side.
        low: smallest pixel, of no mass.
        high: largest pixel.

    Returns:
        (B, C, H, W) in the dtype of ``x``: in the box, of the mass of ``x`` in every channel and no
        farther than the radius, up to the rounding of that dtype.
    """
    _, channels, height, width = x.shape
    window = Window(reach)
    mass, room = (x - low).clamp_min(0), (high - x).clamp_min(0)
    budget = radius.to(x) * row_sum(mass) * INWARD
    # Channels move alike and apart: they are rows of their own from here to the end.
    held, free = mass.reshape(-1, height * width), room.reshape(-1, height * width)
    weights = _weights(window, logits.to(x).reshape(-1, window.side**2, height * width), x)
    price = _price(window, weights, held, budget)
    plan = _plan(window, weights, held, price.repeat_interleave(channels))
    plan, arriving, leaving = _fitting(window, plan, free, height, width)
    costs = plan.new_tensor(window.costs)
    cost = torch.einsum("nkp,k->n", plan, costs).view(-1, channels).sum(1)
    part = (budget / cost.clamp_min(TINY)).clamp_max(1)
    change = (arriving - leaving).view_as(x) * over(part, x)
    return (x + change).clamp(low, high)


def _weights(window: Window, logits: Tensor, x: Tensor) -> Tensor:
    """e^l of every offset, 1 in the middle, zero where it leads out, ``(N, K, H·W)``."""
    inside = window.gathered(torch.ones_like(x[:1, :1]))
    middle = torch.zeros_like(inside[:, :, :1])
    middle[:, window.moves // 2] = 1
    # One that is squashed has no gradient to come back by but the slope of tanh.
    squashed = STRONGEST * (logits / STRONGEST).tanh()
    return (squashed * (1 - middle)).exp() * inside


def _price(window: Window, weights: Tensor, held: Tensor, budget: Tensor) -> Tensor:
    """The price at which the plans cost the budget, or 0 where they cost less at once, ``(B,)``.

    A price depends on the length of an offset alone, so the sums over offsets of equal length are
    made once. Halvings find the place; the step of Newton's method from there also carries the
    derivative, by the implicit function theorem: d lam = -d cost / (∂cost/∂lam).
    """
    lengths = weights.new_tensor([length for length, _ in window.classes])
    sums = torch.stack([weights[:, list(places)].sum(1) for _, places in window.classes], 1)
    channels = len(held) // len(budget)

    def costs(price: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
        """What moving costs at a price, and its derivative in the price, ``(B,)``."""
        discount = (-price[:, None] * lengths).exp().repeat_interleave(channels, 0)
        powers = torch.stack([discount * lengths**power for power in range(3)], 1)
        total, once, twice = torch.bmm(powers, sums).unbind(1)
        mean = once / total
        cost = (held * mean).sum(1).view(-1, channels).sum(1)
        slope = (held * (mean.square() - twice / total)).sum(1).view(-1, channels).sum(1)
        return cost, slope

    with torch.no_grad():
        lowest, highest = torch.zeros_like(budget), torch.full_like(budget, DEAREST)
        free = costs(lowest, sums)[0] <= budget
        for _ in range(HALVINGS):
            middle = (lowest + highest) / 2
            dear = costs(middle, sums)[0] > budget
            lowest = torch.where(dear, middle, lowest)
            highest = torch.where(dear, highest, middle)
    cost, slope = costs(highest, sums)
    price = highest + (cost - budget) / (-slope.detach()).clamp_min(TINY)
    # Far from the root, where a plan has stopped moving, the step would leave the bracket.
    kept = torch.maximum(torch.minimum(price, highest.detach()), lowest)
    return torch.where(free, 0, kept)


def _plan(window: Window, weights: Tensor, held: Tensor, price: Tensor) -> Tensor:
    """What each pixel sends by each offset, ``(N, K, H·W)``; nothing by the middle one."""
    lengths = weights.new_tensor(window.costs)
    shares = weights * (-price[:, None] * lengths).exp()[:, :, None]
    plan = shares * (held / shares.sum(1))[:, None]
    return plan * (lengths > 0).to(plan)[:, None]


def _fitting(
    window: Window, plan: Tensor, free: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Scale down what comes into pixels that overflow; what does not go stays.

    At first a pixel may take what it passes on as well. One that overflows after `PASSES` rounds is
    closed: it takes no more than its room, whatever leaves it. At last all pixels of an image that
    still overflows are, which cannot fail.

    Returns:
        The plan, what arrives at and what leaves every pixel ``(N, H·W)``.
    """
    arriving, leaving = window.scattered(plan, height, width), plan.sum(1)
    closed = torch.zeros_like(free)
    for number in range(PASSES + CLOSINGS + 1):
        with torch.no_grad():
            overflows = (arriving - leaving > free).to(free)
            if number >= PASSES:
                closed = torch.maximum(closed, overflows)
            if number == PASSES + CLOSINGS:
                closed = torch.maximum(closed, overflows.amax(1, keepdim=True))
            # An image that is in order is left alone, whatever the others need.
            needed = overflows.amax(1, keepdim=True) > 0
        if not bool(needed.any()):
            break
        scale = ((free + leaving * (1 - closed)) / arriving.clamp_min(TINY)).clamp_max(1)
        scale = torch.where(needed, scale, 1)
        plan = plan * window.gathered(scale.view(-1, 1, height, width))
        arriving, leaving = arriving * scale, plan.sum(1)
    return plan, arriving, leaving
