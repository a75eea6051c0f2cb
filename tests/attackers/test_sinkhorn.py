"""Entropic transport: against POT, dense plans and finite differences; its bound against cheats."""

import itertools
from collections.abc import Iterator

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attackers.denormals import denormals_are_flushed, flushed_denormals
from attackers.entropic_transport import GROUNDS, VALUES
from attackers.geometry import METRICS
from attackers.gibbs_kernel import DOMAINS
from attackers.sinkhorn import sinkhorn_distance

every_ground = pytest.mark.parametrize("ground", GROUNDS)
every_domain = pytest.mark.parametrize("domain", [*DOMAINS, "auto"])
every_value = pytest.mark.parametrize("value", VALUES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)

ENTROPY = {"manhattan": 0.6, "squared_euclidean": 1.5}
"""Small enough that a few steps leave mass unmoved, large enough to converge in a thousand."""


def images(shape: tuple[int, ...] = (3, 1, 6, 5), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pairs of images in [0, 1], float64, a third of whose pixels are zero."""
    random = torch.Generator().manual_seed(seed)
    x0, x = torch.rand((2, *shape), generator=random, dtype=torch.float64)
    kept = torch.rand((2, *shape), generator=random) > 1 / 3
    return x0 * kept[0], x * kept[1]


def costs(height: int, width: int, ground: str) -> Tensor:
    """(n, n) cost between pixels, written out."""
    down, across = torch.meshgrid(
        torch.arange(height).double(), torch.arange(width).double(), indexing="ij"
    )
    positions = torch.stack([down.flatten(), across.flatten()], 1)
    moves = positions[:, None] - positions
    return moves.abs().sum(2) if ground == "manhattan" else moves.square().sum(2)


def exact(x0: Tensor, x: Tensor, ground: str) -> Tensor:
    """Exact transport cost of each pair of one channel, by linear programming."""
    cost = costs(*x0.shape[2:], ground).numpy()
    rows, columns = (image.double().flatten(1).numpy() for image in (x0, x))
    return torch.tensor(
        [
            ot.emd2(a / a.sum(), b / b.sum(), cost, numItermax=10**6)
            for a, b in zip(rows, columns, strict=True)
        ],
        dtype=torch.float64,
    )


def dense(
    a: Tensor, b: Tensor, cost: Tensor, entropy: float, steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sinkhorn on the n x n problem of one pair: potentials, dual objective, and its plan."""
    f, g = torch.zeros_like(a), torch.zeros_like(b)
    for _ in range(steps):
        f = -entropy * torch.logsumexp(b.log() + (g - cost) / entropy, 1)
        g = -entropy * torch.logsumexp(a.log() + (f[:, None] - cost).T / entropy, 1)
    plan = (a.log()[:, None] + b.log() + (f[:, None] + g - cost) / entropy).exp()
    return f, g, f @ a + g @ b, plan


def rounded(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The plan with marginals a and b next to another one: Altschuler et al. 2017, algorithm 2."""
    plan = plan * (a / plan.sum(1)).nan_to_num(1).clamp_max(1)[:, None]
    plan = plan * (b / plan.sum(0)).nan_to_num(1).clamp_max(1)
    left_a, left_b = a - plan.sum(1), b - plan.sum(0)
    return plan + left_a[:, None] * left_b / left_a.abs().sum().clamp_min(1e-300)


def thrown(size: int = 14) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Pairs on which a few steps leave much mass unmoved, as a generator would look for."""
    x0 = torch.zeros(1, 1, size, size, dtype=torch.float64)
    x0[..., 3:6, 4:7] = torch.rand(3, 3, generator=torch.Generator().manual_seed(1)).double()
    corner = 0.9 * x0
    corner[..., -1, -1] += 0.1 * x0.sum()
    yield "a tenth in the corner", x0, corner
    yield "all of it elsewhere", x0, x0.roll((8, 7), (2, 3))
    specks = x0.clone()
    specks[..., ::5, ::5] += 0.02
    yield "specks everywhere", x0, specks
    point = torch.zeros_like(x0)
    point[..., 0, 0] = 1
    yield "from point to point", point, point.flip(2, 3)
    yield "one pixel aside", x0, 0.7 * x0 + 0.3 * x0.roll(1, 3)


# Values -------------------------------------------------------------------------------------------


@every_ground
@every_domain
@every_dtype
def test_the_converged_value_is_that_of_pot(ground: str, domain: str, dtype: torch.dtype) -> None:
    x0, x = images()
    found = sinkhorn_distance(
        x0.to(dtype), x.to(dtype), ground=ground, entropy=ENTROPY[ground], steps=2000, domain=domain
    )
    for row, a, b in zip(found, x0.flatten(1).numpy(), x.flatten(1).numpy(), strict=True):
        # POT divides by what reaches an empty pixel.
        cost = costs(6, 5, ground).numpy()[a > 0][:, b > 0]
        wanted = ot.sinkhorn2(
            a[a > 0] / a.sum(), b[b > 0] / b.sum(), cost, ENTROPY[ground],
            numItermax=10_000, stopThr=1e-12,
        )  # fmt: skip
        assert float(row) == pytest.approx(float(wanted), abs=1e-5)


@every_ground
@every_domain
@every_dtype
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_separable_is_dense_after_any_number_of_steps(
    ground: str, domain: str, dtype: torch.dtype, steps: int
) -> None:
    x0, x = images()
    entropy, cost = ENTROPY[ground], costs(6, 5, ground)
    options = {"ground": ground, "entropy": entropy, "steps": steps, "domain": domain}
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    given = (x0.to(dtype), x.to(dtype))
    found = {value: sinkhorn_distance(*given, value=value, **options) for value in VALUES}
    for row in range(len(x0)):
        a, b = (image[row].flatten() / image[row].sum() for image in (x0, x))
        _, _, dual, plan = dense(a, b, cost, entropy, steps)
        selves = [dense(mass, mass, cost, entropy, steps)[2] for mass in (a, b)]
        wanted = {
            "bound": (rounded(plan, a, b) * cost).sum(),
            "regularised": dual,
            "debiased": dual - (selves[0] + selves[1]) / 2,
        }
        for value in VALUES:
            assert float(found[value][row]) == pytest.approx(float(wanted[value]), abs=tolerance)


@every_ground
@pytest.mark.parametrize("steps", [1, 5, 50])
@pytest.mark.parametrize("entropy", [0.01, 0.3, 5.0])
@every_domain
@every_dtype
def test_the_bound_cannot_be_cheated(
    ground: str, steps: int, entropy: float, domain: str, dtype: torch.dtype
) -> None:
    for name, x0, x in thrown():
        options = {"ground": ground, "entropy": entropy, "steps": steps}
        found = sinkhorn_distance(x0.to(dtype), x.to(dtype), domain=domain, **options).double()
        wanted = exact(x0, x, ground)
        slack = 1e-6 if dtype == torch.float32 else 1e-15 * (200 + 400 / entropy)
        assert (found >= wanted * (1 - slack) - slack).all(), name
        # And it is no looser than what is paid for every unit of unmoved mass by C_max.
        a, b = (image.flatten() / image.sum() for image in (x0, x))
        cost = costs(14, 14, ground)
        plan = dense(a, b, cost, entropy, steps)[3]
        unmoved = (plan.sum(1) - a).abs().sum() + (plan.sum(0) - b).abs().sum()
        if domain != "linear":
            limit = (plan * cost).sum() + cost.max() * unmoved
            assert (found <= limit * (1 + 1e-5) + 1e-5).all(), name


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(GROUNDS)), st.integers(1, 30))
@settings(max_examples=40)
def test_exact_cost_lies_below_the_bound(seed: int, ground: str, steps: int) -> None:
    x0, x = images((4, 1, 5, 7), seed)
    found = sinkhorn_distance(x0, x, ground=ground, entropy=ENTROPY[ground], steps=steps)
    assert (found >= exact(x0, x, ground) - 1e-12).all()


