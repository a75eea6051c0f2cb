"""The report's numbers from radii: the bracket, its intervals, its names."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes import classifier, inputs, linear, noisy_labels, samples_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from attackers.geometry import Linf
from audit import certify
from audit.certify import Certified
from audit.evidence.samples import Samples
from audit.schema import Certifier, ThreatResult
from audit.statistics.confidence import clopper_pearson, dkw_slack
from audit.statistics.judged import Judged, Scope
from audit.statistics.summary import BINS, Findings, histogram, summarise
from audit.statistics.summary import clean as clean_accuracy

MODEL = classifier(linear)
X = inputs(200)
SAMPLES = samples_of(MODEL, X, noisy_labels(X))
ORDERS, DELTAS = (math.inf, 2.0, 1.0, 1.5), (0.0, 0.05, 0.1, 0.4)


def radii(seed: int = 0) -> np.ndarray:
    """Attacked radii: 0 where wrong, some never broken."""
    drawn = np.random.default_rng(seed).exponential(0.2, len(SAMPLES))
    drawn[drawn > 0.6] = math.inf
    return np.where(SAMPLES.correct.numpy(), drawn, 0.0)


def certified(radius: np.ndarray, failure: float = 0.0) -> Certified:
    certifier = Certifier(
        name="test", status="ran", detail="", seconds=0.0, failure_probability=failure
    )
    return Certified(torch.from_numpy(radius), certifier)


def summary(
    attacked: np.ndarray, below: Certified | None = None, samples: Samples = SAMPLES
) -> ThreatResult:
    lower = below or certify.trivial(samples, asked=True)
    judged = Judged(
        samples.labels.numpy(),
        samples.correct.numpy(),
        attacked,
        lower.radius.numpy(),
        lower.certifier.failure_probability,
    )
    return summarise(Linf(), judged, Findings(lower.certifier), Scope(ORDERS, DELTAS, 0.95))


@given(st.integers(0, 1000), st.floats(0, 1))
def test_the_bracket_is_ordered_and_inside_its_intervals(seed: int, share: float) -> None:
    attacked = radii(seed)
    lower = np.where(np.isfinite(attacked), attacked, 0.3) * share
    result = summary(attacked, certified(lower))
    assert [curve.order for curve in result.curves] == ["inf", "2", "1", "1.5"]
    for curve in result.curves:
        assert [point.delta for point in curve.points] == list(DELTAS)
        for point in curve.points:
            assert point.certified.value <= point.attacked.value
            assert point.robustness.certified.value <= point.robustness.attacked.value
            for interval in (
                point.attacked,
                point.certified,
                point.robustness.attacked,
                point.robustness.certified,
            ):
                assert 0 <= interval.low <= interval.value <= interval.high <= 1
        values = [point.attacked.value for point in curve.points]
        assert values == sorted(values, reverse=True)


def test_without_budget_nothing_can_be_taken() -> None:
    for curve in summary(radii()).curves:
        point = curve.points[0]
        assert point.delta == 0
        assert point.attacked.value == pytest.approx(SAMPLES.accuracy)
        assert point.certified.value == pytest.approx(SAMPLES.accuracy)
        assert point.robustness.attacked.value == pytest.approx(1)


def test_the_trivial_certificate_is_zero_at_every_budget() -> None:
    for asked in (True, False):
        trivial = certify.trivial(SAMPLES, asked=asked)
        assert ("off" in trivial.certifier.detail) != asked
        for curve in summary(radii(), trivial).curves:
            assert [point.certified.value for point in curve.points[1:]] == [0.0] * 3


def test_the_pointwise_interval_is_binomial_and_the_others_are_bands() -> None:
    attacked = radii()
    result = summary(attacked)
    pointwise, second = result.curves[0].points[1], result.curves[1].points[1]
    survivors = int((attacked > 0.05).sum())
    assert pointwise.attacked.value == pytest.approx(survivors / 200)
    expected = clopper_pearson(survivors, 200, 0.95)
    assert (pointwise.attacked.low, pointwise.attacked.high) == pytest.approx(expected)
    slack = dkw_slack(200, 0.025)
    assert second.attacked.value - second.attacked.low == pytest.approx(slack)


def test_robustness_is_relative_to_the_clean_accuracy_and_wider() -> None:
    point = summary(radii()).curves[1].points[1]
    clean = SAMPLES.accuracy
    assert clean == 0.9
    relative = point.robustness.attacked
    assert relative.value == pytest.approx(point.attacked.value / clean)
    # Two statements held together: each is given half the error.
    assert relative.low < point.attacked.low / clean
    slack = dkw_slack(200, 0.0125)
    ends = clopper_pearson(180, 200, 0.975)
    assert relative.low == pytest.approx((point.attacked.value - slack) / ends.high)
    assert relative.high == pytest.approx(min(1, (point.attacked.value + slack) / ends.low))


def test_a_share_of_no_correct_samples_is_not_measured() -> None:
    wrong = torch.zeros(len(SAMPLES), dtype=torch.bool)
    result = summary(np.zeros(len(SAMPLES)), samples=replace(SAMPLES, correct=wrong))
    for curve in result.curves:
        for point in curve.points:
            assert point.attacked.value == 0
            for interval in (point.robustness.attacked, point.robustness.certified):
                assert (interval.value, interval.low, interval.high) == (None, None, None)


def test_what_certificates_may_fail_with_is_taken_from_the_error_of_the_interval() -> None:
    lower = np.full(len(SAMPLES), 0.2) * SAMPLES.correct.numpy()
    failure = 0.005 / len(SAMPLES)
    sure, unsure = (summary(radii(), certified(lower, p)) for p in (0.0, failure))
    for certain, doubtful in zip(sure.curves, unsure.curves, strict=True):
        for a, b in zip(certain.points, doubtful.points, strict=True):
            assert (a.attacked, a.certified.value) == (b.attacked, b.certified.value)
            assert b.certified.low <= a.certified.low
            assert b.robustness.certified.low <= a.robustness.certified.low
    # By hand: 0.025 - 0.005 is left for the sampling, and half as much for either end of a ratio.
    pointwise, shared = (curve.points[2] for curve in unsure.curves[:2])
    assert pointwise.certified.low == pytest.approx(clopper_pearson(180, 200, 1 - 2 * 0.02).low)
    value = shared.certified.value
    assert value - shared.certified.low == pytest.approx(dkw_slack(200, 0.02))
    assert pointwise.robustness.certified.low == pytest.approx(
        clopper_pearson(180, 200, 1 - 2 * (0.0125 - 0.005)).low
        / clopper_pearson(180, 200, 0.975).high
    )


def test_certificates_that_fail_more_often_than_the_interval_may_say_nothing() -> None:
    lower = np.full(len(SAMPLES), 0.2) * SAMPLES.correct.numpy()
    for curve in summary(radii(), certified(lower, 0.03 / len(SAMPLES))).curves:
        assert {point.certified.low for point in curve.points} == {0.0}


def test_clean_accuracy_counts_all_samples() -> None:
    clean = clean_accuracy(SAMPLES.correct.numpy(), 0.9)
    assert clean.value == 0.9
    assert (clean.low, clean.high) == pytest.approx(clopper_pearson(180, 200, 0.9))
    assert clean.confidence == 0.9


def test_quantiles_are_radii_of_samples_and_unknown_beyond_what_was_found() -> None:
    attacked = radii()
    quantiles = summary(attacked).radii.attacked.quantiles
    assert list(quantiles) == ["0", "0.05", "0.1", "0.25", "0.5", "0.75", "0.9", "0.95", "1"]
    assert quantiles["0"] == 0
    assert quantiles["1"] is None
    assert quantiles["0.5"] in attacked
    assert np.mean(attacked <= quantiles["0.5"]) >= 0.5


@given(
    attacked=arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1e3)),
    factor=st.floats(0, 1),
    unbroken=st.integers(0, 5),
)
def test_a_histogram_counts_every_sample_once(attacked, factor, unbroken):
    certified = np.concatenate([factor * attacked, np.zeros(unbroken)])
    attacked = np.concatenate([attacked, np.full(unbroken, np.inf)])
    found = histogram(attacked, certified)
    finite = attacked[np.isfinite(attacked)]
    if found is None:
        assert not finite.any()
        return
    assert sum(found.attacked) + found.attacked_beyond == len(attacked)
    assert sum(found.certified) + found.certified_beyond == len(attacked)
    assert 1 <= len(found.attacked) == len(found.certified) == len(found.edges) - 1 <= BINS + 1
    assert found.edges[0] == 0
    assert found.edges[-2] <= finite.max() * (1 + 1e-9)
    assert found.attacked_beyond >= unbroken
    for low, high, number in zip(found.edges, found.edges[1:], found.attacked, strict=False):
        assert number == ((attacked >= low) & (attacked < high)).sum()


def test_bins_have_round_widths():
    found = histogram(np.array([0.31, 0.004, np.inf]), np.array([0.02, 0.0, 0.33]))
    assert found is not None
    assert found.edges[:3] == [0, 0.02, 0.04]
    assert found.edges[-1] == 0.34
    assert found.attacked_beyond == 1
    assert [i for i, n in enumerate(found.attacked) if n] == [0, 15]
    assert [i for i, n in enumerate(found.certified) if n] == [0, 1, 16]
