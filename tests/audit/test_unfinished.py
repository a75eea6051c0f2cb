"""Scans that did not run to their end: what they may say, and what an error may cost."""

from dataclasses import replace
from datetime import date
from typing import Any

import pytest
import torch
from fakes import classifier, inputs, key, linear, scan_of, stop_at
from torch import Tensor

from attackers import ATTACKS
from audit import comparison
from audit.api.verdicts import Gates
from audit.certify import bounding
from audit.errors import InternalError
from audit.gates.policy import Policy, Rule, evaluate_policy
from audit.health import CHECKS, ScanSubject
from audit.options import VerdictOptions
from audit.scanning import attacks, scan
from audit.scanning.assemble import report_of
from audit.scanning.result import ScanResult
from audit.scanning.subject import plan_of
from audit.schema import Interval, ScanReport, reliability
from reports import RENDERERS
from reports.comparison import COMPARISON_RENDERERS
from tests.reports.golden import golden

X = inputs(80)
LABELS = linear(X).argmax(1)
OPTIONS: dict[str, Any] = {"metrics": ("linf",), "orders": (float("inf"),), "deltas": (0.05, 0.1)}


def report(state: ScanResult, gates: Gates | None = None) -> ScanReport:
    return report_of(
        state,
        config={"threat": list(state.subject.config.metrics)},
        gates=(gates or Gates()).evaluate,
    )


def with_accuracy(status: str, side: str = "attacked") -> ScanReport:
    """A report whose accuracy at linf 8/255 is 0.8, between 0.7 and 0.9."""
    made = golden().model_copy(update={"status": status})
    curve = made.threats[0].curves[0]
    points = [
        point.model_copy(update={side: Interval(low=0.7, value=0.8, high=0.9)})
        if abs(point.delta - 8 / 255) < 1e-9
        else point
        for point in curve.points
    ]
    curves = [curve.model_copy(update={"points": points}), *made.threats[0].curves[1:]]
    threats = [made.threats[0].model_copy(update={"curves": curves}), *made.threats[1:]]
    return made.model_copy(update={"threats": threats})


@pytest.mark.parametrize("status", ["interrupted", "partial"])
@pytest.mark.parametrize(
    ("side", "condition", "whole", "unfinished"),
    [
        # More attacks only lower it.
        ("attacked", ">= 0.6", "pass", "inconclusive"),
        ("attacked", ">= 0.75", "fail", "fail"),
        ("attacked", "<= 0.95", "pass", "pass"),
        ("attacked", "<= 0.75", "fail", "inconclusive"),
        # More certificates only raise it.
        ("certified", ">= 0.6", "pass", "pass"),
        ("certified", ">= 0.75", "fail", "inconclusive"),
        ("certified", "<= 0.95", "pass", "inconclusive"),
        ("certified", "<= 0.75", "fail", "fail"),
    ],
)
@pytest.mark.parametrize("level", ["error", "warn"])
def test_a_gate_keeps_only_what_the_rest_of_the_scan_cannot_change(
    status: str, side: str, condition: str, whole: str, unfinished: str, level: Any
) -> None:
    policy = Policy((Rule(f"{side}.linf@8/255 {condition}", level),))
    lost = "fail" if level == "error" else "warn"

    def outcome(of: str) -> str:
        return evaluate_policy(with_accuracy(of, side), policy, date(2030, 1, 1))[0].status

    assert outcome("complete") == (lost if whole == "fail" else whole)
    assert outcome(status) == (lost if unfinished == "fail" else unfinished)


@pytest.mark.parametrize("status", ["interrupted", "partial"])
@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("clean >= 0.5", "pass"),
        ("clean >= 0.999", "fail"),
        ("reliability = green", "fail"),
        ("attacked.l1@1 >= 0.1", "inconclusive"),
    ],
)
def test_gates_on_other_things(status: str, text: str, outcome: str) -> None:
    passed = [entry for entry in golden().health if entry.status == "pass"]
    made = golden().model_copy(update={"status": status, "health": passed})
    assert reliability(made) == "RED"
    assert (
        evaluate_policy(made, Policy((Rule(text, "error"),)), date(2030, 1, 1))[0].status == outcome
    )