@pytest.mark.parametrize("entropy", [0.05, 1.0])
def test_the_manhattan_bound_lies_above_the_metric(entropy: float) -> None:
    x0, _ = images((4, 3, 8, 8))
    # Each channel keeps its mass, and they weigh differently.
    x0 *= torch.tensor([1.0, 0.1, 0.5])[:, None, None]
    x = 0.6 * x0 + 0.3 * x0.roll(1, 3) + 0.1 * x0.roll((2, 3), (2, 3))
    metric = METRICS["wasserstein"]().distance(x0, x)
    bound = sinkhorn_distance(x0, x, entropy=entropy, steps=500)
    assert (bound >= metric - 1e-9).all()
    assert (bound <= 2**0.5 * metric + entropy).all()


@every_ground
def test_a_known_move_is_found(ground: str) -> None:
    # A 30 % share of the mass moves by one pixel, which costs 0.3 in both units.
    *_, (_, x0, x) = thrown()
    found = sinkhorn_distance(x0, x, ground=ground, entropy=0.02, steps=3000)
    assert float(exact(x0, x, ground)) == pytest.approx(0.3, abs=1e-9)
    assert 0.3 - 1e-12 <= float(found) <= 0.31
    lower = sinkhorn_distance(x0, x, ground=ground, entropy=0.02, steps=3000, value="regularised")
    # KL(P | a b^T) of nine pixels is at most log 9.
    assert float(lower) == pytest.approx(0.3, abs=0.02 * np.log(9))


