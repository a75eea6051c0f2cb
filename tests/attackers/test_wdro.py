"""W-FGSM and W-PGD: budgets to the last digit, and laws whose worst case is known."""

import math
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from linear_models import Linear, linear_problem
from torch import Tensor

from attackers.fgsm import fgsm
from attackers.geometry import L2, NORMS, Metric
from attackers.gradient import value_and_grad
from attackers.losses import margin, misclassified
from attackers.threat import Threat
from attackers.wdro import (
    budgets,
    conjugate,
    contract,
    first_order_move,
    power_mean,
    w_fgsm,
    w_pgd,
)

ORDERS = [1.5, 2.0, 4.0, math.inf]
every_metric = pytest.mark.parametrize("metric", [NORMS[n]() for n in NORMS], ids=NORMS)
norms = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)


def wide(metric: Metric) -> Metric:
    """The same metric in a box that never binds."""
    return type(metric)(low=-1e3, high=1e3)


def spent(metric: Metric, x0: Tensor, x: Tensor, order: float) -> float:
    """(mean d^p)^(1/p) by numpy."""
    moved = metric.distance(x0, x).numpy()
    return float(moved.max()) if math.isinf(order) else float(np.mean(moved**order) ** (1 / order))


@pytest.mark.parametrize(("order", "q"), [(2.0, 2.0), (math.inf, 1.0), (1.5, 3.0), (4.0, 4 / 3)])
def test_conjugate_orders(order: float, q: float) -> None:
    assert conjugate(order) == pytest.approx(q)


@given(norms, st.sampled_from(ORDERS), st.floats(1e-4, 10))
def test_lengths_spend_exactly_the_budget(norms: Tensor, order: float, delta: float) -> None:
    lengths = budgets(norms, delta, order)
    if math.isinf(order):
        assert lengths == pytest.approx(np.full(len(norms), delta))
    else:
        assert float((lengths**order).mean() ** (1 / order)) == pytest.approx(delta)


def test_zero_gradients_get_nothing() -> None:
    assert torch.equal(budgets(torch.zeros(3), 1.0, 2.0), torch.zeros(3).double())
    assert budgets(torch.tensor([0.0, 1.0]), 1.0, 2.0)[0] == 0


@given(norms, st.sampled_from([1.0, 1.5, 2.0, 40.0]), st.randoms())
def test_power_mean_is_the_textbook_one_for_every_order_of_samples(
    norms: Tensor, power: float, random: Random
) -> None:
    value = power_mean(norms, power)
    shuffled = norms.tolist()
    random.shuffle(shuffled)
    assert power_mean(torch.tensor(shuffled, dtype=torch.float64), power) == value
    top = float(norms.max())
    expected = float(((norms / top) ** power).mean()) ** (1 / power) * top
    assert float(value) == pytest.approx(expected)
    assert float(norms.mean()) * (1 - 1e-9) <= float(value) <= top * (1 + 1e-9)


@every_metric
@pytest.mark.parametrize("order", ORDERS)
def test_w_fgsm_spends_delta_where_no_box_binds(metric: Metric, order: float) -> None:
    metric = wide(metric)
    random = torch.Generator().manual_seed(0)
    x0 = torch.rand((30, 2, 5), generator=random)
    grad = torch.randn((30, 2, 5), generator=random) * torch.rand((30, 1, 1), generator=random)
    x = w_fgsm(x0, grad, Threat(metric, 0.3, order))
    assert spent(metric, x0, x, order) == pytest.approx(0.3, rel=1e-4)


@every_metric
@pytest.mark.parametrize("order", ORDERS)
def test_per_sample_linear_losses_gain_delta_upsilon_exactly(metric: Metric, order: float) -> None:
    metric = wide(metric)
    random = torch.Generator().manual_seed(1)
    x0, grad = (torch.randn((40, 6), generator=random) for _ in range(2))
    x = first_order_move(x0, x0, grad, metric, 0.3, order)
    upsilon = power_mean(metric.dual_norm(grad, grad), conjugate(order))
    gain = ((x - x0).double() * grad.double()).sum(1).mean()
    assert float(gain) == pytest.approx(0.3 * float(upsilon), rel=1e-5)


