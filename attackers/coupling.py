"""Local couplings: where an image's mass should go, found on both sides of a budget at once.

Mass moves from pixel i to pixel j of a window around it at the Euclidean price C_ij. For a
potential u (how much one unit of mass is worth at each pixel) the entropic plan is

    pi_ij = y_i · exp((u_j - phi_j) - (u_i - phi_i) - lam·C_ij),   sum_j pi_ij = x_i

with one level lam per image that makes it cost what it may, and one price phi_j >= 0 per pixel that
keeps pixel j from receiving more than it has room for (what leaves j makes room). Both duals are
warm: a few rounds of Newton's method for lam and of scaling for phi are spent on every new
potential, and what they leave undone is repaired exactly, so that every plan that is used moves
mass inside the budget, inside the box, and loses none of it.

The factor exp(u_j - u_i) is a product, and the price depends on the offset alone: row and column
sums of a window of k×k offsets are then a handful of shifted sums of whole images, and the plan is
never written down.

Compare Wong et al. 2019 and Wu et al. 2020, whose plans know no box; and Hu et al. 2020, whose
duals do. Everything is float64: exponents of a sharp plan leave the range of float32.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from attackers.rows import DIVISOR_FLOOR, over, row_max, row_sum

DUAL_UPDATES = 4
"""Updates of the duals for every potential."""

OPEN_PASSES, CLOSED_PASSES = 3, 3
"""Passes of the repair: those that let a full pixel pass mass on, and those that close it."""

BUDGET_TARGET = 1.02
"""Part of the budget that the duals aim at; a plan that costs too much is scaled back."""

LARGEST_EXPONENT, SMALLEST_PRICE = 80.0, 1e-17
"""Largest exponent of a potential, smallest factor exp(-phi) of a price."""

VALUES_PER_PART = 2**15
"""Values that are worked on at once on a CPU: they stay in its cache, and torch does not divide so
few between threads, which costs more than it brings where other work runs beside."""


@dataclass(frozen=True)
class Window:
    """The pixels within ``reach`` rows and columns, in classes of equal Euclidean distance."""

    reach: int

    @cached_property
    def classes(self) -> tuple[tuple[float, tuple[tuple[int, int], ...]], ...]:
        """Distances and their offsets (rows, columns) up to sign, nearest first; itself is out."""
        span = range(self.reach + 1)
        found: dict[int, list[tuple[int, int]]] = {}
        for rows, columns in ((r, c) for r in span for c in span if r or c):
            found.setdefault(rows**2 + columns**2, []).append((rows, columns))
        return tuple((math.sqrt(square), tuple(found[square])) for square in sorted(found))

    @property
    def costs(self) -> tuple[float, ...]:
        """The distances."""
        return tuple(cost for cost, _ in self.classes)

    def sums(self, x: Tensor) -> list[Tensor]:
        """For each class the sum of ``x`` (B, C, H, W) over the neighbours at that distance."""
        padded = pad(x, (self.reach,) * 4)
        across = [_both(padded, columns, self.reach, -1) for columns in range(self.reach + 1)]
        return [
            _added([_both(across[columns], rows, self.reach, -2) for rows, columns in offsets])
            for _, offsets in self.classes
        ]


@dataclass(frozen=True)
class Coupling:
    """The duals of each image's plan, warm from the last potential.

    Attributes:
        mass: (B, C, H, W) float64, what each pixel holds.
        room: (B, C, H, W) float64, what it could take.
        budget: (B,) float64, the most that moving may cost, in mass × pixels.
        window: where mass may go.
        level: (B,) float64, lam.
        price: (B, C, H, W) float64, exp(-phi).
        sharpness: (B,) float64, by what the potential is multiplied.
        stretch: (B,) float64, multiple of the budget that the duals aim at: the repair saves some.
    """

    mass: Tensor
    room: Tensor
    budget: Tensor
    window: Window
    level: Tensor
    price: Tensor
    sharpness: Tensor
    stretch: Tensor

    @classmethod
    def of(cls, mass: Tensor, room: Tensor, budget: Tensor, reach: int, level: float) -> Self:
        """Cold duals.

        Args:
            mass: (B, C, H, W) what each pixel holds, at least 0.
            room: (B, C, H, W) what each could take, at least 0.
            budget: (B,) in mass × pixels.
            reach: rows and columns of the window on each side.
            level: the first lam; a plan of level lam leaks exp(-lam) of each pixel to a neighbour.
        """
        one = torch.ones_like(budget, dtype=torch.float64)
        return cls(
            mass=mass.double(),
            room=room.double(),
            budget=budget.double(),
            window=Window(reach),
            level=level * one,
            price=torch.ones_like(mass, dtype=torch.float64),
            sharpness=2 * level * one,
            stretch=one,
        )

    def take(self, keep: Tensor) -> Self:
        """The couplings of some images; ``keep``: mask or indices."""
        return self._per_image(lambda values: values(self)[keep])

    def resized(self, budget: Tensor) -> Self:
        """The same couplings with other budgets ``(B,)``."""
        return replace(self, budget=budget.double())

    def together(self, others: Sequence[Self]) -> Self:
        """This coupling's images, followed by those of others."""
        return self._per_image(lambda values: torch.cat([values(one) for one in (self, *others)]))

    def _per_image(self, changed: Callable[[Callable[[Self], Tensor]], Tensor]) -> Self:
        """Change all that has a row per image; ``changed`` gets what reads the values."""
        return replace(
            self,
            mass=changed(lambda one: one.mass),
            room=changed(lambda one: one.room),
            budget=changed(lambda one: one.budget),
            level=changed(lambda one: one.level),
            price=changed(lambda one: one.price),
            sharpness=changed(lambda one: one.sharpness),
            stretch=changed(lambda one: one.stretch),
        )

    def moved(self, potential: Tensor, level: float) -> tuple[Self, Tensor, Tensor]:
        """Move mass up the potential, as far as budget and room allow.

        Args:
            potential: (B, C, H, W) worth of a unit of mass at each pixel, of any scale.
            level: the lam to come to, by making the potential sharper or flatter: a small one
                spreads mass over all that is worth something, a large one moves it where it is
                worth most.

        Returns:
            The duals for the next potential; the change (B, C, H, W) float64, with -mass <= change
            <= room and a sum of zero in each channel up to float64 rounding; and what it costs at
            most (B,) float64, at most the budget.
        """
        rows = max(1, VALUES_PER_PART // max(1, self.mass[:1].numel()))
        if self.mass.device.type == "cpu" and len(self.mass) > rows:
            every = torch.arange(len(self.mass)).split(rows)
            parts = [self.take(part).moved(potential[part], level) for part in every]
            (first, *rest), changes, costs = zip(*parts, strict=True)
            return first.together(rest), torch.cat(changes), torch.cat(costs)
        up = potential.double() * over(self.sharpness, potential)
        middle = (row_max(up) - row_max(-up)) / 2
        up = _exp((up - over(middle, up)).clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT))
        now, stay, weights = self, self.mass, self._weights(self.level)
        arriving = torch.zeros_like(stay)
        for _ in range(DUAL_UPDATES):
            target, source = up * now.price, 1 / (up * now.price)
            nearby = now.window.sums(target)
            now = replace(now, level=now._newton(source, nearby))
            weights = now._weights(now.level)
            moving = source * _combined(weights, nearby)
            stay = now.mass / (1 + moving)
            arriving = target * _combined(weights, now.window.sums(source * stay))
            now = replace(now, price=now._repriced(arriving, stay * moving))
        # `target` and `source` belong to `stay` and `arriving`; the newest prices wait.
        return now._repaired(source * stay, target, arriving, weights, level)

    def _weights(self, level: Tensor) -> list[Tensor]:
        return [_exp(-level * cost) for cost in self.window.costs]

    def _newton(self, source: Tensor, nearby: Sequence[Tensor]) -> Tensor:
        """One step towards the level at which the plan costs the stretched budget."""
        weights, costs = self._weights(self.level), self.window.costs
        moving = source * _combined(weights, nearby)
        stay = self.mass / (1 + moving)
        once = source * _combined(_times(weights, costs), nearby)
        twice = source * _combined(_times(_times(weights, costs), costs), nearby)
        cost = row_sum(stay * once)
        slope = row_sum(stay * (twice - once.square() / (1 + moving)))
        ratio = (cost / (self.budget * self.stretch).clamp_min(DIVISOR_FLOOR)).clamp(0.05, 20)
        # 2 (h - 1) / (h + 1) is log h to second order: the cost falls exponentially in the level.
        step = 2 * (ratio - 1) / (ratio + 1) * cost / slope.clamp_min(DIVISOR_FLOOR)
        return (self.level + step.clamp(-3, 3)).clamp_min(0)

    def _repriced(self, arriving: Tensor, leaving: Tensor) -> Tensor:
        """Prices scaled by the s of s·arriving - leaving / s = room, where the pixel overflows.

        A higher price lets less arrive and more leave, by the same factor to first order. Where
        nothing arrives there is nothing to keep out.
        """
        root = (self.room.square() + 4 * arriving * leaving).sqrt()
        scale = torch.where(arriving > 0, (self.room + root) / (2 * arriving), torch.inf)
        return (self.price * scale.clamp(1e-6, 1e6)).clamp(SMALLEST_PRICE, 1)

    def _repaired(
        self, source: Tensor, target: Tensor, arriving: Tensor, weights: list[Tensor], level: float
    ) -> tuple[Self, Tensor, Tensor]:
        """Shrink columns of the plan source_i · K_ij · target_j until no pixel overflows.

        First each full pixel may still pass on what it takes; a pixel that overflows after a few
        passes is closed (it takes no more than its room, whatever leaves it), and in the end all
        pixels of an image that still overflows are, which cannot fail.
        """
        closed = torch.zeros_like(target)
        leaving = source * _combined(weights, self.window.sums(target))
        for number in range(OPEN_PASSES + CLOSED_PASSES + 1):
            over_full = ((arriving - leaving) > self.room * (1 + 1e-12)).to(target)
            if number >= OPEN_PASSES:
                closed = torch.maximum(closed, over_full)
            if number == OPEN_PASSES + CLOSED_PASSES:
                closed = torch.maximum(closed, over(row_max(over_full), closed))
            # An image that is in order is left alone, whatever the others need.
            open_room = self.room + leaving * (1 - closed)
            scale = (open_room / arriving.clamp_min(DIVISOR_FLOOR)).clamp_max(1)
            scale = torch.where(over(row_max(over_full) > 0, scale), scale, 1.0)
            target, arriving = target * scale, arriving * scale
            leaving = source * _combined(weights, self.window.sums(target))
        costs = _times(weights, self.window.costs)
        cost = row_sum(source * _combined(costs, self.window.sums(target)))
        part = (self.budget / cost.clamp_min(DIVISOR_FLOOR)).clamp_max(1)
        change = (arriving - leaving) * over(part, arriving)
        return self._adapted(cost, level), change, cost * part

    def _adapted(self, cost: Tensor, level: float) -> Self:
        """Sharpen towards the level wanted, and aim higher where the repair saved much."""
        ratio = (level / self.level.clamp_min(1e-3)).clamp(0.2, 5)
        saved = (BUDGET_TARGET * self.budget / cost.clamp_min(DIVISOR_FLOOR)).clamp(0.5, 2)
        return replace(
            self,
            sharpness=(self.sharpness * ratio.sqrt()).clamp(1e-2, 50 * level),
            stretch=(self.stretch * saved.sqrt()).clamp(1, 3),
        )


def _both(padded: Tensor, shift: int, reach: int, dim: int) -> Tensor:
    """What lies the shift before plus what lies the shift after, without the padding of ``dim``."""
    size = padded.shape[dim] - 2 * reach
    if not shift:
        return padded.narrow(dim, reach, size)
    return padded.narrow(dim, reach - shift, size) + padded.narrow(dim, reach + shift, size)


def _added(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _times(weights: Sequence[Tensor], costs: Sequence[float]) -> list[Tensor]:
    return [weight * cost for weight, cost in zip(weights, costs, strict=True)]


def _combined(weights: Sequence[Tensor], parts: Sequence[Tensor]) -> Tensor:
    """Σ weight·part, weights per image ``(B,)``."""
    return _added([part * over(w, part) for w, part in zip(weights, parts, strict=True)])


def _exp(x: Tensor) -> Tensor:
    """Exp rounded to 26 bits: the vectorised and the scalar routine differ in the last ones.

    A result must not depend on where in the batch an image lies.
    """
    value = torch.exp(x)
    shifted = value * (2.0**27 + 1)
    return shifted - (shifted - value)
