"""Every health check, driven to each of its statuses by a classifier made for it."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import (
    WEIGHT,
    classifier,
    inputs,
    key,
    linear,
    metric_subject,
    model_subject,
    radius_of,
    samples_of,
    two_sided,
)
from torch import Tensor

from attackers.geometry import L2, NORMS, Linf
from audit.evidence.samples import Samples
from audit.health import CHECKS
from audit.health.subjects import PROBE_SIZE
from audit.models.classifier import Classifier
from audit.schema import Health

MODEL = classifier(linear)
X = inputs()
SAMPLES = samples_of(MODEL, X)
BLIND = classifier(linear, gradients=False)


def steps(x: Tensor) -> Tensor:
    """The linear model behind a rounding of its inputs: no gradient anywhere."""
    return linear((x * 8).round() / 8)


def partly_flat(share: float) -> Callable[[Tensor], Tensor]:
    """No gradient for the samples whose first value is small."""
    bound = float(X[SAMPLES.probe(PROBE_SIZE), 0].quantile(share))

    def run(x: Tensor) -> Tensor:
        scores = linear(x)
        return torch.where(x[:, :1] < bound, scores.detach(), scores)

    return run


def nan_gradient(x: Tensor) -> Tensor:
    """The right scores; the derivative of the root at 0 is infinite, times zero."""
    return linear(x) + (x * 0).sum(1, keepdim=True).sqrt()


def misleading(x: Tensor) -> Tensor:
    """The right scores with gradients of the wrong sign."""
    scores = linear(x)
    return 2 * scores.detach() - scores


def in_other_words(size: float) -> Callable[[Tensor], Tensor]:
    """Scores that change from call to call."""
    calls = itertools.count()

    def run(x: Tensor) -> Tensor:
        return linear(x) + torch.tensor([0.0, size * next(calls)])

    return run


def leaking(size: float) -> Classifier:
    """Every sample sees the mean of its batch."""
    return classifier(lambda x: linear(x) + size * two_sided(x.mean().expand(len(x))),
                      fixed_calls=False)  # fmt: skip


def status(entry: Health, check: str) -> str:
    assert key(entry) == check
    assert entry.finding.endswith(".")
    assert (entry.advice is None) == (entry.status in ("pass", "not_applicable"))
    return entry.status


def of_model(check: str, model: Classifier, samples: Samples = SAMPLES, **changes: Any) -> Health:
    return CHECKS[check](model_subject(model, samples, **changes))


def of_metric(check: str, model: Classifier, *args: Any, **changes: Any) -> Health:
    return CHECKS[check](metric_subject(model, *(args or (SAMPLES,)), **changes))


def on_examples(model: Classifier, x: Tensor) -> Health:
    """What the copy is told to be on adversarial examples ``x``."""
    samples = samples_of(model, X)
    radius = radius_of(torch.ones(len(X), dtype=torch.bool))
    radius[: len(x)] = 0.1
    changed = torch.cat([x, X[len(x) :]])
    return of_metric("parity_adversarial", model, samples, radius=radius, x=changed)


def test_clean_accuracy_states_both_numbers() -> None:
    entry = of_model("clean_accuracy", MODEL)
    assert status(entry, "clean_accuracy") == "pass"
    assert "120 of 120" in entry.finding
    assert "chance is 50.0%" in entry.finding
    assert entry.numbers == {"correct": 120, "samples": 120, "accuracy": 1.0, "chance": 0.5}


def test_sample_size() -> None:
    assert status(of_model("sample_size", MODEL), "sample_size") == "pass"
    assert of_model("sample_size", MODEL, samples_of(MODEL, inputs(99))).status == "warn"
    wrong = X.new_zeros(len(X)).long()
    assert of_model("sample_size", MODEL, samples_of(MODEL, X, wrong)).status == "warn"


def test_output_kind() -> None:
    def softmax(x: Tensor) -> Tensor:
        return linear(x).softmax(1)

    def found(model: Classifier) -> str:
        return status(of_model("output", model), "output")

    assert found(MODEL) == "pass"
    assert found(classifier(linear, serve=softmax, output="probabilities")) == "warn"
    assert found(classifier(softmax)) == "warn"  # recognised by their values
    lifted = classifier(linear, serve=softmax, output="probabilities", gradient="lifted")
    assert found(lifted) == "pass"
    assert found(classifier(linear, output="labels")) == "warn"


@pytest.mark.parametrize(("size", "expected"), [(0, "pass"), (2e-5, "warn"), (0.5, "fail")])
def test_determinism(size: float, expected: str) -> None:
    model = classifier(linear, serve=in_other_words(size))
    assert status(of_model("determinism", model), "determinism") == expected


@pytest.mark.parametrize(("size", "expected"), [(0, "pass"), (1e-3, "warn"), (5.0, "fail")])
def test_batch_invariance(size: float, expected: str) -> None:
    assert status(of_model("batch_invariance", leaking(size)), "batch_invariance") == expected


@pytest.mark.parametrize(
    ("shift", "expected"), [(0.0, "pass"), (1e-5, "pass"), (0.01, "warn"), (5.0, "warn")]
)
def test_parity(shift: float, expected: str) -> None:
    model = classifier(linear, copy=lambda x: linear(x) + torch.tensor([0.0, shift]))
    entry = of_model("parity", model)
    assert status(entry, "parity") == expected
    assert entry.numbers["max_abs_difference"] == pytest.approx(shift, abs=1e-6)
    assert entry.numbers["samples"] == len(SAMPLES)
    on_adversarial = on_examples(model, X[:5])
    assert status(on_adversarial, "parity_adversarial.linf") == expected


def test_parity_needs_equal_predictions() -> None:
    # A large third score hides differences of the other two in the relative tolerance.
    def many(swap: bool) -> Callable[[Tensor], Tensor]:
        pair = torch.tensor([0.01, -0.01]) * (-1 if swap else 1)
        return lambda x: torch.cat([pair.expand(len(x), 2), -1e3 + 0 * x[:, :1]], dim=1)

    model = classifier(many(False), copy=many(True), classes=3)
    samples = samples_of(model, X)
    assert of_model("parity", model, samples).status == "warn"


def saturated(x: Tensor) -> Tensor:
    """What a fused 8-bit kernel makes of the linear model where its sums overflow."""
    return linear(x).clamp(-0.2, 0.2)


def test_kernels_that_saturate_are_the_runtimes_own() -> None:
    """The copy equals the file's arithmetic: gradients stay, and the machine is warned of."""
    model = replace(classifier(linear, serve=saturated), unfused=linear)
    entry = of_model("parity", model)
    assert entry.status == "pass"
    difference = entry.numbers["max_abs_difference"]
    assert difference is not None
    assert difference > 0.1
    assert "the runtime causes the difference" in entry.finding
    found = of_model("quantised_kernels", model)
    assert status(found, "quantised_kernels") == "warn"
    assert f"{difference:.3g}" in found.finding
    same = replace(classifier(linear), unfused=linear)
    assert of_model("quantised_kernels", same).status == "pass"
    assert of_model("quantised_kernels", classifier(linear)).status == "not_applicable"


