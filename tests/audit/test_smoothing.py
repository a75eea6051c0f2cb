"""Certificates of the smoothed classifier, against models whose radii are known in closed form."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import WEIGHT, classifier, inputs, linear, samples_of, two_sided
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from attackers.geometry import METRICS, NORMS
from audit.certify import Certified, smoothing
from audit.evidence.samples import Samples
from audit.models.classifier import Classifier
from audit.models.smoothed import Noise

GAUSSIAN = Noise(0.1, "gaussian")
FLOW = Noise(0.05, "flow")
MODEL = classifier(linear)


def certify(
    model: Classifier, samples: Samples, metric: str = "l2", noise: Noise = GAUSSIAN, **options: Any
) -> Certified:
    settings = {"draws": 1000, "confidence": 0.95, **options}
    return smoothing.certify_smoothed(model, noise, samples, METRICS[metric](), **settings)


def true_radius(x: Tensor) -> Tensor:
    """Distance to the linear model's boundary, where smoothing leaves the decision as it is."""
    return linear(x)[:, 1].double().abs() / WEIGHT.double().norm()


@given(st.integers(0, 200), st.integers(0, 200), st.floats(1e-6, 0.5))
def test_the_bound_on_a_probability_is_that_of_clopper_and_pearson(
    a: int, b: int, failure: float
) -> None:
    n = a + b + 1
    test = stats.binomtest(a, n, alternative="greater")
    exact = test.proportion_ci(confidence_level=1 - failure, method="exact").low
    assert smoothing.lower_bound(a, n, failure) == pytest.approx(exact, rel=1e-9, abs=1e-300)


def test_radii_from_probabilities_by_hand() -> None:
    # Phi(1) = 0.841344746: one sigma away from a half-space.
    assert smoothing.l2_radius(0.841344746, 0.25) == pytest.approx(0.25, rel=1e-8)
    assert smoothing.radius_of("linf", 0.841344746, 0.25, 4) == pytest.approx(0.125, rel=1e-8)
    assert smoothing.radius_of("l1", 0.841344746, 0.25, 4) == pytest.approx(0.25, rel=1e-8)
    # 2(1 - p) = 1/e: sigma/√2 for the Manhattan cost, over √2 for the Euclidean.
    p = 1 - 0.5 / math.e
    assert smoothing.wasserstein_radius(p, 0.02) == pytest.approx(0.01, rel=1e-8)
    assert smoothing.radius_of("wasserstein", p, 0.02, 784) == pytest.approx(0.01, rel=1e-8)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5])
def test_there_is_no_radius_without_a_majority(p: float) -> None:
    assert [smoothing.radius_of(name, p, 0.1, 9) for name in METRICS] == [0.0] * 4


@given(st.floats(0.501, 1 - 1e-9))
def test_the_radius_for_mass_is_above_the_stated_form_and_at_most_twice_it(p: float) -> None:
    """Levine & Feizi's sigma/(2√2)·ln(p/(1 - p)), divided by √2 for the Euclidean cost."""
    stated = 0.01 / (2 * math.sqrt(2)) * math.log(p / (1 - p)) / math.sqrt(2)
    assert stated * (1 - 1e-6) <= smoothing.wasserstein_radius(p, 0.01) <= 2 * stated


def test_a_linear_model_is_certified_up_to_its_true_radius_never_beyond() -> None:
    x = inputs(60)
    samples = samples_of(MODEL, x)
    exact = true_radius(x)
    few, many = (certify(MODEL, samples, draws=n).radius for n in (300, 20_000))
    assert (few <= exact).all()
    assert (many <= exact).all()
    # From 20,000 draws a radius of up to two sigma is known to a few percent of sigma.
    known = exact < 2 * GAUSSIAN.sigma
    assert int(known.sum()) > 20
    assert (many[known] >= exact[known] - 0.12 * GAUSSIAN.sigma).all()
    assert (many.mean() > few.mean()).all()


def test_norms_that_need_no_noise_of_their_own() -> None:
    samples = samples_of(MODEL, inputs(20))
    radii = {name: certify(MODEL, samples, name).radius for name in NORMS}
    assert torch.allclose(radii["linf"], radii["l2"] / 2, rtol=1e-8)
    assert torch.allclose(radii["l1"], radii["l2"], rtol=1e-8)
    norm = {"linf": WEIGHT.abs().sum(), "l2": WEIGHT.norm(), "l1": WEIGHT.abs().max()}
    for name, radius in radii.items():
        assert (radius <= linear(samples.x)[:, 1].double().abs() / norm[name].double()).all()


def test_a_certificate_fails_no_more_often_than_it_may() -> None:
    """2,000 points at the same distance from the boundary, each with draws of its own."""
    random = torch.Generator().manual_seed(3)
    along = torch.randn((2000, 4), generator=random) * 0.05
    unit = WEIGHT / WEIGHT.norm()
    x = 0.5 + along + (0.08 - along @ unit)[:, None] * unit
    samples = samples_of(MODEL, x)
    bounds = [
        smoothing.probability(MODEL, GAUSSIAN, samples, row, draws=60, failure=0.05)
        for row in range(len(x))
    ]
    radii = np.array([smoothing.l2_radius(p, GAUSSIAN.sigma) for p in bounds])
    above = int((radii > true_radius(x).numpy()).sum())
    # Never more than alpha allows, up to three standard deviations of the count; often close.
    assert 2000 * 0.05 / 10 < above <= 2000 * 0.05 + 3 * math.sqrt(2000 * 0.05 * 0.95)