@every_ground
@every_domain
def test_the_dual_objective_rises_to_its_limit(ground: str, domain: str) -> None:
    x0, x = images()
    values = [
        sinkhorn_distance(
            x0, x, ground=ground, entropy=1.0, steps=n, value="regularised", domain=domain
        )
        for n in (1, 2, 5, 20, 2000)
    ]
    for before, after in itertools.pairwise(values):
        assert (before <= after + 1e-12).all()


@every_ground
@every_domain
@every_dtype
@pytest.mark.parametrize("steps", [2, 50])
def test_debiased_is_zero_between_equal_images(
    ground: str, domain: str, dtype: torch.dtype, steps: int
) -> None:
    x0, x = (image.to(dtype) for image in images((4, 3, 9, 9)))
    options = {"ground": ground, "entropy": ENTROPY[ground], "steps": steps, "domain": domain}
    for image in (x0, x):
        own = sinkhorn_distance(image, image.clone(), value="debiased", **options)
        assert own.abs().max() <= (2e-6 if dtype == torch.float32 else 1e-12)
        assert (sinkhorn_distance(image, image.clone(), **options) > 1e-2).all()
    if steps == 50:
        assert (sinkhorn_distance(x0, x, value="debiased", **options) > 0.01).all()


# Gradients ----------------------------------------------------------------------------------------


@every_ground
@every_domain
@pytest.mark.parametrize("value", ["regularised", "debiased"])
def test_gradient_is_that_of_the_regularised_objective(
    ground: str, domain: str, value: str
) -> None:
    shape = (2, 4, 3)
    pair = [image.requires_grad_() for image in images((1, *shape))]
    options = {
        "ground": ground, "entropy": 2 * ENTROPY[ground], "steps": 1000, "value": value,
        "domain": domain,
    }  # fmt: skip
    grads = torch.autograd.grad(sinkhorn_distance(*pair, **options).sum(), pair)
    # To second order from above, as nothing can be taken away where a pixel is zero.
    step = 1e-4 * torch.eye(24, dtype=torch.float64).view(24, *shape)
    for side in (0, 1):
        start = pair[side].detach()
        ends = []
        for moved in (start + step, start + 2 * step, start.expand(24, *shape)):
            other = pair[1 - side].detach().expand(24, *shape)
            both = (moved, other) if side == 0 else (other, moved)
            ends.append(sinkhorn_distance(*both, **options))
        slope = (4 * ends[0] - ends[1] - 3 * ends[2]) / 2e-4
        assert grads[side].flatten() == pytest.approx(slope.numpy(), abs=1e-5)


