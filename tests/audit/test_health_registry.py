"""The registry of health checks: documented, named, and contained whatever a classifier lacks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import (
    classifier,
    inputs,
    key,
    linear,
    metric_subject,
    model_subject,
    samples_of,
)

from attackers.geometry import L1, L2, Linf, Wasserstein
from audit.errors import InternalError
from audit.evidence.samples import Samples
from audit.health import CHECKS, MetricSubject, ModelSubject, ScanSubject, check, checks_of
from audit.health.registry import AFTER_AN_ERROR, Check, CheckResult, Requirement
from audit.models.classifier import Classifier
from audit.schema import Health

MANUAL = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
X = inputs(6, (1, 2, 2))

every_check = pytest.mark.parametrize("entry", CHECKS.values(), ids=CHECKS.keys())


def fakes() -> Iterator[tuple[str, Classifier, Samples]]:
    """Classifiers that lack something."""
    made = {
        "all": classifier(linear, sample=(1, 2, 2)),
        "gradients": classifier(linear, sample=(1, 2, 2), gradients=False),
        "scores": classifier(linear, sample=(1, 2, 2), output="labels"),
        "both": classifier(linear, sample=(1, 2, 2), output="labels", gradients=False),
    }
    made["unsmoothed"] = replace(made["all"], base=made["all"])
    for name, model in made.items():
        yield name, model, samples_of(model, X)
    model = made["all"]
    yield "correct samples", model, samples_of(model, X, 1 - model.predict(X))


@every_check
def test_every_check_is_documented_with_title_and_advice(entry: Check) -> None:
    assert f"| `{entry.id}` | {entry.title} |" in MANUAL
    assert (entry.run.__doc__ or "").strip()
    assert entry.title[0] == entry.title[0].upper()
    assert len(entry.title) <= 50
    assert not entry.title.endswith(".")
    assert entry.advice[0].isupper()
    assert entry.advice.endswith(".")
    assert all(need.reason.endswith(".") for need in entry.needs)


def test_titles_are_unique() -> None:
    assert len({entry.title for entry in CHECKS.values()}) == len(CHECKS) > 20


def test_attacks_are_settled_before_their_remains_are_looked_at() -> None:
    """`convergence` may have attacks run again: what looks at their outcome comes after it."""
    order = list(CHECKS)
    for later in (
        "square",
        "active_test",
        "transfer",
        "representable",
        "parity_adversarial",
        "certified_below_attacked",
    ):
        assert order.index("convergence") < order.index(later)


def run(entry: Check, model: Classifier, samples: Samples) -> Iterator[Health]:
    if entry.subject is ModelSubject:
        yield entry(model_subject(model, samples))
    elif entry.subject is MetricSubject:
        broken = torch.arange(len(samples)) % 2 == 0
        radius = torch.where(broken, 0.01, torch.inf).double()
        for metric in (Linf(), L2(), L1(), Wasserstein()):
            yield entry(metric_subject(model, samples, metric, radius=radius, steps=2))
    else:
        yield entry(ScanSubject({}, (), (), interrupted=False))


@every_check
@pytest.mark.parametrize("lacking", list(fakes()), ids=lambda fake: fake[0])
def test_no_check_raises_whatever_is_lacking(
    entry: Check, lacking: tuple[str, Classifier, Samples]
) -> None:
    name, model, samples = lacking
    unmet = {need.reason for need in entry.needs}
    for found in run(entry, model, samples):
        assert found.status != "error", found.finding
        assert (found.id, found.title) == (entry.id, entry.title)
        assert found.finding.endswith((".", ")"))
        if found.status == "not_applicable":
            assert found.finding in unmet or len(found.finding) > 20
    if name == "gradients" and any("gradients" in reason for reason in unmet):
        assert {found.status for found in run(entry, model, samples)} == {"not_applicable"}


def test_what_lacks_gradients_or_scores_says_so() -> None:
    blind = classifier(linear, sample=(1, 2, 2), gradients=False)
    named = classifier(linear, sample=(1, 2, 2), output="labels")
    for id_ in ("convergence", "square", "iterative", "active_test", "random_noise"):
        found = CHECKS[id_](metric_subject(blind, samples_of(blind, X)))
        assert (found.status, found.finding) == (
            "not_applicable",
            "It needs gradients, and the model has none.",
        )
        assert found.advice is None
    found = CHECKS["ties"](model_subject(named, samples_of(named, X)))
    assert (found.status, found.numbers) == ("not_applicable", {})
    assert found.finding == "It needs scores, and the model returns a class only."


# The registry itself


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit.health.registry.CHECKS", {})


def boom(subject: ScanSubject) -> CheckResult:
    raise RuntimeError("no kernel\nimage")


WHOLE = ScanSubject({}, (), (), interrupted=False)


@pytest.mark.usefixtures("empty")
def test_an_exception_is_an_error_of_this_check_alone() -> None:
    first = check("first", ScanSubject, title="First", advice="Do.")(boom)
    second = check("second", ScanSubject, title="Second", advice="Do.")(
        lambda _: CheckResult("warn", "Seen.", {"n": 3})
    )
    assert checks_of(ScanSubject) == (first, second)
    found, other = (entry(WHOLE) for entry in checks_of(ScanSubject))
    assert (found.status, found.advice) == ("error", AFTER_AN_ERROR)
    assert "RuntimeError: no kernel" in found.finding
    assert (key(other), other.status, other.advice) == ("second", "warn", "Do.")
    assert other.numbers == {"n": 3}


@pytest.mark.usefixtures("empty")
def test_a_contradiction_is_not_contained() -> None:
    def contradicts(subject: ScanSubject) -> CheckResult:
        raise InternalError("certified beyond an attack")

    with pytest.raises(InternalError):
        check("c", ScanSubject, title="C", advice="Do.")(contradicts)(WHOLE)


@pytest.mark.usefixtures("empty")
def test_the_first_unmet_need_is_the_reason_and_nothing_runs() -> None:
    needs = (
        Requirement("Met.", lambda _: True),
        Requirement("First.", lambda _: False),
        Requirement("Second.", boom),
    )
    found = check("c", ScanSubject, title="C", advice="Do.", needs=needs)(boom)(WHOLE)
    assert (found.status, found.finding, found.advice) == ("not_applicable", "First.", None)


@pytest.mark.usefixtures("empty")
def test_an_error_in_a_need_is_contained_too() -> None:
    needs = (Requirement("Never.", boom),)
    found = check("c", ScanSubject, title="C", advice="Do.", needs=needs)(boom)(WHOLE)
    assert found.status == "error"


@pytest.mark.usefixtures("empty")
def test_an_id_stands_for_one_check() -> None:
    check("c", ScanSubject, title="C", advice="Do.")(boom)
    with pytest.raises(ValueError, match="already is a health check 'c'"):
        check("c", ScanSubject, title="C", advice="Do.")


@pytest.mark.usefixtures("empty")
def test_specific_advice_replaces_that_of_the_check_and_a_pass_has_none() -> None:
    results = iter(
        [CheckResult("warn", "Seen.", advice="Rather do this."), CheckResult("pass", "Fine.")]
    )
    entry = check("c", ScanSubject, title="C", advice="Do.")(lambda _: next(results))
    assert [entry(WHOLE).advice, entry(WHOLE).advice] == ["Rather do this.", None]
