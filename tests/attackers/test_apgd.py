"""Auto-PGD: its schedule is the paper's, and it chooses its step."""

import sys
from functools import partial

import pytest
import torch
from linear_models import linear_problem, streams
from torch import Tensor

from attackers.apgd import StepSizes, apgd, checkpoints
from attackers.geometry import L2, Linf
from attackers.losses import (
    TargetedLoss,
    cross_entropy,
    margin,
    misclassified,
    targeted_dlr,
    targeted_margin,
)
from attackers.restarts import restarted, rivals
from attackers.threat import Threat


def test_checkpoints_are_those_of_the_paper() -> None:
    # p = 0, 0.22, then gaps that shrink by 0.03 down to 0.06 (Croce & Hein 2020, section 3.1).
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == frozenset()
    assert all(0 < end < 7 for end in checkpoints(7))


def one(value: float) -> Tensor:
    return torch.tensor([value])


def test_a_step_that_oscillates_is_halved() -> None:
    sizes = StepSizes.of(one(1.0))
    for value in (0.0, 1.0, 0.5, 1.0, 0.5):
        sizes = sizes.count_step(one(value))
    sizes, halved = sizes.at_checkpoint(one(1.0), rho=0.75)
    assert halved.item()
    assert sizes.step.item() == 0.5


def test_a_step_that_works_stays_until_it_stalls() -> None:
    sizes = StepSizes.of(one(1.0))
    for value in (0.0, 1.0, 2.0, 3.0, 4.0):
        sizes = sizes.count_step(one(value))
    sizes, halved = sizes.at_checkpoint(one(4.0), rho=0.75)
    assert not halved.item()
    # All steps raised the loss since, but only back to where it had been.
    for value in (1.0, 2.0, 3.0, 3.5):
        sizes = sizes.count_step(one(value))
    sizes, halved = sizes.at_checkpoint(one(4.0), rho=0.5)
    assert halved.item()
    assert sizes.step.item() == 0.5


def test_it_settles_where_constant_steps_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow strip of another class: steps of the first length jump across it for ever."""

    def strip(x: Tensor) -> Tensor:
        z = 100 * ((x.flatten(1)[:, 0] - 0.537).abs() - 1e-3)
        return torch.stack([torch.zeros_like(z), z], dim=1)

    x0 = torch.full((1, 2), 0.5)
    labels = torch.ones(1, dtype=torch.long)
    attack = partial(apgd, strip, x0, labels, Threat(Linf(), 0.1), generator=streams(x0))
    assert misclassified(strip(attack(steps=60)), labels).all()
    # By its name in `attackers` the module is hidden behind the function.
    module = sys.modules["attackers.apgd"]
    monkeypatch.setattr(module, "checkpoints", lambda _: frozenset())
    assert not misclassified(strip(attack(steps=60)), labels).any()


def three_way(x: Tensor) -> Tensor:
    """Class 0 at the centre; class 1 far to the right, class 2 nearer to the left, 3 nowhere."""
    a = x.flatten(1)[:, 0] - 0.5
    zero = torch.zeros_like(a)
    return torch.stack([zero + 1, 1 + 5 * (a - 0.3), 1 + 5 * (-a - 0.1), zero - 50], dim=1)


@pytest.mark.parametrize("loss", [targeted_margin, targeted_dlr])
def test_a_target_is_aimed_at(loss: TargetedLoss) -> None:
    x0 = torch.full((2, 3), 0.5)
    labels = torch.zeros(2, dtype=torch.long)
    targets = torch.tensor([1, 2])
    x = apgd(
        three_way,
        x0,
        labels,
        Threat(L2(), 0.35),
        generator=streams(x0),
        loss=loss,
        targets=targets,
        start=x0,
    )
    assert three_way(x).argmax(1).tolist() == [1, 2]


def test_rivals_are_the_best_other_classes() -> None:
    scores = torch.tensor([[5.0, 1.0, 3.0, 2.0], [0.0, 1.0, 2.0, 9.0]])
    assert rivals(scores, torch.tensor([0, 0]), 2).tolist() == [[2, 3], [3, 2]]
    assert rivals(scores, torch.tensor([0, 0]), 9).shape == (2, 3)


def test_restarts_count_the_first_success_and_stop() -> None:
    model, x0, labels = linear_problem((12,))
    threat = Threat(Linf(), 2 * model.radius(x0, Linf()))
    calls: list[int] = []

    def second_run_only(
        logits: object, x: Tensor, y: Tensor, threat: Threat, *, generator: object, targets: Tensor
    ) -> Tensor:
        calls.append(len(x))
        away = x - (2 * (y * 2 - 1))[:, None] * model.weight
        return torch.where((targets >= 2)[:, None], away + 1e-3 * targets[:, None], x)

    runs = torch.arange(1, 10).expand(len(x0), -1)
    x = restarted(
        second_run_only, model, x0, labels, threat, generator=streams(x0), runs=9, targets=runs
    )
    expected = x0 - (2 * (labels * 2 - 1))[:, None] * model.weight + 2e-3
    assert torch.equal(x, expected)
    assert calls == [4 * len(x0)]


def test_restarts_run_on_while_nothing_succeeds() -> None:
    model, x0, labels = linear_problem((12,))
    threat = Threat(L2(), 0.5 * model.radius(x0, L2()))
    attack = partial(apgd, steps=3, loss=cross_entropy)
    x = restarted(attack, model, x0, labels, threat, generator=streams(x0), runs=5)
    assert not misclassified(model(x), labels).any()
    assert (L2().distance(x0, x) <= threat.delta).all()
    rows = torch.tensor([5, 2])
    part = Threat(L2(), threat.delta[rows])
    alone = restarted(
        attack, model, x0[rows], labels[rows], part, generator=streams(x0[rows]), runs=5
    )
    assert torch.equal(alone, x[rows])


def test_the_best_iterate_is_returned() -> None:
    model, x0, labels = linear_problem((12,))
    threat = Threat(L2(), 0.9 * model.radius(x0, L2()))
    x = apgd(model, x0, labels, threat, generator=streams(x0), steps=30)
    # A linear loss is largest on the far side of the ball.
    reached = margin(model(x), labels) - margin(model(x0), labels)
    assert (reached >= 0.89 / 0.9 * 0.9 * -margin(model(x0), labels)).all()