@every_ground
@every_domain
@every_value
def test_gradient_is_that_of_the_dense_potentials(ground: str, domain: str, value: str) -> None:
    x0, x = images()
    entropy, cost, steps = ENTROPY[ground], costs(6, 5, ground), 12
    x0.requires_grad_(), x.requires_grad_()
    options = {"ground": ground, "entropy": entropy, "steps": steps, "domain": domain}
    found = torch.autograd.grad(sinkhorn_distance(x0, x, value=value, **options).sum(), (x0, x))
    for row in range(len(x0)):
        masses = [image[row].detach().flatten() for image in (x0, x)]
        a, b = (mass / mass.sum() for mass in masses)
        potentials = list(dense(a, b, cost, entropy, steps)[:2])
        if value == "debiased":
            for side, mass in enumerate((a, b)):
                f, g, _, _ = dense(mass, mass, cost, entropy, steps)
                potentials[side] = potentials[side] - (f + g) / 2
        for grad, potential, mass in zip(found, potentials, masses, strict=True):
            wanted = (potential - potential @ mass / mass.sum()) / mass.sum()
            assert grad[row].flatten() == pytest.approx(wanted.numpy(), abs=1e-10)


@every_ground
@every_value
@pytest.mark.parametrize("steps", [2, 50])
@pytest.mark.parametrize("entropy", [0.05, 1.0])
def test_mass_that_is_thrown_far_is_pulled_back(
    ground: str, value: str, steps: int, entropy: float
) -> None:
    _, x0, x = next(thrown())
    x0, x = x0.float(), x.float().requires_grad_()
    options = {"ground": ground, "entropy": entropy, "steps": steps, "value": value}
    (grad,) = torch.autograd.grad(sinkhorn_distance(x0, x, **options).sum(), x)
    # From the corner to the border of the digit are 8 + 7 steps; empty pixels say so as well.
    farther = float((grad[0, 0, -1, -1] - grad[0, 0, 5, 6]) * x0.sum())
    assert farther > (14 if ground == "manhattan" else 100)
    if value != "debiased":
        assert (grad[0, 0, 5:, 6].diff() > 0).all()


def test_nothing_is_recorded_step_by_step() -> None:
    def nodes(steps: int) -> int:
        x0, x = images()
        seen, queue = set(), [sinkhorn_distance(x0, x.requires_grad_(), steps=steps).grad_fn]
        while queue:
            node = queue.pop()
            if node is not None and node not in seen:
                seen.add(node)
                queue += [parent for parent, _ in node.next_functions]
        return len(seen)

    assert nodes(1) == nodes(60) < 60


# Edges --------------------------------------------------------------------------------------------


@every_ground
@every_domain
@every_value
@every_dtype
@pytest.mark.parametrize("entropy", [1e-3, 0.2, 100.0])
def test_what_is_empty_stays_finite(
    ground: str, domain: str, value: str, dtype: torch.dtype, entropy: float
) -> None:
    x0, x = (image.to(dtype) for image in images((8, 3, 8, 7)))
    x0[0] = 0
    x[1] = 0
    x0[2], x[2] = 0, 0
    x0[3, 1] = 0
    x[4, 2] = 0
    x0[5], x[5] = 1e-30, 1e-44
    x0[6, :, 1:], x[6, :, :-1] = 0, 0
    x[7, :, 0, 0] = 1e9
    x0.requires_grad_(), x.requires_grad_()
    options = {"ground": ground, "entropy": entropy, "value": value, "domain": domain}
    found = sinkhorn_distance(x0, x, steps=7, **options)
    assert found.dtype == dtype
    for part in (found, *torch.autograd.grad(found.sum(), (x0, x))):
        assert part.isfinite().all()


