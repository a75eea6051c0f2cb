"""What does the entropic transport distance cost as a loss, beside the usual ways to compute it?

A batch of images and of moved copies goes through 50 iterations, and the value's gradient with
respect to the copies is taken. Three ways do the same sums with the same entropy, Manhattan cost:

- ours: separable kernels, gradient from the dual potentials;
- dense autograd: the n x n kernel as one matrix product, differentiated through the iterations, as
  public implementations of such losses do;
- geomloss: `SamplesLoss`, backend `tensorized`, its annealing set to 50 iterations. It is timed on
  a few samples and extrapolated to the batch: it holds an n x n cost per sample, and its time is
  linear in them.

A second table sets our bound against the same plan written out, and against the exact cost.

    bench/.peers/bin/python -m bench.sinkhorn --out bench/results/sinkhorn.md

One thread; times are of the processor, repetitions of all rows are interleaved, and medians are
shown, so that ratios come from one run. Denormal numbers are flushed to zero for all, unless a row
says otherwise. `--machine` says in the result what it ran on.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import ot
import torch
from torch import Tensor

from attackers.denormals import flushed_denormals
from attackers.sinkhorn import sinkhorn_distance
from bench.overhead import table, times

BATCH, SIZE, STEPS = 128, 32, 50
PEER_SAMPLES = 2
ENTROPIES = {1.0: torch.float32, 0.2: torch.float64}
"""In pixels, with the dtype that we choose, in which no entry of the kernel underflows.

