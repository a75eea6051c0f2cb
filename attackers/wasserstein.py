"""The image-Wasserstein distance: how much of an image's mass moved, and how far.

Mass is what a pixel holds above the lower end of the box; M is the mass of the whole image, over
all channels. It moves inside its channel, at the Euclidean distance in pixels, and

    d(x0, x) = min { Σ C_ij pi_ij : pi turns x0 into x } / M

in pixels × fraction of the mass: 0.1 is a tenth of the mass moved by one pixel. Every channel keeps
its mass, and the box holds. This is p = 1 of Wong, Schmidt, Kolter 2019, and the cost of Wu, Wang,
Yu 2020 and Hu et al. 2020. A black image (M = 0) cannot move.

The distance is a norm of the change (Kantorovich-Rubinstein), so it grows linearly along segments.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attackers.coupling import Coupling
from attackers.earth_mover import Transport, transport_plan
from attackers.metric import INWARD, Metric, Radius
from attackers.random_streams import SampleGenerator
from attackers.rows import DIVISOR_FLOOR, expand, flat, over, row_max, row_sum

MASS_TOLERANCE = 1e-6
"""Largest change of the mass of a channel, as a share of the mass of the image, that counts as
rounding (float32 pixels)."""

SLOPE_WINDOW = 3
"""Largest offset, in rows and columns, between the pixels that the dual norm compares. A larger one
is slower and makes the bound tighter than `SLOPE_EXCESS`."""

SLOPE_EXCESS = 1.0132
"""Largest ratio of a path in steps of `SLOPE_WINDOW` to the straight line: 1 / cos of half the
widest angle between steps, from (0, 1) to (1, 3)."""

ASCENT_LEVELS = (8.0, 16.0, 30.0, 40.0)
"""Multipliers lam (1 / pixel) of the coupling that an ascent tries in turn, each from the duals of
the one before. Each costs one solve; the larger ones approach the linear program."""

WINDOW_REACH = 2
"""Pixels that mass may move along rows and columns. The cost of a step grows with the number of
offsets; a smaller window misses distant targets. Called `reach` as in stored generator files."""

SHORT_MOVE = 2
"""Rows and columns up to which a move of mass is a corner of its own. A larger number tightens the
hull and multiplies its corners."""

MASS_BISECTIONS = 60
"""Bisections of the shift that restores the mass of a channel, enough for float64 precision."""


@dataclass(frozen=True)
class Wasserstein(Metric):
    """Optimal transport of pixel mass, per channel, over the mass of the image.

    All methods take images ``(B, C, H, W)``. The projection is along the segment to ``x0``, nearest
    in this metric's own distance; the steepest displacement comes from an entropic coupling
    (`attackers.coupling`), always feasible, and near the linear program while the budget binds
    rather than the room: 0.97 of its gain at a radius of 0.1, 0.9 at 0.3, on images of noise.
    """

    name = "wasserstein"
    unit = "pixels × fraction of the image's mass"

    def mass(self, x0: Tensor) -> Tensor:
        """M, ``(B,)`` float64."""
        return row_sum(x0.double() - self.low)

    def extent(self, x0: Tensor) -> Tensor:
        """The mass: the cost of a transport over it is the distance."""
        return self.mass(x0)

    def distance(self, x0: Tensor, x: Tensor) -> Tensor:
        """Exact by linear programming; ``inf`` where a channel's mass changed.

        Of images so large that only near pixels can be paired it may be an upper bound; see
        `attackers.earth_mover`.
        """
        mass = self.mass(x0)
        change = (x.double() - x0.double()).flatten(2).sum(2).abs().amax(1)
        # A value that is not a number fails the comparison.
        kept = change <= MASS_TOLERANCE * mass
        cost = torch.full_like(mass, torch.inf)
        costs = [sum(plan.cost for plan in plans) for plans in self.plans(x0[kept], x[kept])]
        cost[kept] = torch.tensor(costs, dtype=torch.float64, device=x0.device)
        return torch.where(cost > 0, cost / mass.clamp_min(DIVISOR_FLOOR), 0.0)

    def plans(self, x0: Tensor, x: Tensor) -> list[list[Transport]]:
        """The cheapest plan of every channel of every image, which must hold equal mass."""
        changes = (x.detach().double() - x0.detach().double()).cpu().numpy()
        return [[transport_plan(np.asarray(channel)) for channel in image] for image in changes]

    def project(self, x0: Tensor, x: Tensor, radius: Radius) -> Tensor:
        """Restore mass and box, then walk towards ``x0`` until inside.

        The first is the Euclidean projection onto {mass of ``x0`` in every channel} ∩ box; the
        second is the nearest point in this distance, not in the Euclidean one. Radii below about
        0.005 may be exceeded by 1e-8 in float32, whose rounding of the pixels is that large.
        """
        z = self._conserved(x0, x)
        wanted = expand(radius, z.double()).flatten()
        moved = self.distance(x0, z)
        part = (wanted * INWARD / moved.clamp_min(DIVISOR_FLOOR)).clamp_max(1)
        part = torch.where(moved <= wanted, 1.0, part)
        change = (z.double() - x0.double()) * over(part, z)
        nearer = self.clamp((x0.double() + change).to(x0))
        untouched = over((part == 1) & (wanted > 0), z)
        return torch.where(untouched, z, torch.where(over(wanted > 0, z), nearer, x0))

    def ascent(self, x0: Tensor, x: Tensor, grad: Tensor, step: Radius) -> Tensor:
        """Move mass of ``x`` up the gradient, at a cost of ``step`` times the mass of ``x0``."""
        coupling = self.coupling(x0, x, step, reach=WINDOW_REACH, level=ASCENT_LEVELS[0])
        potential = with_unit_slope(grad.double().nan_to_num())
        best, most = torch.zeros_like(x), torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for level in ASCENT_LEVELS:
            coupling, change, _ = coupling.moved(potential, level)
            move = self.clamp((x.double() + change).to(x)) - x
            gain = row_sum(move.double() * potential)
            better = gain > most
            best, most = torch.where(over(better, x), move, best), torch.maximum(gain, most)
        return best

    def coupling(
        self, x0: Tensor, x: Tensor, radius: Radius, *, reach: int, level: float
    ) -> Coupling:
        """Cold duals for moving mass of ``x`` by at most ``radius`` in units of ``x0``'s mass."""
        budget = expand(radius, x.double()).flatten() * self.mass(x0) * INWARD
        mass, room = (x.double() - self.low).clamp_min(0), (self.high - x.double()).clamp_min(0)
        return Coupling.of(mass, room, budget, reach, level)

    def direction(self, x0: Tensor, grad: Tensor) -> Tensor:
        """Move all mass between the two pixels of steepest slope, ignoring the box."""
        unit, found = torch.zeros_like(grad), self._slopes(grad)
        if not found:  # a single pixel
            return unit
        slopes, offsets = zip(*found, strict=True)
        steepest = torch.stack([row_max(slope.abs()) for slope in slopes]).argmax(0)
        mass = self.mass(x0)
        for row, choice in enumerate(steepest.tolist()):
            (rows, columns), slope = offsets[choice], slopes[choice][row]
            index = int(slope.abs().argmax())
            if not float(slope.flatten()[index]):
                continue
            channel, i, j = np.unravel_index(index, slope.shape)
            j = int(j) + max(0, -columns)
            amount = float(mass[row] * slope.flatten()[index].sign()) / float(
                np.hypot(rows, columns)
            )
            unit[row, channel, int(i) + rows, j + columns] += amount
            unit[row, channel, int(i), j] -= amount
        return unit

    def dual_norm(self, x0: Tensor, grad: Tensor) -> Tensor:
        """M times the Lipschitz constant of the gradient over the pixels of a channel.

        Exact where the pixels that are more than `SLOPE_WINDOW` rows or columns apart cannot be the
        steepest pair, because no two values differ enough; otherwise an upper bound, by at most
        1.32 %.
        """
        lipschitz = torch.zeros(len(grad), dtype=torch.float64, device=grad.device)
        for slope, _ in self._slopes(grad):
            lipschitz = torch.maximum(lipschitz, row_max(slope.abs()))
        channels = grad.double().flatten(2)
        farther = (channels.amax(2) - channels.amin(2)).amax(1) / (SLOPE_WINDOW + 1)
        bound = torch.minimum(torch.maximum(lipschitz, farther), lipschitz * SLOPE_EXCESS)
        return bound * self.mass(x0)

    def corners(self, x0: Tensor, radius: float) -> Tensor:
        """Return all the cost on one move between pixels, or on one end of a long move.

        The cheapest plan between two images takes mass only from pixels that have some to pixels
        that have room, and lose or gain by it. It is a mixture of moves (i, j) of cost D_ij: moving
        budget/D_ij from i to j, for the shares of the budget that they take. Moves longer
        than `SHORT_MOVE` rows or columns are many; each is the mean of removing twice as much at i
        and of adding twice as much at j, where D_ij is at least the distance
        from j to the nearest mass.
        """
        budget = radius * float(self.mass(x0)[0])
        image = x0[0]
        height, width = image.shape[-2:]
        held, open_ = image > self.low, image < self.high
        moves = []
        for rows in range(-SHORT_MOVE, SHORT_MOVE + 1):
            for columns in range(-SHORT_MOVE, SHORT_MOVE + 1):
                if not (rows or columns):
                    continue
                start = held.nonzero()
                end = start + torch.tensor([0, rows, columns], device=start.device)
                inside = (end >= 0).all(1) & (end[:, 1] < height) & (end[:, 2] < width)
                start, end = start[inside], end[inside]
                fits = open_[end[:, 0], end[:, 1], end[:, 2]]
                start, end = start[fits], end[fits]
                moved = image.new_zeros(len(start), *image.shape)
                each, amount = torch.arange(len(start)), budget / float(np.hypot(rows, columns))
                moved[(each, *start.T)] = -amount
                moved[(each, *end.T)] = amount
                moves.append(moved)
        return torch.cat([*moves, *self._ends(held, open_, budget, image)])

    def corner_count(self, x0: Tensor) -> Tensor:
        """Count moves from every pixel with mass to those near it, and ends of long moves."""
        held, open_ = flat(x0 > self.low).sum(1), flat(x0 < self.high).sum(1)
        return (2 * SHORT_MOVE + 1) ** 2 * held + open_

    def _ends(self, held: Tensor, open_: Tensor, budget: float, like: Tensor) -> list[Tensor]:
        """Return the ends of long moves: mass that leaves, and mass that arrives."""
        start, end = held.nonzero(), open_.nonzero()
        gone, come = (like.new_zeros(len(ends), *like.shape) for ends in (start, end))
        gone[(torch.arange(len(start)), *start.T)] = -2 * budget / (SHORT_MOVE + 1)
        nearest = torch.full((len(end),), torch.inf, dtype=torch.float64, device=like.device)
        for channel in range(like.shape[0]):
            mine, sources = end[:, 0] == channel, start[start[:, 0] == channel, 1:].double()
            if len(sources):
                nearest[mine] = torch.cdist(end[mine, 1:].double(), sources).amin(1)
        amount = 2 * budget / nearest.clamp_min(SHORT_MOVE + 1)
        come[(torch.arange(len(end)), *end.T)] = amount.to(like)
        return [gone, come]

    def farthest(self, x0: Tensor, grad: Tensor, radius: Radius) -> Tensor:
        """Where `ascent` ends: inside by its plan, without solving a linear program."""
        return self.clamp(x0 + self.ascent(x0, x0, grad, radius))

    def heading(self, x0: Tensor, x: Tensor, grad: Tensor, longest: Radius) -> Tensor:
        """Return the steepest displacement of the longest step per unit of length.

        `direction` would put all mass of an image into one pixel, most of which the box cuts off.
        """
        length = expand(longest, x.double())
        move = self.ascent(x0, x, grad, length.flatten()).double()
        return (move / length.clamp_min(DIVISOR_FLOOR) * (length > 0)).to(x)

    def sample(self, x0: Tensor, radius: Radius, generator: SampleGenerator) -> Tensor:
        """Move mass up a random potential, by a uniform share of the radius."""
        share = flat(generator.fold("radius").uniform(x0))[:, 0].double()
        wanted = expand(radius, x0.double()).flatten() * share
        coupling = self.coupling(x0, x0, wanted, reach=WINDOW_REACH, level=ASCENT_LEVELS[0])
        _, change, _ = coupling.moved(
            with_unit_slope(generator.normal(x0).double()), ASCENT_LEVELS[0]
        )
        return self.clamp((x0.double() + change).to(x0))

    def diameter(self, x0: Tensor) -> Tensor:
        """An upper bound: all mass that finds room moves across the diagonal."""
        held = (x0.double() - self.low).flatten(2).sum(2)
        room = (self.high - x0.double()).flatten(2).sum(2)
        diagonal = float(np.hypot(x0.shape[-2] - 1, x0.shape[-1] - 1))
        moved = torch.minimum(held, room).sum(1) * diagonal
        return (moved / self.mass(x0).clamp_min(DIVISOR_FLOOR)).to(x0)

    def _conserved(self, x0: Tensor, x: Tensor) -> Tensor:
        """The nearest point of the box with the channels' masses of ``x0``: clip(x + shift)."""
        inside, wanted = x.double().nan_to_num(), x0.double().flatten(2).sum(2)
        fits = (inside.flatten(2).sum(2) - wanted).abs() <= MASS_TOLERANCE / 4 * self.mass(x0)[
            :, None
        ]
        fits &= ((inside >= self.low) & (inside <= self.high)).flatten(2).all(2)
        span = self.high - self.low
        low = (self.low - inside).flatten(2).amin(2) - span
        high = (self.high - inside).flatten(2).amax(2) + span
        for _ in range(MASS_BISECTIONS):
            middle = (low + high) / 2
            held = self.clamp(inside + middle[:, :, None, None]).flatten(2).sum(2)
            low = torch.where(held <= wanted, middle, low)
            high = torch.where(held <= wanted, high, middle)
        shifted = self.clamp(inside + low[:, :, None, None]).to(x0)
        return torch.where(fits[:, :, None, None], x, shifted)

    def _slopes(self, grad: Tensor) -> list[tuple[Tensor, tuple[int, int]]]:
        """Differences per pixel between all pixels at each offset, half of the offsets."""
        g = grad.double()
        height, width = g.shape[-2:]
        found = []
        for rows in range(min(SLOPE_WINDOW, height - 1) + 1):
            for columns in range(-min(SLOPE_WINDOW, width - 1), min(SLOPE_WINDOW, width - 1) + 1):
                if (rows, columns) <= (0, 0) or (rows and columns and np.gcd(rows, columns) > 1):
                    continue
                if (not rows and columns > 1) or (not columns and rows > 1):
                    continue
                first, last = max(0, -columns), width - max(0, columns)
                here = g[..., : height - rows, first:last]
                there = g[..., rows:, first + columns : last + columns]
                found.append(((there - here) / float(np.hypot(rows, columns)), (rows, columns)))
        return found


def with_unit_slope(grad: Tensor) -> Tensor:
    """Divide a gradient (B, C, H, W) by its largest difference between adjacent pixels.

    Adjacent along a row or column. The result is zero where that difference is zero: a potential
    that is constant in every channel moves no mass.
    """
    steepest = torch.zeros(len(grad), dtype=grad.dtype, device=grad.device)
    for dim in (-2, -1):
        if grad.shape[dim] > 1:
            steepest = torch.maximum(steepest, row_max(grad.diff(dim=dim).abs()))
    unit = grad / over(steepest, grad).clamp_min(torch.finfo(grad.dtype).tiny)
    return torch.where(over(steepest > 0, grad), unit, 0)
