"""Entropic optimal transport between images of mass 1 on one grid: dual potentials and values.

    OT_ε(a, b) = min_P <C, P> + ε KL(P | a b^T),  P 1 = a, P^T 1 = b
               = max_{f, g} <f, a> + <g, b> - ε <a e^{f/ε}, K (b e^{g/ε})> + ε,  K = e^{-C/ε}.

Source: Cuturi 2013, algorithm 1; envelope: Cuturi & Peyré 2016; rounding: Altschuler, Weed,
Rigollet 2017, algorithm 2; debiasing: Feydy et al. 2019, equation 3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attackers.denormals import flushed_denormals
from attackers.gibbs_kernel import GibbsKernel

GROUNDS: dict[str, Callable[[Tensor], Tensor]] = {
    "manhattan": torch.abs,
    "squared_euclidean": torch.square,
}
"""Cost of a shift along one axis, by name; the cost of a move is the sum over both axes."""


@dataclass(frozen=True)
class EntropicProblem:
    """Problem OT_ε between images a and b, ``(N, H, W)``, each of mass 1.

    Attributes:
        kind: kernel, in plain numbers or logarithms.
        ground: one of `GROUNDS`.
        entropy: ε, in the unit of the ground cost.
        steps: updates of both potentials.
    """

    kind: type[GibbsKernel]
    ground: str
    entropy: float
    steps: int

    def solve(self, a: Tensor, b: Tensor, rounded: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return a value ``(N,)`` and both dual potentials ``(N, H, W)``.

        The value is the cost of the rounded plan if ``rounded``, else the dual objective.
        """
        a, b = (mass.permute(1, 2, 0).contiguous() for mass in (a, b))
        gibbs = self._gibbs(a)
        weights_a, weights_b = gibbs.weights(a), gibbs.weights(b)
        u, v = gibbs.ones(a), gibbs.ones(b)
        for _ in range(self.steps):
            gibbs.scaling(weights_b, v, out=u)
            gibbs.scaling(weights_a, u, out=v)
        f, g = self.entropy * gibbs.potential(u), self.entropy * gibbs.potential(v)
        if rounded:
            # In float64: the rounding error of single precision then counts as unmoved mass.
            a, b, u, v = a.double(), b.double(), u.double(), v.double()
            a, b = a / a.sum((0, 1)), b / b.sum((0, 1))
            value = (self.entropy * _rounded(self._gibbs(a), a, u, b, v)).to(f)
        else:
            # The plan has mass 1 after an update, so the last two terms of the dual cancel.
            value = (f * a + g * b).sum((0, 1))
        return value, f.permute(2, 0, 1), g.permute(2, 0, 1)

    def _gibbs(self, like: Tensor) -> GibbsKernel:
        heights, widths = (
            (axis_costs(size, self.ground) / self.entropy).to(like) for size in like.shape[:2]
        )
        decays = self.ground == "manhattan"
        return self.kind(heights, widths, decays, torch.empty_like(like))


def _rounded(gibbs: GibbsKernel, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """Return <C, G> / ε, ``(N,)``, of a plan G with marginals a and b near diag(a u) K diag(b v).

    Scale the rows down to at most a, then the columns to at most b, and add the remaining mass of
    both sides as left_a left_b^T / |left_b|. Altschuler et al. bound the cost of this last term by
    C_max · |left|; the exact cost is a sum over the axes, as cheap, and several times smaller.

    Source: Altschuler, Weed, Rigollet 2017, algorithm 2 and lemma 7.
    """
    weights_a, weights_b = gibbs.weights(a), gibbs.weights(b)
    u = torch.minimum(u, gibbs.scaling(weights_b, v, out=torch.empty_like(u)))
    v = torch.minimum(v, gibbs.scaling(weights_a, u, out=torch.empty_like(v)))
    left_a = (a - gibbs.moved(weights_a, u, weights_b, v)).clamp_min_(0)
    left_b = (b - gibbs.moved(weights_b, v, weights_a, u)).clamp_min_(0)
    mass_a, mass_b = left_a.sum((0, 1)), left_b.sum((0, 1))
    down = (left_a.sum(1) * (gibbs.heights @ left_b.sum(1))).sum(0)
    across = (left_a.sum(0) * (gibbs.widths @ left_b.sum(0))).sum(0)
    # Both masses are equal up to rounding: the difference is charged the largest cost.
    paired = (down + across) / torch.maximum(mass_a, mass_b).clamp_min(torch.finfo(a.dtype).tiny)
    unpaired = (mass_a - mass_b).abs() * (gibbs.heights.max() + gibbs.widths.max())
    return gibbs.spent(weights_a, u, weights_b, v) + paired + unpaired


class _SolvedValue(torch.autograd.Function):
    """Value of a problem; its derivative in each marginal is the potential of that marginal."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, problem: EntropicProblem, rounded: bool) -> Tensor:
        with flushed_denormals():
            value, f, g = problem.solve(a, b, rounded)
        ctx.save_for_backward(f, g)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        f, g = ctx.saved_tensors
        return grad[:, None, None] * f, grad[:, None, None] * g, None, None


def _upper_bound(problem: EntropicProblem, a: Tensor, b: Tensor) -> Tensor:
    value: Tensor = _SolvedValue.apply(a, b, problem, True)
    return value


def _regularised(problem: EntropicProblem, a: Tensor, b: Tensor) -> Tensor:
    value: Tensor = _SolvedValue.apply(a, b, problem, False)
    return value


def _debiased(problem: EntropicProblem, a: Tensor, b: Tensor) -> Tensor:
    both = _regularised(problem, torch.cat([a, a, b]), torch.cat([b, a, b]))
    cross, first, second = both.view(3, len(a)).unbind(0)
    return cross - (first + second) / 2


VALUES: dict[str, Callable[[EntropicProblem, Tensor, Tensor], Tensor]] = {
    "bound": _upper_bound,
    "regularised": _regularised,
    "debiased": _debiased,
}
"""Values of a problem by name; `attackers.sinkhorn.sinkhorn_distance` defines them."""


def axis_costs(size: int, ground: str) -> Tensor:
    """Return the costs between the positions of one axis, float64 ``(size, size)``."""
    position = torch.arange(size, dtype=torch.float64)
    return GROUNDS[ground](position[:, None] - position)
