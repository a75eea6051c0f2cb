"""First-order quantities against laws whose sensitivity is known."""

import math

import numpy as np
import pytest
import torch
from fakes import WEIGHT, classifier, inputs, linear, noisy_labels, samples_of, two_sided
from scipy.stats import norm
from torch import Tensor

from attackers.geometry import L2, NORMS, Linf, Metric
from attackers.gradient import value_and_grad
from attackers.losses import LOSSES, cross_entropy
from audit.evidence.samples import Samples
from audit.models.classifier import Classifier
from audit.scanning.sensitivity import SENSITIVITY_LOSSES, Question, sensitivity
from audit.schema import Sensitivity
from audit.statistics.first_order import PRIMARY_LOSS, as_first_order, mark_violations, primary
from audit.statistics.knapsack import adversarial_accuracy


def measure(
    model: Classifier,
    metric: Metric,
    samples: Samples,
    *,
    orders: tuple[float, ...] = (math.inf, 2.0, 1.0),
    deltas: tuple[float, ...] = (0.05, 0.1),
    rows: int = 50,
    offers: list[tuple[Tensor, Tensor, Tensor]] | None = None,
) -> list[Sensitivity]:
    def offer(*found: Tensor) -> None:
        if offers is not None:
            offers.append(found)  # type: ignore[arg-type]

    question = Question(metric, orders, deltas, confidence=0.95, seed=0)
    return sensitivity(
        model, samples, question, rows=rows, offer=offer, tick=lambda _: None
    ).entries  # fmt: skip


def entry(entries: list[Sensitivity], order: str, loss: str) -> Sensitivity:
    (found,) = [e for e in entries if e.order == order and e.loss == loss]
    return found


def gaussian_margins(
    every: int = 1, n: int = 4000
) -> tuple[Classifier, Metric, Samples, np.ndarray]:
    """One input, its own margin m ~ N(1.5, 1), label 1, scores (0, 2m): CE is log(1 + e^-2m).

    The margins are the first and then every so manyth of n quantiles.
    """
    margins = norm.ppf((np.arange(0, n, every) + 0.5) / n, 1.5, 1)
    model = classifier(lambda x: two_sided(2 * x[:, 0]), sample=(1,))
    x = torch.from_numpy(margins).float()[:, None]
    samples = samples_of(model, x, torch.ones(len(x), dtype=torch.long))
    return model, L2(low=-50.0, high=50.0), samples, np.maximum(margins, 0)


def test_value_and_upsilon_of_gaussian_margins() -> None:
    model, metric, samples, _ = gaussian_margins(every=800, n=400_000)
    entries = measure(model, metric, samples, orders=(2.0, math.inf))
    assert entry(entries, "2", "ce").value_at_zero.value == pytest.approx(0.19099654, rel=1e-5)
    assert entry(entries, "2", "ce").upsilon.value == pytest.approx(0.45922774, rel=1e-5)
    assert entry(entries, "inf", "ce").upsilon.value == pytest.approx(0.26122360, rel=1e-5)


def test_the_first_order_bound_is_violated_where_it_is_known_to_be() -> None:
    model, metric, samples, radii = gaussian_margins()
    entries = measure(model, metric, samples, orders=(2.0,), deltas=(0.1,))
    found = entry(entries, "2", "ce")
    point = found.points[0]
    assert min(point.lower_value, point.lower_slope) == pytest.approx(0.9552, abs=1e-3)
    assert point.upper == pytest.approx(0.9714, abs=1e-3)
    exact = float(adversarial_accuracy(radii, [0.1], 2)[0]) / samples.accuracy
    assert exact == pytest.approx(0.8968, abs=1e-3)
    assert point.violated is None
    (marked,) = [e for e in mark_violations(entries, lambda *_: exact) if e.loss == "ce"]
    assert marked.points[0].violated is True


def test_the_pointwise_estimate_holds_there() -> None:
    model, metric, samples, radii = gaussian_margins()
    entries = measure(model, metric, samples, orders=(math.inf,), deltas=(0.1,))
    found = entry(entries, "inf", "ce")
    point = found.points[0]
    assert min(point.lower_value, point.lower_slope) == pytest.approx(0.97487, abs=1e-3)
    exact = float(adversarial_accuracy(radii, [0.1], math.inf)[0]) / samples.accuracy
    assert exact == pytest.approx(0.98505, abs=1e-3)
    (marked,) = [e for e in mark_violations(entries, lambda *_: exact) if e.loss == "ce"]
    assert marked.points[0].violated is False


def test_violations_compare_the_right_order_and_budget() -> None:
    model = classifier(linear)
    x = inputs()
    entries = measure(model, Linf(), samples_of(model, x, noisy_labels(x)))
    asked: list[tuple[str, float]] = []

    def attacked(order: str, delta: float) -> float | None:
        asked.append((order, delta))
        return None if order == "2" else -99.0

    marked = mark_violations(entries, attacked)
    assert set(asked) == {(o, d) for o in ("inf", "2") for d in (0.05, 0.1)}
    for e in marked:
        for point in e.points:
            assert point.violated is (None if e.order == "2" else True)