def test_empty_channels_count_with_the_largest_cost() -> None:
    x0, x = images((5, 2, 6, 5))
    farthest, options = 9.0, {"entropy": 1.0, "steps": 20}
    usual = sinkhorn_distance(x0[:, :1], x[:, :1], **options)
    x0[0], x[0] = 0, 0
    x0[1] = 0
    x[2] = 0
    x0[3, 1] = 0
    x[4, 1] = 0
    found = sinkhorn_distance(x0, x, **options)
    share = x0.sum((2, 3)) / x0.sum((1, 2, 3)).clamp_min(1)[:, None]
    assert found[:4] == pytest.approx([0.0, farthest, farthest, float(usual[3])], abs=1e-12)
    wanted = share[4, 0] * usual[4] + share[4, 1] * farthest
    assert float(found[4]) == pytest.approx(float(wanted), abs=1e-12)


def test_what_is_not_a_number_is_not_hidden() -> None:
    x0, x = images()
    x[1, 0, 2, 2] = torch.nan
    assert sinkhorn_distance(x0, x).isnan().tolist() == [False, True, False]


@every_value
def test_channels_are_apart_and_weighted_by_their_mass(value: str) -> None:
    x0, x = images((4, 3, 6, 6))
    options = {"value": value, "entropy": 0.5}
    whole = sinkhorn_distance(x0, x, **options)
    share = x0.sum((2, 3)) / x0.sum((1, 2, 3))[:, None]
    apart = torch.stack(
        [sinkhorn_distance(x0[:, c : c + 1], x[:, c : c + 1], **options) for c in range(3)], 1
    )
    assert whole == pytest.approx((share * apart).sum(1).numpy(), abs=1e-12)
    # A different brightness of any channel of x changes nothing, one of x0 its weight.
    dimmed = x * torch.tensor([0.3, 1.0, 0.01])[:, None, None]
    assert sinkhorn_distance(x0, dimmed, **options) == pytest.approx(whole.numpy(), abs=1e-12)
    assert sinkhorn_distance(255 * x0, x, **options) == pytest.approx(whole.numpy(), abs=1e-12)


def test_values_below_zero_count_as_zero() -> None:
    x0, x = images()
    clipped = [(image - 0.1).clamp_min(0) for image in (x0, x)]
    assert torch.equal(sinkhorn_distance(x0 - 0.1, x - 0.1), sinkhorn_distance(*clipped))


@every_ground
@every_domain
@every_value
def test_a_sample_does_not_depend_on_the_others(ground: str, domain: str, value: str) -> None:
    x0, x = (image.float() for image in images((7, 2, 8, 8)))
    x.requires_grad_()
    options = {"ground": ground, "entropy": 1.0, "value": value, "domain": domain}
    found = sinkhorn_distance(x0, x, **options)
    (grad,) = torch.autograd.grad(found.sum(), x)
    order = torch.tensor([4, 0, 6, 2, 5, 1, 3])
    permuted = x[order].detach().requires_grad_()
    shuffled = sinkhorn_distance(x0[order], permuted, **options)
    (shuffled_grad,) = torch.autograd.grad(shuffled.sum(), permuted)
    assert shuffled.detach() == pytest.approx(found[order].detach().numpy(), abs=2e-6)
    assert shuffled_grad == pytest.approx(grad[order].numpy(), abs=1e-5)
    alone = sinkhorn_distance(x0[2:3], x[2:3], **options)
    assert alone.detach() == pytest.approx(found[2:3].detach().numpy(), abs=2e-6)