0.2 is our default. In float32 its kernel has zeros, for us and for the dense one alike: the values
are right as long as no mass has to move farther than about 17 pixels.
"""

Distance = Callable[[Tensor, Tensor], Tensor]


def subjects(count: int) -> tuple[Tensor, Tensor]:
    """Random blots on black, and copies in which a third of the mass moves a pixel or two."""
    random = torch.Generator().manual_seed(0)
    noise = torch.rand((count, 1, SIZE, SIZE), generator=random)
    x0 = (torch.nn.functional.avg_pool2d(noise, 5, 1, 2) - 0.5).clamp_min(0) * 8
    x = 0.7 * x0 + 0.2 * x0.roll(1, 3) + 0.1 * x0.roll((1, 1), (2, 3))
    return x0.clamp_max(1), x.clamp_max(1)


def costs() -> Tensor:
    """(n, n) Manhattan cost, float64."""
    position = torch.arange(SIZE, dtype=torch.float64)
    axis = (position[:, None] - position).abs()
    return (axis[:, None, :, None] + axis[:, None, :]).reshape(SIZE**2, SIZE**2)


def dense(x0: Tensor, x: Tensor, entropy: float, dtype: torch.dtype) -> Tensor:
    """<C, P> after 50 iterations with a dense kernel, ``(B,)``."""
    kernel = (-costs() / entropy).exp()
    kernel, costed = kernel.to(dtype), (kernel * costs()).to(dtype)
    a, b = (image.to(dtype).flatten(1) for image in (x0, x))
    a, b = a / a.sum(1, keepdim=True), b / b.sum(1, keepdim=True)
    tiny = torch.finfo(dtype).tiny
    v = torch.ones_like(b)
    for _ in range(STEPS):
        u = 1 / ((b * v) @ kernel).clamp_min(tiny)
        v = 1 / ((a * u) @ kernel).clamp_min(tiny)
    return (a * u * ((b * v) @ costed)).sum(1).to(x.dtype)


def dense_bound(x0: Tensor, x: Tensor, entropy: float) -> Tensor:
    """Cost of the rounded plan of each pair, written out as an n x n plan in float64, ``(B,)``."""
    cost = costs()
    kernel = (-cost / entropy).exp()
    found = []
    for row0, row in zip(x0.double().flatten(1), x.double().flatten(1), strict=True):
        a, b, v = row0 / row0.sum(), row / row.sum(), torch.ones_like(row)
        for _ in range(STEPS):
            u = 1 / (kernel @ (b * v))
            v = 1 / (kernel @ (a * u))
        plan = (a * u)[:, None] * kernel * (b * v)
        plan = plan * (a / plan.sum(1).clamp_min(1e-300)).clamp_max(1)[:, None]
        plan = plan * (b / plan.sum(0).clamp_min(1e-300)).clamp_max(1)
        left_a, left_b = a - plan.sum(1), b - plan.sum(0)
        plan = plan + left_a[:, None] * left_b / left_a.sum().clamp_min(1e-300)
        found.append((plan * cost).sum())
    return torch.stack(found)


def geomloss(x0: Tensor, x: Tensor, entropy: float) -> Tensor:
    """The same problem as weighted points; its entropy falls from the diameter over 50 steps."""
    from geomloss import SamplesLoss

    def cost(points: Tensor, others: Tensor) -> Tensor:
        return torch.cdist(points, others, p=1)

    scaling = (entropy / (2 * SIZE)) ** (1 / (STEPS - 2))
    loss = SamplesLoss(
        "sinkhorn", p=1, blur=entropy, scaling=scaling, diameter=2 * SIZE, cost=cost,
        debias=False, backend="tensorized",
    )  # fmt: skip
    position = torch.arange(SIZE, dtype=x.dtype)
    points = torch.cartesian_prod(position, position).expand(len(x), -1, -1)
    a, b = (image.flatten(1) for image in (x0, x))
    return loss(a / a.sum(1, keepdim=True), points, b / b.sum(1, keepdim=True), points)


def differentiated(distance: Distance, x0: Tensor, x: Tensor) -> Tensor:
    """Value and gradient; the value is returned."""
    x = x.detach().requires_grad_()
    value = distance(x0, x)
    torch.autograd.grad(value.sum(), x)
    return value.detach()


def flushed(run: Callable[[], Tensor]) -> Tensor:
    """The same with denormal numbers taken for zero."""
    with flushed_denormals():
        return run()


def rows(entropy: float, repeats: int) -> list[list[str]]:
    x0, x = subjects(BATCH)
    dtype = ENTROPIES[entropy]
    ours = partial(sinkhorn_distance, entropy=entropy, steps=STEPS)
    ours_name, dense_name = f"ours, {name(dtype)}", f"dense autograd, {name(dtype)}"
    every: dict[str, Distance] = {
        ours_name: ours,
        "ours, float32": partial(ours, domain="linear"),
        "ours, in logarithms": partial(ours, domain="log"),
        "ours, debiased": partial(ours, value="debiased"),
        dense_name: partial(dense, entropy=entropy, dtype=dtype),
        "dense autograd, float32": partial(dense, entropy=entropy, dtype=torch.float32),
    }
    runs = {
        row: partial(flushed, partial(differentiated, way, x0, x)) for row, way in every.items()
    }
    runs[f"{dense_name}, denormal numbers kept"] = partial(differentiated, every[dense_name], x0, x)
    few = partial(
        differentiated, partial(geomloss, entropy=entropy), x0[:PEER_SAMPLES], x[:PEER_SAMPLES]
    )
    runs["geomloss, extrapolated"] = partial(flushed, few)
    seconds = times(runs, repeats)
    seconds["geomloss, extrapolated"] *= BATCH / PEER_SAMPLES
    return [
        [f"{entropy:g}", row, f"{value:.3f}", f"{value / seconds[ours_name]:.1f}"]
        for row, value in seconds.items()
    ]


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def exact(x0: Tensor, x: Tensor) -> Tensor:
    """Transport cost by linear programming, ``(B,)``."""
    cost, found = costs().numpy(), []
    for row0, row in zip(x0.double().flatten(1), x.double().flatten(1), strict=True):
        a, b = (row0 / row0.sum()).numpy(), (row / row.sum()).numpy()
        pairs = np.ascontiguousarray(cost[a > 0][:, b > 0])
        found.append(ot.emd2(a[a > 0], b[b > 0], pairs, numItermax=10**6))
    return torch.tensor(found, dtype=torch.float64)


def agreement(entropy: float, count: int = 8) -> list[str]:
    """Mean values, and the largest difference of our bound from the dense one."""
    x0, x = subjects(count)
    found = sinkhorn_distance(x0, x, entropy=entropy, steps=STEPS).double()
    reference = dense_bound(x0, x, entropy)
    moved = dense(x0, x, entropy, torch.float64)
    means = [f"{float(value.mean()):.4f}" for value in (exact(x0, x), moved, found)]
    return [f"{entropy:g}", *means, f"{float((found - reference).abs().max()):.1e}"]


HEADER = ["entropy, px", "way", "s, value + gradient", "over ours"]
VALUES_HEADER = [
    "entropy, px", "exact cost, px", "<C, P> of Sinkhorn's iterate, px", "our bound, px",
    "its largest difference from the dense one, px",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--machine", default="", help="what it ran on, for the result")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        ", ".join(filter(None, [options.machine, f"torch {torch.__version__}", "1 thread"]))
        + f", processor time. {BATCH} images of {SIZE}x{SIZE}, {STEPS} iterations; geomloss is "
        f"timed on {PEER_SAMPLES} images and extrapolated.",
        "",
        *table(HEADER, [row for entropy in ENTROPIES for row in rows(entropy, options.repeats)]),
        "",
        *table(VALUES_HEADER, [agreement(entropy) for entropy in ENTROPIES]),
        "",
    ]
    text = "\n".join(lines)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