def test_a_copy_that_differs_from_both_is_dropped() -> None:
    model = replace(classifier(linear, serve=saturated), unfused=lambda x: linear(x) + 1 - x[:, :1])
    assert of_model("parity", model).status == "warn"


def test_parity_without_a_copy() -> None:
    entry = of_model("parity", BLIND)
    assert (entry.status, entry.numbers) == ("not_applicable", {})
    assert on_examples(BLIND, X).status == "not_applicable"
    assert on_examples(MODEL, X[:0]).status == "not_applicable"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (MODEL, "pass"),
        (BLIND, "warn"),
        (classifier(steps), "fail"),
        (classifier(nan_gradient), "fail"),
        (classifier(partly_flat(0.02)), "warn"),
        (classifier(partly_flat(0.3)), "fail"),
    ],
    ids=["linear", "blind", "steps", "nan", "few_flat", "many_flat"],
)
def test_gradients(model: Classifier, expected: str) -> None:
    for metric in (Linf(), L2()):
        assert (
            status(of_model("gradients", model, metric=metric, delta=1e-4), "gradients") == expected
        )


def test_finite_differences() -> None:
    def found(model: Classifier, samples: Samples = SAMPLES) -> str:
        return status(of_model("finite_differences", model, samples), "finite_differences")

    assert found(MODEL) == "pass"
    assert found(classifier(lambda x: linear(x).tanh())) == "pass"
    assert found(classifier(misleading)) == "warn"
    assert found(classifier(linear, attackable=lambda x: 3 * linear(x))) == "warn"
    assert found(BLIND) == "not_applicable"
    assert found(classifier(steps)) == "not_applicable"  # all gradients are zero
    assert found(classifier(linear, output="probabilities")) == "not_applicable"