@pytest.mark.parametrize("name", NORMS)
def test_upsilon_and_value_are_plain_averages(name: str) -> None:
    model, metric = classifier(linear), NORMS[name]()
    x = inputs(60)
    samples = samples_of(model, x, noisy_labels(x))
    entries = measure(model, metric, samples, orders=(math.inf, 2.0, 3.0))
    assert {(e.order, e.loss) for e in entries} == {
        (order, loss) for order in ("inf", "2", "3") for loss in SENSITIVITY_LOSSES
    }
    for e in entries:
        _, values, grad = value_and_grad(linear, LOSSES[e.loss], x, samples.labels)
        g = metric.dual_norm(grad, grad).numpy()
        q = {"inf": 1.0, "2": 2.0, "3": 1.5}[e.order]
        assert e.upsilon.value == pytest.approx(np.mean(g**q) ** (1 / q), rel=1e-6)
        assert e.value_at_zero.value == pytest.approx(values.double().mean().item(), rel=1e-6)
        for interval in (e.upsilon, e.value_at_zero):
            assert interval.low <= interval.value <= interval.high


def test_estimates_are_those_of_their_formulas() -> None:
    model, metric, delta = classifier(linear), Linf(), 0.1
    x = inputs(80)
    samples = samples_of(model, x, noisy_labels(x))
    wrong = ~samples.correct
    offers: list[tuple[Tensor, Tensor, Tensor]] = []
    entries = measure(model, metric, samples, orders=(math.inf,), deltas=(delta,), offers=offers)
    _, values, grad = value_and_grad(linear, cross_entropy, x, samples.labels)
    attacked = metric.clamp(x + delta * grad.sign())
    after, at_zero = values[wrong].mean(), values.mean()
    under = cross_entropy(linear(attacked), samples.labels).mean()
    point = entry(entries, "inf", "ce").points[0]
    assert point.lower_value == pytest.approx(float((after - under) / (after - at_zero)), rel=1e-4)
    upsilon = entry(entries, "inf", "ce").upsilon.value
    slope = (float(after - at_zero) - delta * upsilon) / float(after - at_zero)
    assert point.lower_slope == pytest.approx(slope, rel=1e-4)
    survivors = int((linear(attacked).argmax(1) == samples.labels).sum())
    assert point.upper == pytest.approx(survivors / int(samples.correct.sum()))
    # Every attacked sample was offered, once per loss.
    assert sum(len(rows) for rows, _, _ in offers) == len(SENSITIVITY_LOSSES) * len(samples)
    rows, candidates, broken = offers[0]
    assert torch.equal(candidates, attacked[rows])
    assert torch.equal(broken, linear(candidates).argmax(1) != samples.labels[rows])


def test_redlr_measures_from_zero_even_when_nothing_is_wrong() -> None:
    model = classifier(linear)
    samples = samples_of(model, inputs(50))
    assert samples.accuracy == 1
    entries = measure(model, Linf(), samples)
    for point in entry(entries, "2", "redlr").points:
        assert point.lower_slope is not None
    for loss in ("ce", "dlr"):  # W(0) does not exist
        for point in entry(entries, "2", loss).points:
            assert point.lower_slope is None
            assert point.lower_value is None
    # Without an estimate there is nothing to violate.
    assert entry(mark_violations(entries, lambda *_: -99.0), "2", "ce").points[0].violated is None


def test_order_one_has_no_first_order_formula() -> None:
    model = classifier(linear)
    assert measure(model, Linf(), samples_of(model, inputs(20)), orders=(1.0,)) == []


def test_primary_estimates_are_redlrs() -> None:
    model = classifier(linear)
    entries = measure(model, Linf(), samples_of(model, inputs(50)))
    point = primary(entries, "2", 0.1)
    assert point is not None
    assert point.loss == PRIMARY_LOSS == "redlr"
    assert point.delta == 0.1
    shown = as_first_order(point)
    assert shown is not None
    assert shown.upper == point.upper
    assert primary(entries, "1", 0.1) is None
    assert as_first_order(None) is None


def test_samples_in_any_order_and_batches_give_the_same_bits() -> None:
    model, x = classifier(linear), inputs(64)
    labels = noisy_labels(x)
    base = measure(model, L2(), samples_of(model, x, labels))
    assert measure(model, L2(), samples_of(model, x, labels), rows=7) == base
    shuffled = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert measure(model, L2(), samples_of(model, x[shuffled], labels[shuffled])) == base


@pytest.mark.parametrize("order", [1.005, 1.5, 40.0])
def test_intervals_hold_their_value_for_orders_of_any_size(order: float) -> None:
    """Close to order 1 the conjugate is large, and powers of small gradients underflow."""
    model = classifier(lambda x: 1e-3 * linear(x))
    x = inputs(60)
    e = entry(measure(model, L2(), samples_of(model, x), orders=(order,)), f"{order:g}", "ce")
    norms = float(L2().dual_norm(WEIGHT[None], 1e-3 * WEIGHT[None]))
    assert 0.2 * norms < e.upsilon.low <= e.upsilon.value <= e.upsilon.high < norms


def test_a_model_without_gradient_has_no_sensitivity() -> None:
    flat = classifier(lambda x: torch.tensor([0.0, 1.0]).expand(len(x), 2))
    for e in measure(flat, L2(), samples_of(flat, inputs(20))):
        assert e.upsilon.value == 0
        assert all(point.upper == 1 for point in e.points)
