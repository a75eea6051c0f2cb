"""Entropic optimal transport between images, for training losses; never to measure a distance.

Mass moves inside a channel only. With M the total mass of ``x0``, m_c that of its channel c, and
every channel of ``x`` scaled to the mass of its counterpart, the value of a sample is

    Σ_c (m_c / M) · OT(x0_c / m_c, x_c / mass(x_c)),

the moved cost divided by M: pixels for the Manhattan cost |Δi| + |Δj|, pixels² for the squared
Euclidean one. Euclid <= Manhattan, so the bound with the Manhattan cost also bounds the metric
`wasserstein`. The scaling removes brightness: a loss has to penalise lost mass separately.

The problem solved, for a and b of mass 1 on a grid of n pixels, is

    OT_ε(a, b) = min_P <C, P> + ε KL(P | a b^T),  P 1 = a, P^T 1 = b
               = max_{f, g} <f, a> + <g, b> - ε <a e^{f/ε}, K (b e^{g/ε})> + ε,  K = e^{-C/ε}.

Both costs are a sum over the axes, so K is a Kronecker product: two small matrix products apply it,
O(n^1.5), and neither P nor K is ever formed.
"""

import math

import torch
from torch import Tensor

from attackers.entropic_transport import GROUNDS, VALUES, EntropicProblem, axis_costs
from attackers.gibbs_kernel import DOMAINS, GibbsKernel, LinearKernel, LogKernel


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

    The available values:

    - ``bound``: the cost of an explicit transport plan. Sinkhorn's iterate is rounded to a plan
      with both marginals exact, so the mass left unmoved is charged, and up to float rounding
      the value is an upper bound of the exact transport cost after any number of steps, at any
      entropy. It exceeds zero for equal images.
    - ``regularised``: the dual objective, a lower bound of OT_ε that rises to it as the steps
      increase.
    - ``debiased``: OT_ε(a, b) - (OT_ε(a, a) + OT_ε(b, b)) / 2 of dual objectives: zero for equal
      images, neither an upper nor a lower bound. Its gradient vanishes a few ε away from all
      mass: choose an ε of about a pixel.

    The gradient is that of OT_ε at its optimum (of the debiased combination for ``debiased``): the
    dual potentials, by the envelope theorem. Nothing is differentiated through the steps, and
    memory is O(n) per channel. For ``bound`` it is a direction of descent rather than the gradient
    of the value. Potentials are finite at every pixel, also where an image is zero.

    A channel that is empty in exactly one of the images costs the largest distance of the grid, as
    nothing can be moved there; its gradient is zero. If x0 is black, all channels weigh equally.

    Args:
        x0: (B, C, H, W), floating; values below zero count as zero.
        x: (B, C, H, W), floating, like ``x0``.
        ground: one of `GROUNDS`.
        entropy: ε > 0, in the unit of the cost. At 0.2 the Manhattan cost between equal images is
            a few hundredths of a pixel; a smaller one needs more steps.
        steps: updates of both potentials.
        value: ``bound``, ``regularised`` or ``debiased``.
        domain: ``linear`` is fastest and exact as long as no kernel entry underflows; ``log``
            is stable for every entropy. ``auto`` takes the first of linear in the dtype of ``x0``,
            linear in float64, and log that is safe. Forcing ``linear`` beyond that stays finite
            and ``bound`` stays a bound, but the gradient no longer grows with far distances.

    Returns:
        (B,) in the dtype of ``x0``, in the unit of the ground cost per unit of mass.

    Raises:
        ValueError: for images that are not floating, for shapes that differ or are not
            (B, C, H, W), or an unknown or non-positive option.

    Source: Cuturi 2013, algorithm 1; envelope: Cuturi & Peyré 2016; rounding: Altschuler, Weed,
    Rigollet 2017, algorithm 2; debiasing: Feydy et al. 2019, equation 3; separable kernels:
    Solomon et al. 2015.
    """
    _validate_arguments(x0, x, ground, entropy, steps, value, domain)
    farthest = sum(float(axis_costs(size, ground).max()) for size in x0.shape[2:])
    kind, dtype = _solver_domain(domain, x0, farthest / entropy)
    images0, images = (image.to(dtype).clamp_min(0).flatten(0, 1) for image in (x0, x))
    masses0, masses = images0.sum((1, 2)), images.sum((1, 2))
    total = masses0.view(x0.shape[:2]).sum(1).repeat_interleave(x0.shape[1])
    # A mass below the rounding of the total counts as zero; dividing by it would overflow.
    single = torch.finfo(torch.float32)
    dark = single.tiny**0.5
    floor = (single.eps * total).clamp_min(dark)
    # A mass of NaN is not empty: the comparison is negated so that NaN propagates.
    filled0, filled = ~(masses0 <= floor), ~(masses <= floor)
    a, b = _normalised(images0, masses0, filled0), _normalised(images, masses, filled)
    problem = EntropicProblem(kind, ground, entropy, steps)
    cost = torch.where(filled0 & filled, VALUES[value](problem, a, b), farthest)
    cost = torch.where(filled0 | filled, cost, 0)
    share = torch.where(total <= dark, 1 / x0.shape[1], masses0 / total.clamp_min(dark))
    return (share * cost).view(x0.shape[:2]).sum(1).to(x0.dtype)


def _normalised(images: Tensor, masses: Tensor, filled: Tensor) -> Tensor:
    """Divide images by their masses; return the uniform image, without gradient, for no mass."""
    safe = torch.where(filled, masses, 1)[:, None, None]
    uniform = 1 / (images.shape[1] * images.shape[2])
    return torch.where(filled[:, None, None], images / safe, uniform)


def _solver_domain(domain: str, x0: Tensor, spread: float) -> tuple[type[GibbsKernel], torch.dtype]:
    """Return the kernel class and dtype to use for kernel entries from e^-spread to 1."""
    # Half precision holds neither the kernel nor the sum of the pixels.
    dtype, pixels = torch.promote_types(x0.dtype, torch.float32), x0.shape[2] * x0.shape[3]
    if domain != "auto":
        return DOMAINS[domain], dtype
    for candidate in (dtype, torch.float64):
        # A pixel of average mass is a factor n (number of pixels) below 1 in either image.
        if spread + 2 * math.log(pixels) <= -math.log(torch.finfo(candidate).tiny):
            return LinearKernel, candidate
    return LogKernel, dtype


def _validate_arguments(
    x0: Tensor, x: Tensor, ground: str, entropy: float, steps: int, value: str, domain: str
) -> None:
    """Raise `ValueError` unless images and options are valid for `sinkhorn_distance`."""
    if x0.dim() != 4 or x0.shape != x.shape or 0 in x0.shape[1:]:
        shapes = f"{tuple(x0.shape)} and {tuple(x.shape)}"
        raise ValueError(f"transport is between images of one shape (B, C, H, W), not {shapes}")
    if not (x0.is_floating_point() and x.is_floating_point()):
        raise ValueError(f"images must be floating, not {x0.dtype} and {x.dtype}")
    if not (entropy > 0 and math.isfinite(entropy) and steps >= 1):
        raise ValueError(f"entropy {entropy} and steps {steps} must be positive")
    for name, known in ((ground, GROUNDS), (value, VALUES), (domain, [*DOMAINS, "auto"])):
        if name not in known:
            raise ValueError(f"{name!r} is not one of {', '.join(known)}")
