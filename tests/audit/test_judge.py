"""The judge and the frontier: only what the served model confirms, at its exact distance."""

import math

import numpy as np
import pytest
import torch
from fakes import WEIGHT, classifier, inputs, linear, samples_of, two_sided
from torch import Tensor

from attackers.geometry import L2, NORMS, Linf, Metric
from attackers.losses import misclassified
from audit.evidence.frontier import Frontier
from audit.evidence.judge import Judgement, admissible, judge_candidates

MODEL = classifier(linear)
every_metric = pytest.mark.parametrize("metric", [NORMS[n]() for n in NORMS], ids=NORMS)


def crossing(n: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Samples, candidates well beyond the boundary, labels."""
    x0 = inputs(n)
    labels = MODEL.predict(x0)
    x = (x0 - 0.4 * (2 * labels - 1)[:, None] * WEIGHT.sign()).clamp(0, 1)
    assert misclassified(linear(x), labels).all()
    return x0, x, labels


@every_metric
def test_distances_are_recomputed_exactly_in_float64(metric: Metric) -> None:
    x0, x, labels = crossing()
    verdict = judge_candidates(MODEL, metric, x0, x, labels, line_search=0)
    moved = np.abs(x.double().numpy() - x0.double().numpy())
    exact = {"linf": moved.max(1), "l2": np.sqrt((moved**2).sum(1)), "l1": moved.sum(1)}
    assert verdict.distance.dtype == torch.float64
    assert verdict.distance.numpy() == pytest.approx(exact[metric.name], rel=1e-15)
    assert torch.equal(verdict.x, x)
    assert torch.equal(verdict.prediction, 1 - labels)
    assert verdict.broken.all()


@every_metric
def test_the_walk_ends_misclassified_at_the_boundary(metric: Metric) -> None:
    x0, x, labels = crossing()
    before = x.clone()
    verdict = judge_candidates(MODEL, metric, x0, x, labels)
    assert torch.equal(x, before)
    assert misclassified(MODEL.deployed(verdict.x), labels).all()
    assert torch.equal(verdict.prediction, MODEL.predict(verdict.x))
    assert (verdict.distance < metric.distance(x0, x)).all()
    assert torch.equal(verdict.distance, metric.distance(x0, verdict.x))
    # A linear score along the segment: the crossing is known, to 2**-12 of the segment.
    here, there = linear(x0)[:, 1].double(), linear(x)[:, 1].double()
    share = verdict.distance / metric.distance(x0, x)
    assert share == pytest.approx((here / (here - there)).numpy(), abs=2**-12 + 1e-5)


@pytest.mark.parametrize(
    "spoil", [math.nan, math.inf, -math.inf, -1e-6, 1 + 1e-6], ids=["nan", "inf", "-inf", "<", ">"]
)
def test_candidates_that_are_no_inputs_are_rejected(spoil: float) -> None:
    x0, x, labels = crossing()
    x[3, 1] = spoil
    verdict = judge_candidates(MODEL, Linf(), x0, x, labels)
    assert verdict.broken.tolist() == [row != 3 for row in range(8)]
    assert verdict.distance[3] == math.inf
    assert torch.equal(verdict.x[3], x0[3])
    assert verdict.prediction[3] == labels[3]
    assert admissible(Linf(), x).tolist() == verdict.broken.tolist()


def test_candidates_that_the_served_model_classifies_correctly_are_rejected() -> None:
    x0, x, labels = crossing()
    x[5] = x0[5]
    # The copy may call everything wrong: only the served model is asked.
    liar = classifier(linear, copy=lambda x: -linear(x), attackable=lambda x: -linear(x))
    verdict = judge_candidates(liar, L2(), x0, x, labels)
    assert verdict.broken.tolist() == [row != 5 for row in range(8)]
    assert torch.equal(verdict.x[5], x0[5])


def test_ties_and_nan_scores_prove_nothing() -> None:
    x0 = inputs(4)
    labels = torch.ones(4, dtype=torch.long)
    for value in (0.0, math.nan):
        model = classifier(lambda x, v=value: two_sided(torch.full((len(x),), v)))
        assert not judge_candidates(
            model, Linf(), x0, x0 + 0.01, labels, line_search=0
        ).broken.any()


def test_confirmed_examples_are_wrong_for_everybody_who_takes_the_argmax() -> None:
    x0, x, labels = crossing()
    verdict = judge_candidates(MODEL, L2(), x0, x, labels, line_search=30)
    scores = MODEL.deployed(verdict.x)
    own = scores.gather(1, labels[:, None])[:, 0]
    assert bool((scores.amax(1)[verdict.broken] > own[verdict.broken]).all())
    assert bool((verdict.prediction[verdict.broken] != labels[verdict.broken]).all())


def test_the_box_is_the_metrics() -> None:
    x0, x, labels = crossing()
    assert not judge_candidates(MODEL, Linf(low=0.29, high=0.71), x0, x, labels).broken.any()


def test_candidates_of_another_dtype_are_judged_as_served() -> None:
    x0, x, labels = crossing()
    verdict = judge_candidates(MODEL, Linf(), x0, x.double() + 1e-12, labels)
    assert verdict.x.dtype == torch.float32
    assert verdict.broken.all()


def test_the_frontier_only_improves() -> None:
    model = classifier(linear)
    x0, x, labels = crossing()
    labels = labels.clone()
    labels[0] = 1 - labels[0]  # wrong from the start
    samples = samples_of(model, x0, labels)
    frontier = Frontier.of(samples)
    assert frontier.radius.tolist() == [0.0] + [math.inf] * 7
    assert not frontier.broken.any()
    assert frontier.attack == [""] * 8

    rows = torch.tensor([1, 3, 0])
    far = judge_candidates(model, L2(), x0[rows], x[rows], labels[rows], line_search=0)
    frontier.offer(rows, far, "far")
    assert frontier.attack == ["", "far", "", "far", "", "", "", ""]
    assert frontier.broken.tolist() == [False, True, False, True] + [False] * 4
    assert frontier.radius[0] == 0  # a sample that was wrong stays at 0

    near = judge_candidates(model, L2(), x0, x, labels)
    frontier.offer(torch.arange(8), near, "near")
    frontier.offer(rows, far, "late")
    assert frontier.attack == [""] + ["near"] * 7
    assert torch.equal(frontier.radius[1:], near.distance[1:])
    assert torch.equal(frontier.x[1:], near.x[1:])
    assert torch.equal(frontier.prediction[1:], near.prediction[1:])
    assert torch.equal(frontier.x[0], x0[0])
    # The samples themselves are not touched.
    assert torch.equal(samples.x, x0)


def test_a_verdict_that_broke_nothing_changes_nothing() -> None:
    x0 = inputs(3)
    frontier = Frontier.of(samples_of(MODEL, x0))
    nothing = Judgement(
        torch.zeros(3, dtype=torch.bool), torch.full((3,), math.inf).double(), x0, MODEL.predict(x0)
    )
    frontier.offer(torch.arange(3), nothing, "none")
    assert frontier.attack == [""] * 3
    assert frontier.radius.isinf().all()