def test_an_interrupted_scan_passes_nothing_in_any_format() -> None:
    """One attack alone has run, and left everything standing."""
    state = scan_of(classifier(linear), X, LABELS, **OPTIONS)
    stopped = scan.run(state, stop_at("linf: minimal"))
    gates = Gates(
        VerdictOptions(fail_under=0.0), policy=Policy((Rule("reliability = green", "warn"),))
    )
    made = report(stopped, gates)
    assert [attack.name for attack in made.threats[0].attacks] == ["fgsm", "minimal"]
    assert {gate.status for gate in made.gates} == {"inconclusive", "warn"}
    assert (made.status, made.verdict, reliability(made)) == ("interrupted", "inconclusive", "RED")
    checks = {key(entry): entry for entry in made.health}
    assert checks["completeness"].status == "fail"
    for name in ("html", "text", "markdown", "junit", "sarif"):
        rendered = RENDERERS[name](made)
        assert "GREEN" not in rendered, name
        assert ">PASS<" not in rendered, name
        assert "every gate passed" not in rendered, name
        assert "nterrupted" in rendered or "INTERRUPTED" in rendered, name


def test_a_metric_that_was_not_reached_has_a_gate_that_is_open() -> None:
    state = scan_of(classifier(linear), X, LABELS, **(OPTIONS | {"metrics": ("linf", "l2")}))
    made = report(scan.run(state, stop_at("linf: minimal")), Gates(VerdictOptions(fail_under=0.0)))
    assert [(g.expression, g.status) for g in made.gates if "l2" in g.id] == [
        ("attacked.l2 >= 0", "inconclusive")
    ]
    assert "did not reach: l2" in {key(h): h.finding for h in made.health}["completeness"]


@pytest.mark.parametrize("status", ["interrupted", "partial"])
def test_a_comparison_with_an_unfinished_scan_is_open(status: str) -> None:
    state = scan_of(classifier(linear), X, LABELS, **OPTIONS)
    found_whole = scan.run(state)
    whole = report(found_whole)
    radii = comparison.SampleRadii(
        state.samples.index.numpy(),
        state.samples.correct.numpy(),
        {
            "linf_attacked": found_whole.evidence[0].frontier.radius.numpy(),
            "linf_certified": found_whole.evidence[0].certified.radius.numpy(),
        },
    )
    worse = comparison.SampleRadii(
        radii.index,
        radii.correct,
        radii.columns | {"linf_attacked": 0 * radii.columns["linf_attacked"]},
    )
    cut = whole.model_copy(update={"status": status})

    def outcome(old: ScanReport, new: ScanReport, radii_of_new: comparison.SampleRadii) -> str:
        return comparison.compare_reports(old, new, radii, radii_of_new, limit=0.1).status

    assert outcome(whole, whole, radii) == "pass"
    assert outcome(whole, cut, radii) == "inconclusive"
    assert outcome(cut, whole, radii) == "inconclusive"
    assert outcome(whole, whole, worse) == "fail"
    # A loss that an unfinished scan shows already is a loss; one against it may not be one.
    assert outcome(whole, cut, worse) == "fail"
    assert outcome(cut, whole, worse) == "inconclusive"
    found = comparison.compare_reports(whole, cut, radii, radii, limit=0.1)
    for name, render in COMPARISON_RENDERERS.items():
        assert "inconclusive" in render(found).lower(), name


# Errors


class Boom(RuntimeError):
    pass


