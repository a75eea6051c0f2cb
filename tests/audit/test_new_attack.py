"""An attack that is added to the registry by one entry is run by a scan like every other."""

from dataclasses import replace

import pytest
import torch
from fakes import classifier, inputs, linear, scan_of
from torch import Tensor

from attackers import ATTACKS, default_choice, needs_generator
from attackers.entry import AttackEntry
from attackers.random_streams import SampleGenerator
from attackers.threat import Threat
from audit.scanning import scan
from audit.scanning.effort import EFFORTS, Stage
from audit.schema import Attack

X = inputs(24)
LABELS = linear(X).argmax(1)


def to_corner(
    logits: object, x0: Tensor, labels: Tensor, threat: Threat, *, generator: SampleGenerator
) -> Tensor:
    """Move against the linear model's weights."""
    del logits, generator
    side = torch.where(labels == 1, -1.0, 1.0)[:, None]
    step = threat.delta * side * torch.tensor([1.0, -1.0, 1.0, 1.0])
    return threat.metric.project(x0, x0 + step, threat.delta)


def run_of(entry: AttackEntry, monkeypatch: pytest.MonkeyPatch, **options: bool) -> Attack:
    monkeypatch.setitem(ATTACKS, entry.name, entry)
    names = (entry.name,)
    model = classifier(linear, **options)
    state = scan_of(
        model, X, LABELS, metrics=("linf",), orders=(float("inf"),), deltas=(0.3,), attacks=names
    )
    return scan.run(state).evidence[0].attacks[0]


def test_an_attack_at_a_radius_is_one_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = AttackEntry("corner", to_corner, needs=frozenset())
    found = run_of(entry, monkeypatch, gradients=False)
    assert (found.name, found.status, found.budget) == ("corner", "ran", None)
    assert found.broken == len(X)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"needs": frozenset({"gradients"})}, "It needs gradients"),
        ({"needs": frozenset({"generator"})}, "It needs a trained generator"),
        ({"metrics": frozenset({"l2"})}, "It is defined for l2 only."),
    ],
)
def test_what_an_attack_needs_is_read_from_its_entry(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, frozenset[str]], reason: str
) -> None:
    entry = replace(AttackEntry("corner", to_corner, needs=frozenset()), **change)
    found = run_of(entry, monkeypatch, gradients=False)
    assert found.status == "not_applicable"
    assert reason in found.detail


def test_budgets_are_sums_over_stages() -> None:
    effort = replace(
        EFFORTS["quick"],
        stages={"pgd": (Stage("ce", runs=2, steps=10), Stage("margin", steps=5, scout=7))},
    )
    budget = effort.budget("pgd")
    assert budget is not None
    assert (budget.gradients, budget.forwards) == (2 * 11 + 6, 7)
    assert effort.budget("square") is None


@pytest.mark.parametrize(
    ("situation", "names"),
    [
        ("gradients", "fgsm minimal apgd transport"),
        ("gradients generator", "wagan fgsm minimal apgd transport"),
        ("gradients flat", "fgsm minimal apgd transport hopskipjump"),
        ("", "random hopskipjump square"),
        ("smoothed", "random"),
        ("smoothed gradients", "fgsm minimal apgd transport"),
        ("smoothed gradients flat", "fgsm minimal apgd transport random"),
    ],
)
def test_default_attacks_follow_from_the_situation(situation: str, names: str) -> None:
    given = situation.split()
    chosen = default_choice(
        gradients="gradients" in given,
        flat="flat" in given,
        smoothed="smoothed" in given,
        generator="generator" in given,
    )
    assert " ".join(chosen) == names
    assert needs_generator("wagan")
    assert not needs_generator("pgd")