def edge(x: Tensor) -> Tensor:
    """Class 1 where the second of two pixels is brighter."""
    pixels = x.flatten(1)
    return two_sided(pixels[:, 1] - pixels[:, 0])


def test_mass_over_one_edge_is_certified_up_to_the_tight_radius() -> None:
    """Here mass must move (b - a)/(2M) over the one edge, and Laplace noise finds exactly that.

    What is lost against it is √2, as Manhattan and Euclidean cost are the same on a line.
    """
    a = torch.rand(40, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.1
    x = torch.stack([a, 0.6 - a], 1).reshape(40, 1, 1, 2)
    model = classifier(edge, sample=(1, 1, 2))
    samples = samples_of(model, x)
    exact = (x[:, 0, 0, 1] - x[:, 0, 0, 0]).double().abs() / (2 * 0.6)
    assert METRICS["wasserstein"]().distance(x, x.flip(-1)) == pytest.approx((2 * exact).numpy())
    radius = certify(model, samples, "wasserstein", FLOW, draws=20_000).radius * math.sqrt(2)
    assert (radius <= exact).all()
    known = exact < 4 * FLOW.sigma / math.sqrt(2)
    assert int(known.sum()) > 5
    assert (radius[known] >= exact[known] - 0.3 * FLOW.sigma).all()


def slope(x: Tensor) -> Tensor:
    """Class 1 where mass lies to the lower right of the anti-diagonal."""
    weight = torch.tensor([[0.0, 0.5], [0.5, 1.0]])
    return two_sided(((x - 0.25 * x.sum((2, 3), keepdim=True)) * weight).sum((1, 2, 3)))


def test_no_exact_attack_reaches_into_a_certified_ball_of_moved_mass() -> None:
    """Along the diagonal the Euclidean cost is the Manhattan one over √2: nothing is to spare."""
    random = torch.Generator().manual_seed(2)
    x = 0.3 + 0.4 * torch.rand((60, 1, 2, 2), generator=random)
    model = classifier(slope, sample=(1, 2, 2))
    samples = samples_of(model, x)
    radius = certify(model, samples, "wasserstein", FLOW, draws=5000).radius
    # A unit of mass over the diagonal changes the score by 1.
    amount = slope(x)[:, 1]
    moved = x.clone()
    moved[:, 0, 0, 0] += amount
    moved[:, 0, 1, 1] -= amount
    exact = METRICS["wasserstein"]().distance(x, moved)
    assert exact.numpy() == pytest.approx(
        math.sqrt(2) * amount.abs().numpy() / x.sum((1, 2, 3)).numpy(), rel=1e-5, abs=1e-7
    )
    assert slope(moved)[:, 1].numpy() == pytest.approx(0, abs=1e-6)
    assert (radius <= exact).all()
    assert int((radius > 0).sum()) > 20


def test_abstentions_have_no_radius_and_are_counted() -> None:
    x = inputs(20)
    unit = WEIGHT / WEIGHT.norm()
    # Half of them so near to the boundary that no majority shows.
    x[:10] -= ((x[:10] - 0.5) @ unit - 1e-4)[:, None] * unit
    found = certify(MODEL, samples_of(MODEL, x))
    assert found.radius[:10].eq(0).all()
    abstained = int(found.radius.eq(0).sum())
    assert f"It abstains on {abstained} of 20 correct samples" in found.certifier.detail


def test_wrong_samples_have_no_radius() -> None:
    x = inputs(20)
    labels = linear(x).argmax(1)
    labels[::2] = 1 - labels[::2]
    assert certify(MODEL, samples_of(MODEL, x, labels)).radius[::2].eq(0).all()


def test_the_failure_is_shared_between_the_samples() -> None:
    samples = samples_of(MODEL, inputs(20))
    for confidence in (0.9, 0.95):
        certifier = certify(MODEL, samples, confidence=confidence, draws=10).certifier
        assert certifier.failure_probability * 20 == pytest.approx((1 - confidence) / 50)
    assert "together with probability 0.999," in certifier.detail
    assert certifier.name == "smoothing"
    assert "not of the file alone" in certifier.detail


def test_order_and_neighbours_change_nothing() -> None:
    x, order = inputs(12), torch.randperm(12, generator=torch.Generator().manual_seed(1))
    radius, shuffled = (certify(MODEL, samples_of(MODEL, rows)).radius for rows in (x, x[order]))
    assert torch.equal(radius[order], shuffled)
    other = certify(MODEL, samples_of(MODEL, x, seed=1)).radius
    assert not torch.equal(radius, other)


def test_labels_alone_suffice() -> None:
    x = inputs(20)
    blind = classifier(
        lambda x: torch.nn.functional.one_hot(linear(x).argmax(1), 2).float(),
        gradients=False,
        output="labels",
    )
    assert torch.equal(
        certify(blind, samples_of(blind, x)).radius, certify(MODEL, samples_of(MODEL, x)).radius
    )


def test_only_a_unique_top_class_is_a_vote() -> None:
    undecided = classifier(lambda x: torch.zeros((len(x), 2)))
    broken = classifier(lambda x: torch.full((len(x), 2), math.nan))
    samples = replace(samples_of(MODEL, inputs(4)), labels=torch.zeros(4, dtype=torch.int64))
    for model in (undecided, broken):
        bound = smoothing.probability(model, GAUSSIAN, samples, 0, draws=100, failure=0.01)
        assert bound == 0