def test_an_error_in_an_attack_costs_that_attack_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Tensor:
        raise Boom("no kernel image\nis available")

    expected = scan.run(
        scan_of(classifier(linear), X, LABELS, **OPTIONS, attacks=("fgsm", "minimal"))
    )
    monkeypatch.setitem(ATTACKS, "apgd", replace(ATTACKS["apgd"], run=broken))
    names = ("fgsm", "apgd", "minimal")
    state = scan.run(scan_of(classifier(linear), X, LABELS, **OPTIONS, attacks=names))
    attacks = {entry.name: entry for entry in state.evidence[0].attacks}
    assert attacks["apgd"].status == "error"
    assert attacks["apgd"].detail == "It stopped on an error: Boom: no kernel image."
    assert attacks["minimal"].status == attacks["fgsm"].status == attacks["w-fgsm"].status == "ran"
    assert torch.equal(state.evidence[0].frontier.radius, expected.evidence[0].frontier.radius)
    made = report(state, Gates(VerdictOptions(fail_under=0.0)))
    assert (made.status, reliability(made), made.verdict) == ("partial", "RED", "inconclusive")
    detail = {key(entry): entry.finding for entry in made.health}["completeness"]
    assert "linf, apgd: It stopped on an error: Boom: no kernel image." in detail


def test_an_error_in_a_certificate_costs_the_certificate_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise Boom("mixed types")

    monkeypatch.setattr(bounding, "certify", broken)
    state = scan.run(scan_of(classifier(linear), X, LABELS, **OPTIONS, attacks=("minimal",)))
    made = report(state)
    certifier = made.threats[0].certifier
    assert (certifier.status, made.status) == ("error", "partial")
    assert "mixed types" in certifier.detail
    assert made.threats[0].attacks[0].status == "ran"
    assert all(point.certified.value == 0 for point in made.threats[0].curves[0].points)
    assert reliability(made) == "RED"


def test_an_error_in_a_check_fails_the_check_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise Boom("unexpected")

    for check in ("budget_monotone", "output"):
        monkeypatch.setitem(CHECKS, check, replace(CHECKS[check], run=broken))
    state = scan.run(scan_of(classifier(linear), X, LABELS, **OPTIONS, attacks=("minimal",)))
    found = {key(entry): entry for entry in state.health}
    for check in ("budget_monotone.linf", "output"):
        assert found[check].status == "error"
        assert "--verbose" in (found[check].advice or "")
        assert "Boom: unexpected" in found[check].finding
    assert {found[check].status for check in ("transfer.linf", "iterative.linf")} <= {
        "pass",
        "not_applicable",
    }
    assert reliability(report(state)) == "RED"


def test_a_model_whose_gradients_raise_is_still_attacked_without_them() -> None:
    def no_backward(x: Tensor) -> Tensor:
        if x.requires_grad:
            raise Boom("derivative is not implemented")
        return linear(x)

    model = classifier(linear, attackable=no_backward)
    state = scan.run(scan_of(model, X, LABELS, **OPTIONS))
    status = {entry.name: entry.status for entry in state.evidence[0].attacks}
    assert status["minimal"] == status["apgd"] == "error"
    assert status["hopskipjump"] == "ran"
    assert state.status == "partial"
    assert any("derivative is not implemented" in failure for failure in state.failures)
    assert state.evidence[0].frontier.broken.all()