@every_ground
@every_value
def test_auto_is_exact_at_every_entropy(ground: str, value: str) -> None:
    # Through both changes of the domain: of point masses, the kernel's smallest entry matters.
    spread = 26.0 if ground == "manhattan" else 338.0
    pairs = list(thrown())
    x0, x = (torch.cat([pair[side] for pair in pairs]) for side in (1, 2))
    for nats in (1, 30, 70, 76, 77, 80, 400, 690, 697, 698, 720, 3000):
        options = {"ground": ground, "entropy": spread / nats, "steps": 5, "value": value}
        wanted = sinkhorn_distance(x0, x, domain="log", **options)
        single = x.float().requires_grad_()
        found = sinkhorn_distance(x0.float(), single, **options)
        assert found.detach().double() == pytest.approx(wanted.numpy(), rel=1e-5, abs=spread * 1e-6)
        (grad,) = torch.autograd.grad(found.sum(), single)
        double = x.clone().requires_grad_()
        (wanted_grad,) = torch.autograd.grad(
            sinkhorn_distance(x0, double, domain="log", **options).sum(), double
        )
        assert grad.double() == pytest.approx(wanted_grad.numpy(), rel=1e-4, abs=spread * 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    x0, x = (image.to(dtype) for image in images())
    found = sinkhorn_distance(x0, x.requires_grad_(), domain="linear")
    wanted = sinkhorn_distance(x0.double(), x.double())
    assert found.dtype == dtype
    assert torch.autograd.grad(found.sum(), x)[0].dtype == dtype
    assert found.detach().double() == pytest.approx(
        wanted.detach().numpy(), rel=1e-6 + 2 * torch.finfo(dtype).eps
    )


def test_images_are_not_modified() -> None:
    x0, x = (image - 0.1 for image in images())
    before = x0.clone(), x.clone()
    for value, domain in itertools.product(VALUES, DOMAINS):
        sinkhorn_distance(x0, x, value=value, domain=domain)
    assert torch.equal(x0, before[0])
    assert torch.equal(x, before[1])


@pytest.mark.parametrize("shape", [(2, 1, 1, 6), (2, 1, 6, 1), (1, 1, 1, 1), (0, 3, 4, 4)])
@every_ground
@pytest.mark.parametrize("domain", DOMAINS)
def test_thin_images_and_empty_batches(shape: tuple[int, ...], ground: str, domain: str) -> None:
    x0, x = torch.rand(shape), torch.rand(shape)
    found = sinkhorn_distance(x0, x, ground=ground, entropy=1.0, domain=domain)
    assert found.shape == shape[:1]
    assert found.double() == pytest.approx(
        sinkhorn_distance(x0.double(), x.double(), ground=ground, entropy=1.0), abs=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ground": "euclid"}, "'euclid' is not one of manhattan, squared_euclidean"),
        ({"value": "sharp"}, "'sharp' is not one of bound, regularised, debiased"),
        ({"domain": "fft"}, "'fft' is not one of linear, log, auto"),
        ({"entropy": 0.0}, "must be positive"),
        ({"entropy": float("nan")}, "must be positive"),
        ({"steps": 0}, "must be positive"),
    ],
)
def test_unknown_options_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinkhorn_distance(*images(), **changes)


def test_other_shapes_are_refused() -> None:
    x0, x = images()
    with pytest.raises(ValueError, match=r"not \(3, 1, 6, 5\) and \(3, 1, 6, 4\)"):
        sinkhorn_distance(x0, x[..., :4])
    with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
        sinkhorn_distance(x0[:, 0], x[:, 0])
    with pytest.raises(ValueError, match="must be floating"):
        sinkhorn_distance((255 * x0).byte(), x)


# Denormal numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
def test_the_mode_of_denormal_numbers_is_restored(before: bool) -> None:
    if not torch.set_flush_denormal(before):
        pytest.skip("this processor cannot flush denormal numbers")
    tiny = torch.tensor(torch.finfo(torch.float32).tiny)
    try:
        assert denormals_are_flushed() == before
        with flushed_denormals():
            assert denormals_are_flushed()
            assert float(tiny / 4) == 0
        assert denormals_are_flushed() == before
        with pytest.raises(RuntimeError, match="inside"), flushed_denormals():
            raise RuntimeError("inside")
        assert denormals_are_flushed() == before
        sinkhorn_distance(*images())
        assert denormals_are_flushed() == before
    finally:
        torch.set_flush_denormal(False)
    assert float(tiny / 4) > 0