@pytest.mark.parametrize("name", NORMS)
def test_unbounded_attack(name: str) -> None:
    never = torch.full((len(X),), torch.inf).double()

    def found(model: Classifier, attacked: Tensor = never) -> str:
        entry = of_metric("unbounded_attack", model, SAMPLES, NORMS[name](), radius=attacked)
        return status(entry, f"unbounded_attack.{name}")

    assert found(MODEL) == "pass"
    assert found(classifier(misleading)) == "fail"
    assert found(BLIND) == "not_applicable"
    # What the scan itself broke is broken.
    assert found(classifier(misleading), torch.ones_like(never)) == "pass"
    some = torch.where(torch.arange(len(X)) % 2 == 0, 1.0, torch.inf).double()
    assert found(classifier(misleading), some) == "fail"


def shell(share: float) -> tuple[Classifier, Samples]:
    """Served, a share of the samples is misclassified in a thin shell only; the copy sees a slope.

    An attack follows the slope to the end of its ball: a small ball ends in the shell, a larger one
    beyond it. The second value tells the samples apart.
    """
    x = torch.tensor([[0.5, 0.99 if row < 64 * share else 0.01] for row in range(64)])
    x = x + torch.arange(64)[:, None] * 1e-5

    def served(x: Tensor) -> Tensor:
        away = (x[:, 0] - 0.5).abs()
        inside = (away > 0.03) & (away < 0.07) & (x[:, 1] > 0.5)
        return two_sided(torch.where(inside, -1.0, 1.0))

    def slope(x: Tensor) -> Tensor:
        return two_sided(9 - (x[:, 0] - 0.5001).abs())

    model = classifier(slope, serve=served, sample=(2,))
    return model, samples_of(model, x)


@pytest.mark.parametrize(("share", "expected"), [(0.0, "pass"), (0.1, "warn"), (1.0, "fail")])
def test_budget_monotone(share: float, expected: str) -> None:
    entry = of_metric("budget_monotone", *shell(share))
    assert status(entry, "budget_monotone.linf") == expected


def test_budget_monotone_of_working_models() -> None:
    assert of_metric("budget_monotone", MODEL, SAMPLES, L2()).status == "pass"
    assert of_metric("budget_monotone", BLIND, SAMPLES, L2()).status == "not_applicable"


def test_random_points_not_better() -> None:
    def found(model: Classifier) -> str:
        entry = of_metric("random_noise", model)
        return status(entry, "random_noise.linf")

    assert found(MODEL) == "pass"
    assert found(classifier(misleading)) == "fail"
    assert found(BLIND) == "not_applicable"


def test_certified_below_attacked() -> None:
    three = samples_of(MODEL, X[:3])

    def found(certified: list[float]) -> Health:
        return of_metric(
            "certified_below_attacked",
            MODEL,
            three,
            L2(),
            radius=torch.tensor([0.0, 0.2, torch.inf]),
            certified=torch.tensor(certified),
        )

    entry = found([0.0, 0.2, 5.0])
    assert status(entry, "certified_below_attacked.l2") == "pass"
    entry = found([0.0, 0.3, 5.0])
    assert entry.status == "fail"
    assert "1 of 3" in entry.finding


def test_the_fakes_say_what_they_should() -> None:
    assert torch.equal(misleading(X), linear(X))
    assert torch.allclose(nan_gradient(X), linear(X))
    assert torch.equal(MODEL.predict(X), (((X - 0.5) * WEIGHT).sum(1) > 0).long())