def test_decisions_search_every_sample_where_the_search_by_gradients_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Samples that have a gradient are left to a search along it, which has to end for that."""

    def dead_first(x: Tensor) -> Tensor:
        scores = linear(x)
        return torch.where((scores[:, 1:] > 0.3), scores.detach(), scores)

    def broken(*_: object, **__: object) -> Tensor:
        raise Boom("no kernel image is available")

    chosen: list[int] = []

    def searched(logits: object, x0: Tensor, *_: object, **__: object) -> Tensor:
        chosen.append(len(x0))
        return x0

    monkeypatch.setitem(ATTACKS, "minimal", replace(ATTACKS["minimal"], run=broken))
    monkeypatch.setitem(ATTACKS, "hopskipjump", replace(ATTACKS["hopskipjump"], run=searched))
    state = scan_of(classifier(linear, attackable=dead_first), X, LABELS, **OPTIONS)
    assert 0 < int(plan_of(state).flat.sum()) < len(X)
    scan.run(state)
    assert sum(chosen) == len(X)


def test_an_error_in_the_parity_check_leaves_a_scan_by_scores() -> None:
    def no_copy(x: Tensor) -> Tensor:
        raise Boom("operator is not on this device")

    state = scan.run(scan_of(classifier(linear, copy=no_copy), X, LABELS, **OPTIONS))
    found = {key(entry): entry for entry in state.health}
    assert found["parity"].status == "error"
    assert "Boom: operator is not on this device" in found["parity"].finding
    assert state.classifier.gradient == "none"
    assert [entry.name for entry in state.evidence[0].attacks] == [
        "random",
        "hopskipjump",
        "square",
    ]
    assert reliability(report(state)) == "RED"


def test_an_error_in_the_sensitivity_costs_the_sensitivity_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise Boom("mixed types")

    monkeypatch.setattr(attacks, "sensitivity", broken)
    state = scan.run(scan_of(classifier(linear), X, LABELS, **OPTIONS, attacks=("minimal",)))
    status = {entry.name: entry.status for entry in state.evidence[0].attacks}
    assert status == {"minimal": "ran", "w-fgsm": "error"}
    made = report(state)
    assert (made.status, reliability(made)) == ("partial", "RED")
    assert made.threats[0].sensitivity == []


def test_an_error_in_what_is_told_of_an_attack_costs_that_attack_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> str:
        raise Boom("no digest")

    monkeypatch.setattr(attacks, "generator_detail", broken)
    state = scan.run(scan_of(classifier(linear), X, LABELS, **OPTIONS, attacks=("minimal",)))
    attack = state.evidence[0].attacks[0]
    assert (attack.status, attack.detail) == ("error", "It stopped on an error: Boom: no digest.")


@pytest.mark.parametrize("place", ["budget_monotone", "parity_adversarial"])
def test_a_contradiction_is_raised_wherever_it_shows(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def contradiction(*_: object, **__: object) -> None:
        raise InternalError("certified beyond an attack")

    monkeypatch.setitem(CHECKS, place, replace(CHECKS[place], run=contradiction))
    with pytest.raises(InternalError):
        scan.run(scan_of(classifier(linear), X, LABELS, **OPTIONS, attacks=("minimal",)))


def test_a_contradiction_in_the_gradients_is_raised() -> None:
    def contradiction(x: Tensor) -> Tensor:
        if x.requires_grad:
            raise InternalError("certified beyond an attack")
        return linear(x)

    state = scan_of(classifier(linear, attackable=contradiction), X, LABELS, **OPTIONS)
    with pytest.raises(InternalError):
        plan_of(state)


# What counts as a search


@pytest.mark.parametrize(
    ("metric", "alone", "beside"),
    [
        ("linf", ("square",), ("minimal", "square")),
        ("wasserstein", ("random",), ("hopskipjump", "random")),
    ],
)
def test_an_attack_that_did_not_run_is_no_search(
    metric: str, alone: tuple[str, ...], beside: tuple[str, ...]
) -> None:
    """The others then attack every sample, as if it had not been named."""
    images = inputs(60, (1, 2, 2))
    labels = linear(images).argmax(1)
    delta = {"linf": 0.1, "wasserstein": 0.2}[metric]
    options = {"metrics": (metric,), "orders": (float("inf"),), "deltas": (delta / 4, delta)}

    def radii(attacks: tuple[str, ...]) -> Tensor:
        model = classifier(linear, gradients=False, sample=(1, 2, 2))
        state = scan_of(model, images, labels, **options, attacks=attacks)
        return scan.run(state).evidence[0].frontier.radius

    expected = radii(alone)
    assert expected.isfinite().any()
    assert torch.equal(radii(beside), expected)


def test_a_scan_in_which_no_attack_could_run_is_red() -> None:
    model = classifier(linear, gradients=False)
    state = scan.run(scan_of(model, X, LABELS, **OPTIONS, attacks=("apgd", "minimal")))
    entry = {key(h): h for h in state.health}["completeness"]
    assert entry.status == "fail"
    assert "None of the chosen attacks could run under linf" in entry.finding
    assert reliability(report(state)) == "RED"


def test_a_whole_scan_is_complete() -> None:
    entry = CHECKS["completeness"](ScanSubject({"linf": []}, [], [], interrupted=False))
    assert entry.status == "pass"
