"""Accuracy by class: on its own samples, with intervals that hold for all classes at once."""

import numpy as np
import pytest
from scipy import stats

from audit.statistics.by_class import by_class
from audit.statistics.judged import Judged, Scope

SCOPE = Scope((), (0.5,), 0.95)


def known(
    labels: list[int],
    correct: list[bool],
    attacked: np.ndarray,
    certified: np.ndarray,
    failure: float = 0.0,
) -> Judged:
    return Judged(np.array(labels), np.array(correct), attacked, certified, failure)


def test_every_label_is_counted_on_its_own() -> None:
    labels, correct = [3, 3, 3, 3, 5, 5], [True, True, True, False, True, True]
    attacked = np.array([0.1, 0.2, np.inf, 0.0, 0.05, 0.3])
    certified = np.array([0.0, 0.15, 0.2, 0.0, 0.0, 0.25])
    three, five = by_class(
        known(labels, correct, attacked, certified),
        Scope((), (0.0, 0.12), 0.9, ("a", "b", "c", "d")),
    )
    assert (three.label, three.name, three.samples) == (3, "d", 4)
    assert (five.label, five.name, five.samples) == (5, None, 2)
    assert three.clean.value == 0.75
    (point,) = three.points
    assert point.delta == 0.12
    assert point.attacked.value == 0.5
    assert point.certified.value == 0.5
    assert five.points[0].attacked.value == 0.5
    # Two classes share the error of 0.1: 0.05 each, 0.025 on a side.
    assert five.clean.low == pytest.approx(stats.beta.ppf(0.025, 2, 1))
    assert three.clean.high == pytest.approx(stats.beta.ppf(0.975, 4, 1))


def test_a_certificate_that_may_fail_has_a_wider_interval() -> None:
    given = [0] * 50, [True] * 50
    radii = np.r_[np.full(30, 1.0), np.zeros(20)]
    (sure,) = by_class(known(*given, radii, radii), SCOPE)
    (doubtful,) = by_class(known(*given, radii, radii, 0.01 / 50), SCOPE)
    (hopeless,) = by_class(known(*given, radii, radii, 0.1 / 50), SCOPE)
    assert doubtful.points[0].certified.low < sure.points[0].certified.low
    assert doubtful.points[0].attacked == sure.points[0].attacked
    assert hopeless.points[0].certified.low == 0
