"""The Gibbs kernel K = e^{-C/ε} of a grid, applied in plain numbers or in logarithms.

Both ground costs are a sum over the axes, so K is a Kronecker product of a kernel between rows and
one between columns. Two small products apply it, in O(n^1.5) for n pixels, and K is never formed.

Source: Solomon et al. 2015 (separable kernels); Cuturi 2013, algorithm 1 (scalings).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class GibbsKernel(ABC):
    """Kernel K = e^{-C/ε} on a grid with the arithmetic of its scalings, for masses ``(H, W, N)``.

    The N images are the last axis, so that both products are large: in float64 they take two
    thirds of the time of N small products. Weights and scalings are plain numbers in the linear
    domain and logarithms in the log domain.

    Attributes:
        heights: (H, H) cost between rows, over ε.
        widths: (W, W) cost between columns, over ε.
        decays: whether both grow linearly with the distance.
        scratch: (H, W, N) buffer for intermediate results: allocating it at each step would cost
            over half as much as the products.
    """

    heights: Tensor
    widths: Tensor
    decays: bool
    scratch: Tensor

    @abstractmethod
    def weights(self, mass: Tensor) -> Tensor:
        """Convert masses to the numbers of the domain."""

    @abstractmethod
    def ones(self, mass: Tensor) -> Tensor:
        """Return the neutral scaling, of the shape of ``mass``."""

    @abstractmethod
    def scaling(self, b: Tensor, v: Tensor, out: Tensor) -> Tensor:
        """Write 1 / K(b v) to ``out``: the scaling that satisfies the other marginal."""

    @abstractmethod
    def moved(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """Return P 1 for the plan P = diag(a u) K diag(b v), as masses."""

    @abstractmethod
    def spent(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """Return <C, P> / ε for P = diag(a u) K diag(b v), ``(N,)``.

        C ∘ K is the sum of two Kronecker products.
        """

    @abstractmethod
    def potential(self, scaling: Tensor) -> Tensor:
        """Return the logarithm of a scaling: the dual potential over ε."""


@dataclass(frozen=True)
class LinearKernel(GibbsKernel):
    """Kernel in plain numbers, applied by matrix products."""

    @cached_property
    def kernels(self) -> tuple[Tensor, Tensor]:
        """Return e^{-C/ε} between rows and between columns, (H, H) and (W, W)."""
        return (-self.heights).exp(), (-self.widths).exp()

    def weights(self, mass: Tensor) -> Tensor:
        """Return the masses."""
        return mass

    def ones(self, mass: Tensor) -> Tensor:
        """Return ones."""
        return torch.ones_like(mass)

    def scaling(self, b: Tensor, v: Tensor, out: Tensor) -> Tensor:
        """Write 1 / K(b v) to ``out``."""
        applied = self._applied(torch.mul(b, v, out=out), out)
        return applied.clamp_min_(torch.finfo(out.dtype).tiny).reciprocal_()

    def moved(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """Return P 1 as masses."""
        return a * u * self._applied(b * v, torch.empty_like(v))

    def spent(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """Return <C, P> / ε, ``(N,)``."""
        (rows, columns), x = self.kernels, b * v
        down = self._product(self.heights * rows, columns, x, torch.empty_like(x))
        across = self._product(rows, self.widths * columns, x, torch.empty_like(x))
        return (a * u * (down + across)).sum((0, 1))

    def potential(self, scaling: Tensor) -> Tensor:
        """Return the logarithm."""
        return scaling.log()

    def _applied(self, x: Tensor, out: Tensor) -> Tensor:
        """Write K x to ``out``, which may be ``x``."""
        return self._product(*self.kernels, x, out)

    def _product(self, rows: Tensor, columns: Tensor, x: Tensor, out: Tensor) -> Tensor:
        """Write (rows ⊗ columns) x to ``out``, which may be ``x``."""
        height = len(rows)
        torch.mm(rows, x.flatten(1), out=self.scratch.flatten(1))
        return torch.bmm(columns.expand(height, -1, -1), self.scratch, out=out)


@dataclass(frozen=True)
class LogKernel(GibbsKernel):
    """Kernel in logarithms, applied by log-sum-exp, so that nothing underflows."""

    def weights(self, mass: Tensor) -> Tensor:
        """Return the logarithms of the masses."""
        return mass.log()

    def ones(self, mass: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(mass)

    def scaling(self, b: Tensor, v: Tensor, out: Tensor) -> Tensor:
        """Write -log K(b v) to ``out``."""
        return torch.neg(self._applied(torch.add(b, v, out=self.scratch)), out=out)

    def moved(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """Return P 1 as masses."""
        return (a + u + self._applied(b + v)).exp_()

    def spent(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """Return <C, P> / ε, ``(N,)``."""
        rows, columns, x = -self.heights, -self.widths, b + v
        down = _log_product(self.heights.log() + rows, _across(_log_product, columns, x))
        across = _across(_log_product, self.widths.log() + columns, _log_product(rows, x))
        return (a + u + torch.logaddexp(down, across)).exp_().sum((0, 1))

    def potential(self, scaling: Tensor) -> Tensor:
        """Return the scaling: it is a logarithm already."""
        return scaling

    def _applied(self, x: Tensor) -> Tensor:
        """Return log(K e^x)."""
        product = _log_decay if self.decays else _log_product
        return product(-self.heights, _across(product, -self.widths, x))


DOMAINS: dict[str, type[GibbsKernel]] = {"linear": LinearKernel, "log": LogKernel}
"""Kernels by the name of the domain in which they compute."""


def _across(product: Callable[[Tensor, Tensor], Tensor], kernel: Tensor, x: Tensor) -> Tensor:
    """Apply a product along the second axis."""
    return product(kernel, x.transpose(0, 1)).transpose(0, 1)


def _log_product(kernel: Tensor, x: Tensor) -> Tensor:
    """Return log(e^kernel e^x) along the first axis, for (S, S) and (S, T, N).

    One term at a time: memory O(n), and several times faster than logsumexp.
    """
    total = x[0] + kernel[:, :1, None]
    for here, column in zip(x[1:], kernel.T[1:], strict=True):
        torch.logaddexp(total, here + column[:, None, None], out=total)
    return total


def _log_decay(kernel: Tensor, x: Tensor) -> Tensor:
    """Return log(e^kernel e^x) along the first axis in O(S), for a kernel of -s |i - j|.

    Two running sums, over the positions up to i and over those after it, decay by e^{-s} per step.
    """
    slopes = kernel.diagonal(1)
    before, after = [x[0]], [torch.full_like(x[0], -torch.inf)]
    for here, slope in zip(x[1:], slopes, strict=True):
        before.append(torch.logaddexp(here, before[-1] + slope))
    for here, slope in zip(x[1:].flip(0), slopes, strict=True):
        after.append(torch.logaddexp(here, after[-1]) + slope)
    return torch.logaddexp(torch.stack(before), torch.stack(after[::-1]))
