"""Entropic optimal transport between images, as a loss to train with; never a distance to judge by.

Mass moves inside a channel only. With M the total mass of ``x0``, m_c that of its channel c, and
every channel of ``x`` scaled to the mass of its counterpart, the value of a sample is

    Σ_c (m_c / M) · OT(x0_c / m_c, x_c / mass(x_c)),

the moved cost divided by M: pixels for the Manhattan cost |Δi| + |Δj|, pixels² for the squared
Euclidean one. Euclid <= Manhattan, so the bound with the Manhattan cost also bounds the metric
`wasserstein`. The scaling makes it blind to brightness: a loss has to price lost mass itself.

What is solved, for a and b of mass 1 on a grid of n pixels, is

    OT_ε(a, b) = min_P <C, P> + ε KL(P | a b^T),  P 1 = a, P^T 1 = b
               = max_{f, g} <f, a> + <g, b> - ε <a e^{f/ε}, K (b e^{g/ε})> + ε,  K = e^{-C/ε}.

Both costs are a sum over the axes, so K is a Kronecker product: two small matrix products apply it,
O(n^1.5), and neither P nor K is ever formed.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

GROUNDS: dict[str, Callable[[Tensor], Tensor]] = {
    "manhattan": torch.abs,
    "squared_euclidean": torch.square,
}
"""Cost of a shift along one axis; that of a move is the sum over both axes."""


def sinkhorn_distance(
    x0: Tensor,
    x: Tensor,
    *,
    ground: str = "manhattan",
    entropy: float = 0.2,
    steps: int = 50,
    value: str = "bound",
    domain: str = "auto",
) -> Tensor:
    """Transport cost from ``x0`` to ``x`` per unit of mass, differentiable in both.

    The values that can be asked for:

    - ``bound``: the cost of an explicit transport plan. Sinkhorn's iterate is rounded to a plan
      with both marginals exact, so mass that it left unmoved is paid for, and up to float rounding
      the value is an upper bound of the exact transport cost after any number of steps, at any
      entropy. It exceeds zero for equal images.
    - ``regularised``: the dual objective, a lower bound of OT_ε that rises to it with the steps.
    - ``debiased``: OT_ε(a, b) - (OT_ε(a, a) + OT_ε(b, b)) / 2 of dual objectives: zero for equal
      images, neither an upper nor a lower bound. Its gradient fades some ε away from all mass:
      it wants an ε of about a pixel.

    The gradient is that of OT_ε at its optimum (of the debiased combination for ``debiased``): the
    dual potentials, by the envelope theorem. Nothing is differentiated through the steps, and
    memory is O(n) per channel. For ``bound`` it is a direction of descent rather than the gradient
    of the value. Potentials are finite at every pixel, also where an image is zero.

    A channel that is empty in one of the images only counts with the largest cost on the grid, as
    nothing can be moved there; its gradient is zero. If x0 is black its channels count alike.

    Args:
        x0: (B, C, H, W), floating; values below zero count as zero.
        x: as ``x0``.
        ground: one of `GROUNDS`.
        entropy: ε > 0, in the unit of the cost. At 0.2 the Manhattan cost between equal images is
            a few hundredths of a pixel; a smaller one needs more steps.
        steps: updates of both potentials.
        value: ``bound``, ``regularised`` or ``debiased``.
        domain: ``linear`` is fastest and exact as long as no kernel entry underflows; ``log``
            holds for every entropy. ``auto`` takes the first of linear in the dtype of ``x0``,
            linear in float64, and log that is safe. Forcing ``linear`` beyond that stays finite
            and ``bound`` stays a bound, but the gradient no longer grows with far distances.

    Returns:
        (B,) in the dtype of ``x0``.

    Raises:
        ValueError: for images that are not floating, for shapes that differ or are not
            (B, C, H, W), or an unknown or non-positive option.

    Source: Cuturi 2013, algorithm 1; envelope: Cuturi & Peyré 2016; rounding: Altschuler, Weed,
    Rigollet 2017, algorithm 2; debiasing: Feydy et al. 2019, equation 3; separable kernels:
    Solomon et al. 2015.
    """
    _check(x0, x, ground, entropy, steps, value, domain)
    farthest = sum(float(_axis_costs(size, ground).max()) for size in x0.shape[2:])
    kind, dtype = _suited(domain, x0, farthest / entropy)
    images0, images = (image.to(dtype).clamp_min(0).flatten(0, 1) for image in (x0, x))
    masses0, masses = images0.sum((1, 2)), images.sum((1, 2))
    total = masses0.view(x0.shape[:2]).sum(1).repeat_interleave(x0.shape[1])
    # A mass that rounding hides beside the total is none; to divide by it would only overflow.
    single = torch.finfo(torch.float32)
    dark = single.tiny**0.5
    floor = (single.eps * total).clamp_min(dark)
    # Not a number is not empty: it has to come out as what it is.
    filled0, filled = ~(masses0 <= floor), ~(masses <= floor)
    a, b = _normalised(images0, masses0, filled0), _normalised(images, masses, filled)
    problem = _Problem(kind, ground, entropy, steps)
    cost = torch.where(filled0 & filled, VALUES[value](problem, a, b), farthest)
    cost = torch.where(filled0 | filled, cost, 0)
    share = torch.where(total <= dark, 1 / x0.shape[1], masses0 / total.clamp_min(dark))
    return (share * cost).view(x0.shape[:2]).sum(1).to(x0.dtype)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Let this thread's CPU arithmetic take denormal numbers for zero, then restore its old mode.

    Kernels e^{-C/ε} are full of them, and on some processors each costs a hundred cycles. torch can
    set the mode but not tell it: whether half of the smallest normal number is zero tells.
    """
    before = denormals_are_flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def denormals_are_flushed() -> bool:
    """Whether this thread's CPU arithmetic takes denormal numbers for zero."""
    smallest = torch.tensor(torch.finfo(torch.float64).tiny, dtype=torch.float64, device="cpu")
    return bool(smallest / 2 == 0)


