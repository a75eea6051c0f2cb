"""A whole scan of a tiny image model under the threat that moves mass."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from fakes import classifier, dataset_of, inputs, key, samples_of, scan_of, two_sided
from torch import Tensor

from attackers.geometry import L1, L2, Linf, Wasserstein
from attackers.losses import misclassified
from audit.api.verdicts import Gates
from audit.errors import UsageError
from audit.health.readout import disjoint, enclosing
from audit.options import ScanConfig
from audit.scanning import artifacts, scan
from audit.scanning.assemble import report_of
from audit.scanning.result import ScanResult
from audit.scanning.scan import NO_IMAGES
from audit.scanning.subject import Subject
from audit.schema import ScanReport

SHAPE = (2, 5, 5)
WEIGHT = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
METRIC = Wasserstein()
OPTIONS: dict[str, Any] = {
    "metrics": ("wasserstein",),
    "deltas": (0.01, 0.05),
    "orders": (math.inf, 2.0),
    "effort": "quick",
}


def linear(x: Tensor) -> Tensor:
    """Two classes; class 1 where w·(x - 1/2) > 0."""
    return two_sided(((x - 0.5) * WEIGHT).flatten(1).sum(1))


def table(x: Tensor) -> Tensor:
    """The same of flat inputs."""
    return linear(x.reshape(-1, *SHAPE))


X = inputs(20, SHAPE)
LABELS = linear(X).argmax(1)
LABELS[:2] = 1 - LABELS[:2]


def finished(x: Tensor = X, labels: Tensor = LABELS, **options: Any) -> ScanResult:
    model = classifier(linear, sample=SHAPE)
    return scan.run(scan_of(model, x, labels, **{**OPTIONS, **options}))


@pytest.fixture(scope="module")
def done() -> ScanResult:
    return finished()


@pytest.fixture(scope="module")
def report(done: ScanResult) -> ScanReport:
    return report_of(done, config={}, gates=Gates().evaluate)


def test_the_attacks_that_apply_ran(report: ScanReport) -> None:
    (threat,) = report.threats
    assert threat.metric == "wasserstein"
    assert threat.unit == METRIC.unit
    assert [(a.name, a.status) for a in threat.attacks] == [
        ("fgsm", "ran"),
        ("minimal", "ran"),
        ("transport", "ran"),
        ("w-fgsm", "ran"),
    ]
    assert report.status == "complete"
    assert not [entry for entry in report.health if entry.status == "fail"]
    not_applicable = {key(entry) for entry in report.health if entry.status == "not_applicable"}
    assert {"square.wasserstein", "representable.wasserstein"} <= not_applicable
    assert "wasserstein" not in {key(entry) for entry in report.health}


def test_every_correct_sample_has_a_radius_that_first_order_does_not_exceed(
    done: ScanResult,
) -> None:
    (run,) = done.evidence
    correct = done.samples.correct
    assert int(correct.sum()) == 18
    value = linear(X)[:, 1].double().abs()
    weight = WEIGHT.double().expand(len(X), *SHAPE)
    # No move gains more than the dual norm per unit of distance, which is tight within 1.32 %.
    bound = value / METRIC.dual_norm(X, weight)
    found = run.frontier.radius
    assert (found[~correct] == 0).all()
    assert (found[correct] >= bound[correct] * (1 - 1e-5)).all()
    assert found.isfinite().all()
    assert (found[correct] <= METRIC.diameter(X)[correct]).all()
    ratio = found[correct] / bound[correct]
    assert ratio.median() < 3


def test_examples_are_of_the_same_mass_and_at_the_radius_that_is_told(done: ScanResult) -> None:
    arrays = artifacts.adversarial_arrays(done)
    index, x = arrays["wasserstein_index"], torch.from_numpy(arrays["wasserstein_x"])
    assert len(index) == 18
    x0, radius = X[index], done.evidence[0].frontier.radius[index]
    assert torch.equal(METRIC.distance(x0, x), radius)
    assert ((x >= 0) & (x <= 1)).all()
    lost = (x.double() - x0.double()).sum((2, 3)).abs()
    assert (lost <= 1e-6 * METRIC.mass(x0)[:, None]).all()
    assert misclassified(linear(x), LABELS[index]).all()


def test_the_curves_are_those_of_the_radii(done: ScanResult, report: ScanReport) -> None:
    pointwise, shared = report.threats[0].curves
    radius = done.evidence[0].frontier.radius
    for point in pointwise.points:
        assert point.attacked.value == pytest.approx(float((radius > point.delta).double().mean()))
        assert point.certified.value <= point.attacked.value
    assert pointwise.points[0].attacked.value > pointwise.points[-1].attacked.value
    for each, mean in zip(pointwise.points, shared.points, strict=True):
        assert mean.attacked.value <= each.attacked.value


def test_batch_size_changes_no_bit() -> None:
    one, other = (
        finished(X[:5], LABELS[:5], deltas=(0.05,), batch_size=size).evidence[0].frontier
        for size in (None, 2)
    )
    assert torch.equal(one.radius, other.radius)
    assert torch.equal(one.x, other.x)
    assert one.attack == other.attack


def test_order_of_the_samples_changes_no_bit(done: ScanResult) -> None:
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    other = finished(X[order], LABELS[order]).evidence[0].frontier
    assert torch.equal(done.evidence[0].frontier.radius[order], other.radius)
    assert torch.equal(done.evidence[0].frontier.x[order], other.x)


def test_attacks_of_the_norms_do_not_apply() -> None:
    outcome = finished(X[:4], LABELS[:4], attacks=("pgd", "square", "transport"))
    attacks = {a.name: a for a in outcome.evidence[0].attacks}
    assert [attacks[name].status for name in ("pgd", "square", "transport")] == [
        "not_applicable",
        "not_applicable",
        "ran",
    ]
    assert attacks["pgd"].broken is None
    assert attacks["pgd"].detail == "It is defined for l1 and l2 and linf only."
    norms = finished(X[:4], LABELS[:4], metrics=("linf",), attacks=("transport",))
    (transport, *_) = norms.evidence[0].attacks
    assert transport.status == "not_applicable"
    assert transport.detail == "It is defined for wasserstein only."


def test_without_gradients_only_random_points_are_left() -> None:
    blind = classifier(linear, sample=SHAPE, gradients=False)
    outcome = scan.run(scan_of(blind, X[:6], LABELS[:6], **OPTIONS))
    (run,) = outcome.evidence
    assert "random" in [a.name for a in run.attacks if a.status == "ran"]
    assert "hopskipjump" not in [a.name for a in run.attacks if a.status == "ran"]


def prepared(**options: Any) -> Subject:
    x = X.flatten(1)
    config = ScanConfig(**{**OPTIONS, **options})
    model = classifier(table, sample=(50,))
    return scan.prepare(dataset_of(x, LABELS), config, lambda few, classes: model)


def test_tables_have_no_mass_to_move() -> None:
    with pytest.raises(UsageError) as stop:
        prepared()
    assert stop.value.exit_code == 2
    assert str(stop.value).startswith(NO_IMAGES)
    assert "Found inputs of shape (50,): choose linf, l2 or l1." in str(stop.value)


def test_beside_another_threat_that_is_said_and_the_other_is_measured() -> None:
    outcome = scan.run(prepared(metrics=("wasserstein", "linf")))
    assert [run.metric.name for run in outcome.evidence] == ["linf"]
    (entry,) = [entry for entry in outcome.health if key(entry) == "wasserstein"]
    assert (entry.status, entry.finding) == ("not_applicable", NO_IMAGES)
    assert NO_IMAGES in outcome.warnings
    report = report_of(outcome, config={}, gates=Gates().evaluate)
    assert [threat.metric for threat in report.threats] == ["linf"]
    # Checks that belong to the first metric that is scanned are not lost.
    assert "gradients" in {key(entry) for entry in report.health}


def test_a_ball_lies_in_the_norms_ball_that_encloses_it() -> None:
    x0 = X[:8]
    streams = samples_of(classifier(linear, sample=SHAPE), x0).generator
    for delta in (0.01, 0.1, 0.5):
        quick, radius = enclosing(METRIC, x0, delta)
        assert isinstance(quick, L1)
        assert radius.dtype == torch.float64
        assert radius.tolist() == pytest.approx((2 * delta * METRIC.mass(x0)).tolist())
        grad = WEIGHT.expand_as(x0)
        for x in (METRIC.sample(x0, delta, streams), METRIC.farthest(x0, grad, delta)):
            assert (quick.distance(x0, x) <= radius * (1 + 1e-6)).all()
    # It is reached: all that moves goes to the next pixel.
    pair = torch.zeros(1, 1, 1, 4)
    pair[..., 1] = 1.0
    quick, radius = enclosing(METRIC, pair, 1.0)
    assert float(quick.distance(pair, pair.roll(1, 3))) == float(radius) == 2.0
    for metric in (Linf(), L2(-1, 2), L1()):
        same, radii = enclosing(metric, x0, 0.3)
        assert same is metric
        assert radii.tolist() == [0.3] * 8


def test_balls_that_are_tested_together_do_not_meet() -> None:
    samples = samples_of(classifier(linear, sample=SHAPE), X)
    groups = {delta: disjoint(METRIC, samples, delta, 20) for delta in (1e-3, 0.05, 3.0)}
    assert len(groups[1e-3]) == 1
    assert all(len(rows) == 1 for rows in groups[3.0])
    for delta, batches in groups.items():
        for rows in batches:
            x0 = samples.x[rows]
            quick, radius = enclosing(METRIC, x0, delta)
            for a in range(len(rows)):
                away = quick.distance(x0[a].expand_as(x0), x0)
                away[a] = torch.inf
                assert (away > radius + radius[a]).all()
    assert np.unique(torch.cat(groups[0.05]).numpy(), return_counts=True)[1].max() == 1