@every_metric
def test_order_inf_is_fgsm(metric: Metric) -> None:
    model, x0, labels = linear_problem((12,))
    _, _, grad = value_and_grad(model, margin, x0, labels)
    threat = Threat(metric, 0.05)
    expected = fgsm(model, x0, labels, threat, loss=margin)
    assert w_fgsm(x0, grad, threat) == pytest.approx(expected.numpy(), abs=2e-6)


def test_the_worst_law_of_the_squared_loss_is_found_exactly() -> None:
    """V(delta) = (sqrt V(0) + delta ||w||)^2 and Upsilon = 2 ||w|| sqrt V(0), order 2, l2."""
    random = torch.Generator().manual_seed(2)
    x0 = torch.randn((200, 5), generator=random).double()
    weight = torch.randn(5, generator=random).double()
    labels = (torch.rand(200, generator=random) < 0.5).long()

    def score(x: Tensor) -> Tensor:
        return (x @ weight + 0.2)[:, None]

    def squared(scores: Tensor, labels: Tensor) -> Tensor:
        return (1 - (2 * labels - 1) * scores[:, 0]).square()

    metric, delta = wide(L2()), 0.1
    _, values, grad = value_and_grad(score, squared, x0, labels)
    at_zero, norm = float(values.mean()), float(weight.norm())
    upsilon = power_mean(metric.dual_norm(grad, grad), 2.0)
    assert float(upsilon) == pytest.approx(2 * norm * at_zero**0.5, rel=1e-9)
    x = w_fgsm(x0, grad, Threat(metric, delta, 2.0))
    reached = float(squared(score(x), labels).mean())
    assert reached == pytest.approx((at_zero**0.5 + delta * norm) ** 2, rel=1e-9)


@every_metric
@pytest.mark.parametrize("order", ORDERS)
def test_contraction_keeps_the_average_budget(metric: Metric, order: float) -> None:
    random = torch.Generator().manual_seed(3)
    x0 = torch.rand((20, 6), generator=random)
    x = x0 + torch.randn((20, 6), generator=random) * torch.rand((20, 1), generator=random)
    threat = Threat(metric, 0.2, order)
    z = contract(x0, x, threat)
    assert spent(metric, x0, z, order) <= 0.2
    # What is inside the budget already is left alone.
    inside = contract(x0, z, Threat(metric, 1e3, order))
    assert inside == pytest.approx(z.numpy(), abs=1e-5)


@every_metric
@pytest.mark.parametrize("order", ORDERS)
def test_w_pgd_never_exceeds_its_budget_and_breaks_more_than_nothing(
    metric: Metric, order: float
) -> None:
    model, x0, labels = linear_problem((12,), samples=40)
    delta = float(model.radius(x0, metric).median())
    steps = []
    x = w_pgd(
        model, x0, labels, Threat(metric, delta, order), steps=20, rows=16,
        tick=lambda: steps.append(1),
    )  # fmt: skip
    assert len(steps) == 20
    assert spent(metric, x0, x, order) <= delta
    assert (x >= 0).all()
    assert (x <= 1).all()
    broken = int(misclassified(model(x), labels).sum())
    # Order inf reaches every radius up to delta, half of the samples; a common budget reaches more.
    assert broken >= 19
    assert broken <= 21 or not math.isinf(order)


def test_w_pgd_returns_the_iterate_of_least_accuracy() -> None:
    # A strip: too long a step crosses it, and later iterates leave it again.
    def strip(x: Tensor) -> Tensor:
        z = (x[:, 0] - 0.62).square() - 0.001
        return torch.stack([torch.zeros_like(z), z], dim=1)

    x0, labels = torch.full((3, 1), 0.5), torch.ones(3, dtype=torch.long)
    counts: list[int] = []

    def watched(x: Tensor) -> Tensor:
        scores = strip(x)
        counts.append(int(misclassified(scores.detach(), labels).sum()))
        return scores

    threat = Threat(L2(), 0.3)
    x = w_pgd(watched, x0, labels, threat, steps=7, loss=margin)
    assert int(misclassified(strip(x), labels).sum()) == max(counts)


def test_w_pgd_reads_slices_without_changing_a_bit() -> None:
    model, x0, labels = linear_problem((3, 4), samples=10)
    threat = Threat(L2(), 0.1, 2.0)
    whole = w_pgd(model, x0, labels, threat, steps=5)
    assert torch.equal(w_pgd(model, x0, labels, threat, steps=5, rows=3), whole)
    assert isinstance(model, Linear)