# The kernel in two domains ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Gibbs(ABC):
    """K = e^{-C/ε} on a grid, and the arithmetic of its scalings, for masses ``(H, W, N)``.

    The N images stand last, so that both products are large ones: in float64 they take two thirds
    of the time of N small ones. Weights and scalings are plain numbers or logarithms, as the domain
    will have it.

    Attributes:
        heights: (H, H) cost between rows, over ε.
        widths: (W, W) cost between columns, over ε.
        decays: whether both grow linearly with the distance.
        scratch: (H, W, N) to write to: memory that is asked for anew at each step costs over half
            as much as the products.
    """

    heights: Tensor
    widths: Tensor
    decays: bool
    scratch: Tensor

    @abstractmethod
    def weights(self, mass: Tensor) -> Tensor:
        """Masses in the numbers of the domain."""

    @abstractmethod
    def ones(self, mass: Tensor) -> Tensor:
        """The scaling that changes nothing."""

    @abstractmethod
    def scaling(self, b: Tensor, v: Tensor, out: Tensor) -> Tensor:
        """1 / K(b v), written to ``out``: the scaling that meets the marginal of the other side."""

    @abstractmethod
    def moved(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """P 1 for the plan P = diag(a u) K diag(b v), as masses."""

    @abstractmethod
    def spent(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        """<C, P> / ε for the same plan, ``(N,)``: C ∘ K is the sum of two Kronecker products."""

    @abstractmethod
    def potential(self, scaling: Tensor) -> Tensor:
        """The logarithm of a scaling: the dual potential over ε."""


@dataclass(frozen=True)
class _Linear(_Gibbs):
    """Plain numbers and matrix products."""

    @cached_property
    def kernels(self) -> tuple[Tensor, Tensor]:
        """e^{-C/ε} between rows and between columns."""
        return (-self.heights).exp(), (-self.widths).exp()

    def weights(self, mass: Tensor) -> Tensor:
        return mass

    def ones(self, mass: Tensor) -> Tensor:
        return torch.ones_like(mass)

    def scaling(self, b: Tensor, v: Tensor, out: Tensor) -> Tensor:
        seen = self._seen(torch.mul(b, v, out=out), out)
        return seen.clamp_min_(torch.finfo(out.dtype).tiny).reciprocal_()

    def moved(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        return a * u * self._seen(b * v, torch.empty_like(v))

    def spent(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        (rows, columns), x = self.kernels, b * v
        down = self._product(self.heights * rows, columns, x, torch.empty_like(x))
        across = self._product(rows, self.widths * columns, x, torch.empty_like(x))
        return (a * u * (down + across)).sum((0, 1))

    def potential(self, scaling: Tensor) -> Tensor:
        return scaling.log()

    def _seen(self, x: Tensor, out: Tensor) -> Tensor:
        """K x, written to ``out``, which may be ``x``."""
        return self._product(*self.kernels, x, out)

    def _product(self, rows: Tensor, columns: Tensor, x: Tensor, out: Tensor) -> Tensor:
        """(rows ⊗ columns) x, written to ``out``, which may be ``x``."""
        height = len(rows)
        torch.mm(rows, x.flatten(1), out=self.scratch.flatten(1))
        return torch.bmm(columns.expand(height, -1, -1), self.scratch, out=out)


@dataclass(frozen=True)
class _Log(_Gibbs):
    """Logarithms, so that nothing underflows, and logarithms of sums of exponentials."""

    def weights(self, mass: Tensor) -> Tensor:
        return mass.log()

    def ones(self, mass: Tensor) -> Tensor:
        return torch.zeros_like(mass)

    def scaling(self, b: Tensor, v: Tensor, out: Tensor) -> Tensor:
        return torch.neg(self._seen(torch.add(b, v, out=self.scratch)), out=out)

    def moved(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        return (a + u + self._seen(b + v)).exp_()

    def spent(self, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
        rows, columns, x = -self.heights, -self.widths, b + v
        down = _log_product(self.heights.log() + rows, _across(_log_product, columns, x))
        across = _across(_log_product, self.widths.log() + columns, _log_product(rows, x))
        return (a + u + torch.logaddexp(down, across)).exp_().sum((0, 1))

    def potential(self, scaling: Tensor) -> Tensor:
        return scaling

    def _seen(self, x: Tensor) -> Tensor:
        """The logarithm of K e^x."""
        product = _log_decay if self.decays else _log_product
        return product(-self.heights, _across(product, -self.widths, x))


DOMAINS: dict[str, type[_Gibbs]] = {"linear": _Linear, "log": _Log}


def _across(product: Callable[[Tensor, Tensor], Tensor], kernel: Tensor, x: Tensor) -> Tensor:
    """A product along the second axis."""
    return product(kernel, x.transpose(0, 1)).transpose(0, 1)


def _log_product(kernel: Tensor, x: Tensor) -> Tensor:
    """Logarithm of e^kernel e^x along the first axis, (S, S) and (S, T, N).

    One term at a time: memory O(n), and several times faster than logsumexp.
    """
    total = x[0] + kernel[:, :1, None]
    for here, column in zip(x[1:], kernel.T[1:], strict=True):
        torch.logaddexp(total, here + column[:, None, None], out=total)
    return total


def _log_decay(kernel: Tensor, x: Tensor) -> Tensor:
    """The same in O(S) for a kernel of -s |i - j|.

    Two running sums, of the positions up to i and of those behind it, decay by e^{-s} per step.
    """
    slopes = kernel.diagonal(1)
    before, behind = [x[0]], [torch.full_like(x[0], -torch.inf)]
    for here, slope in zip(x[1:], slopes, strict=True):
        before.append(torch.logaddexp(here, before[-1] + slope))
    for here, slope in zip(x[1:].flip(0), slopes, strict=True):
        behind.append(torch.logaddexp(here, behind[-1]) + slope)
    return torch.logaddexp(torch.stack(before), torch.stack(behind[::-1]))


# The problem --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Problem:
    """OT_ε between rows of a and of b, ``(N, H, W)``, each of mass 1."""

    kind: type[_Gibbs]
    ground: str
    entropy: float
    steps: int

    def solve(self, a: Tensor, b: Tensor, rounded: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The cost of the rounded plan or the dual objective, ``(N,)``, and both potentials."""
        a, b = (mass.permute(1, 2, 0).contiguous() for mass in (a, b))
        gibbs = self._gibbs(a)
        weights_a, weights_b = gibbs.weights(a), gibbs.weights(b)
        u, v = gibbs.ones(a), gibbs.ones(b)
        for _ in range(self.steps):
            gibbs.scaling(weights_b, v, out=u)
            gibbs.scaling(weights_a, u, out=v)
        f, g = self.entropy * gibbs.potential(u), self.entropy * gibbs.potential(v)
        if rounded:
            # In float64, beside which single precision's own error is unmoved mass like any other.
            a, b, u, v = a.double(), b.double(), u.double(), v.double()
            a, b = a / a.sum((0, 1)), b / b.sum((0, 1))
            value = (self.entropy * _rounded(self._gibbs(a), a, u, b, v)).to(f)
        else:
            # The plan's mass is 1 after an update, so that the dual's third term is zero.
            value = (f * a + g * b).sum((0, 1))
        return value, f.permute(2, 0, 1), g.permute(2, 0, 1)

    def _gibbs(self, like: Tensor) -> _Gibbs:
        heights, widths = (
            (_axis_costs(size, self.ground) / self.entropy).to(like) for size in like.shape[:2]
        )
        decays = self.ground == "manhattan"
        return self.kind(heights, widths, decays, torch.empty_like(like))


def _rounded(gibbs: _Gibbs, a: Tensor, u: Tensor, b: Tensor, v: Tensor) -> Tensor:
    """<C, G> / ε of the plan G with marginals a and b next to diag(a u) K diag(b v), ``(N,)``.

    Scale the rows down to at most a, then the columns to at most b, and add what is left on both
    sides as left_a left_b^T / |left_b|. Altschuler et al. bound the cost of this last term by
    C_max · |left|; it is itself a sum over the axes, hence as cheap, and several times smaller.

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
    # Both are equal but for rounding: the difference is paid at the largest cost.
    paired = (down + across) / torch.maximum(mass_a, mass_b).clamp_min(torch.finfo(a.dtype).tiny)
    unpaired = (mass_a - mass_b).abs() * (gibbs.heights.max() + gibbs.widths.max())
    return gibbs.spent(weights_a, u, weights_b, v) + paired + unpaired


class _Solved(torch.autograd.Function):
    """Value of a problem, whose derivative in each marginal is that marginal's potential."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, problem: _Problem, rounded: bool) -> Tensor:
        with flushed_denormals():
            value, f, g = problem.solve(a, b, rounded)
        ctx.save_for_backward(f, g)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        f, g = ctx.saved_tensors
        return grad[:, None, None] * f, grad[:, None, None] * g, None, None


def _bound(problem: _Problem, a: Tensor, b: Tensor) -> Tensor:
    value: Tensor = _Solved.apply(a, b, problem, True)
    return value


def _regularised(problem: _Problem, a: Tensor, b: Tensor) -> Tensor:
    value: Tensor = _Solved.apply(a, b, problem, False)
    return value


def _debiased(problem: _Problem, a: Tensor, b: Tensor) -> Tensor:
    both = _regularised(problem, torch.cat([a, a, b]), torch.cat([b, a, b]))
    cross, first, second = both.view(3, len(a)).unbind(0)
    return cross - (first + second) / 2


VALUES: dict[str, Callable[[_Problem, Tensor, Tensor], Tensor]] = {
    "bound": _bound,
    "regularised": _regularised,
    "debiased": _debiased,
}


def _axis_costs(size: int, ground: str) -> Tensor:
    """Costs between the positions of one axis, float64 ``(size, size)``."""
    position = torch.arange(size, dtype=torch.float64)
    return GROUNDS[ground](position[:, None] - position)


def _normalised(images: Tensor, masses: Tensor, filled: Tensor) -> Tensor:
    """Images over their masses; the uniform one where there is no mass, without a gradient."""
    safe = torch.where(filled, masses, 1)[:, None, None]
    uniform = 1 / (images.shape[1] * images.shape[2])
    return torch.where(filled[:, None, None], images / safe, uniform)


def _suited(domain: str, x0: Tensor, spread: float) -> tuple[type[_Gibbs], torch.dtype]:
    """The domain and dtype to solve in, for a kernel of entries from e^-spread to 1."""
    # Half precision holds neither the kernel nor the sum of the pixels.
    dtype, pixels = torch.promote_types(x0.dtype, torch.float32), x0.shape[2] * x0.shape[3]
    if domain != "auto":
        return DOMAINS[domain], dtype
    for candidate in (dtype, torch.float64):
        # A pixel of average mass may be a factor n below 1 in either image.
        if spread + 2 * math.log(pixels) <= -math.log(torch.finfo(candidate).tiny):
            return _Linear, candidate
    return _Log, dtype


def _check(
    x0: Tensor, x: Tensor, ground: str, entropy: float, steps: int, value: str, domain: str
) -> None:
    """Raise ValueError unless the images and options are such as `sinkhorn_distance` takes."""
    if x0.dim() != 4 or x0.shape != x.shape or 0 in x0.shape[1:]:
        shapes = f"{tuple(x0.shape)} and {tuple(x.shape)}"
        raise ValueError(f"transport is between images of one shape (B, C, H, W), not {shapes}")
    if not (x0.is_floating_point() and x.is_floating_point()):
        raise ValueError(f"images must be floating, not {x0.dtype} and {x.dtype}")
    if not (entropy > 0 and math.isfinite(entropy) and steps >= 1):
        raise ValueError(f"entropy {entropy} and steps {steps} must be positive")
    for name, known in ((ground, GROUNDS), (value, VALUES), (domain, [*DOMAINS, "auto"])):
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
